"""The pid file: a hint for people. The lock beside it says whether the daemon lives, the record in
that who it is (see `daemon_context.pidfile.locks` and `daemon_context.pidfile.record`).
"""

from __future__ import annotations

import os

from ..errors import lock_error
from .fitness import failed
from .holder import Holder, foreign_at, look, pid_of
from .lockedfile import LockedFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, TypeVar

    from ..errors import DaemonError

    Self = TypeVar("Self", bound="PidFile")

# What programs import from `lockfile.pidlockfile` together with its class.
_LOCKFILES = (
    "AlreadyLocked",
    "LockFailed",
    "LockTimeout",
    "NotLocked",
    "NotMyLock",
    "read_pid_from_pidfile",
    "remove_existing_pidfile",
    "write_pid_to_pidfile",
)


def __getattr__(name: str) -> Any:
    if name not in _LOCKFILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lockfile import pidlockfile

    return getattr(pidlockfile, name)


class PidFile(LockedFile):
    """A pid file with the interface of ``lockfile``'s locks.

    A held lock is refused at once by default. The object can be used again and again.

    :param path: where; made absolute at once
    :param timeout: seconds to wait for a held lock; None or 0: don't wait
    :raises OptionError: it is no path
    """

    @property
    def in_parts(self) -> bool:
        """Whether a start may take the lock in two parts, in the launcher and in the daemon: not
        where a subclass has an `acquire` or `__enter__` of its own, which would not be called.
        """
        kind = type(self)
        return kind.acquire is PidFile.acquire and kind.__enter__ is PidFile.__enter__

    def acquire(self, timeout: float | None = None) -> None:
        """Lock the file for this process, and write its pid. Does nothing if it is done already.

        :param timeout: seconds to wait; None: as the constructor says
        :raises AlreadyRunning: the lock is held (``lockfile.AlreadyLocked``)
        :raises LockTimeout: it was still held when the time was over (``lockfile.LockTimeout``)
        :raises PidFileError: the file can't be used (``lockfile.LockFailed``)
        """
        user = os.geteuid()
        try:
            if not self.i_am_locking():
                self.begin(user, timeout=timeout)
                self._record(user)  # of files that were looked at just now, unlike `own`
            elif not self._owned:
                self.own(user)
        except BaseException:
            self.abandon()
            raise

    def release(self) -> None:
        """Unlock and remove the files.

        :raises NotLocked: nobody holds it (``lockfile.NotLocked``)
        :raises NotMyLock: this process does not hold it (``lockfile.NotMyLock``)
        """
        fds = self.descriptors if self._process == os.getpid() else set()
        if self._lock_fd not in fds:
            raise self._not_mine()
        self._let_go(fds)

    def _not_mine(self) -> DaemonError:
        text = f"cannot release the pid file {self.path!r}: "
        holder = self.holder()
        if holder.state == "free":
            text += "nobody holds its lock; acquire it first"
            return lock_error("NotLocked", text, path=self.path)
        text += f"{holder}; only the process and the object that acquired it may release it"
        return lock_error("NotMyLock", text, path=self.path, pid=holder.pid)

    def owner(self) -> int | None:
        """The live daemon's pid, proven by lock and record; None if it can't be told."""
        holder = self.holder()
        return holder.pid if holder.proven else None

    def holder(self) -> Holder:
        """Who holds the lock.

        :raises PidFileError: it can't be told (``lockfile.LockFailed``)
        """
        if self.i_am_locking():
            return Holder("running", os.getpid(), proven=True)
        try:
            holder = look(self.path)
        except OSError as error:
            raise failed(self.path, error, "read") from error
        return (foreign_at(self.path) or holder) if holder.state == "free" else holder

    def is_locked(self) -> bool:
        """Whether anybody holds the lock."""
        return self.holder().state != "free"

    def read_pid(self) -> int | None:
        """The pid in the file: a hint, nothing more. None: no file, or no pid in it."""
        try:
            return pid_of(self.path)
        except OSError:  # as lockfile has it
            return None

    def break_lock(self) -> None:
        """Remove a stale file, or one's own. There is never a need: a start does it by itself.

        :raises AlreadyRunning: somebody else holds the lock, so the file is not stale
        """
        if not self.i_am_locking():
            self.begin(os.geteuid(), timeout=0)
        self.abandon()

    def __enter__(self: Self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Where we never had a lock, a release of a subclass's own is of one that we do not know.
        if self.i_am_locking() or not (self._process or type(self).release is PidFile.release):
            self.release()


class PIDLockFile(PidFile):
    """`PidFile` under ``lockfile``'s name and with its parameters and attributes."""

    def __init__(self, path: Any, threaded: bool = False, timeout: float | None = None) -> None:
        super().__init__(path, timeout)
        self.lock_file = f"{self.path}.lock"
        self.unique_name = self.path
        self.hostname = os.uname().nodename
        self.pid = os.getpid()
        self.tname = ""


class TimeoutPIDLockFile(PIDLockFile):
    """`PidFile` under python-daemon's name and with its parameters."""

    def __init__(
        self, path: Any, acquire_timeout: float | None = None, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(path, *args, **kwargs)
        if acquire_timeout is not None:
            self.timeout = acquire_timeout

    @property
    def acquire_timeout(self) -> float | None:
        """Seconds to wait for a held lock."""
        return self.timeout

    @acquire_timeout.setter
    def acquire_timeout(self, value: float | None) -> None:
        self.timeout = value
