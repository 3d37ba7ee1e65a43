"""How the session leader watches: until the daemon is ready, or dead, which it tells the launcher.

It is the daemon's parent, and only a parent learns how its child died.
"""

from __future__ import annotations

import os
from time import monotonic

from ..system import SIGNALS, is_ending, poll, read, signal
from ..system.child import Child
from .frames import BEGUN, ERROR, READY, Frames, as_json, send
from .launcher import GRACE, LAST_WORDS, POLL_WITHOUT_PIDFD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Report


class Leader:
    """The session leader's watch over the daemon of that pid."""

    def __init__(self, report: Report, pid: int) -> None:
        self.report = report
        self.walk = report.walk
        self.settling = Settling(self.walk.options.settle)
        _forget_handlers()
        self.child = Child(pid)

    def watch(self) -> int:
        """Until it is ready or dead. Returns the exit status of this process."""
        frames = Frames()
        waiting = {self.report.control_r, self.report.report_r, *self.child.fds}
        while True:
            events = poll(waiting, self.settling.left if self.child.fds else POLL_WITHOUT_PIDFD)
            if self.report.control_r in events:
                return self._cancelled()
            if self.report.report_r in events and not frames.read(self.report.report_r):
                waiting.discard(self.report.report_r)
                if not is_ending(self.child.pid):  # but runs another program: execve(2)
                    self.settling.end()
            self.settling.take(frames)
            if frames.decided:
                return self._relay(frames)
            if self.child.ended():
                return self._died(frames)
            if self.settling.is_over() and self.report.take_turn():
                return self._say_ready(self.settling.words)

    def _relay(self, frames: Frames) -> int:
        kind, payload = frames.first()
        if kind == READY:
            return self._say_ready(payload) if self.settling.begun else 0
        # A hostile daemon may go on writing for ever; ours has said all, and ends by itself.
        self.report.permitted(self.child.wait_or_kill, 0 if frames.hostile else LAST_WORDS)
        return self._tell(kind, payload)

    def _say_ready(self, words: bytes) -> int:
        return 0 if send(self.report.outcome_w, READY, words) else self._abandoned()

    def _died(self, frames: Frames) -> int:
        # What it said in its last moment comes first: it may have ended after its report.
        frames.drain(self.report.report_r)
        if self.settling.take(frames):
            frames.drain(self.report.report_r)
        if frames.complete:
            return self._relay(frames)
        if self.settling.begun and self.child.status == 0:
            return self._say_ready(self.settling.words)
        died = {"died": self.child.status, "step": self._step_in_work()}
        return self._tell(ERROR, as_json(died).encode())

    def _step_in_work(self) -> int:
        """The number of the step that killed the daemon; 0: the body, or not known."""
        os.set_blocking(self.report.progress_r, False)
        try:
            number = read(self.report.progress_r, 4096)[-1:]
        except OSError:
            return 0
        return number[0] if number and number[0] <= len(self.walk.steps) else 0

    def _tell(self, kind: bytes, payload: bytes) -> int:
        return self._clean_up(send(self.report.outcome_w, kind, payload))

    def _cancelled(self) -> int:
        asked = read(self.report.control_r, 1)
        self.report.permitted(self.child.end, GRACE)
        return self._clean_up(bool(asked))

    def _abandoned(self) -> int:
        self.report.permitted(self.child.end, GRACE)
        return self._clean_up(False)

    def _clean_up(self, launcher_lives: bool) -> int:
        """End what the daemon has left, which a launcher that ignores SIGCHLD can't do; of one that
        is gone undo what it had done.
        """
        if not launcher_lives:
            self.walk.roll_back("launcher")
        # Our own session's group: this process is one of it.
        self.report.permitted(os.killpg, 0, signal.SIGKILL)
        return 1


class Settling:
    """The time in which a body that has begun may still fail the start: from *begun* on.

    :param seconds: as the option ``settle`` says
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.words = b""  # the daemon's own, for *ready*
        self.begun = False
        self.due: float | None = None

    def take(self, frames: Frames) -> bool:
        """Take the frame that says that the body begins, if that is the first."""
        if not frames.complete or frames.first()[0] != BEGUN:
            return False
        self.words = frames.first()[1]
        self.begun, self.due = True, monotonic() + self.seconds
        frames.drop()
        return True

    def end(self) -> None:
        """The time is over now."""
        self.due = monotonic() if self.begun else None

    @property
    def left(self) -> float | None:
        """Seconds to wait; None: for as long as it takes."""
        return None if self.due is None else max(0.0, self.due - monotonic())

    def is_over(self) -> bool:
        """Whether the time is over; True once."""
        if self.due is None or monotonic() < self.due:
            return False
        self.due = None
        return True


def _forget_handlers() -> None:
    """The program's Python handlers are not meant for the session leader."""
    for number, handler in zip(SIGNALS, map(signal.getsignal, SIGNALS), strict=True):
        if callable(handler):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
