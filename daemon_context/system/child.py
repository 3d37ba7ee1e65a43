"""A process that is watched, and ended, without ever meaning another one.

A number is another process's as soon as its own is reaped, and a program may be stopped for any
time between two of its calls. So a process is known by its pidfd, and that by an identity which the
process itself has told together with its number, or by whether it is a child of ours.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import DaemonError
from . import (
    KILL_TIMEOUT,
    open_pidfd,
    reap,
    send_signal,
    signal,
    start_time,
    wait_ended,
    waitid,
)
from .descriptors import close_quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDED = getattr(os, "WEXITED", 0)
LOOK = ENDED | getattr(os, "WNOHANG", 0) | getattr(os, "WNOWAIT", 0)


def identity(pid: int, pidfd: int | None, like: str = "") -> str:
    """What no other process ever has: the pidfd's inode, which pidfs numbers (Linux 6.9); else the
    number's start time, in ticks since boot. '' where neither can be told.

    :param like: the one to compare with, which may be a start time where no pidfd could be had
    """
    inode = 0 if pidfd is None or like.startswith("started") else _inode(pidfd)
    if inode:
        return f"pidfs {inode}"
    ticks = start_time(pid)
    return f"started {ticks}" if ticks else ""


def _inode(pidfd: int) -> int:
    # Before pidfs, where the mode has this bit, all pidfds had one inode in common, of mode 0600.
    found = os.fstat(pidfd)
    return found.st_ino if found.st_mode & stat.S_IXUSR else 0


def identity_of(pid: int) -> str:
    """The identity of the process that has the number now; '' if there is none."""
    try:
        pidfd = open_pidfd(pid)
    except ProcessLookupError:
        return ""
    try:
        return identity(pid, pidfd)
    finally:
        if pidfd is not None:
            close_quietly(pidfd)


def is_process(pid: int, pidfd: int, known: str) -> bool:
    """Whether the process of the pidfd is the one of that identity.

    :raises DaemonError: it can't be told
    """
    found = identity(pid, pidfd, known)
    if found and known:
        return found == known
    raise DaemonError(
        f"the process with pid {pid} can't be proven to be the daemon, as there is no /proc here "
        "and Linux numbers processes for good only since 6.9: mount /proc",
        pid=pid,
    )


class Child:
    """A process that is watched through a pidfd, where the kernel has them.

    :param known: its identity, as it has told; None: we are its parent, and the ones to reap it
    """

    def __init__(self, pid: int, known: str | None = None) -> None:
        self.pid = pid
        self.known = known
        self.status: int | None = None
        self.gone = False
        self.pidfd: int | None = None
        try:
            self.pidfd = open_pidfd(pid)
        except ProcessLookupError:
            self.gone = True  # not ours, or SIGCHLD is ignored: it is reaped
        try:
            meant = self.pidfd is None or self._is_meant()
        except BaseException:
            self.close()
            raise
        if not meant:
            self.close()
            self.gone = True  # and the number is another's

    def _is_meant(self) -> bool:
        if self.known is not None:
            return self.known != "" and self.known == identity(self.pid, self.pidfd, self.known)
        try:
            self._wait(LOOK)
        except ChildProcessError:
            return self._is_numbered()
        return True

    def _is_numbered(self) -> bool:
        """Ask by the number, too, before a child is given up: a filter may have answered."""
        try:
            os.waitid(os.P_PID, self.pid, LOOK)
        except ChildProcessError:
            return False
        return True

    @property
    def fds(self) -> set[int]:
        return set() if self.pidfd is None else {self.pidfd}

    def ended(self) -> bool:
        """Whether it has ended. It stays unreaped, so that its number can't be used again."""
        if not self.wait(0):
            return False
        if self.status is None:
            self.status = self._peek()
        return True

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False when the time is over first."""
        return self.gone or wait_ended(self.pid, self.pidfd, seconds)

    def wait_or_kill(self, seconds: float) -> None:
        """Wait for the end, then force it; reap it in both cases."""
        if not self.wait(seconds):
            self.kill()
        if self.ended() and self.known is None and not self.gone:
            self._reap()

    def end(self, grace: float) -> None:
        """SIGTERM, and after the grace SIGKILL."""
        if self.gone:
            return
        send_signal(self.pid, self.pidfd, signal.SIGTERM)
        self.wait_or_kill(grace)

    def kill(self) -> None:
        """SIGKILL, and wait until it has worked."""
        if self.gone:
            return
        send_signal(self.pid, self.pidfd, signal.SIGKILL)
        self.wait(KILL_TIMEOUT)

    def kill_group(self) -> None:
        """SIGKILL to the process group that it led; only while its number is surely its own."""
        if self._peek() is None:
            return  # somebody else has reaped it
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def _peek(self) -> int | None:
        """The wait status of our child that has ended, which stays unreaped; None: nobody knows."""
        if self.gone or self.known is not None:
            return None
        try:
            info = self._wait(LOOK)
        except ChildProcessError:  # SIGCHLD is ignored, or a handler of the program waits for all
            return None
        if info is None:
            return None
        status = int(info.si_status)
        return status << 8 if info.si_code == os.CLD_EXITED else status & 0x7F

    def _wait(self, flags: int) -> Any:
        """waitid(2) for this one: a wait for any child, or for a number that is another's by now,
        takes statuses from the program's own ``subprocess``. None: it still runs.
        """
        if waitid is None:  # macOS before CPython 3.13
            return None
        if self.pidfd is not None:
            try:
                return waitid(os.P_PIDFD, self.pidfd, flags)
            except OSError as error:
                if error.errno != errno.EINVAL:  # Linux before 5.4
                    raise
        return waitid(os.P_PID, self.pid, flags)

    def _reap(self) -> None:
        try:
            reap(self.pid) if waitid is None else self._wait(ENDED)
        except ChildProcessError:
            pass

    def close(self) -> None:
        if self.pidfd is not None:
            close_quietly(self.pidfd)
            self.pidfd = None
