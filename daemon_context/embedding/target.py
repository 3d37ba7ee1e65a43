"""In a daemon that a program has launched and goes on beside: running a target, to the end."""

from __future__ import annotations

import atexit
import os
import sys

from .. import embedding
from ..report import flush_standard_streams
from ..system.descriptors import STANDARD, open_numbers
from ..system.owners import write_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any, NoReturn, Protocol

    class Body(AbstractContextManager[Any], Protocol):
        """The context of the daemon."""

        def ended(self, error: BaseException | None) -> None: ...


ENDINGS = (("logging", "shutdown"), ("multiprocessing.util", "_exit_function"))

_shown: BaseException | None = None
_handlers_of = 0  # the process that runs them at its end


def run_target(
    context: Body, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NoReturn:
    """In the daemon of `spawn`: run the target, and end."""

    def run() -> None:
        embedding.current = context
        forget_launcher()
        with context:
            try:
                target(*args, **kwargs)
            except BaseException as error:
                context.ended(error)  # now: its threads may go on for ever
                exit_status(error)
                raise
            finally:
                _finish_threads()

    run_to_exit(run)


def forget_launcher() -> None:
    """In the daemon: exit handlers from before the fork are not ours, those to come are; and those
    of modules that have one to end what a process has.
    """
    atexit._clear()
    _forget_finalizers()
    for name, function in ENDINGS:
        if (module := sys.modules.get(name)) is not None:
            atexit.register(getattr(module, function))
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes._children.clear()  # the launcher's
    own_handlers()


def own_handlers() -> None:
    """Have this process run the exit handlers at its end, and none that it forks."""
    global _handlers_of
    _handlers_of = os.getpid()


def _forget_finalizers() -> None:
    weakref = sys.modules.get("weakref")
    if weakref is not None:
        for finalizer in tuple(weakref.finalize._registry):
            finalizer.atexit = False
        weakref.finalize._registered_with_atexit = False  # it was, with the exit handlers


def raised(error: BaseException) -> NoReturn:
    """The target of a daemon that was ended before it came to its own."""
    raise error


def run_to_exit(run: Callable[..., Any], *args: Any) -> NoReturn:
    """Run to the end of the process, without unwinding the launcher's frames: they are its own.

    The exit status is what `run` returns, or what its exception means.
    """
    status = 1
    try:
        status = finished(run, *args)
        if _handlers_of == os.getpid():
            atexit._run_exitfuncs()
    finally:
        try:
            _write_out()
        finally:
            os._exit(status)


def finished(run: Callable[..., Any], *args: Any) -> int:
    """The exit status of a function, once its threads have ended as well."""
    status = _exit_status_of(run, *args)  # shows an error now: they may go on for ever
    return _finish_threads() or status


def _exit_status_of(run: Callable[..., Any], *args: Any) -> int:
    """The exit status that the function returns, or that its exception, which is shown, means."""
    try:
        return run(*args) or 0
    except BaseException as error:
        return exit_status(error)


def _write_out() -> None:
    """Before `os._exit`, which would lose it: what streams and open files have buffered."""
    flush_standard_streams()
    write_out(open_numbers() - STANDARD)


def exit_status(error: BaseException) -> int:
    """As the interpreter makes it of what ends the program, and shows what is no number; once."""
    global _shown
    if isinstance(error, SystemExit) and isinstance(error.code, (int, type(None))):
        return (error.code or 0) & 0xFF
    if error is not _shown:
        _shown = error
        if isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        else:
            sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _finish_threads() -> int:
    """Wait for threads, as the interpreter does at its end; the status of what ends the wait."""
    threading = sys.modules.get("threading")
    return 0 if threading is None else _exit_status_of(threading._shutdown)
