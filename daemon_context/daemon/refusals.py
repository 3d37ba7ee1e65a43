"""What a daemon of the class can't be started with, said before anything happens."""

from __future__ import annotations

from ..errors import OptionError
from ..options import Given
from ..options.work import require_plain
from .serving import Serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

METHODS = ("run", "setup", "cleanup", "on_reload")
DECIDED = "detach_process"


def require_known(options: Mapping[str, Any]) -> None:
    """All are options of a context that a daemon does not decide itself.

    :raises OptionError: with the nearest known name
    """
    code = Given.__init__.__code__
    known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    for name in options:
        if name == DECIDED and options[name] != "force":
            raise OptionError(
                f"{DECIDED} can't be given: a Daemon decides it itself, start() detaches, and "
                "run_foreground() does not; only 'force' can, where start() is refused"
            )
        if name not in known:
            raise OptionError(f"there is no option {name!r}; {_instead(name, known)}")


def _instead(name: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"the options are {', '.join(n for n in known if n != DECIDED)}"


def require_work(daemon: Serving) -> None:
    """There is a `run`, and what the daemon will call does its work then.

    :raises OptionError: it would do nothing
    """
    name = type(daemon).__name__
    if getattr(daemon.run, "__func__", None) is Serving.run:
        raise OptionError(f"{name} must have a run() method: the daemon's work")
    for method in METHODS:
        require_plain(f"{name}.{method}()", getattr(daemon, method))
