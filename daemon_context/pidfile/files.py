"""The two files by their paths: opened, made or cleared away, whatever lies there; and the wait."""

from __future__ import annotations

import errno
import os
from time import sleep

from ..system import open_pidfd, poll
from ..system.descriptors import lifted
from .fitness import require_fit, require_fit_place
from .holder import SUFFIX, Holder, foreign, older
from .locks import OPEN_FLAGS, read_with, share

LOCK_MODE = 0o600  # who may open it could lock it
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS
RETRY = 0.01  # seconds, where there is no process to wait for


def open_lock(path: str, daemon_uid: int) -> int | None:
    """Open or create; None if the file came or went in between, so try again."""
    file = path + SUFFIX
    try:
        return lifted(os.open(file, CREATE, LOCK_MODE))
    except FileExistsError:
        pass
    except OSError:
        require_fit_place(path, file, daemon_uid)  # has better words
        raise
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


def clear(path: str, daemon_uid: int) -> Holder | None:
    """Remove the pid file of a dead daemon; or who holds it, if anybody does."""
    require_fit_place(path, path, daemon_uid)
    return read_with(lambda fd: _cleared(fd, path, daemon_uid), path)


def _cleared(fd: int, path: str, daemon_uid: int) -> Holder | None:
    # Held until it is gone: a daemon of another library that comes now, refuses.
    shared = share(fd)
    holder = older(fd)
    if not (shared or holder):
        holder = foreign(fd, {0, os.geteuid(), os.getuid(), daemon_uid})
    if holder is None:
        os.unlink(path)
    return holder


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
