"""Who holds a pid file: the lock says whether there is a daemon, the record who it is."""

from __future__ import annotations

import os
from time import sleep

from ..system import is_ending
from .locks import (
    ALIVE,
    FREE,
    STARTING,
    daemon_of_another_library,
    locked,
    pid_in,
    read_with,
    real_uid,
    shown,
    who_holds,
)
from .record import Record

SUFFIX = ".lock"
RETRY, LOOKS = 0.01, 5  # seconds, and how often, for a process that holds the lock and isn't seen
CHANGES = 50  # looks at a process that isn't of its user yet
CLOSED = (
    "closed the lock's descriptor (os.closerange closes also what is not the program's own) or "
    "runs another program"
)


class Holder:
    """Who holds a pid file's lock.

    :ivar state: ``free``, ``starting``, ``running``, ``unlocked`` (it runs, and has let go of the
        lock), ``orphan``, ``foreign``, ``unknown`` or ``here``
    :ivar pid: the process, or None where it can't be told
    :ivar proven: whether the pid is the recorded process, in a record that can be trusted: only
        then may it be signalled
    :ivar why: why it isn't proven
    :ivar session: the session and process group that the daemon's start made; 0: none
    """

    def __init__(
        self,
        state: str,
        pid: int | None = None,
        *,
        proven: bool = False,
        why: str = "",
        session: int = 0,
    ) -> None:
        self.state, self.pid, self.proven, self.why = state, pid, proven, why
        self.session = session

    def __str__(self) -> str:
        named = f"with pid {self.pid}" if self.pid else "in another pid namespace"
        child = f"its child (pid {self.pid})" if self.pid else "another process, a child perhaps,"
        started = f"pid {self.pid}, which was started as the daemon, runs"
        words = {
            "free": "nobody holds its lock",
            "starting": "the daemon is being started by another process",
            "running": f"the daemon is already running {named}",
            "unlocked": f"{started}, but has let go of the lock: it has {self.why}",
            "orphan": f"the daemon is dead, but {child} still holds its lock",
            "foreign": f"{self.why} (pid {self.pid}) holds it"
            if self.pid
            else f"{self.why} holds it",
            "unknown": self.why,
            "here": "this process holds its lock already",
        }[self.state]
        return f"{words}, {self.why}" if self.state == "running" and self.why else words

    @property
    def remedy(self) -> str:
        """What to do about it."""
        other = "or give this one a pid file of its own"
        elsewhere = f"stop it there, for example in its container, {other}"
        return {
            "free": "try again",
            "starting": "try again when it is ready, or give the pid file a timeout to wait",
            "running": f"stop that one first, {other}" if self.pid else elsewhere,
            "unlocked": f"end it by its pid (kill {self.pid}), {other}",
            "orphan": "end that process",
            "foreign": f"stop it by its own means, {other}",
            "unknown": f"end what holds it (fuser, lslocks), {other}",
            "here": f"release it first, {other}",
        }[self.state]


def look(path: str) -> Holder:
    """Who holds the pid file's lock.

    :raises OSError: nobody can tell
    """
    try:
        found = read_with(lambda fd: holder_of(path, fd), path + SUFFIX)
    except PermissionError:
        return _shown_to_anyone(path)
    return found or Holder("free")


def holder_of(path: str, fd: int) -> Holder:
    """The same, of its open lock file."""
    kind = locked(fd)
    if kind == FREE:
        return Holder("free")
    if kind == STARTING:
        return Holder("starting")
    record = Record.read(fd)
    found = _recorded(path, fd, record)
    # It may have been let go while we looked, and be another's by now.
    if (locked(fd), Record.read(fd)) != (kind, record):
        return look(path)
    return found


def _recorded(path: str, fd: int, record: Record | None) -> Holder:
    """Whom the record names, and what is in the way of believing it."""
    found = os.fstat(fd)
    if record is None or not record.is_of(path):
        return Holder("unknown", why=f"{path + SUFFIX!r} is locked, and has no record of a daemon")
    if not record.lives:
        return Holder("orphan", _orphan(fd, found)) if record.is_of_here else Holder("running")
    why = ""
    if found.st_uid not in (0, os.geteuid()):
        why = f"says a file of uid {found.st_uid}, who can write what it likes; ask as that user"
    elif found.st_nlink != 1:
        why = f"says a file with {found.st_nlink} names, which may be another daemon's"
    elif not _is_of_its_user(record):
        why = f"but that process is not of uid {record.uid} any more"
    return Holder("running", record.pid, proven=not why, why=why, session=record.session)


