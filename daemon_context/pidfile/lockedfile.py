"""A locked file, in the parts that a start takes it through: begun in the launcher, owned by the
daemon, abandoned by whoever is the last. `daemon_context.pidfile` gives it lockfile's interface.
"""

from __future__ import annotations

import errno
import fcntl
import os
from _thread import RLock
from time import monotonic

from ..errors import DaemonError
from ..options.freezing import absolute_path
from ..system import SignalsHeld
from ..system.descriptors import close_quietly, is_still, lifted
from .fitness import failed, require_fit, require_fit_place, require_sense
from .locks import (
    OPEN_FLAGS,
    OWNER,
    Holder,
    claim_session,
    give_way_to_owner,
    has_session,
    holder_of,
    open_for_reading,
    try_lock,
    unlock,
    wait_a_while,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

MODE = 0o644  # FHS: readable by all

_held: set[LockedFile] = set()
# Around each look at `_held` and what is opened and closed after it: closing any descriptor of a
# file drops the lock as its owner that another thread has got in between.
at_work = RLock()


class LockedFile:
    """A file whose lock says whether there is a daemon, and who it is.

    :param path: where; made absolute at once
    :param timeout: seconds to wait for a held lock; None or 0: don't wait
    :raises OptionError: it is no path
    """

    def __init__(self, path: Any, timeout: float | None = None) -> None:
        self.path: str = absolute_path("pidfile", path)
        self.timeout = timeout
        self.handing_over = False
        self._fd = -1
        self._directory = -1
        self._found: dict[int, os.stat_result] = {}  # what both descriptors are: see `_intact`
        self._process = 0  # the one that may remove the file
        self._owner_locked = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def i_am_locking(self) -> bool:
        """Whether this process holds the lock, through this object."""
        return self._process == os.getpid() and self._intact(self._fd)

    # --- who holds it

    def owner(self) -> int | None:
        """The live daemon's pid, proven by the kernel; None if it can't be told."""
        holder = self.holder()
        return holder.pid if holder.state == "running" else None

    def holder(self) -> Holder:
        """Who holds the lock, from the kernel.

        :raises PidFileError: it can't be told (``lockfile.LockFailed``)
        """
        with at_work:
            if self._held_here() is not None:
                return Holder("running", os.getpid())
            return self._looked(holder_of) or Holder("free")

    def made_session(self, pid: int) -> bool:
        """Whether the owner has that pid, and a start made its session and process group."""
        with at_work:
            if self._held_here() is not None:
                return False
            return bool(self._looked(lambda fd: has_session(fd, pid)))

    def _looked(self, look: Callable[[int], T]) -> T | None:
        """What a look at another process's file finds; None: there is none that could be locked.

        :raises PidFileError: it can't be opened
        """
        try:
            fd = open_for_reading(self.path)
        except OSError as error:
            raise failed(self.path, error, "read") from error
        if fd is None:
            return None
        try:
            return look(fd)
        finally:
            os.close(fd)

    def _held_here(self) -> LockedFile | None:
        """The object, this one or another, through which this process holds the file.

        Opening the file once more, and closing it, would drop the owner's lock.
        """
        if self.i_am_locking():
            return self
        if not _held:
            return None
        try:
            found = os.lstat(self.path)
        except OSError:
            return None
        for other in tuple(_held):
            if other.i_am_locking() and os.path.samestat(other._found[other._fd], found):
                return other
        return None

    def _intact(self, fd: int) -> bool:
        """Whether the descriptor, of the file or of its directory, is still ours."""
        return is_still(fd, self._found.get(fd))

    # --- the parts of a start

    @property
    def descriptors(self) -> set[int]:
        """What must stay open while the lock is held."""
        return {fd for fd in (self._fd, self._directory) if self._intact(fd)}

    def check(self, daemon_uid: int) -> None:
        """Refuse, without opening anything, what is no fit pid file.

        :raises PidFileError: says what is there instead
        :raises OptionError: the timeout can't be used
        """
        require_sense(self.timeout)
        require_fit_place(self.path, daemon_uid)

    def begin(
        self, daemon_uid: int, *, timeout: float | None = None, keep_directory: bool = True
    ) -> None:
        """Take the exclusion lock, and empty what a dead daemon has left. In the launcher.

        :raises AlreadyRunning: as `acquire`; LockTimeout and PidFileError as well
        """
        if self.i_am_locking():
            self._begin_again(keep_directory)
            return
        self.forget()  # a copy that a native fork made
        require_sense(self.timeout)
        try:
            self._lock(daemon_uid, self.timeout if timeout is None else timeout, keep_directory)
        except BaseException:
            self.abandon()
            raise

    def _clear(self, found: os.stat_result) -> None:
        """Empty what a dead daemon has left; never before the lock is held."""
        self._empty(found)
        if found.st_mode & 0o7777 != MODE:  # by the umask, or by whoever created it
            try:
                os.fchmod(self._fd, MODE)
            except PermissionError:  # it is root's or the daemon's
                pass
        give_way_to_owner(self._fd)

    def _empty(self, found: os.stat_result) -> None:
        # ext4 writes a file that was truncated to the disk when it is closed: not for nothing.
        if found.st_size:
            os.ftruncate(self._fd, 0)

    def own(self) -> None:
        """Take the owner's lock and write the pid. In the daemon."""
        if self._fd < 0:
            raise DaemonError(
                f"the pid file {self.path!r} was not locked; keep the step lock-pidfile",
                path=self.path,
            )
        begun_in, self._process = self._process, os.getpid()
        if not self._intact(self._fd):
            lost = OSError(errno.EBADF, "somebody closed its descriptor during the start")
            raise failed(self.path, lost, "write")
        if begun_in != self._process:
            claim_session(self._fd)
        try:
            self._own()
        except OSError as error:
            try:
                self.disown()
            except OSError:  # whoever holds the exclusion lock removes the file
                pass
            raise failed(self.path, error, "write") from error

    def _own(self) -> None:
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, OWNER)
                break
            except BlockingIOError:
                holder = holder_of(self._fd)
                if holder.state != "free":  # or let go in between
                    raise OSError(errno.EAGAIN, str(holder)) from None
        self._owner_locked = True
        content = b"%d\n" % os.getpid()
        if os.pwrite(self._fd, content, 0) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not self._has_name():
            raise OSError(errno.ESTALE, "somebody removed or replaced it during the start")

    def disown(self) -> None:
        """Undo `own`: the file is empty again, the exclusion lock is still held."""
        self._empty(os.fstat(self._fd))
        if self._owner_locked:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, OWNER)
            self._owner_locked = False

    def resume(self) -> None:
        """Hold the lock as before a `begin` that found it held: in the launcher, to undo that."""
        if self._directory < 0:
            try:
                self._keep_directory()
            except OSError:  # then the file is emptied in the end, not removed
                pass
        self.own()

    def forget(self) -> None:
        """Close this process's copies; whoever else has the lock keeps it."""
        with at_work:
            _held.discard(self)
            fds, self._fd, self._directory = self.descriptors, -1, -1
            self._found.clear()
            self._owner_locked = False
            for fd in fds:
                close_quietly(fd)

    def abandon(self) -> None:
        """Remove the file, or empty it where that is not permitted, and unlock it."""
        if self._intact(self._fd):
            self._let_go()
        else:
            self.forget()

    def _let_go(self) -> None:
        try:
            self._remove()
        finally:
            try:
                unlock(self._fd)
            finally:
                self.forget()

    def _begin_again(self, keep_directory: bool) -> None:
        """The program has locked the file before it gives it to the context: hand that over."""
        if self._owner_locked:
            self.disown()
        if not keep_directory:
            self.leave_directory()

    def leave_directory(self) -> None:
        """Close its descriptor, which would be a way out of a chroot: in the end the file is
        emptied and not removed.
        """
        if self._intact(self._directory):
            os.close(self._directory)
        self._directory = -1

    def _lock(self, daemon_uid: int, timeout: float | None, keep_directory: bool) -> None:
        wait = timeout if timeout and timeout > 0 else 0
        deadline = monotonic() + wait
        while True:
            with SignalsHeld(), at_work:
                holder = self._try(daemon_uid, keep_directory)
            if holder is None:
                return
            self._wait_for(holder, deadline, wait)

    def _try(self, daemon_uid: int, keep_directory: bool) -> Holder | None:
        """Lock the file, and empty it; or who holds it."""
        if self._held_here() is not None:
            return Holder("here", os.getpid())
        fd = self._open(daemon_uid)
        if fd is None:
            return Holder("free")
        try:
            if not try_lock(fd):
                return holder_of(fd)
            found = os.fstat(fd)
            # Noted first: what fails from here on removes the file, which may be one of our making.
            self._found[fd] = found
            self._fd, self._process = fd, os.getpid()
            _held.add(self)
            if not self._is_named(found):
                self.forget()
                fd = -1  # closed
                return Holder("free")  # unlinked between open and lock: the next one is another
            if keep_directory:
                self._keep_directory()
            self._clear(found)
        except OSError as error:
            raise failed(self.path, error) from error
        finally:
            if self._fd != fd:
                os.close(fd)
        return None

    def _wait_for(self, holder: Holder, deadline: float, wait: float) -> None:
        if holder.state == "free":
            return  # let go in between
        left = deadline - monotonic()
        if not wait or left <= 0:
            from .refusals import refused

            raise refused(self.path, holder, wait)
        wait_a_while(None if holder.state == "here" else holder.pid, left)

    def _open(self, daemon_uid: int) -> int | None:
        """Open or create; None if the file came or went in between, so try again."""
        flags = os.O_RDWR | OPEN_FLAGS
        try:
            fd = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, MODE)
        except FileExistsError:
            return self._open_existing(flags, daemon_uid)
        except OSError as error:
            require_fit_place(self.path, daemon_uid)  # has better words
            raise failed(self.path, error) from error
        return lifted(fd)

    def _open_existing(self, flags: int, daemon_uid: int) -> int | None:
        require_fit_place(self.path, daemon_uid)
        try:
            fd = lifted(os.open(self.path, flags))
        except FileNotFoundError:
            return None
        except OSError as error:
            require_fit_place(self.path, daemon_uid)  # somebody has just changed what is there
            raise failed(self.path, error) from error
        try:
            found = os.fstat(fd)
            if found.st_nlink == 0:
                os.close(fd)
                return None
            require_fit(self.path, found, daemon_uid)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _is_named(self, found: os.stat_result) -> bool:
        try:
            return os.path.samestat(found, os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _keep_directory(self) -> None:
        # O_PATH: enough to unlink in it, and works where the directory may not be read.
        flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
        fd = lifted(os.open(os.path.dirname(self.path), flags))
        try:
            self._found[fd] = os.fstat(fd)
        except OSError:
            os.close(fd)
            raise
        self._directory = fd

    def _remove(self) -> None:
        try:
            found, name, directory = self._entry()
            if os.path.samestat(found, self._found[self._fd]):
                os.unlink(name, dir_fd=directory)
                return
        except OSError:  # gone; or not permitted any more, as another user or in a sticky directory
            pass
        self._empty(os.fstat(self._fd))

    def _has_name(self) -> bool:
        """Whether the file is still in its directory, as far as we may see."""
        try:
            return os.path.samestat(self._entry()[0], self._found[self._fd])
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _entry(self) -> tuple[os.stat_result, str, int | None]:
        """What has the file's name, and how to reach it: name and directory descriptor."""
        if self._intact(self._directory):
            name, directory = os.path.basename(self.path), self._directory
            return os.stat(name, dir_fd=directory, follow_symlinks=False), name, directory
        if self._owner_locked:
            raise PermissionError  # in a chroot the path would name another file
        return os.lstat(self.path), self.path, None


def leave_directories() -> None:
    """Of all pid files that this process has locked: see `LockedFile.leave_directory`."""
    with at_work:
        for lock in _held:
            lock.leave_directory()


def _drop_copies() -> None:
    """A child that the daemon forks must not keep the lock alive after it."""
    global at_work
    at_work = RLock()  # of the parent's threads, one may have been at it
    for lock in tuple(_held):
        if not lock.handing_over:
            lock.forget()


os.register_at_fork(after_in_child=_drop_copies)
