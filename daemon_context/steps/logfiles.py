"""Standard streams that go to paths: log files, which belong to the daemon's user."""

from __future__ import annotations

import os

from ..errors import DaemonOSEnvironmentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..options.frozen import Target
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
        raise cannot_open(target, PermissionError(13, os.strerror(13)))


def cannot_open(target: Target, error: OSError) -> DaemonOSEnvironmentError:
    """The error that says which stream, which path, and what would fit."""
    fit = "file that the launching user may read"
    if target.option != "stdin":
        fit = "path in a directory where the launching user may write"
    return DaemonOSEnvironmentError(
        f"cannot open {target.path!r} as {target.option}: {error.strerror}; "
        f"set {target.option} to a {fit}, or to None for /dev/null",
        errno=error.errno,
        path=target.path,
    )


def open_path(path: str, number: int, walk: Walk, created: list[str]) -> int:
    """Open for the stream of that number; output is appended."""
    # Non-blocking, because opening a FIFO would wait for its other end; no terminal may become
    # ours; and the privileged follow no symlink that somebody may have put there.
    flags = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if os.geteuid() == 0:
        flags |= os.O_NOFOLLOW
    flags |= os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND
    fd = _create(path, flags, walk, created) if number else None
    if fd is None:
        fd = walk.acquire(os.open(path, flags))
    os.set_blocking(fd, True)
    return fd


def _create(path: str, flags: int, walk: Walk, created: list[str]) -> int | None:
    """A new log file belongs to the daemon's user, who rotates it. None: it is there already."""
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, LOG_MODE)
    except FileExistsError:
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
