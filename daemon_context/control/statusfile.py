"""What a daemon tells others: a small JSON file beside the pid file.

Ready or not, a few words about the state, how the last reload ended, and at last how the daemon
did: the file outlives it, and so names the process whose words they are. Nobody acts on a pid from
it: who the daemon is, the record beside the pid file tells. Mode 0600, because the words may be
private; who may not read it gets None for its values.
"""

from __future__ import annotations

import errno
import json
import os
from _thread import allocate_lock
from time import time

from ..pidfile.holder import SUFFIX as LOCK
from ..pidfile.locks import read_with
from ..pidfile.record import Record, identify
from ..system import SignalsHeld
from ..system.descriptors import is_still, lifted
from .lastend import last_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.frozen import Options

BEGUN, DONE = "begun", "done"  # of cleanup()
SUFFIX, NEW = ".status", ".new"
MODE = 0o600
FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
LARGEST = 1 << 20  # room for the capped texts, at the twelve bytes that JSON needs for some
TEXT_LARGEST = 1 << 14
WRITER = ("pid", "started", "inode", "namespace", "boot")


def path_of(pidfile: str) -> str:
    """The status file that belongs to a pid file."""
    return pidfile + SUFFIX


def read(path: str) -> dict[str, Any] | None:
    """What the daemon says; None if there is nothing, or nothing that this user may read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = os.read(fd, LARGEST)
        finally:
            os.close(fd)
        found = json.loads(data or b"{}")  # empty: it has said nothing yet
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_of(pidfile: str, pid: int | None) -> dict[str, Any] | None:
    """What the daemon says that lives, of this pid; None also where an earlier one has said it."""
    said = read(path_of(pidfile))
    # Empty: whose it will be is being started.
    return said if not said or _is_by(said, pidfile, pid) else None


def _is_by(said: dict[str, Any], pidfile: str, pid: int | None) -> bool:
    try:
        record = read_with(Record.read, pidfile + LOCK)
    except OSError:  # not for this user to read
        return pid is not None and said.get("pid") == pid
    return record is not None and all(said.get(n) == getattr(record, n) for n in WRITER)


class StatusFile:
    """The daemon's side: made in the launcher, written by the daemon."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        self.found: os.stat_result | None = None  # see `_is_ours`
        self.in_reach = True  # not in a chroot, where the path would name another file
        self.values: dict[str, Any] = {}
        self.due = False
        self.at_work = allocate_lock()

    def begin(self, options: Options) -> None:
        """Create the file anew, for the daemon's user. In the launcher, which holds the lock."""
        self.values = {"previous": last_of(read(self.path))}
        self._unlink()
        self.in_reach = options.chroot_directory is None
        self.fd = os.open(self.path, FLAGS, MODE)
        self.found = os.fstat(self.fd)
        os.fchmod(self.fd, MODE)
        if options.owner_changes:
            os.fchown(self.fd, options.uid, options.gid)

    def tell(self, **values: Any) -> None:
        """Replace what the file says, if there is one. In the daemon.

        :raises OSError: it can't be told that the daemon is ready; what comes later may be lost
        """
        self.values.update(values, told=time(), **identify())
        self.due = True
        # Who comes in the middle of it, a signal handler or a thread, leaves the writing to who is
        # at it: waiting for that could last for ever.
        while self.due and self.at_work.acquire(blocking=False):
            try:
                self.due = False
                self._write()
            except OSError:  # as the disk is full
                if "ready" in values:
                    raise
            finally:
                self.at_work.release()

    def _write(self) -> None:
        if not self._is_ours():
            return
        values = {
            key: value[:TEXT_LARGEST] if isinstance(value, str) else value
            for key, value in self.values.copy().items()
        }
        data = json.dumps(values).encode() + b"\n"
        if not (self.in_reach and self._replace(data)):
            self._overwrite(data)

    def end(self, ended: dict[str, Any]) -> None:
        """Say how the daemon ended; the file stays. In the daemon, at its end."""
        if not self._is_ours():
            return
        try:
            if self.in_reach:
                self._unlink(NEW)  # of a `tell` that a signal has ended
            if self.at_work.acquire(timeout=1):  # a thread may be in the middle of its words
                self.at_work.release()
            self.tell(ended=ended)
        finally:
            os.close(self.fd)
            self.fd = -1

    def restore(self) -> None:
        """The start has failed: what was there before it is there again. In the launcher."""
        if not self._is_ours():
            return
        try:
            os.ftruncate(self.fd, 0)
            os.close(self.fd)
        finally:
            self.fd = -1
            self._unlink()
            self._unlink(NEW)
            if self.values["previous"] is not None:
                put(self.path, {"ended": self.values["previous"]})

    def _is_ours(self) -> bool:
        return is_still(self.fd, self.found)

    def _replace(self, data: bytes) -> bool:
        """Atomically; False where the daemon's user may not write in the directory."""
        new = self.path + NEW
        try:
            fd = lifted(_create(new))
        except OSError:
            return False
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.rename(new, self.path)
        except OSError:
            os.close(fd)
            self._unlink(NEW)
            return False
        with SignalsHeld():  # between the two, the file would be taken for a stranger's
            os.dup2(fd, self.fd, inheritable=False)  # the number is one that every step keeps
            self.found = os.fstat(fd)
        os.close(fd)
        return True

    def _overwrite(self, data: bytes) -> None:
        # In one write that never makes the file shorter: a truncation is a moment in which a reader
        # gets new words with the end of old ones.
        try:
            data = data.ljust(os.fstat(self.fd).st_size)
            if os.pwrite(self.fd, data, 0) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from None

    def _unlink(self, suffix: str = "") -> None:
        try:
            os.unlink(self.path + suffix)
        except OSError:  # not there, or not permitted: then it has been emptied
            pass


def put(path: str, values: dict[str, Any], mode: int = MODE) -> None:
    """Replace the file by one that only this user can write, whatever is there; if that may be.

    What is this user's own is overwritten where the directory is not to be written in.
    """
    new = path + NEW
    try:
        fd = _create(new)
    except OSError:
        _put_into(path, values)
        return
    try:
        with open(fd, "wb") as file:
            file.write(json.dumps(values).encode() + b"\n")
            os.fchmod(fd, mode)
        os.rename(new, path)
    except OSError:
        os.unlink(new)


def _put_into(path: str, values: dict[str, Any]) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "wb") as file:
            found = os.fstat(fd)
            if found.st_uid == os.geteuid() and found.st_nlink == 1:
                file.write((json.dumps(values).encode() + b"\n").ljust(found.st_size))
    except OSError:  # then it says what it did
        pass


def _create(path: str) -> int:
    """Never a file that is there already: it may be a stranger's."""
    try:
        return os.open(path, FLAGS, MODE)
    except FileExistsError:  # or it was left by a daemon that was killed
        os.unlink(path)
        return os.open(path, FLAGS, MODE)
