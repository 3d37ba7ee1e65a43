"""What crosses from the daemon to the launcher, and how each of the three waits for the others.

Four pipes, all made by the launcher before the first fork:

=========  ==============================  ====================================================
control    launcher → session leader       a byte: cancel; its end: the launcher is gone
outcome    both others → launcher          frames; from the daemon its pid, and that it is ready;
                                           from the session leader what went wrong
report     daemon → session leader         one frame: ready, or what went wrong
progress   daemon → session leader         the number of the step in work; read only after death
=========  ==============================  ====================================================

The session leader stays the daemon's parent until it is ready, because only a parent learns how its
child died; then it leaves, and the launcher after it. The daemon keeps ``outcome`` open until then,
so that the end of that pipe tells the launcher that *both* are gone. A frame is a kind, a length
and JSON; never a pickle, because an unprivileged daemon must not be able to run code in a root
launcher.

With the option ``settle`` the daemon says *begun* instead of *ready*, and the session leader says
*ready* when that time is over or the daemon has ended well. A fifth pipe holds one byte then: who
takes it, the session leader when the time is over or the daemon that fails, says how it went.
"""

from __future__ import annotations

import os
import sys
from time import sleep

from ..errors import StartError
from ..sequence.keeping import preserved
from ..system import poll, read, write
from ..system.child import Child, identity_of
from ..system.descriptors import is_still, open_numbers, open_pipe
from .frames import BEGUN, ERROR, HELLO, READY, WORDS_LARGEST, encoded, exit_status, send
from .launcher import Launcher
from .leader import Leader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ..sequence.walk import Walk


LOOK, LOOKS = 0.01, 20  # seconds, and how often, for a session leader that is ending


