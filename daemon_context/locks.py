"""Locks on a pid file, as the kernel knows them; fcntl(2), and why these and no others.

* Exclusion: an open-file-description lock on byte 0, taken in the launcher and inherited by the
  daemon (``F_OFD_SETLK``). Not ``flock``: it can't be queried, and probing it refuses starts that
  are under way. Not a record lock: a fork does not inherit it.
* Owner: a record lock on byte 1, taken by the daemon itself, so that ``F_GETLK`` tells anyone who
  may read the file the live daemon's pid, from the kernel. Locked without an owner: *starting*.

A record lock vanishes when its process closes *any* descriptor of the file, so the owner never
opens its pid file a second time.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from time import sleep

from .process import open_pidfd, poll

EXCLUSION, OWNER = 0, 1
FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid
OPEN_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
CONTENT_LARGEST = 32
RETRY = 0.01  # seconds, where there is no process to wait for


class Holder:
    """Who holds a pid file's lock.

    ``state`` is ``free``, ``running``, ``starting``, ``reader`` or ``orphan``; ``pid`` is None
    where the kernel does not tell.
    """

    def __init__(self, state: str, pid: int | None) -> None:
        self.state, self.pid = state, pid

    def __str__(self) -> str:
        named = f"with pid {self.pid}" if self.pid else "in another pid namespace"
        reader = f"a reader (pid {self.pid})" if self.pid else "a reader"
        return {
            "free": "nobody holds the lock",
            "running": f"the daemon is already running {named}",
            "starting": "the daemon is being started by another process",
            "reader": f"its lock is held by {reader}, not a daemon",
            "orphan": f"the daemon is dead, but its child (pid {self.pid}) still holds its lock",
        }[self.state]


def try_lock(fd: int) -> bool:
    if not hasattr(fcntl, "F_OFD_SETLK"):
        from .errors import DaemonError

        raise DaemonError(
            "this operating system has no open-file-description locks, which pid files need; "
            "give a pid file object of another library, or none"
        )
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, EXCLUSION))
    except BlockingIOError:
        return False
    except PermissionError:  # fcntl(2): EACCES or EAGAIN
        return False
    return True


def _flock(kind: int, start: int) -> bytes:
    return struct.pack(FLOCK, kind, os.SEEK_SET, start, 1, 0)


def _conflict(fd: int, command: int, start: int) -> tuple[int, int] | None:
    """Type and pid of the lock that another process holds on the byte."""
    answer = fcntl.fcntl(fd, command, _flock(fcntl.F_WRLCK, start))
    kind, _, _, _, pid = struct.unpack(FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else (kind, pid)


def holder_of(fd: int) -> Holder:
    exclusion = _conflict(fd, fcntl.F_OFD_GETLK, EXCLUSION)
    if exclusion is None:
        return Holder("free", None)
    kind, pid = exclusion
    if kind == fcntl.F_RDLCK:
        return Holder("reader", pid if pid > 0 else None)
    owner = _conflict(fd, fcntl.F_GETLK, OWNER)
    if owner is not None:
        return Holder("running", owner[1] or None)
    return _holder_without_owner(fd)


def _holder_without_owner(fd: int) -> Holder:
    """Starting; or the daemon lost its record lock by closing a descriptor of the file; or it is
    dead, and a child that native code forked has inherited the exclusion lock.
    """
    named = pid_in(fd)
    if named is None:
        return Holder("starting", None)
    holders = _processes_with(os.fstat(fd))
    if named in holders:
        return Holder("running", named)
    return Holder("orphan", min(holders)) if holders else Holder("starting", None)


def _processes_with(found: os.stat_result) -> set[int]:
    """Processes, other than this one, whose descriptors include the file, as far as we may see."""
    holders = set()
    for pid in (
        name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
    ):
        try:
            for fd in os.scandir(f"/proc/{pid}/fd"):
                if os.path.samestat(fd.stat(), found) and _is_locking(pid, fd.name):
                    holders.add(int(pid))
        except OSError:
            continue
    return holders


def _is_locking(pid: str, fd: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{fd}") as file:
        return "OFDLCK" in file.read()


def pid_in(fd: int) -> int | None:
    text = os.pread(fd, CONTENT_LARGEST, 0).strip()
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else None


def open_for_reading(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def wait_a_while(pid: int | None, seconds: float) -> None:
    """Until the process ends, where there is one to wait for."""
    try:
        pidfd = open_pidfd(pid) if pid else None
    except ProcessLookupError:
        pidfd = None
    if pidfd is None:
        sleep(min(RETRY, seconds))
        return
    try:
        # It may also let go without ending, so look again now and then.
        poll({pidfd}, min(seconds, 0.25))
    finally:
        os.close(pidfd)


def lifted(fd: int) -> int:
    """Numbers below 3 belong to the standard streams, also where those are closed."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
