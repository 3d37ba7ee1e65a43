"""Run a script until it would become a daemon."""

from __future__ import annotations

import os
import runpy
import sys

from ..context import DaemonContext
from ..daemon import Daemon
from ..errors import DaemonError, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

STOP_HERE = "it starts no daemon: neither DaemonContext.open() nor Daemon.main() was called"


class Captured:
    """Where the script was stopped.

    :ivar context: with the options of its daemon, as it would be in the foreground
    :ivar daemon: where it is one of the class, else None
    :ivar verb: what a command line needs in addition
    :ivar detaches: whether it would detach whoever started it
    """

    def __init__(
        self, context: DaemonContext, daemon: Daemon | None, verb: str, detaches: bool
    ) -> None:
        self.context, self.daemon, self.verb, self.detaches = context, daemon, verb, detaches


def run_until_start(
    file: str, arguments: Sequence[str], stopped: Callable[[Captured], NoReturn]
) -> str:
    """Run the file as a program; `stopped` is called in its first `open()` or `main()`.

    :returns: where it has come to its end instead: why
    """
    _divert(stopped)
    os.fork = _forks  # or a copy of this process would go on
    sys.argv = [file, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(file))
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit as ended:
        return f"{file}: {STOP_HERE} (it ended with {ended.code!r}; its arguments go behind --)"
    except BaseException as error:
        return f"{file}: {STOP_HERE} ({type(error).__name__}: {text_of(error)})"
    return f"{file}: {STOP_HERE}"


def _forks() -> NoReturn:
    raise DaemonError("it forks by itself before that")


def _divert(stopped: Callable[[Captured], NoReturn]) -> None:
    def begin(context: DaemonContext, *, goes_on: bool = True, always: bool = False) -> NoReturn:
        stopped(Captured(context, None, "", always or context._detach_process is True))

    def main(daemon: Daemon, argv: Any = None) -> NoReturn:
        stopped(Captured(daemon._make_context(detach=False), daemon, "run", False))

    def run_foreground(daemon: Daemon) -> NoReturn:
        stopped(Captured(daemon._make_context(detach=False), daemon, "", False))

    for owner, name, replacement in (
        (DaemonContext, "_begin", begin),
        (Daemon, "main", main),
        (Daemon, "run_foreground", run_foreground),
    ):
        setattr(owner, name, replacement)
