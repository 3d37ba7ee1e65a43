"""Daemons started by programs that go on: the handle, and `spawn`'s two ways to run a target."""

from __future__ import annotations

import atexit
import os
import sys
from time import monotonic

from ..errors import DaemonError, DaemonOSEnvironmentError, refuse
from ..report import flush_standard_streams

# All of it is imported before the fork: what a chroot holds must never be.
from ..system.descriptors import open_numbers
from ..system.owners import write_out
from ..system.processes import (
    SIGNALS,
    open_pidfd,
    poll,
    send_signal,
    signal,
    signal_name,
    start_time,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from ..context import DaemonContext

    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]

STARTING = 10.0  # seconds to wait for a start that is under way
SCHEDULE = (("TERM", 10.0), ("KILL", 5.0))
ENDINGS = (("logging", "shutdown"), ("multiprocessing.util", "_exit_function"))

_shown: BaseException | None = None
_handlers_of = 0  # the process that runs them at its end

#: In the daemon of `spawn`, for the target: its context, which has `ready` and the loop.
current: DaemonContext | None = None


class Handle:
    """A daemon that this process started, or found running; not its child.

    Holds no descriptor: what it does goes through a pidfd that is opened for it, and that is
    used only if the process is still the one that the handle is about.

    :ivar pid: the daemon's pid
    :ivar status: what it said when it became ready; '' if nothing, or if it was found running
    """

    def __init__(self, pid: int, status: str = "") -> None:
        self.pid = pid
        self.status = status
        self._started = start_time(pid)

    def __repr__(self) -> str:
        return f"<daemon {self.pid}, {'running' if self.is_alive() else 'ended'}>"

    def is_alive(self) -> bool:
        """Whether the daemon runs; a zombie does not."""
        return not self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the daemon has ended; False when the time is over first.

        :param timeout: seconds; None: as long as it takes
        """
        pidfd = self._open()
        if pidfd is None:
            return True
        try:
            return bool(poll({pidfd}, timeout))
        finally:
            os.close(pidfd)

    def stop(self, schedule: Iterable[tuple[str | int, float]] = SCHEDULE) -> None:
        """Signal, wait, signal, wait; returns when the daemon has ended.

        :param schedule: pairs of a signal (``"TERM"``, ``"SIGTERM"`` or its number) and the seconds
            to wait after it
        :raises DaemonError: it still runs at the end of the schedule
        """
        stages = [(signal_number(name), seconds) for name, seconds in schedule]
        pidfd = self._open()
        if pidfd is None:
            return
        begun = monotonic()
        try:
            if poll({pidfd}, 0):
                return
            for number, seconds in stages:
                send(self.pid, pidfd, number)
                if poll({pidfd}, seconds):
                    return
        finally:
            os.close(pidfd)
        raise DaemonError(
            f"the daemon (pid {self.pid}) still runs after {monotonic() - begun:.1f} seconds and "
            "all signals of the schedule; it may be in a system call that can't be interrupted",
            pid=self.pid,
        )

    def _open(self) -> int | None:
        """A pidfd of the daemon; None: it has ended, and who has its number by now is another."""
        try:
            pidfd = open_pidfd(self.pid)
        except ProcessLookupError:
            return None
        if pidfd is None:
            raise DaemonError("this system has no pidfds (Linux 5.3 has), which a handle needs")
        if start_time(self.pid) != self._started:
            os.close(pidfd)
            return None
        return pidfd


def send(pid: int, pidfd: int, number: int) -> None:
    """Signal a daemon through its pidfd.

    :raises DaemonOSEnvironmentError: this user may not
    """
    try:
        send_signal(pid, pidfd, number)
    except PermissionError as error:
        raise DaemonOSEnvironmentError(
            f"cannot send {signal_name(number)} to the daemon (pid {pid}): "
            f"{error.strerror}; only root and its own user may",
            errno=error.errno,
            pid=pid,
        ) from error


def signal_number(name: str | int) -> int:
    """The number of a signal in a schedule.

    :raises OptionError: there is no such signal
    """
    if isinstance(name, str):
        number = getattr(signal, f"SIG{name.removeprefix('SIG')}", None)
    else:
        number = name if name in SIGNALS else None
    if number is None:
        raise refuse("schedule", name, "the name or the number of a signal, such as 'TERM'")
    return int(number)


def running(path: str) -> Handle:
    """The handle of the daemon that owns the pid file: proven, and proven again.

    :raises DaemonError: nobody owns it, or not within `STARTING` seconds
    """
    from time import sleep

    from ..pidfile import PidFile

    pidfile = PidFile(path)
    deadline = monotonic() + STARTING
    while (holder := pidfile.holder()).state == "starting" and monotonic() < deadline:
        sleep(0.01)
    if holder.proven and holder.pid:
        handle = Handle(holder.pid)
        if pidfile.owner() == handle.pid:
            return handle
    raise DaemonError(f"no daemon can be found by {path!r}: {holder}", path=path)


def run_target(
    context: DaemonContext, target: Callable[..., Any], args: Args, kwargs: Kwargs
) -> NoReturn:
    """In the daemon of `spawn`: run the target, and end."""

    def run() -> None:
        global current
        current = context
        forget_launcher()
        with context:
            try:
                target(*args, **kwargs)
            except BaseException as error:
                context._ended(error)  # now: its threads may go on for ever
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
    write_out(open_numbers() - {0, 1, 2})


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


def spawn_fresh(context: DaemonContext, target: str, args: Args, kwargs: Kwargs) -> Handle:
    """Run the target in a fresh interpreter; see `daemon_context.embedding.fresh`."""
    from . import fresh

    return fresh.spawn(context, target, args, kwargs)
