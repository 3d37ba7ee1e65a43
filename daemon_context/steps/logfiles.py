"""Standard streams that go to paths: log files, which belong to the daemon's user."""

from __future__ import annotations

import errno
import os
import sys

from ..errors import REMEDIES, DaemonOSEnvironmentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..options.frozen import Options, Target
    from ..sequence import Walk

LOG_MODE = 0o640


def require_openable(target: Target) -> None:
    """Preflight: the directory, or the file if there is one, without opening it."""
    reading = target.option == "stdin"
    exists = os.path.lexists(target.path)
    if not exists and reading:
        raise cannot_open(target, FileNotFoundError(2, os.strerror(2)))
    place = target.path if exists else os.path.dirname(target.path)
    mode = os.R_OK if reading else os.W_OK
    if os.path.isdir(target.path):
        raise cannot_open(target, IsADirectoryError(21, os.strerror(21)))
    try:
        os.lstat(place)
    except OSError as error:
        raise cannot_open(target, error) from error
    if not os.access(place, mode, effective_ids=os.access in os.supports_effective_ids):
        number = errno.EROFS if not reading and _is_read_only(place) else errno.EACCES
        raise cannot_open(target, OSError(number, os.strerror(number)))


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def cannot_open(target: Target, error: OSError) -> DaemonOSEnvironmentError:
    """The error that says which stream, which path, and what would fit."""
    return DaemonOSEnvironmentError(
        f"cannot open {target.path!r} as {target.option}: {error.strerror}; "
        f"{_remedy(target.option, error.errno)}",
        errno=error.errno,
        path=target.path,
    )


def _remedy(option: str, number: int | None) -> str:
    if number in REMEDIES:
        return REMEDIES[number]
    fit = "path in a directory where the launching user may write"
    if number == errno.EROFS:
        fit = "path on a file system that can be written"
    if option == "stdin":
        fit = "file that the launching user may read"
    return f"set {option} to a {fit}, or to None for /dev/null"


def open_path(path: str, number: int, walk: Walk, created: list[str]) -> int:
    """Open for the stream of that number; output is appended."""
    fd = _create(path, walk, created) if number else None
    if fd is None:
        fd = walk.acquire(os.open(path, _flags(number)))
    os.set_blocking(fd, True)
    return fd


def _flags(number: int) -> int:
    # Non-blocking, because opening a FIFO would wait for its other end; no terminal may become
    # ours; and the privileged follow no symlink that somebody may have put there.
    flags = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if os.geteuid() == 0:
        flags |= os.O_NOFOLLOW
    return flags | (os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY)


def _new(path: str) -> int | None:
    """A new log file; None: it is there already."""
    try:
        return os.open(path, _flags(1) | os.O_CREAT | os.O_EXCL, LOG_MODE)
    except FileExistsError:
        return None


def _create(path: str, walk: Walk, created: list[str]) -> int | None:
    """A new log file belongs to the daemon's user, who rotates it. None: it is there already."""
    fd = _new(path)
    if fd is None:
        return None
    created.append(path)
    fd = walk.acquire(fd)  # at once: what fails from now on must not leave it open
    os.fchmod(fd, LOG_MODE)  # whatever the umask
    if walk.options.owner_changes:
        os.fchown(fd, walk.options.uid, walk.options.gid)
    return fd


def remove_empty(created: list[str]) -> None:
    """Remove what a start has created that failed before anything was written to it."""
    for path in created:
        try:
            if os.stat(path).st_size == 0:
                os.unlink(path)
        except OSError:
            pass


def reopen(options: Options) -> None:
    """Open the paths of standard output and error anew: the files there were rotated. In the
    daemon, as its user.

    :raises DaemonOSEnvironmentError: that can't be done for one, which stays as it is
    """
    failure: DaemonOSEnvironmentError | None = None
    for number, target in enumerate(options.streams):
        if number and target.kind == "path" and target.path != os.devnull:
            try:
                _reopen(number, target, _from_here(options.chroot_directory, target.path))
            except OSError as error:
                failure = failure or _cannot_reopen(target, error)
    if failure is not None:
        raise failure


def _reopen(number: int, target: Target, path: str) -> None:
    if _is_at(number, path):
        return  # whoever rotates may have copied and truncated it; or it is not its turn
    fd = _new(path)
    if fd is None:
        fd = os.open(path, _flags(number))
    else:
        os.fchmod(fd, LOG_MODE)
    os.set_blocking(fd, True)
    try:
        getattr(sys, target.option).flush()  # it belongs to the old file
    except Exception:  # that is full: it goes to the new one. Or a signal came amid a print()
        pass
    os.dup2(fd, number, inheritable=True)
    if fd != number:
        os.close(fd)


def _is_at(number: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


def _from_here(root: str | None, path: str) -> str:
    """The path as it is in the new root."""
    if root is None:
        return path
    prefix = root.rstrip("/") + "/"
    if path.startswith(prefix):
        return path[len(prefix) - 1 :]
    raise FileNotFoundError(errno.ENOENT, f"it is outside the new root {root!r}")


def _cannot_reopen(target: Target, error: OSError) -> DaemonOSEnvironmentError:
    return DaemonOSEnvironmentError(
        f"cannot reopen {target.path!r} as {target.option}: {error.strerror}; its output goes on "
        "into the old file: let the daemon's user write there (logrotate: create 0640 USER), or "
        "have the file copied and truncated (copytruncate)",
        errno=error.errno,
        path=target.path,
    )
