"""How the launcher waits: for the daemon's pid, then for the outcome; and how it gives up."""

from __future__ import annotations

from ..errors import DaemonError, StartError
from ..system import SIGNALS, poll, signal
from ..system.child import Child
from .frames import ERROR, HELLO, READY, Frames, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from . import Report

CANCEL = b"C"
GRACE = 1.0  # seconds from SIGTERM to SIGKILL, for a daemon whose start was cancelled
LAST_WORDS = 10.0  # seconds for a failed daemon to end, and for the session leader to end it
POLL_WITHOUT_PIDFD = 0.05


class Launcher:
    """The launcher's wait: it learns the daemon's pid, then the outcome."""

    def __init__(self, report: Report, leader: Child, mask: Any) -> None:
        self.report = report
        self.mask = mask
        self.leader = leader
        self.daemon: Child | None = None
        self.frames = Frames()
        self.open = True

    def wait(self, timeout: float | None) -> int:
        from time import monotonic

        begun = monotonic()
        while True:
            waited = monotonic() - begun
            self._tell(waited)
            left = None if timeout is None else timeout - waited
            if left is not None and left <= 0:
                raise StartError(
                    f"the daemon was not ready after {timeout:g} seconds (start_timeout); "
                    "its start was cancelled",
                    pid=self.daemon and self.daemon.pid,
                )
            self._listen(left)
            ended = self.leader.ended()
            if ended:
                self._drain()
            kind, payload = self.frames.first() if self.frames.complete else (b"", b"")
            if kind == READY:
                self.report.words = payload.decode("utf-8", "replace")
                self.leader.wait_or_kill(LAST_WORDS)
                self._require_alive()
                return self.daemon.pid if self.daemon else 0
            if kind or self.frames.hostile:
                raise self._decoded(payload)
            if not self.open or ended:
                raise self._silent()

    def _tell(self, waited: float) -> None:
        """Show whoever sits there that it waits, where they want to see that."""
        on_wait = self.report.walk.on_wait
        if on_wait is not None and waited >= 1:
            on_wait(f"pid {self.daemon.pid} to be ready" if self.daemon else "the daemon", waited)

    def _listen(self, left: float | None) -> None:
        fds = {self.report.outcome_r, *self.leader.fds}
        seconds = left if self.report.walk.on_wait is None else min(left or 1.0, 1.0)
        if not self.leader.fds:
            seconds = POLL_WITHOUT_PIDFD
        if self.report.outcome_r in self._attentive(poll, fds, seconds):
            self.open = self.frames.read(self.report.outcome_r)
            self._meet_daemon()

    def _drain(self) -> None:
        """The pid, which may come late, and the last frame of a session leader that has ended."""
        for _ in range(2):
            self.frames.drain(self.report.outcome_r)
            self._meet_daemon()

    def _require_alive(self) -> None:
        """A session leader that has not left in peace may have told how the daemon died."""
        if self.leader.status != 0:
            self.frames.drop()
            self.frames.drain(self.report.outcome_r)
            kind, payload = self.frames.first() if self.frames.complete else (b"", b"")
            if kind == ERROR:
                raise self._decoded(payload)

    def _meet_daemon(self) -> None:
        # Only the first frame may name a pid: it is sent before any code but ours has run.
        if self.daemon is None and self.frames.complete:
            kind, payload = self.frames.first()
            pid, _, known = payload.decode("ascii", "replace").partition(" ")
            if kind == HELLO and pid.isdigit():
                self.frames.drop()
                self.report.identity = known
                self.daemon = Child(int(pid), known)

    def _silent(self) -> StartError:
        self.leader.wait(GRACE)  # the end of its pipe comes a moment before its own
        self.leader.ended()
        from ..system.endings import ending

        status = self.leader.status
        how = ending(status)[0] if status is not None else "ended, nobody knows how,"
        return StartError(
            f"the session leader (pid {self.leader.pid}) {how} before the daemon was ready; "
            "its start was cancelled",
            pid=self.daemon and self.daemon.pid,
        )

    def _decoded(self, payload: bytes) -> DaemonError:
        from .failures import decode

        return decode(self.report.walk, payload, self.daemon.pid if self.daemon else None)

    def clean_up(self) -> None:
        """End whatever is left of the start: the daemon, the session leader, and their group."""
        if not self.leader.ended():
            send(self.report.control_w, CANCEL)
            if not self._leader_ends(GRACE + LAST_WORDS):
                self.leader.kill()
        if self.daemon is not None and self.daemon.fds and not self.daemon.ended():
            self.report.permitted(self.daemon.kill)
        self.leader.kill_group()
        self.leader.wait_or_kill(0)

    def _leader_ends(self, seconds: float) -> bool:
        try:
            return bool(self._attentive(self.leader.wait, seconds))
        except BaseException:  # the second Ctrl-C, or what another handler raises: no more patience
            return False

    def _attentive(self, wait: Callable[..., Any], *args: Any) -> Any:
        """Wait with signals unblocked: what a handler raises comes from here and nowhere else."""
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
            return wait(*args)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def close(self) -> None:
        self.leader.close()
        if self.daemon is not None:
            self.daemon.close()
