"""What the daemon ends with and nobody catches: the interpreter's hooks, each of which goes on to
the one that was there before.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

# `sys.unraisablehook` also gets what is raised in a ``__del__``, which ends nothing.
ENDED = ("Exception ignored in atexit callback", "Exception ignored in thread started by")


def watch(walk: Walk) -> None:
    """Show the walk what ends the program, a thread, or an exit handler."""
    _watch_main(walk)
    _watch_threads(walk)
    _watch_unraisable(walk)


def _watch_main(walk: Walk) -> None:
    """Without a ``with``, only this hook sees what the body raises."""
    previous = sys.excepthook

    def hook(kind: Any, error: BaseException, traceback: Any) -> None:
        walk.uncaught = error
        walk.seen(error)
        previous(kind, error, traceback)

    sys.excepthook = hook


def _watch_threads(walk: Walk) -> None:
    threading: Any = sys.modules.get("threading")
    # Where nobody has imported it yet, it will take what it finds in `_thread`.
    holder, name = (threading, "excepthook") if threading else (_thread, "_excepthook")
    previous = getattr(holder, name)

    def hook(args: Any) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            walk.seen(args.exc_value)
        previous(args)

    setattr(holder, name, hook)


def _watch_unraisable(walk: Walk) -> None:
    previous = sys.unraisablehook

    def hook(args: Any) -> None:
        if args.exc_value is not None and str(args.err_msg).startswith(ENDED):
            walk.seen(args.exc_value)
        previous(args)

    sys.unraisablehook = hook
