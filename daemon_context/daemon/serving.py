"""What a daemon of the class does, from `setup` to its end; and what its signals do meanwhile."""

from __future__ import annotations

import os
import sys

from ..context import DaemonContext
from ..control.statusfile import StatusFile
from ..embedding.target import exit_status, finished, own_handlers, run_to_exit
from ..errors import SetupExit
from ..loop import Terminated
from ..report.frames import fitting, plain
from ..system import is_main_thread, signal
from ..system.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, ClassVar, NoReturn

    from ..control import Waiting

LOG_LARGEST = 1 << 16  # characters of a refused reload


class Serving:
    """The daemon's side of `Daemon`, which see."""

    # Class-level, so that a subclass need not call our __init__ first.
    _context: DaemonContext | None = None
    _alone: DaemonContext | None = None  # never opened: the loop of a run() that a test calls
    #: Called while a verb waits: what for, and for how many seconds by now.
    on_wait: Waiting | None = None
    _launching = False
    _setting_up = False
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
        self._looping = self._looping or is_main_thread()
        return self._looped().sleep(seconds)

    def every(self, seconds: float) -> Iterator[int]:
        """A round now and then each `seconds`, until a stop is requested."""
        self._looping = self._looping or is_main_thread()
        return self._looped().every(seconds)

    def tell(self, text: str) -> None:
        """Say in a few words how it is going, for `status`, which shows 16 384 characters of it.

        Also for the manager that started it (``systemctl status``). Of the daemon alone: in a child
        that it has forked this does nothing.
        """
        self._tell(text=text)
        if self._context is not None:
            self._context.tell(text)

    def beat(self) -> None:
        """A sign of life for systemd's watchdog, from any thread; see `DaemonContext.beat`."""
        if self._context is not None:
            self._context.beat()

    def reopen_streams(self) -> None:
        """Open streams that are paths anew, after a rotation. A reload does it by itself; this is
        for a handler of your own.

        :raises DaemonError: one can't be opened: the output goes on into the old file
        """
        if self._context is not None:
            self._context.reopen_streams()

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return self._looped().stop_requested

    # --- from setup() to the end

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
        return finished(self._work)

    def _work(self) -> int:
        """From `setup` to `cleanup`; the exit status."""
        if self._context is None:  # daemonize() was overridden by one of its own making
            self._context = self._make_context(detach=False)
            own_handlers()
        context, process = self._context, os.getpid()
        error: BaseException | None = None
        try:
            self._setting_up = True
            self._beside_run(self.setup)
            self._setting_up = False
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
        self._looped().ended(error)
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
            detached = context.detach_process
            context.ended(_told(error) if self._setting_up and detached else error)
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

    # It says itself when a reload begins: where the loop reloads between two rounds, it only
    # notes it.
    _on_hangup.announces = True  # type: ignore[attr-defined]

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
        manager = self._looped().manager
        manager.reloading()
        failure, said = None, {}
        try:
            self._beside_run(self._take_reload)
        except _NotReopened as error:
            failure = {**fitting(error.why), "reloaded": True}
            said = {"text": f"reloaded, but {error.why}"}
            _log(f"{type(self).__name__}: {said['text']}")
        except Exception as error:
            failure = fitting(error)
            said = {"text": f"reload failed: {_in_short(failure)}"}
            self._say_refused(error)
        finally:
            manager.reloaded(said.get("text", ""))
        self._tell_reloads(1, reloading=False, reload_error=failure, **said)
        self._end_if_asked()

    def _take_reload(self) -> None:
        """Streams first, so that what it says is in the new log; a failure there stops nothing."""
        failure = self._reopened()
        self.on_reload()
        if failure is not None:
            raise _NotReopened(failure)

    def _reopened(self) -> Exception | None:
        try:
            if self._context is not None and self._is_daemon():
                self._context.reopen_streams()
        except Exception as error:
            return error
        return None

    def _say_refused(self, error: Exception) -> None:
        """In the log, as who sent the signal hears nothing."""
        name = type(self).__name__
        _log(f"{name}: reload failed, the old configuration stays: {plain(error)}")

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

    def delpid(self) -> None:
        """Leave the pid file and the status file, at the end of the daemon."""
        context = self._context
        if context is None or not context.is_here:
            return  # not open, or a child that the daemon forked
        if self._said is not None:
            self._said.end()
        context.close()

    def _is_daemon(self) -> bool:
        """Whether this process is the daemon, and not one that it was forked from or has forked."""
        context = self._context
        return context is not None and context.is_open and context.is_here

    def _looped(self) -> DaemonContext:
        if self._context is not None:
            return self._context
        if self._alone is None:
            self._alone = DaemonContext()
        return self._alone

    def _make_context(self, *, detach: bool = True) -> DaemonContext:
        raise NotImplementedError


class _NotReopened(Exception):
    """The configuration was taken, but the streams go on into the old files."""

    def __init__(self, why: Exception) -> None:
        self.why = why


def _in_short(failure: dict[str, Any]) -> str:
    return f"{failure['class']}: {failure['text']}"


def _log(text: str) -> None:
    """To stderr, without what a terminal would obey."""
    try:
        print(shown(text, LOG_LARGEST, lines=True), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # it is closed, or nobody reads any more
        pass


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


def _told(error: BaseException | None) -> BaseException | None:
    """As `start` raises what `setup` has ended with: a text is meant for who started it."""
    if type(error) is not SystemExit:
        return error
    if error.code is None or error.code == 0:
        return SetupExit("setup() called sys.exit(0)", exit_status=0)
    return error if isinstance(error.code, int) else SetupExit(str(error.code), exit_status=1)
