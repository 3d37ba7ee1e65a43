"""Locks, as the kernel knows them: fcntl(2), flock(2), proc_locks(5).

* ``X.pid.lock`` has an open-file-description lock (``F_OFD_SETLK``): a write lock while a start is
  under way, a read lock while the daemon lives. Not a record lock: a fork does not inherit it, any
  close of the file drops it, and ``F_GETLK`` names a number that may be another's by now. Not
  ``flock`` alone: that needs no more than the right to read.
* ``X.pid`` has a shared ``flock``, for the libraries that take an exclusive one on it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from ..system import SignalsHeld, of_proc, stat_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

OPEN_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
FLOCK_SIZE = 32  # struct flock on 64-bit Linux
STARTING, ALIVE, FREE = fcntl.F_WRLCK, fcntl.F_RDLCK, fcntl.F_UNLCK
CONTENT_LARGEST = 32
# The kernel makes its list of locks page by page. Between two pages others take and drop theirs,
# and one that is held all the time may be missed; by chance, so not in each reading. Bytes; times.
PAGE, LINE, READINGS = 4096, 128, 5


def require_support() -> None:
    """Say what is missing elsewhere than on Linux, before anything is created."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        from ..errors import DaemonError

        raise DaemonError(
            "this operating system has no open-file-description locks, which pid files need; "
            "give a pid file object of another library, or none"
        )


def _flock(kind: int) -> bytes:
    # By a view: the import of `struct` would cost more than all that a start does with a lock.
    lock = memoryview(bytearray(FLOCK_SIZE))
    lock.cast("h")[0] = kind  # l_type; l_whence, l_start, l_len stay 0: the whole file
    return lock.tobytes()


_FLOCKS = {kind: _flock(kind) for kind in (STARTING, ALIVE, FREE)}


def lock(fd: int, kind: int) -> None:
    """Take, change or drop the lock of the open file description, for every copy of it.

    :raises BlockingIOError: another one is in the way
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCKS[kind])
    except PermissionError as error:  # fcntl(2): EACCES or EAGAIN
        raise BlockingIOError(errno.EAGAIN, error.strerror) from None


def try_lock(fd: int) -> bool:
    """Take the lock of a start."""
    try:
        lock(fd, STARTING)
    except BlockingIOError:
        return False
    return True


def locked(fd: int, wanted: int = STARTING) -> int:
    """The kind of lock, `FREE` if none, by which others keep us from the wanted kind."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCKS[wanted])
    return memoryview(answer).cast("h")[0]


def share(fd: int) -> bool:
    """Take the shared ``flock``; False where somebody has the exclusive one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unshare(fd: int) -> None:
    """Drop it, for every copy of the descriptor."""
    fcntl.flock(fd, fcntl.LOCK_UN)


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
    fit = False
    try:
        fit = stat.S_ISREG(os.fstat(fd).st_mode)
    finally:
        if not fit:
            os.close(fd)
    return fd if fit else None


def read_with(use: Callable[[int], T], path: str) -> T | None:
    """What `use` makes of the file's descriptor; None where there is no file that could be locked.

    :raises OSError: nobody can tell
    """
    with SignalsHeld():
        fd = open_for_reading(path)
        if fd is None:
            return None
        try:
            return use(fd)
        finally:
            os.close(fd)


def pid_in(fd: int) -> int | None:
    """The pid that the file names."""
    # FHS: tolerate whitespace, leading zeroes, a missing newline and further lines.
    text = os.pread(fd, CONTENT_LARGEST, 0).partition(b"\n")[0].strip()
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else None


def shown(found: os.stat_result) -> set[tuple[str, str, int]]:
    """The locks on a file that the kernel shows to anyone: type, mode, and the pid that took it.

    :raises OSError: ``/proc`` is out of reach
    """
    locks: set[tuple[str, str, int]] = set()
    for _ in range(READINGS):
        with open("/proc/locks") as file:
            text = file.read()
        locks.update(_of_file(text.splitlines(), found))
        if len(text) < PAGE - LINE:  # no second page was begun
            break
    return locks


def _of_file(lines: list[str], found: os.stat_result) -> Iterator[tuple[str, str, int]]:
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:
        words = line.split()
        if wanted in words and "->" not in words:  # an arrow: one that waits
            at = words.index(wanted)
            yield words[at - 4], words[at - 2], int(words[at - 1])


def _holds(pid: int, type_: str, found: os.stat_result) -> bool | None:
    """Whether a process has such a lock, by the kernel's own list, which asks no file system.

    None: that is not for us to see.
    """
    try:
        for number in os.listdir(f"/proc/{pid}/fdinfo"):
            lines = (of_proc(f"{pid}/fdinfo/{number}") or "").splitlines()
            if any(kind == type_ for kind, _, _ in _of_file(lines, found)):
                return True
    except OSError:
        return None
    return False


def who_holds(found: os.stat_result) -> int | None:
    """A process that keeps the lock of a dead daemon: for a message, nothing more."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return None
    me = os.getpid()
    return next((pid for pid in pids if pid != me and _holds(pid, "OFDLCK", found)), None)


def daemon_of_another_library(fd: int, users: set[int]) -> int | None:
    """Whose exclusive ``flock`` is on the pid file: daemonize, pep3143daemon and pid take one.

    Anybody may take one on a file that he may read: only processes of these users count. Taken
    before a fork it goes by the number of a process that has ended; the file names the daemon.
    """
    found = os.fstat(fd)
    try:
        pids = [pid for type_, mode, pid in shown(found) if (type_, mode) == ("FLOCK", "WRITE")]
    except OSError:
        return None
    for pid in (*pids, pid_in(fd) if pids else None):
        if pid and real_uid(pid) in users and _holds(pid, "FLOCK", found) is not False:
            return pid
    return None


def real_uid(pid: int) -> int | None:
    """The real user of a live process."""
    fields = stat_fields(pid)
    if fields is None or fields[0] in "ZX":
        return None
    _, found, rest = (of_proc(f"{pid}/status") or "").partition("\nUid:")
    return int(rest.split(None, 1)[0]) if found else None
