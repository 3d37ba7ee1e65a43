"""The pid file: its lock is the truth (see `daemon_context.locks`), its content a hint."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from time import monotonic

from .locks import (
    OPEN_FLAGS,
    OWNER,
    Holder,
    holder_of,
    lifted,
    open_for_reading,
    pid_in,
    try_lock,
    wait_a_while,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, TypeVar

    from .errors import DaemonError

    Self = TypeVar("Self", bound="PidFile")

MODE = 0o644  # FHS: readable by all

_held: set[PidFile] = set()


class PidFile:
    """A pid file with the interface of ``lockfile``'s locks.

    A held lock is refused at once by default. The object can be used again and again.

    :param path: where; made absolute at once
    :param timeout: seconds to wait for a held lock; None or 0: don't wait
    """

    def __init__(self, path: Any, timeout: float | None = None) -> None:
        self.path = os.path.abspath(os.fsdecode(path))
        self.timeout = timeout
        self.handing_over = False
        self._fd = -1
        self._directory = -1
        self._process = 0  # the one that may remove the file
        self._owner_locked = False

    # --- lockfile's interface

    def acquire(self, timeout: float | None = None) -> None:
        """Lock the file for this process, and write its pid.

        :param timeout: seconds to wait; None: as the constructor says
        :raises AlreadyRunning: the lock is held (``lockfile.AlreadyLocked``)
        :raises LockTimeout: it was still held when the time was over (``lockfile.LockTimeout``)
        :raises PidFileError: the file can't be used (``lockfile.LockFailed``)
        """
        self.begin(os.geteuid(), timeout=timeout)
        try:
            self.own()
        except BaseException:
            self.abandon()
            raise

    def release(self) -> None:
        """Unlock and remove the file.

        :raises NotLocked: nobody holds it (``lockfile.NotLocked``)
        :raises NotMyLock: this process does not hold it (``lockfile.NotMyLock``)
        """
        if not self.i_am_locking():
            from .lockerrors import NotLocked, NotMyLock

            if self.is_locked():
                raise NotMyLock(f"{self.path!r} is locked, but not by this process", path=self.path)
            raise NotLocked(f"{self.path!r} is not locked", path=self.path)
        self.abandon()

    def is_locked(self) -> bool:
        """Whether anybody holds the lock."""
        return self.holder().state != "free"

    def i_am_locking(self) -> bool:
        """Whether this process holds the lock, through this object."""
        return self._fd >= 0 and self._process == os.getpid()

    def read_pid(self) -> int | None:
        """The pid in the file: a hint, nothing more. None: no file, or no pid in it."""
        own = self._own_descriptor()
        if own is not None:
            return pid_in(own)
        fd = open_for_reading(self.path)
        if fd is None:
            return None
        try:
            return pid_in(fd)
        finally:
            os.close(fd)

    def break_lock(self) -> None:
        """Remove a stale file. There is never a need: a start does it by itself.

        :raises AlreadyRunning: the lock is held, so the file is not stale
        """
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
        if self.i_am_locking():
            self.release()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    # --- who holds it

    def owner(self) -> int | None:
        """The live daemon's pid, proven by the kernel; None if it can't be told."""
        holder = self.holder()
        return holder.pid if holder.state == "running" else None

    def holder(self) -> Holder:
        """Who holds the lock, from the kernel."""
        if self.i_am_locking():
            return Holder("running", os.getpid())
        own = self._own_descriptor()
        if own is not None:
            return Holder("running", os.getpid())
        fd = open_for_reading(self.path)
        if fd is None:
            return Holder("free", None)
        try:
            return holder_of(fd)
        finally:
            os.close(fd)

    def _own_descriptor(self) -> int | None:
        """A descriptor of the file that this process holds already, here or in another object."""
        for other in _held:
            if other.path == self.path and other.i_am_locking():
                return other._fd
        return None

    # --- the parts of a start

    @property
    def descriptors(self) -> set[int]:
        """What must stay open while the lock is held."""
        return {fd for fd in (self._fd, self._directory) if fd >= 0}

    def check(self, daemon_uid: int) -> None:
        """Refuse, without opening anything, what is no fit pid file.

        :raises PidFileError: says what is there instead
        """
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            self._check_directory()
        except OSError as error:
            raise self._failed(error) from error
        else:
            self._require_fit(found, daemon_uid)

    def begin(
        self, daemon_uid: int, *, timeout: float | None = None, keep_directory: bool = True
    ) -> None:
        """Take the exclusion lock, and empty what a dead daemon has left. In the launcher.

        :raises AlreadyRunning: as `acquire`; LockTimeout and PidFileError as well
        """
        if self.i_am_locking():
            self._begin_again()
            return
        self.check(daemon_uid)
        self._lock(daemon_uid, self.timeout if timeout is None else timeout)
        if keep_directory:
            self._keep_directory()
        _hold(self)
        try:
            os.ftruncate(self._fd, 0)  # never before the lock is held
        except OSError as error:
            self.abandon()
            raise self._failed(error) from error

    def own(self) -> None:
        """Take the owner's lock and write the pid. In the daemon."""
        self._process = os.getpid()
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, OWNER)
            self._owner_locked = True
            content = b"%d\n" % os.getpid()
            if os.pwrite(self._fd, content, 0) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.disown()
            raise self._failed(error, "write") from error

    def disown(self) -> None:
        """Undo `own`: the file is empty again, the exclusion lock is still held."""
        os.ftruncate(self._fd, 0)
        if self._owner_locked:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, OWNER)
            self._owner_locked = False

    def forget(self) -> None:
        """Close this process's copies; whoever else has the lock keeps it."""
        _held.discard(self)
        fds, self._fd, self._directory = self.descriptors, -1, -1
        self._owner_locked = False
        for fd in fds:
            os.close(fd)

    def abandon(self) -> None:
        """Remove the file, or empty it where that is not permitted, and unlock it."""
        if self._fd >= 0:
            try:
                self._remove()
            finally:
                self.forget()

    def _begin_again(self) -> None:
        """The program has locked the file before it gives it to the context: hand that over."""
        if self._owner_locked:
            self.disown()

    def _lock(self, daemon_uid: int, timeout: float | None) -> None:
        deadline = monotonic() + timeout if timeout and timeout > 0 else None
        while True:
            fd = self._open(daemon_uid)
            if fd is None:
                continue
            try:
                if try_lock(fd):
                    if self._still_there(fd):
                        self._fd, self._process = fd, os.getpid()
                        fd = -1
                        return
                    continue  # unlinked between open and lock: the next one has another inode
                holder = holder_of(fd)
            except OSError as error:
                raise self._failed(error) from error
            finally:
                if fd >= 0:
                    os.close(fd)
            self._wait_for(holder, deadline)

    def _wait_for(self, holder: Holder, deadline: float | None) -> None:
        if holder.state == "free":
            return  # let go in between
        if deadline is None:
            raise self._refused(holder)
        left = deadline - monotonic()
        if left <= 0:
            raise self._refused(holder, timed_out=True)
        wait_a_while(holder.pid, left)

    def _open(self, daemon_uid: int) -> int | None:
        """Open or create; None if the file came or went in between, so try again."""
        flags = os.O_RDWR | OPEN_FLAGS
        try:
            fd = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, MODE)
        except FileExistsError:
            return self._open_existing(flags, daemon_uid)
        except OSError as error:
            raise self._failed(error) from error
        os.fchmod(fd, MODE)  # whatever the umask
        return lifted(fd)

    def _open_existing(self, flags: int, daemon_uid: int) -> int | None:
        try:
            fd = lifted(os.open(self.path, flags))
        except FileNotFoundError:
            return None
        except OSError as error:
            self.check(daemon_uid)  # has better words for a symlink, a device and so on
            raise self._failed(error) from error
        try:
            found = os.fstat(fd)
            if found.st_nlink == 0:
                os.close(fd)
                return None
            self._require_fit(found, daemon_uid)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _still_there(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _keep_directory(self) -> None:
        # O_PATH: enough to unlink in it, and works where the directory may not be read.
        flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
        self._directory = lifted(os.open(os.path.dirname(self.path), flags))

    def _remove(self) -> None:
        if self._directory >= 0:
            name = os.path.basename(self.path)
            try:
                found = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                if os.path.samestat(found, os.fstat(self._fd)):
                    os.unlink(name, dir_fd=self._directory)
                return
            except FileNotFoundError:
                return
            except OSError:  # not permitted any more, as another user or in a sticky directory
                pass
        os.ftruncate(self._fd, 0)

    # --- errors

    def _check_directory(self) -> None:
        directory = os.path.dirname(self.path)
        try:
            found = os.stat(directory)
        except OSError as error:
            raise self._unusable(
                f"its directory {directory!r}: {error.strerror}", error.errno
            ) from error
        if not stat.S_ISDIR(found.st_mode):
            raise self._unusable(f"{directory!r} is not a directory", errno.ENOTDIR)
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            text = os.strerror(errno.EACCES)
            raise self._unusable(f"its directory {directory!r}: {text}", errno.EACCES)

    def _require_fit(self, found: os.stat_result, daemon_uid: int) -> None:
        kind = _kind(found.st_mode)
        if kind != "regular file":
            raise self._unusable(f"it is a {kind}, not a regular file", errno.EINVAL)
        if found.st_nlink > 1:
            raise self._unusable(
                f"it has {found.st_nlink} links, so it is another file as well", errno.EMLINK
            )
        if found.st_uid not in (os.geteuid(), os.getuid(), 0, daemon_uid):
            raise self._unusable(
                f"it belongs to uid {found.st_uid}: neither us, nor root, nor the daemon's user",
                errno.EPERM,
            )

    def _failed(self, error: OSError, verb: str = "lock") -> DaemonError:
        return self._unusable(error.strerror or str(error), error.errno, verb)

    def _unusable(self, why: str, number: int | None, verb: str = "lock") -> DaemonError:
        from .lockerrors import PidFileError

        return PidFileError(
            f"cannot {verb} the pid file {self.path!r}: {why}; give a path in a directory where "
            "only the launching user may write, such as /run",
            path=self.path,
            errno=number,
        )

    def _refused(self, holder: Holder, *, timed_out: bool = False) -> DaemonError:
        from .lockerrors import AlreadyRunning, LockTimeout, PidFileError

        text = f"{holder} (pid file {self.path!r})"
        if timed_out:
            return LockTimeout(f"{text}; waited in vain", path=self.path, pid=holder.pid)
        if holder.state == "reader":
            return PidFileError(
                f"cannot lock the pid file {self.path!r}: {holder}; end that process",
                path=self.path,
                pid=holder.pid,
                errno=errno.EAGAIN,
            )
        return AlreadyRunning(text, path=self.path, pid=holder.pid)


class TimeoutPIDLockFile(PidFile):
    """`PidFile` under python-daemon's name and with its parameters."""

    def __init__(
        self, path: Any, acquire_timeout: float | None = None, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(path, acquire_timeout)

    @property
    def acquire_timeout(self) -> float | None:
        """Seconds to wait for a held lock."""
        return self.timeout

    @acquire_timeout.setter
    def acquire_timeout(self, value: float | None) -> None:
        self.timeout = value


class PIDLockFile(PidFile):
    """`PidFile` under ``lockfile``'s name and with its parameters."""

    def __init__(self, path: Any, threaded: bool = False, timeout: float | None = None) -> None:
        super().__init__(path, timeout)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "regular file",
        stat.S_IFLNK: "symlink",
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _hold(lock: PidFile) -> None:
    global _registered
    _held.add(lock)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_drop_copies)


_registered = False


def _drop_copies() -> None:
    """A child that the daemon forks must not keep the lock alive after it."""
    for lock in tuple(_held):
        if not lock.handing_over:
            lock.forget()
