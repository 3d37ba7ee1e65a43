"""A pid file and the lock file beside it, in the parts that a start takes them through: begun in
the launcher, owned by the daemon, abandoned by whoever is the last. `daemon_context.pidfile` gives
them lockfile's interface.
"""

from __future__ import annotations

import errno
import os
from time import monotonic

from ..errors import DaemonError
from ..system import SignalsHeld
from ..system.descriptors import close_quietly, is_still, lifted
from ..system.paths import absolute_path
from . import files
from .fitness import failed, require_fit_place, require_sense
from .holder import SUFFIX, Holder
from .locks import ALIVE, FREE, STARTING, lock, share, try_lock, unshare
from .record import identify, written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MODE = 0o644  # FHS: readable by all

_held: set[LockedFile] = set()


class LockedFile:
    """A pid file, and beside it the lock that says whether there is a daemon, and who it is.

    :param path: where; made absolute at once
    :param timeout: seconds to wait for a held lock; None or 0: don't wait
    :raises OptionError: it is no path
    """

    def __init__(self, path: Any, timeout: float | None = None) -> None:
        self.path: str = absolute_path("pidfile", path)
        self.timeout = timeout
        self.handing_over = False
        self.replaced: Holder | None = None  # who is named by what `begin` has found unlocked
        self._process = 0  # the one that may remove the files
        self._owned = False  # recorded, and not only begun
        self._reset()

    def _reset(self) -> None:
        self._fd = self._lock_fd = -1
        self._readers: dict[int, int] = {}  # what takes their places: see `_give_up_writing`
        self._found: dict[int, os.stat_result] = {}  # what the descriptors are: see `_intact`

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def i_am_locking(self) -> bool:
        """Whether this process holds the lock, through this object."""
        return self._process == os.getpid() and self._intact(self._lock_fd)

    def _intact(self, fd: int) -> bool:
        """Whether the descriptor is still ours."""
        return is_still(fd, self._found.get(fd))

    # --- the parts of a start

    @property
    def descriptors(self) -> set[int]:
        """What must stay open while the lock is held."""
        return {fd for fd in self._found if self._intact(fd)}

    def check(self, daemon_uid: int) -> None:
        """Refuse, without opening anything, what is no fit pid file.

        :raises PidFileError: says what is there instead
        :raises OptionError: the timeout can't be used
        """
        require_sense(self.timeout)
        for path in (self.path, self.path + SUFFIX):
            require_fit_place(self.path, path, daemon_uid)

    def begin(self, daemon_uid: int, *, timeout: float | None = None) -> None:
        """Take the lock of a start, and replace what a dead daemon has left. In the launcher.

        :raises AlreadyRunning: as `acquire`; LockTimeout and PidFileError as well
        """
        if self.i_am_locking():  # the program has locked it before: hand that over
            self._owned = False
            lock(self._lock_fd, STARTING)
            self._open_readers(daemon_uid)
            return
        if self._found:
            self.forget()  # a copy that a native fork made
        self.replaced = None
        require_sense(self.timeout)
        try:
            self._lock(daemon_uid, self.timeout if timeout is None else timeout)
        except BaseException as error:
            self.abandon()
            if isinstance(error, OSError) and not isinstance(error, DaemonError):
                raise failed(self.path, error) from error
            raise

    def identify(self) -> None:
        """Find out who this process is, for `own`: in a chroot there may be no ``/proc``."""
        identify()

    def own(self, daemon_uid: int, *, in_reach: bool = True) -> None:
        """Write who the daemon is, while that is permitted, and let live the lock. In the daemon.

        :param daemon_uid: the user that it becomes
        :param in_reach: whether the path means the pid file here, as it does not in a chroot
        """
        if self._lock_fd < 0:
            raise DaemonError(
                f"the pid file {self.path!r} was not locked; keep the step lock-pidfile",
                path=self.path,
            )
        begun_in, self._process = self._process, os.getpid()
        try:
            self._require_unchanged(in_reach)
        except OSError as error:
            raise failed(self.path, error, "write") from error
        self._record(daemon_uid, os.getpgid(0) if begun_in != self._process else 0)

    def _require_unchanged(self, in_reach: bool) -> None:
        """Since the start began, in which others' code has run: steps, hooks, handlers."""
        if self.descriptors != self._found.keys():
            raise OSError(errno.EBADF, "somebody closed its descriptor during the start")
        if in_reach and not all(
            files.is_named(path, self._found[fd]) for path, fd in self._names()
        ):
            raise OSError(errno.ESTALE, files.REPLACED)

    def _record(self, daemon_uid: int, session: int = 0) -> None:
        """Write who this process is."""
        try:
            files.write(self._lock_fd, written(self.path, daemon_uid, session))
            files.write(self._fd, b"%d\n" % self._process)
            os.fchmod(self._fd, MODE)  # not before: who can read it, reads all of it
            lock(self._lock_fd, ALIVE)
            self._give_up_writing()
        except OSError as error:
            raise failed(self.path, error, "write") from error
        self._owned = True

    def resume(self) -> None:
        """Hold the lock as before a `begin` that found it held: in the launcher, to undo that."""
        if not self._owned:
            self._close_readers()
            self.own(os.geteuid())

    def forget(self) -> None:
        """Close this process's copies; whoever else has the lock keeps it."""
        self._close(self.descriptors)

    def _close(self, fds: set[int]) -> None:
        _held.discard(self)
        self._owned = False
        self._reset()
        for fd in fds:
            close_quietly(fd)

    def abandon(self) -> None:
        """Remove the files where that is permitted, and unlock them."""
        self._let_go(self.descriptors)

    def _let_go(self, fds: set[int]) -> None:
        # Also for copies that a native fork's child has, where the file stays.
        try:
            if self._lock_fd in fds:
                if self._fd in fds and not files.removed(self.path, self._found[self._fd]):
                    unshare(self._fd)
                if not files.removed(self.path + SUFFIX, self._found[self._lock_fd]):
                    lock(self._lock_fd, FREE)
        finally:
            self._close(fds)

    def _noted(self, fd: int) -> int:
        """Note what the descriptor is; where that can't be told, it is closed."""
        try:
            self._found[fd] = os.fstat(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _names(self) -> tuple[tuple[str, int], ...]:
        return (self.path, self._fd), (self.path + SUFFIX, self._lock_fd)

    # --- getting it

    def _lock(self, daemon_uid: int, timeout: float | None) -> None:
        wait = timeout if timeout and timeout > 0 else 0
        deadline = monotonic() + wait
        while True:
            with SignalsHeld():
                holder = self._try(daemon_uid)
            if holder is None:
                return
            if holder.state != "free":
                files.wait_for(self.path, holder, deadline, wait)

    def _try(self, daemon_uid: int) -> Holder | None:
        """Lock it, and make a new pid file; or who holds it; free: try again."""
        fd = files.open_lock(self.path, daemon_uid)
        if fd is None:
            return Holder("free")
        try:
            holder = self._take(fd)
        finally:
            if self._lock_fd != fd:
                os.close(fd)
        if holder is not None:
            return holder
        identify()
        holder = self._make_pidfile(daemon_uid)
        if holder is not None:
            self.abandon()
            return holder
        self._open_readers(daemon_uid)
        return None

    def _take(self, fd: int) -> Holder | None:
        """Take the lock file; or who holds it; free: it is another one by now, or has to be."""
        if not try_lock(fd):
            return files.in_the_way(self.path, fd)
        found = os.fstat(fd)
        holder = files.judged(self.path, fd, found)
        if holder is not None and (holder.state == "free" or holder.proven):
            return holder
        self.replaced = holder or self.replaced
        self._found[fd] = found
        self._lock_fd, self._process = fd, os.getpid()
        _held.add(self)
        return None

    def _make_pidfile(self, daemon_uid: int) -> Holder | None:
        """A new one, so that nobody has it open or locked; or who holds the one that is there."""
        fd = files.created(self.path, self.path, daemon_uid)
        if fd is None:
            holder = files.clear(self.path, daemon_uid)
            self.replaced = self.replaced or holder
            return holder
        try:
            self._fd = self._noted(lifted(fd))
        except OSError:
            os.unlink(self.path)  # of our making, and not to be told from another
            raise
        share(self._fd)  # so that other libraries, which lock it so, refuse to start beside us
        return None

    # --- giving up the right to write

    def _open_readers(self, daemon_uid: int) -> None:
        """Where the daemon becomes another user: what it gets in the place of what could write."""
        if daemon_uid != os.geteuid():
            for path, fd in self._names():
                self._readers[fd] = self._noted(files.reopened(path, self._found[fd]))

    def _give_up_writing(self) -> None:
        for fd, reader in self._readers.items():
            if fd == self._lock_fd:
                lock(reader, ALIVE)
            else:
                share(reader)
            os.dup2(reader, fd, inheritable=False)
        self._close_readers()

    def _close_readers(self) -> None:
        for reader in self._readers.values():
            del self._found[reader]
            os.close(reader)
        self._readers = {}


def _drop_copies() -> None:
    """A child that the daemon forks must not keep the lock alive after it."""
    for held in tuple(_held):
        if not held.handing_over:
            held.forget()


os.register_at_fork(after_in_child=_drop_copies)