class Report:
    """The pipes of one start, and the part that each process plays on them."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.words = ""  # the daemon's own, when it became ready
        self.identity = ""  # of the daemon, in the launcher
        self.leader = 0
        self.control_r, self.control_w = open_pipe(walk.acquire)
        self.outcome_r, self.outcome_w = open_pipe(walk.acquire)
        self.report_r, self.report_w = open_pipe(walk.acquire)
        self.progress_r, self.progress_w = open_pipe(walk.acquire)
        self.turn = self._make_turn() if walk.options.settle else -1
        self.has_begun = self.has_turn = False
        self.found = {fd: os.fstat(fd) for fd in self.fds}

    @property
    def fds(self) -> set[int]:
        """The daemon's ends, for as long as it is not ready."""
        return {self.report_w, self.progress_w, self.outcome_w, self.turn} - {-1}

    def _make_turn(self) -> int:
        reader, writer = open_pipe(self.walk.acquire)
        write(writer, b"t")
        self.walk.close(writer)
        os.set_blocking(reader, False)
        return reader

    def take_turn(self) -> bool:
        """Whether it is ours to say how the start went. In the daemon and the session leader."""
        if not self.has_turn and self._is_ours(self.turn):
            self.has_turn = bool(read(self.turn, 1))
        return self.has_turn

    # --- in the daemon

    def begin_daemon(self) -> None:
        """Keep the daemon's ends, and tell the launcher who this is before any step can fail."""
        self.walk.close(self.control_r, self.report_r, self.progress_r)
        pid, self.leader = os.getpid(), os.getsid(0)
        send(self.outcome_w, HELLO, f"{pid} {identity_of(pid)}".encode())

    def progress(self, number: int) -> None:
        """Note which step is in work, for the session leader to read if it kills us."""
        if self.progress_w in self.walk.descriptors and self.walk.process == "daemon":
            if not self._is_ours(self.progress_w):
                culprit = self.walk.applied[-1][1].name
                raise StartError(
                    f"step {culprit!r} has closed the descriptor by which the launcher is told, "
                    "as os.closerange() does; close only what the program has opened",
                    step=culprit,
                )
            write(self.progress_w, bytes([min(number, 255)]))

    def begun(self, status: str) -> bool:
        """Say that the body begins, and may have to settle; False: the start was cancelled."""
        self.progress(0)  # from here on it is the body that may die
        self.walk.close(*filter(self._is_ours, (self.progress_w, self.outcome_w)))
        self.has_begun = self._say(self.report_w, BEGUN, status)
        return self.has_begun

    def ready(self, status: str = "") -> bool:
        """Say that the daemon works; False: nobody listens any more, the start was cancelled.

        The launcher hears it first: it is what counts, and if the daemon dies before its next
        word the session leader can still tell how. Once it has said that it begins, the session
        leader is the one to tell the launcher.
        """
        if self.has_begun:
            said = self._say(self.report_w, READY, status)
        elif said := self._say(self.outcome_w, READY, status):
            said = self._say(self.report_w, READY, "") or self._leader_is_gone()
        if said:
            self.let_go()
        return said

    def _leader_is_gone(self) -> bool:
        """Whether it was killed: it counts what the launcher has heard. Its pipes end a moment
        before it does.
        """
        for _ in range(LOOKS):
            if os.getppid() != self.leader:
                return True
            sleep(LOOK)
        return False

    def let_go(self) -> None:
        """Close the daemon's ends: nobody listens to it any more."""
        self.walk.close(*filter(self._is_ours, self.fds & self.walk.descriptors))
        self.walk.report = None

    @property
    def is_over(self) -> bool:
        """Whether nobody listens any more: the session leader has left."""
        return not self._is_ours(self.report_w) or bool(poll({self.report_w}, 0))

    def _say(self, fd: int, kind: bytes, status: str) -> bool:
        if not self._is_ours(fd):
            raise StartError(
                "ready() can't reach the launcher: the program has closed the descriptor for it, "
                "as os.closerange() does; close only what the program has opened"
            )
        return send(fd, kind, status.encode("utf-8", "replace")[:WORDS_LARGEST])

    def fail(self, error: BaseException | None, number: int) -> NoReturn:
        """Undo what the daemon did, tell the launcher, and end without unwinding.

        :param error: None: the body has ended without one
        :param number: of the step that failed; 0: the body
        """
        walk, status = self.walk, exit_status(error)
        try:
            notes = walk.roll_back()
            if error is not None:
                error.__notes__ = [*getattr(error, "__notes__", ()), *notes]
            if self._is_ours(self.report_w):
                send(self.report_w, ERROR, encoded(error, number, walk.process))
            flush_standard_streams()
            if walk.owner and (walk.options.readiness == "explicit" or walk.options.settle):
                _write_out_body(walk)
        finally:
            os._exit(status)

    def _is_ours(self, fd: int) -> bool:
        return is_still(fd, self.found[fd])

    # --- in the session leader

    def begin_leader(self) -> None:
        """Keep the session leader's ends."""
        self.walk.close(self.control_w, self.outcome_r)

    def lead(self, pid: int) -> NoReturn:
        """Watch the daemon until it is ready or dead, tell the launcher, and end."""
        status = 1
        try:
            self.walk.close(self.report_w, self.progress_w)
            status = Leader(self, pid).watch()
        except BaseException as error:
            # The launcher ends the daemon, which must not outlive the one that watches it.
            self.lead_failed(error)
        finally:
            os._exit(status)

    def lead_failed(self, error: BaseException) -> NoReturn:
        """The session leader itself failed, with a daemon or without."""
        try:
            send(self.outcome_w, ERROR, encoded(error, self.walk.number, self.walk.process))
        finally:
            os._exit(1)

    # --- in both who may have to end the daemon

    def permitted(self, signals: Callable[..., Any], *args: Any) -> None:
        """Call what signals the daemon: without CAP_KILL only its own user may, beside that of
        before, so be both.
        """
        borrows = self.walk.options.owner_changes and not _may_kill()
        user = os.geteuid()
        if borrows:
            os.setresuid(-1, self.walk.options.uid, -1)
        try:
            signals(*args)
        finally:
            if borrows:
                os.setresuid(-1, user, -1)

    # --- in the launcher

    def begin_launcher(self) -> None:
        """Keep the launcher's ends."""
        self.walk.close(
            self.control_r,
            self.outcome_w,
            self.report_r,
            self.report_w,
            self.progress_r,
            self.progress_w,
        )

    def wait(self, leader: int, timeout: float | None, mask: Any) -> int:
        """Wait for the outcome, and until the session leader is reaped. Returns the daemon's pid.

        :raises DaemonError: what went wrong; nothing that the stock steps did is left
        """
        launcher = Launcher(self, Child(leader), mask)
        try:
            self.begin_launcher()
            return launcher.wait(timeout)
        except BaseException:
            launcher.clean_up()
            raise
        finally:
            launcher.close()


def _may_kill() -> bool:
    from ..system.capabilities import CAP_KILL, has_capability  # loaded with a uid or a gid

    return has_capability(CAP_KILL)


def flush_standard_streams() -> None:
    """Before `os._exit`, which would lose what they have buffered."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # the process ends here and has said what matters
            pass


def _write_out_body(walk: Walk) -> None:
    """What the body has in files of its own. Of preserved ones the launcher has the buffers too."""
    from ..system.owners import write_out  # loaded with steps that close, and with targets

    write_out(open_numbers() - preserved(walk))
