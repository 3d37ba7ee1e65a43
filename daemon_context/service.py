"""`Daemon`: the class that the classic recipe should have been.

Give it a pid file, override `run()`, call `start()`, `stop()`, `restart()`; or let `main()` give
the script its verbs.
"""

from __future__ import annotations

import atexit
import os
import sys

from . import control
from .context import DaemonContext, default_signal_map
from .descriptors import is_open
from .embedding import (
    SCHEDULE,
    exit_status,
    exit_status_of,
    finish_threads,
    forget_launcher,
    own_handlers,
    run_to_exit,
)
from .errors import DaemonError, refuse, text_of
from .pidfile import PidFile
from .process import signal
from .sequence import preflight
from .status import Status, status_of
from .statusfile import TEXT_LARGEST, OpenStatus, StatusFile, path_of
from .step import Steps
from .stopping import Terminated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any, ClassVar, NoReturn

    from .control import Stopped, Waiting


class Daemon:
    """Base class of a daemon: override `run`.

    :param pidfile: path of the pid file, or a `PidFile`
    :param stdin: as the option of `DaemonContext`; None is ``/dev/null``
    :param stdout: the same; a path is appended to
    :param stderr: the same
    :param options: all other options of `DaemonContext`, by name; the umask is 0o022 by default
    """

    def __init__(
        self,
        pidfile: Any,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        **options: Any,
    ) -> None:
        self.pidfile = pidfile
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.options = {"umask": 0o022, **options}

    def __getstate__(self) -> dict[str, Any]:
        """For workers that get a method of ours: what belongs to this process stays here."""
        own = ("_context", "_said", "_waiting")
        return {name: value for name, value in vars(self).items() if name not in own}

    # Class-level, so that a subclass need not call our __init__ first.
    _context: DaemonContext | None = None
    _waiting: Waiting | None = None
    _launching = False
    _looping = False
    _reload_due = False
    _reloads = 0
    _at_reload: ClassVar[dict[int, object]] = {}  # by process: what a reload forks is not at it
    _said: StatusFile | None = None

    # --- to override

    def setup(self) -> None:
        """Prepare, in the daemon, before it is ready: what fails here, `start` raises."""

    def run(self) -> Any:
        """Do the daemon's work. In the daemon; it ends with this method's outcome."""
        raise NotImplementedError(
            f"{type(self).__name__} must have a run() method: the daemon's work"
        )

    def cleanup(self) -> None:
        """Tidy up, in the daemon, after `run` has ended in whatever way."""

    def on_reload(self) -> None:
        """Take a new configuration, on SIGHUP; raise if it is bad, and keep the old one."""

    # --- for run()

    def sleep(self, seconds: float | None = None) -> bool:
        """Sleep; True when the time is over, False at once when a stop is requested.

        :param seconds: how long; None: until a stop is requested
        """
        self._looping = self._looping or _is_main_thread()
        return self._opened().sleep(seconds)

    def every(self, seconds: float) -> Iterator[int]:
        """A round now and then each `seconds`, until a stop is requested."""
        self._looping = self._looping or _is_main_thread()
        return self._opened().every(seconds)

    def tell(self, text: str) -> None:
        """Say in a few words how it is going, for `status`, which shows 16 384 characters of it.

        Of the daemon alone: in a child that it has forked this does nothing.
        """
        self._tell(text=text)

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return self._opened().stop_requested

    # --- the verbs

    def start(self) -> int:
        """Start the daemon, and go on. Never returns in the daemon, which ends with `run`.

        :returns: the daemon's pid, once it is ready
        :raises AlreadyRunning: it runs already; its ``handle`` is the running daemon's
        :raises DaemonError: whatever went wrong; nothing of the start is left
        """
        self._require_outside()
        self._launching = True
        try:
            self.daemonize()
        except _Launched as launched:
            return launched.pid
        except BaseException as error:
            if not self._is_daemon():
                raise
            run_to_exit(self._give_up, error)  # what an override does in the daemon has failed
        finally:
            self._launching = False
        return self._serve_and_exit()

    def stop(self, schedule: Iterable[tuple[str | int, float]] = SCHEDULE) -> Stopped:
        """Stop the daemon; returns when it is gone and its lock is free; in the daemon at once.

        :param schedule: pairs of a signal and the seconds to wait after it
        :returns: which pid it was, and how it ended where the kernel tells
        :raises DaemonError: it is not gone, or it can't be proven which process it is
        """
        return control.stop(self._lock(), schedule, self._waiting)

    def restart(self, schedule: Iterable[tuple[str | int, float]] = SCHEDULE) -> int:
        """Stop the daemon if it runs, and start it; it stays if the new one's checks fail.

        :returns: the new daemon's pid
        :raises DaemonError: as `stop` and `start` do
        """
        preflight(self._make_context()._begin(spawning=True))
        self.stop(schedule)
        return self.start()

    def reload(self, timeout: float = control.RELOAD_TIMEOUT) -> int:
        """Have the daemon call `on_reload`; returns when it has taken the new configuration; in
        `run` at once.

        :param timeout: seconds to wait for it
        :returns: the daemon's pid
        :raises DaemonError: it does not run, does not answer, or `on_reload` raised: then the
            daemon goes on with the old configuration
        """
        if self._is_daemon() and _is_main_thread():  # it can't wait for itself
            os.kill(os.getpid(), signal.SIGHUP)
            return os.getpid()
        return control.reload(self._lock(), timeout, self._waiting)

    def status(self) -> Status:
        """What can be known about the daemon from here. Changes nothing."""
        return status_of(self._lock())

    def run_foreground(self) -> int:
        """The same steps, signals and lock without detaching; streams that are not given stay.

        :returns: the exit status that `run`'s outcome means
        :raises DaemonError: as `start` does
        """
        self._context = self._make_context(detach=False)
        self._context.open()
        return self._serve(self._work)

    def main(self, argv: list[str] | None = None) -> NoReturn:
        """Give a script the verbs start, stop, restart, reload, status and run.

        :param argv: the arguments; those of the command line by default
        :raises SystemExit: with the LSB's status
        """
        from .verbs import main

        sys.exit(main(self, argv))

    # --- the recipe's other methods

    def daemonize(self) -> None:
        """Become the daemon. Called by `start`; by itself it returns in the ready daemon only."""
        context = self._make_context()
        walk = context._start_walk(spawning=True)
        if walk.over and self._launching:
            # As an exception, so that an override of this method goes on in the daemon only.
            raise _Launched(walk.daemon)
        if walk.over:
            os._exit(0)
        self._context = context
        if self._launching:
            forget_launcher()
        else:
            atexit.register(Daemon.delpid, self)  # nobody else removes the status file then
            self._ready()

    def delpid(self) -> None:
        """Leave the pid file and the status file, at the end of the daemon."""
        context = self._context
        if context is None or context._walk is None or context._walk.owner != os.getpid():
            return  # not open, or a child that the daemon forked
        if self._said is not None:
            self._said.end()
        context.close()

    # --- in the daemon

    def _serve_and_exit(self) -> NoReturn:
        """Never unwind into the launcher's frames: they are the launcher's."""
        run_to_exit(self._serve, self._work_and_finish)

    def _serve(self, work: Callable[[], int]) -> int:
        process = os.getpid()
        try:
            return work()
        finally:
            if os.getpid() == process:  # not a child that run() has forked
                self.delpid()

    def _work_and_finish(self) -> int:
        """As long as threads work, this is the daemon."""
        status = exit_status_of(self._work)  # which shows an error now: they may go on for ever
        return finish_threads() or status

    def _work(self) -> int:
        """From `setup` to `cleanup`; the exit status."""
        if self._context is None:  # daemonize() was overridden by one of its own making
            self._context = self._make_context(detach=False)
            own_handlers()
        context, process = self._context, os.getpid()
        error: BaseException | None = None
        try:
            self._beside_run(self.setup)
            self._end_if_asked()
            self._reload_if_due()  # it came in a sleep(): run() may have a loop of its own
            self._ready()
            return _status(self.run())
        except SystemExit as ended:
            error = ended
            return exit_status(ended)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if os.getpid() == process:  # not a child that run() has forked
                self._end(context, error)

    def _give_up(self, error: BaseException) -> NoReturn:
        self._opened()._ended(error)
        self.delpid()
        raise error

    def _ready(self) -> None:
        self._tell_reloads(ready=True, text=None)
        if self._context is not None and self._context.is_open:
            self._context.ready()

    def _end(self, context: DaemonContext, error: BaseException | None) -> None:
        try:
            self.cleanup()
        finally:
            context._ended(error)
            self._looping = False  # nobody is left to look at what SIGTERM would only note

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM: a loop made of sleep() or every() finishes its round; anything else is left."""
        if self._context is not None:
            self._context.request_stop(number)  # also for threads that sleep
        if not self._looping:
            raise Terminated(number)

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        """SIGHUP: reload between two rounds; at once where run() has a loop of its own."""
        self._reload_due = True
        if not self._looping:
            self._reload_if_due()

    def _reload_if_due(self) -> None:
        # Who comes in the middle of one leaves the next to who is at it: begun with an older
        # configuration, the outer one would be the last to set its own.
        process, mine = os.getpid(), object()
        while self._reload_due and self._at_reload.setdefault(process, mine) is mine:
            try:
                self._reload_due = False
                self._reload()
            finally:
                self._at_reload.pop(process, None)

    def _reload(self) -> None:
        self._tell_reloads(reloading=True)  # who asks from now on, asks for the next one
        failure = None
        try:
            self._beside_run(self.on_reload)
        except Exception as error:
            failure = _told(error)
        self._tell_reloads(1, reloading=False, reload_error=failure)
        self._end_if_asked()

    def _tell_reloads(self, done: int = 0, **values: Any) -> None:
        self._reloads += done
        self._tell(reloads=self._reloads, **values)

    def _tell(self, **values: Any) -> None:
        # Not a child that the daemon has forked: what else it knows is old, and it may live longer.
        if self._said is not None and self._is_daemon():
            self._said.tell(**values)

    def _beside_run(self, method: Callable[[], None]) -> None:
        """A sleep() in it says nothing about the loop of run()."""
        looping = self._looping
        try:
            method()
        finally:
            self._looping = looping

    def _end_if_asked(self) -> None:
        """By a signal in a sleep() beside `run`: in a loop of its own nobody else would look."""
        context = self._context
        if not self._looping and context is not None and context.stop_requested:
            raise Terminated(signal.SIGTERM)

    # --- making the context

    def _is_daemon(self) -> bool:
        """Whether this process is the daemon, and not one that it was forked from or has forked."""
        context = self._context
        return context is not None and context.is_open and not context._is_copy()

    def _require_outside(self) -> None:
        if self._is_daemon():
            raise DaemonError(
                "this process is the daemon already; have another one start it anew, or replace "
                "the program by os.execv()",
                pid=os.getpid(),
            )

    def _lock(self) -> PidFile:
        if self._context is not None and self._context.is_open:
            lock: PidFile = self._context.pidfile  # a relative path would name another file here
            return lock
        return self.pidfile if isinstance(self.pidfile, PidFile) else PidFile(self.pidfile)

    def _opened(self) -> DaemonContext:
        if self._context is None:
            raise DaemonError("sleep() and every() are for run(), in the daemon")
        return self._context

    def _make_context(self, *, detach: bool = True) -> DaemonContext:
        self._require_outside()
        lock = self._lock()
        if not lock.in_parts:  # the launcher must hold it when it replaces the status file
            lock = PidFile(lock.path, lock.timeout)
        self._said = StatusFile(path_of(lock.path))
        self.options = {name: _lasting(value) for name, value in self.options.items()}
        options = dict(self.options)
        options["signal_map"] = self._signal_map(options.get("signal_map"))
        options["steps"] = _with_status(options.get("steps"), self._said)
        streams = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}
        if not detach:
            streams = _kept_streams(streams)
        options.update(streams, detach_process=detach, pidfile=lock, readiness="explicit")
        context = DaemonContext(**options)
        context._between = self._reload_if_due
        context._waiting = self._waiting
        return context

    def _signal_map(self, given: Any) -> dict[int, Any]:
        """Ours, then what is given; a name is that of a method of the daemon, or of the context."""
        try:
            own = dict(given or {})
        except (TypeError, ValueError) as error:
            raise refuse("signal_map", given, "a mapping of signal numbers to targets") from error
        merged = {
            **default_signal_map(),
            signal.SIGTERM: self._on_terminate,
            signal.SIGHUP: self._on_hangup,
            **own,
        }
        return {
            number: getattr(self, target, target) if isinstance(target, str) else target
            for number, target in merged.items()
        }


class _Launched(BaseException):
    """In the launcher: the daemon is ready."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def _lasting(value: Any) -> Any:
    """What an iterator gives, it gives once; `restart` makes two contexts."""
    return tuple(value) if hasattr(value, "__next__") else value


