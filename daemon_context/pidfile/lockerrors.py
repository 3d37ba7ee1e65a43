"""The errors of pid files, which are also ``lockfile``'s, for callers who catch those.

Importing ``lockfile`` costs more than this whole package: so this module is imported only when
somebody names one of its classes, or raises one where ``lockfile`` is imported already.
"""

from __future__ import annotations

import lockfile

from .refusals import KINDS, AlreadyRunning, LockTimeout, NotLocked, NotMyLock, PidFileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import DaemonError

__all__ = ["AlreadyRunning", "LockTimeout", "NotLocked", "NotMyLock", "PidFileError"]

_THEIRS = (
    lockfile.AlreadyLocked,
    lockfile.LockTimeout,
    lockfile.LockFailed,
    lockfile.NotLocked,
    lockfile.NotMyLock,
)
# A base that comes later, because most programs never name these classes and need no `lockfile`.
for _kind, _theirs in zip(KINDS, _THEIRS, strict=True):
    _kind.__bases__ = (*_kind.__bases__, _theirs)


def from_lockfile(error: Exception, pidfile: object) -> DaemonError | None:
    """The error of ours for one that another library's pid file raised; None if it is no such."""
    classes: tuple[type[DaemonError], ...] = (AlreadyRunning, LockTimeout, PidFileError)
    for kind, ours in zip(
        (lockfile.AlreadyLocked, lockfile.LockTimeout, lockfile.LockError), classes, strict=True
    ):
        if isinstance(error, kind):
            path = getattr(pidfile, "path", None)
            said = str(error) or type(error).__name__
            text = f"cannot enter the pid file {pidfile!r}: {said}"
            return ours(text, path=path if isinstance(path, str) else None)
    return None
