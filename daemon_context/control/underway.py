"""A stop that is under way, for who asks how the daemon does: one that ignores the signal, or is
busy, says nothing about it.

While a stop waits it has a record lock on the pid file, which goes with its process, whatever ends
that; nobody else takes such a lock there. The kernel shows whose it is: that of a stranger, who may
read the file, doesn't count.
"""

from __future__ import annotations

import fcntl
import os

from ..pidfile.locks import open_for_reading, real_uid, shown


class Underway:
    """The stop, as a context manager: seen by `is_underway`, as far as the file may be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd: int | None = None

    def __enter__(self) -> None:
        try:
            self.fd = open_for_reading(self.path)
            if self.fd is not None:
                fcntl.lockf(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # then nobody sees it
            pass

    def __exit__(self, *raised: object) -> None:
        if self.fd is not None:
            os.close(self.fd)


def is_underway(path: str) -> bool:
    """Whether root, the pid file's owner or this user is stopping its daemon."""
    try:
        found = os.lstat(path)
        pids = [pid for type_, mode, pid in shown(found) if (type_, mode) == ("POSIX", "READ")]
    except OSError:
        return False
    return any(real_uid(pid) in (0, os.geteuid(), found.st_uid) for pid in pids)