def _with_status(steps: Any, file: StatusFile) -> Steps:
    from .context import as_steps
    from .steps import DEFAULT_STEPS

    given = DEFAULT_STEPS if steps is None else as_steps(steps)
    return (
        given.insert_after("lock-pidfile", OpenStatus(file)) if "lock-pidfile" in given else given
    )


def _kept_streams(streams: dict[str, Any]) -> dict[str, Any]:
    """In the foreground, a stream that is not given stays as it is."""
    return {
        name: number if given is None and is_open(number) else given
        for number, (name, given) in enumerate(streams.items())
    }


def _told(error: Exception) -> dict[str, str]:
    try:
        from .failures import told
    except OSError:  # no descriptor is left to read it
        return {"message": f"{type(error).__name__}: {text_of(error)}"[:TEXT_LARGEST]}
    return told(error)


def _is_main_thread() -> bool:
    """Whether it is `run` that asks, and not a thread beside it."""
    threading = sys.modules.get("threading")
    return threading is None or threading.current_thread() is threading.main_thread()


def _status(outcome: Any) -> int:
    """The exit status that the outcome of `run` means."""
    if outcome is None or isinstance(outcome, bool):
        return 0
    if isinstance(outcome, int):
        return outcome & 0xFF
    if isinstance(outcome, str):
        print(outcome, file=sys.stderr)
        return 1
    return 0
