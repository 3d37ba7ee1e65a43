"""Locks on a pid file, as the kernel knows them; fcntl(2), and why these and no others.

* Exclusion: an open-file-description lock on byte 0, taken in the launcher and inherited by the
  daemon (``F_OFD_SETLK``). Not ``flock``: it can't be queried, and probing it refuses starts that
  are under way. Not a record lock: a fork does not inherit it. Until stale content is emptied it
  covers byte 1 as well, so that nobody takes such content for the new holder's.
* Owner: a record lock on byte 1, taken by the daemon itself, so that ``F_GETLK`` tells anyone who
  may read the file the live daemon's pid, from the kernel. Locked without an owner: *starting*.
  Only a write lock counts, and only of a process that has the exclusion lock as well, which is
  let go of last: anybody who may open the file can lock a byte of it, and is no daemon.
* Session: another one of the owner, on byte 2, where a start has made its session and group.

A record lock vanishes when its process closes *any* descriptor of the file, so the owner never
opens its pid file a second time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from time import sleep

from ..system import open_pidfd, poll

EXCLUSION, OWNER, SESSION = 0, 1, 2  # bytes of the file; a lock may lie behind its end
FLOCK_SIZE = 32  # struct flock on 64-bit Linux; its fields: see `_flock` and `_conflict`
OPEN_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
CONTENT_LARGEST = 32
RETRY = 0.01  # seconds, where there is no process to wait for
LOOKS = 5  # for a process that holds the lock and can't be seen


TYPE_CHECKING = False
if TYPE_CHECKING:
    Lock = tuple[int, int]


class Holder:
    """Who holds a pid file's lock.

    ``state`` is ``free``, ``running``, ``starting``, ``reader``, ``orphan``, ``hidden`` or
    ``here``; ``pid`` is None where the kernel does not tell, and ``named`` the one in the file.
    """

    def __init__(self, state: str, pid: int | None = None, named: int | None = None) -> None:
        self.state, self.pid, self.named = state, pid, named

    def __str__(self) -> str:
        named = f"with pid {self.pid}" if self.pid else "in another pid namespace"
        reader = f"a reader (pid {self.pid})" if self.pid else "a reader"
        unseen = f"a process that can't be seen (the file says: pid {self.named})"
        return {
            "free": "nobody holds its lock",
            "running": f"the daemon is already running {named}",
            "starting": "the daemon is being started by another process",
            "reader": f"its lock is held by {reader}, not a daemon",
            "orphan": f"the daemon is dead, but its child (pid {self.pid}) still holds its lock",
            "hidden": f"its lock is held by {unseen}",
            "here": "this process holds its lock already",
        }[self.state]

    @property
    def remedy(self) -> str:
        """What to do about it."""
        other = "or give this one a pid file of its own"
        return {
            "free": "try again",
            "running": f"stop that one first, {other}"
            if self.pid
            else f"stop it there, for example in its container, {other}",
            "starting": "try again when it is ready, or give the pid file a timeout to wait",
            "reader": "end that process, or give the pid file a timeout to wait",
            "orphan": "end that process",
            "hidden": "ask again as root, or as the daemon's user",
            "here": f"release it first, {other}",
        }[self.state]


def require_support() -> None:
    """Say what is missing elsewhere than on Linux, before anything is created."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        from ..errors import DaemonError

        raise DaemonError(
            "this operating system has no open-file-description locks, which pid files need; "
            "give a pid file object of another library, or none"
        )


def _flock(kind: int, start: int, length: int = 1) -> bytes:
    # By views: the import of `struct` would cost more than all that a start does with a lock.
    lock = memoryview(bytearray(FLOCK_SIZE))
    lock.cast("h")[0] = kind  # l_type; l_whence, behind it, stays 0: SEEK_SET
    lock.cast("q")[1] = start
    lock.cast("q")[2] = length
    return lock.tobytes()


LOCK_BOTH = _flock(fcntl.F_WRLCK, EXCLUSION, 2)
UNLOCK_OWNER = _flock(fcntl.F_UNLCK, OWNER)
UNLOCK_BOTH = _flock(fcntl.F_UNLCK, EXCLUSION, 2)


def try_lock(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, LOCK_BOTH)
    except BlockingIOError:
        return False
    except PermissionError:  # fcntl(2): EACCES or EAGAIN
        return False
    return True


