"""The two files by their paths: opened, made or cleared away, whatever lies there; and the wait."""

from __future__ import annotations

import errno
import os
from time import monotonic, sleep

from ..system import open_pidfd, poll
from ..system.descriptors import is_still, lifted
from .fitness import require_fit, require_fit_place
from .holder import SUFFIX, Holder, foreign, holder_of, older, unlocked
from .locks import OPEN_FLAGS, open_for_reading, pid_in, read_with, share

LOCK_MODE = 0o600  # who may open it could lock it
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS
RETRY = 0.01  # seconds, where there is no process to wait for
REPLACED = "somebody removed or replaced it during the start"


def created(path: str, file: str, daemon_uid: int) -> int | None:
    """A new file, whose number may be one of the standard streams'; None where there is one.

    :param path: the pid file
    :param file: the same, or the lock file beside it
    """
    try:
        return os.open(file, CREATE, LOCK_MODE)
    except FileExistsError:
        return None
    except OSError:
        require_fit_place(path, file, daemon_uid)  # has better words
        raise


def open_lock(path: str, daemon_uid: int) -> int | None:
    """Open or create; None if the file came or went in between, so try again."""
    file = path + SUFFIX
    fd = created(path, file, daemon_uid)
    if fd is not None:
        return lifted(fd)
    require_fit_place(path, file, daemon_uid)
    try:
        fd = lifted(os.open(file, os.O_RDWR | OPEN_FLAGS))
    except FileNotFoundError:
        return None
    except OSError:
        require_fit_place(path, file, daemon_uid)  # somebody has just changed what is there
        raise
    return fd if _is_fit(fd, path, daemon_uid) else None


def _is_fit(fd: int, path: str, daemon_uid: int) -> bool:
    """Whether it still has a name; closed if not.

    :raises PidFileError: it is no fit file
    """
    found = os.fstat(fd)
    try:
        if found.st_nlink:
            require_fit(path, path + SUFFIX, found, daemon_uid)
    except BaseException:
        os.close(fd)
        raise
    if not found.st_nlink:
        os.close(fd)
    return bool(found.st_nlink)


def in_the_way(path: str, fd: int) -> Holder:
    """Who has the lock of the lock file, which we could not take."""
    found = os.fstat(fd)
    if not is_named(path + SUFFIX, found):
        return Holder("free")  # at the end of its daemon
    holder = holder_of(path, fd)
    if holder.pid == os.getpid() and holder.proven:
        return Holder("here", holder.pid)
    # The daemon's user may hold a file of his own for ever; a start of his finds it replaced.
    if found.st_uid not in (0, os.geteuid()) and holder.state != "running":
        cleared_away(path + SUFFIX, found)
        return Holder("free")
    return holder


def judged(path: str, fd: int, found: os.stat_result) -> Holder | None:
    """None: a start may go on with the lock file, whose lock it has; free: not with this one;
    unlocked: only where it is not proven.
    """
    if not is_named(path + SUFFIX, found):
        return Holder("free")  # unlinked between open and lock
    if found.st_uid != os.geteuid():  # a dead daemon's, whose user could forge a record
        cleared_away(path + SUFFIX, found)
        return Holder("free")
    if found.st_mode & 0o777 != LOCK_MODE:
        os.fchmod(fd, LOCK_MODE)
    return unlocked(path, fd) if found.st_size else None


def clear(path: str, daemon_uid: int) -> Holder:
    """Remove the pid file of a dead daemon, and say whom it named; or who holds it, if anybody."""
    require_fit_place(path, path, daemon_uid)
    return read_with(lambda fd: _cleared(fd, path, daemon_uid), path) or Holder("free")


def _cleared(fd: int, path: str, daemon_uid: int) -> Holder:
    # Held until it is gone: a daemon of another library that comes now, refuses.
    shared = share(fd)
    holder = older(fd)
    if not (shared or holder):
        holder = foreign(fd, {0, os.geteuid(), os.getuid(), daemon_uid})
    if holder is None:
        holder = Holder("free", pid_in(fd))
        cleared_away(path, os.fstat(fd))
    return holder


def cleared_away(path: str, found: os.stat_result) -> None:
    """Remove the name, if it is that of the file, in the directory where it is seen to be: who may
    write above that could put a link in its place by now, to the directory of another daemon.
    """
    above, name = os.path.split(path)
    directory = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.lstat(name, dir_fd=directory), found):
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    finally:
        os.close(directory)


def reopened(path: str, found: os.stat_result) -> int:
    """The same file, opened for reading only. By the path, as ``/proc`` may be out of reach.

    :raises OSError: it is another one by now
    """
    fd = open_for_reading(path)
    if fd is None:
        raise OSError(errno.ESTALE, REPLACED)
    fd = lifted(fd)
    if not is_still(fd, found):
        os.close(fd)
        raise OSError(errno.ESTALE, REPLACED)
    return fd


def is_named(path: str, found: os.stat_result) -> bool:
    """Whether the file is still in its directory, as far as we may see."""
    try:
        return os.path.samestat(os.lstat(path), found)
    except (FileNotFoundError, NotADirectoryError):
        return False


def removed(path: str, found: os.stat_result) -> bool:
    """Remove the name, if it is that of the file, and that is permitted."""
    for _ in range(2):  # a network file system refuses a look now and then
        try:
            if os.path.samestat(os.lstat(path), found):
                os.unlink(path)
                return True
        except OSError:  # gone; or not permitted any more, or another file's name in a chroot
            continue
        break
    return False


def write(fd: int, data: bytes) -> None:
    """Replace the content, which may be of another length.

    :raises OSError: there is no room
    """
    if os.pwrite(fd, data, 0) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, len(data))


def wait_for(path: str, holder: Holder, deadline: float, wait: float) -> None:
    """The holder to let go, for a while.

    :raises AlreadyRunning: there is no time to wait; LockTimeout: it is over
    """
    left = deadline - monotonic()
    if not wait or left <= 0:
        from .refusals import refused

        raise refused(path, holder, wait)
    wait_a_while(holder.pid if holder.proven and holder.pid != os.getpid() else None, left)


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