def _is_of_its_user(record: Record) -> bool:
    """Whether its process is of the recorded user, also in a moment: a start writes the record just
    before it changes the owner.
    """
    for _ in range(CHANGES):
        if record.keeps_its_user:
            return True
        sleep(RETRY)
    return False


def _orphan(fd: int, found: os.stat_result) -> int | None:
    """Who keeps a dead daemon's lock. What is ending loses its descriptors before its locks."""
    for _ in range(LOOKS):
        pid = who_holds(found)
        if pid is not None or locked(fd) == FREE:
            return pid
        sleep(RETRY)
    return None


def _shown_to_anyone(path: str) -> Holder:
    """For who may not read the record: what ``/proc/locks`` and the pid file say."""
    lock = os.stat(path + SUFFIX, follow_symlinks=False)
    modes = {mode for type_, mode, _ in shown(lock) if type_ == "OFDLCK"}
    if not modes:
        return Holder("free")
    if "WRITE" in modes:
        return Holder("starting")
    return Holder(
        "running",
        pid_of(path),
        why=f"says its pid file; who may read {path + SUFFIX!r}, can prove it",
    )


def pid_of(path: str) -> int | None:
    """The pid in the pid file: a hint, nothing more.

    :raises OSError: it can't be read
    """
    return read_with(pid_in, path)


def let_go(path: str) -> Holder | None:
    """`unlocked`, of the lock file beside the pid file, for who only looks."""
    try:
        return read_with(lambda fd: unlocked(path, fd), path + SUFFIX)
    except OSError:
        return None


def unlocked(path: str, fd: int) -> Holder | None:
    """The recorded process, if it lives on and holds no lock: it has closed what it did not open,
    or runs another program.

    Proven only where it could have removed the files, as a daemon does at its end: another user's,
    or one in a chroot, may have ended its context.
    """
    record = Record.read(fd)
    if record is None or record.pid == os.getpid():
        return None
    if not (record.is_of(path) and record.is_of_here and record.lives) or is_ending(record.pid):
        return None
    found, user = os.fstat(fd), real_uid(record.pid)
    if found.st_uid not in (0, os.geteuid(), user):
        return None  # its owner could name whom he likes
    proven = found.st_uid == user and found.st_nlink == 1 and _reaches(record.pid, path, found)
    why = CLOSED if proven else f"ended its context, {CLOSED}"
    return Holder("unlocked", record.pid, proven=proven, why=why)


def _reaches(pid: int, path: str, found: os.stat_result) -> bool:
    """Whether the path of the lock file means the file also for that process."""
    root = f"/proc/{pid}/root"
    try:
        # Where it has another root, a link to an absolute path, as /var/run, would lead into ours.
        same = os.path.samestat(os.stat(root), os.stat("/"))
        return same and os.path.samestat(os.lstat(f"{root}{path}{SUFFIX}"), found)
    except OSError:
        return False


def older(fd: int) -> Holder | None:
    """A live daemon of this library's older form, which has such a write lock on the pid file."""
    if locked(fd, ALIVE) == FREE:
        return None
    found = os.fstat(fd)
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        return None  # a write lock needs the right to write: anybody's, here
    if not any(lock[:2] == ("OFDLCK", "WRITE") for lock in shown(found)):
        return None
    return Holder("foreign", pid_in(fd), why="a daemon of an older form of this library")


def foreign(fd: int, users: set[int]) -> Holder | None:
    """A live daemon of another library that holds the pid file.

    :param users: whose processes count
    """
    pid = daemon_of_another_library(fd, users)
    return None if pid is None else Holder("foreign", pid, why="a daemon of another library")


def foreign_at(path: str) -> Holder | None:
    """The same, of the pid file at the path, for who only looks."""
    try:
        return read_with(_foreign_in, path)
    except OSError:
        return None


def _foreign_in(fd: int) -> Holder | None:
    return older(fd) or foreign(fd, {0, os.geteuid(), os.fstat(fd).st_uid})
