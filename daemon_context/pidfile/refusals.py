"""Why a pid file can't be had: the words."""

from __future__ import annotations

import errno
import os
import stat

from ..errors import REMEDIES as OF_ANY
from ..errors import lock_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import DaemonError
    from .holder import Holder

# By the state of the holder: what is raised, where it is no daemon of ours that lives.
KINDS = {
    "foreign": ("AlreadyRunning", errno.EBUSY),
    "orphan": ("AlreadyRunning", errno.EBUSY),
    "unlocked": ("AlreadyRunning", errno.EBUSY),
    "unknown": ("PidFileError", errno.EAGAIN),
}
WRITABLE = "do it as a user who may, or give a path where you may, such as in $XDG_RUNTIME_DIR"
REMEDIES = {
    **OF_ANY,
    errno.ENOENT: "create that directory first, or give a path in one that exists",
    errno.ENOTDIR: "give a path in a directory",
    errno.EACCES: WRITABLE,
    errno.EPERM: "look at its attributes and its directory's (lsattr), or give another path",
    errno.EROFS: "give a path on a file system that can be written, such as in /run",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "mend the links in that path, or give another one",
    errno.EBADF: "keep what pidfile.descriptors names open in steps of your own",
    errno.ENOLCK: "give a path on a local file system",
    errno.ESTALE: "start again, and leave the file alone: a stale one is never in the way",
}


def unusable(
    path: str, why: str, number: int | None, verb: str = "lock", remedy: str = ""
) -> DaemonError:
    """What could not be done to the pid file, why, and what to do about it."""
    remedy = remedy or REMEDIES.get(number or 0, "give another path")
    text = f"cannot {verb} the pid file {path!r}: {why}; {remedy}"
    return lock_error("PidFileError", text, path=path, errno=number)


def unfit(path: str, file: str, found: os.stat_result) -> DaemonError:
    """What is there can't be a pid file, or the lock file beside it, and must not be touched."""
    why, number, remedy = _unfitness(path, found)
    if file != path:
        why = f"its lock file {file!r}: {why}"
    return unusable(path, why, number, remedy=remedy)


def _unfitness(path: str, found: os.stat_result) -> tuple[str, int, str]:
    if stat.S_ISLNK(found.st_mode):
        why = "it is a symlink, and none is followed: it may lead to anybody's file"
        return why, errno.ELOOP, "give the path of the file itself, or remove the symlink"
    if stat.S_ISDIR(found.st_mode):
        inside = os.path.join(path, "daemon.pid")
        return "it is a directory", errno.EISDIR, f"give the path of a file, such as {inside!r}"
    if not stat.S_ISREG(found.st_mode):
        return f"it is a {_kind(found.st_mode)}, not a regular file", errno.EINVAL, ""
    if found.st_nlink > 1:
        why = f"the file has {found.st_nlink} names (hard links), and may be another's too"
        return why, errno.EMLINK, _removal(path, "remove this name", "another path")
    user = user_name(found.st_uid)
    why = f"it belongs to {user}, who could change it: neither the launching user "
    remedy = _removal(path, "remove it", "a path in a directory where nobody else may write")
    return f"{why}nor root nor the daemon's user", errno.EPERM, remedy


def _removal(path: str, removal: str, other: str) -> str:
    """Never advice to remove a file whose daemon runs, or may run for all that can be told."""
    from ..errors import DaemonError
    from . import PidFile

    try:
        state = PidFile(path).holder().state
    except DaemonError:
        state = "unknown"
    return f"{removal}, or give {other}" if state == "free" else f"give {other}"


def _fact(path: str, holder: Holder) -> str:
    """Who has the lock, and of which pid file."""
    if holder.state in ("foreign", "unknown", "unlocked"):  # no daemon of ours, or no proper one
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


def user_name(uid: int) -> str:
    """Of a user, in words."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"uid {uid}"


def refused(path: str, holder: Holder, waited: float = 0) -> DaemonError:
    """Somebody else holds the lock."""
    text = _fact(path, holder)
    if waited:
        text += f", also after waiting {waited:g} seconds"
    kind, number = KINDS.get(holder.state, ("AlreadyRunning", None))
    kind = "LockTimeout" if waited else kind
    return lock_error(kind, f"{text}; {holder.remedy}", path=path, pid=holder.pid, errno=number)


def unlocked(path: str, named: Holder, command: str) -> str:
    """A warning of who was named by a pid file that nobody has locked."""
    from ..system.text import shown

    pid = named.pid
    if named.state == "unlocked":
        then = "no start goes beside it" if named.proven else "there may be two now"
        return f"{named} (pid file {path!r}), and {then}; end it by its pid (kill {pid})"
    return (
        f"the pid file {path!r} named process {pid} ({shown(command, 200)}), which runs this "
        "program but has no lock on it: if it is a daemon that another library has started, there "
        f"are two now; end that one (kill {pid}) before the start"
    )
