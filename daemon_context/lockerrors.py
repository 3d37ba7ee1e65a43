"""The errors that are also ``lockfile``'s, for callers who catch those.

Imported only when one of these is raised or named (see `daemon_context.errors`).
"""

from __future__ import annotations

import lockfile

from .errors import DaemonError, DaemonOSEnvironmentError, StepError


class AlreadyRunning(StepError, lockfile.AlreadyLocked):  # type: ignore[misc]
    """Another process holds the pid file's lock; `pid` is its pid where the kernel tells it."""


class LockTimeout(StepError, lockfile.LockTimeout):  # type: ignore[misc]
    """The lock was still held when the time was over; `pid` as in `AlreadyRunning`."""


class PidFileError(DaemonOSEnvironmentError, lockfile.LockFailed):  # type: ignore[misc]
    """The pid file can't be used: `path` and, where the system gave one, `errno` say why."""


class NotLocked(DaemonError, lockfile.NotLocked):  # type: ignore[misc]
    """Released without being held."""


class NotMyLock(DaemonError, lockfile.NotMyLock):  # type: ignore[misc]
    """Released by a process that does not hold it."""
