"""Why a pid file can't be had: the errors, and their words.

The classes are also ``lockfile``'s wherever that is imported, as it is by every program that
catches those (see `daemon_context.pidfile.lockerrors`, which has them for others). A refused start
must not pay for it: importing ``lockfile`` costs more than all else that it does.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from ..errors import DaemonError, DaemonOSEnvironmentError, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..embedding import Handle
    from .locks import Holder


class AlreadyRunning(StepError):
    """Another process holds the pid file's lock; `pid` is its pid where the kernel tells it."""

    @property
    def handle(self) -> Handle:
        """A handle of the running daemon, proven by the lock; waits for one that is starting.

        :raises DaemonError: there is none (any more), or it is in another pid namespace
        """
        if self.path is None:
            raise DaemonError("nobody knows which pid file's daemon runs already")

        from ..embedding import running

        return running(str(self.path))


class LockTimeout(StepError):
    """The lock was still held when the time was over; `pid` as in `AlreadyRunning`."""


class PidFileError(DaemonOSEnvironmentError):
    """The pid file can't be used: `path` and, where the system gave one, `errno` say why."""


class NotLocked(DaemonError):
    """Released without being held."""


class NotMyLock(DaemonError):
    """Released by a process that does not hold it."""


KINDS = (AlreadyRunning, LockTimeout, PidFileError, NotLocked, NotMyLock)
for _class in KINDS:
    _class.__module__ = (
        f"{__package__}.lockerrors"  # where users import them from, and pickles look
    )


def join_lockfile() -> None:
    """Where ``lockfile`` is imported, let the classes be its own as well."""
    if "lockfile" in sys.modules:
        from . import lockerrors  # noqa: F401


WRITABLE = "do it as a user who may, or give a path where you may, such as in $XDG_RUNTIME_DIR"
ROOM = "make room there: blocks or inodes are used up (see df and df -i)"
FILES = "close some files, or raise the limit on open ones (ulimit -n)"
REMEDIES = {
    errno.ENOENT: "create that directory first, or give a path in one that exists",
    errno.ENOTDIR: "give a path in a directory",
    errno.EACCES: WRITABLE,
    errno.EPERM: "look at its attributes and its directory's (lsattr), or give another path",
    errno.EROFS: "give a path on a file system that can be written, such as in /run",
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "mend the links in that path, or give another one",
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EBADF: "keep what pidfile.descriptors names open in steps of your own",
    errno.EAGAIN: "end that process",
    errno.ENOLCK: "give a path on a local file system",
    errno.ESTALE: "start again, and leave the file alone: a stale one is never in the way",
}


def unusable(
    path: str, why: str, number: int | None, verb: str = "lock", remedy: str = ""
) -> PidFileError:
    """What could not be done to the pid file, why, and what to do about it."""
    join_lockfile()
    remedy = remedy or REMEDIES.get(number or 0, "give another path")
    text = f"cannot {verb} the pid file {path!r}: {why}; {remedy}"
    return PidFileError(text, path=path, errno=number)


def unfit(path: str, found: os.stat_result) -> PidFileError:
    """What is there can't be a pid file, and must not be touched."""
    if stat.S_ISLNK(found.st_mode):
        return unusable(
            path,
            "it is a symlink, and none is followed: who may change it could have any file emptied",
            errno.ELOOP,
            remedy="give the path of the file itself, or remove the symlink",
        )
    if stat.S_ISDIR(found.st_mode):
        inside = os.path.join(path, "daemon.pid")
        remedy = f"give the path of a file, such as {inside!r}"
        return unusable(path, "it is a directory", errno.EISDIR, remedy=remedy)
    if not stat.S_ISREG(found.st_mode):
        return unusable(path, f"it is a {_kind(found.st_mode)}, not a regular file", errno.EINVAL)
    if found.st_nlink > 1:
        return unusable(
            path,
            f"the file has {found.st_nlink} names (hard links), and would be emptied under all",
            errno.EMLINK,
            remedy=_removal(path, "remove this name", "another path"),
        )
    return unusable(
        path,
        f"it belongs to {_user(found.st_uid)}, who could change it: neither the launching user "
        "nor root nor the daemon's user",
        errno.EPERM,
        remedy=_removal(path, "remove it", "a path in a directory where nobody else may write"),
    )


def _removal(path: str, removal: str, other: str) -> str:
    """Never advice to remove a file whose daemon runs, or may run for all that can be told."""
    from . import PidFile

    try:
        state = PidFile(path).holder().state
    except DaemonError:
        state = "unknown"
    return f"{removal}, or give {other}" if state == "free" else f"give {other}"


def _fact(path: str, holder: Holder) -> str:
    """Who has the lock, and of which pid file."""
    if holder.state in ("reader", "hidden"):  # no daemon, as far as can be told
        return f"cannot lock the pid file {path!r}: {holder}"
    words = str(holder)
    if holder.state == "running":
        words = words.removeprefix("the daemon is ")
    return f"{words} (pid file {path!r})"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _user(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"uid {uid}"


def refused(path: str, holder: Holder, waited: float = 0) -> DaemonError:
    """Somebody else holds the lock."""
    join_lockfile()
    text = _fact(path, holder)
    if waited:
        text += f", also after waiting {waited:g} seconds"
        return LockTimeout(f"{text}; {holder.remedy}", path=path, pid=holder.pid)
    text = f"{text}; {holder.remedy}"
    if holder.state == "reader":
        return PidFileError(text, path=path, pid=holder.pid, errno=errno.EAGAIN)
    return AlreadyRunning(text, path=path, pid=holder.pid)