def give_way_to_owner(fd: int) -> None:
    """The content is emptied: from now on no owner and a pid in it means a dead daemon."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, UNLOCK_OWNER)


def unlock(fd: int) -> None:
    """For every copy of the descriptor, also one that a native fork's child has."""
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, OWNER)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, UNLOCK_BOTH)


def claim_session(fd: int) -> None:
    """For whoever stops the daemon by force: what is left of its group is nobody else's."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, SESSION)
    except OSError:  # a stranger has locked the byte: then it can't be told
        pass


def has_session(fd: int, pid: int) -> bool:
    """Whether a start made the owner's session."""
    return _conflict(fd, fcntl.F_GETLK, SESSION) == (fcntl.F_WRLCK, pid)


def _conflict(fd: int, command: int, start: int) -> Lock | None:
    """Type and pid of the lock that another process holds on the byte; -1: of a description."""
    answer = fcntl.fcntl(fd, command, _flock(fcntl.F_WRLCK, start))
    kind, pid = memoryview(answer).cast("h")[0], memoryview(answer).cast("i")[6]
    return None if kind == fcntl.F_UNLCK else (kind, pid)


def holder_of(fd: int) -> Holder:
    require_support()
    exclusion, owner = locks = _locks(fd)
    for lock in locks:
        if lock is None or (lock[0] == fcntl.F_WRLCK and not _is_strangers(fd, lock[1])):
            continue
        if locks != _locks(fd):  # it was let go while we looked
            return holder_of(fd)
        return Holder("reader", lock[1] if lock[1] > 0 else None)
    if owner is None:
        return _holder_without_owner(fd) if exclusion else Holder("free")
    # -1: an open-file-description lock, so the content is not emptied yet
    return Holder("running", owner[1] or None) if owner[1] >= 0 else Holder("starting")


def _locks(fd: int) -> tuple[Lock | None, Lock | None]:
    """The exclusion lock and the owner's, if others hold them."""
    exclusion = _conflict(fd, fcntl.F_OFD_GETLK, EXCLUSION)
    return exclusion, _conflict(fd, fcntl.F_GETLK, OWNER)


def _is_strangers(fd: int, pid: int) -> bool:
    """Whether a record lock is of a process that has no exclusion lock, as far as we may see."""
    if pid <= 0:  # no record lock, or of another pid namespace
        return False
    found, directory = os.fstat(fd), f"/proc/{pid}/fd"
    if any(_has(pid, number, found) for number in _listed(directory)):
        return False
    return bool(_listed(directory))  # none at all: it is not ours to see, or it ends right now


def _holder_without_owner(fd: int) -> Holder:
    """Starting; or the daemon lost its record lock by closing a descriptor of the file; or it is
    dead, and a child that native code forked has inherited the exclusion lock.
    """
    named = pid_in(fd)
    if named is None:
        return Holder("starting")
    for _ in range(LOOKS):
        holders = _processes_with(os.fstat(fd))
        if named in holders:
            return Holder("running", named)
        exclusion, owner = _locks(fd)
        if exclusion is None or owner is not None or pid_in(fd) != named:
            return holder_of(fd)  # it was let go while we looked, and may be another's
        if holders:
            return Holder("orphan", min(holders))
        sleep(RETRY)  # a process that is ending loses its descriptors before its locks
    return Holder("hidden", named=named)


def _processes_with(found: os.stat_result) -> set[int]:
    """Processes, other than this one, whose descriptors include the file, as far as we may see."""
    me = str(os.getpid())
    return {
        int(pid)
        for pid in _listed("/proc")
        if pid.isdigit()
        and pid != me
        and any(_has(pid, fd, found) for fd in _listed(f"/proc/{pid}/fd"))
    }


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:  # ended meanwhile, or not ours to see
        return []


def _has(pid: str | int, fd: str, found: os.stat_result) -> bool:
    """Whether the descriptor is one of the file, and holds its exclusion lock."""
    try:
        if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), found):
            return False
        with open(f"/proc/{pid}/fdinfo/{fd}") as file:
            return any("OFDLCK" in line and "WRITE" in line for line in file)
    except OSError:
        return False


def pid_in(fd: int) -> int | None:
    # FHS: tolerate whitespace, leading zeroes, a missing newline and further lines.
    text = os.pread(fd, CONTENT_LARGEST, 0).partition(b"\n")[0].strip()
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else None


def open_for_reading(path: str) -> int | None:
    """None where there is no file that could be locked.

    :raises OSError: nobody can tell
    """
    try:
        fd = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symlink, a socket: never locked by us
            return None
        raise
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
