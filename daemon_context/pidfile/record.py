"""Who the daemon is: the record, in a file that only the launching user can write.

A pid comes again. With the start time, the boot and the pid namespace it names one process for
ever, and so does the inode of its pidfd (pidfs: Linux 6.9), which needs no ``/proc``. The path says
that the file has not been moved here from another pid file.
"""

from __future__ import annotations

import os
from io import FileIO

from ..system import open_pidfd, poll
from ..system.paths import real_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Self = TypeVar("Self", bound="Record")

LARGEST = 1 << 13
PIDS, COUNTS = 1 << 31, 1 << 64  # beyond these no process and no inode can be asked for
NUMBERS = ("pid", "started", "inode", "namespace", "uid", "session")
_told: tuple[int, dict[str, int | str], str] = (0, {}, "")
_boot = ""  # this one, once it could be read


def identify() -> dict[str, int | str]:
    """What names this process. Asked of ``/proc`` once, which a chroot has not: do it before."""
    global _told
    pid = os.getpid()
    if _told[0] != pid:
        fields = {"pid": pid, "started": started(pid), "inode": inode(pid), **place()}
        _told = pid, fields, "".join(f"{name} {value}\n" for name, value in fields.items())
    return _told[1]


def place() -> dict[str, int | str]:
    """The boot and the pid namespace: a pid means a process only there."""
    global _boot
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    _boot = _boot or _of_proc("sys/kernel/random/boot_id").strip()
    return {"boot": _boot or "-", "namespace": namespace}


def started(pid: int) -> int:
    """When the process started, in ticks since boot; 0: there is none, or no ``/proc``."""
    fields = _of_proc(f"{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if fields and fields[0] not in "ZX" else 0


def inode(pid: int) -> int:
    """The inode of the process's pidfd; 0: there is no such process, or all have the same one."""
    try:
        pidfd = open_pidfd(pid)
    except ProcessLookupError:
        return 0
    if pidfd is None:
        return 0
    try:
        found = os.fstat(pidfd)
        ended = bool(poll({pidfd}, 0))
    finally:
        os.close(pidfd)
    # Before pidfs they were anonymous inodes, which are not executable.
    return found.st_ino if found.st_mode & 0o100 and not ended else 0


def _of_proc(path: str) -> str:
    """The content of a file below ``/proc``; '' where there is none.

    :raises OSError: there may be one, but no descriptor is left to read it
    """
    try:
        with FileIO(f"/proc/{path}") as file:
            return (file.read(LARGEST) or b"").decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


class Record:
    """What the lock file says.

    :ivar path: the pid file
    :ivar pid: the daemon's, in its pid namespace
    :ivar started: its start time in ticks since boot
    :ivar inode: that of its pidfd; 0 where the kernel has none
    :ivar uid: the user that it becomes
    :ivar session: the session and process group that its start made; 0: none
    """

    path: str
    pid: int
    started: int
    inode: int
    namespace: int
    uid: int
    session: int
    boot: str

    def __init__(self, data: bytes) -> None:
        head, found, path = data.partition(b"\npath ")
        if not found or not path.endswith(b"\n") or b"\0" in path:
            raise ValueError("not a record")
        words = dict(line.split(" ", 1) for line in head.decode("ascii").split("\n"))
        self.__dict__.update({name: int(words[name]) for name in NUMBERS})
        if not (0 < self.pid < PIDS and all(0 <= vars(self)[name] < COUNTS for name in NUMBERS)):
            raise ValueError("not a record")
        self.boot, self.path = words["boot"], os.fsdecode(path[:-1])

    @classmethod
    def read(cls: type[Self], fd: int) -> Self | None:
        """What the file says; None if that is no record."""
        try:
            return cls(os.pread(fd, LARGEST, 0))
        except (ValueError, KeyError, UnicodeError):
            return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and vars(self) == vars(other)

    @property
    def is_of_here(self) -> bool:
        """Whether its pid means a process of this boot and this pid namespace."""
        return {"boot": self.boot, "namespace": self.namespace} == place()

    def is_of(self, path: str) -> bool:
        """Whether it is that of the pid file, whose directory may have several names. A link of
        somebody else gives it none: it may lead to the record of another daemon.
        """
        if self.path == path:
            return True
        users = {0, os.geteuid()}
        real = real_path(path, users)
        return real is not None and real == real_path(self.path, users)

    @property
    def lives(self) -> bool:
        """Whether its process lives."""
        if self.inode:
            return inode(self.pid) == self.inode
        return bool(self.started) and started(self.pid) == self.started

    @property
    def keeps_its_user(self) -> bool:
        """Whether its process is of the recorded user. Root may have become another by itself."""
        from .locks import real_uid

        if self.uid == 0 or not has_own_numbers():
            return True
        return real_uid(self.pid) in (None, self.uid)  # None: without /proc


def has_own_numbers() -> bool:
    """Whether ``/proc`` has the processes by their numbers here: after ``unshare --pid`` without a
    mount of its own it has those of the namespace outside.
    """
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def written(path: str, uid: int, session: int) -> bytes:
    """The record of this process."""
    identify()
    head = f"{_told[2]}uid {uid}\nsession {session}\npath "
    return head.encode("ascii") + os.fsencode(path) + b"\n"
