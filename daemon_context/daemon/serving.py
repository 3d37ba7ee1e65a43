"""What a daemon of the class does, from `setup` to its end; and what its signals do meanwhile."""

from __future__ import annotations

import os
from time import monotonic

from ..context import DaemonContext
from ..control.lastend import Ending, of_program
from ..control.statusfile import BEGUN, DONE, StatusFile
from ..embedding.target import exit_status, finished, own_handlers, run_to_exit
from ..errors import SetupExit
from ..loop import Terminated, end_by
from ..system import is_main_thread, signal
from ..system.groups import end_group
from .reloading import Reloading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, NoReturn

    from ..control.waiting import Waiting


CHILDREN = 1.0  # seconds from SIGTERM to SIGKILL, for what the daemon leaves behind


class Serving(Reloading):
    """The daemon's side of `Daemon`, which see."""

    # Class-level, so that a subclass need not call our __init__ first.
    _alone: DaemonContext | None = None  # never opened: the loop of a run() that a test calls
    #: Called while a verb waits: what for, and for how many seconds by now.
    on_wait: Waiting | None = None
    stop_children = False
    _launching = False
    _setting_up = False
    _said_ready = False
    _explicit = False  # run() says itself when it is ready
    _said: StatusFile | None = None
    _asked = 0  # the signal by which a stop was requested
    _ended_by: BaseException | None = None
    #: In `cleanup`: why the daemon ends; None before.
    ending: Ending | None = None

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

    def ready(self, text: str = "") -> None:
        """Say that it works now, and in a few words how it is going. For `setup` and `run`: under
        ``readiness="explicit"`` a start waits for it; otherwise it is over before its time.

        The second time, and in a `run` that is called without a start, this does nothing.
        """
        if self._is_daemon() and not self._said_ready:
            self._say_ready(text or None)

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
                self._leave()

    def _leave(self) -> None:
        try:
            if self.stop_children and self._is_daemon():
                end_group(CHILDREN)
        finally:
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
            self._tell()  # from now on the status file is this process's, whatever ends it
            self._beside_run(self.setup)
            self._setting_up = False
            self._end_if_asked()
            self._reload_if_due()  # it came in a sleep(): run() may have a loop of its own
            self._begin_run()
            _exit_by(self.run())
            return 0
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
        self._ended_by = error
        self._looped().ended(error)
        self.delpid()
        raise error

    def _begin_run(self) -> None:
        """Be ready, unless `setup` has said so already, or `run` will."""
        context = self._context
        if context is None or self._said_ready:
            return
        if self._explicit:
            self._tell_reloads(text=None)
            return
        settle = context.settle if context.detach_process else 0
        self._tell_reloads(ready=True, text=None, settled=monotonic() + settle)
        if context.is_open:
            context.begun()

    def _say_ready(self, text: str | None) -> None:
        self._said_ready = True
        self._tell_reloads(ready=True, text=text, settled=None)
        if self._context is not None and self._context.is_open:
            self._context.ready(text or "")

    def _end(self, context: DaemonContext, error: BaseException | None) -> None:
        self._ended_by = error
        self.ending = self._why()
        self._tell(cleanup=BEGUN, **({"ready": False} if context.fails(error) else {}))
        try:
            self.cleanup()
            self._tell(cleanup=DONE)
        except BaseException as raised:
            self._ended_by = error = error or raised
            raise
        finally:
            detached = context.detach_process
            context.ended(_told(error) if self._setting_up and detached else error)
            self._looping = False  # nobody is left to look at what SIGTERM would only note

    def _why(self) -> Ending:
        context = self._context
        requested = context is not None and context.stop_requested
        return Ending(self._ended_by, requested, self._asked)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM: a loop made of sleep() or every() finishes its round; anything else is left."""
        if self._is_daemon():
            self._asked = number
            self._tell(stopping=True)
        if self._context is not None:
            self._context.request_stop(number)  # also for threads that sleep
        if not self._looping:
            end_by(number, lambda: self.ending is not None)

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
        """Leave the pid file, and say in the status file how the daemon ended."""
        context = self._context
        if context is None or not context.is_here:
            return  # not open, or a child that the daemon forked
        if self._said is not None:
            if self.ending is None:  # daemonize() by itself
                self._ended_by = self._ended_by or of_program()
            self._said.end(self._why().told())
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


def _exit_by(outcome: Any) -> None:
    """As `sys.exit` does, where the outcome of `run` is a status or a text."""
    if isinstance(outcome, (int, str)) and not isinstance(outcome, bool):
        raise SystemExit(outcome)


def _told(error: BaseException | None) -> BaseException | None:
    """As `start` raises what `setup` has ended with: a text is meant for who started it."""
    if type(error) is not SystemExit:
        return error
    if error.code is None or error.code == 0:
        return SetupExit("setup() called sys.exit(0)", exit_status=0)
    return error if isinstance(error.code, int) else SetupExit(str(error.code), exit_status=1)
