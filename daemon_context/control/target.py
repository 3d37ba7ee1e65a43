"""The daemon that a stop or reload is about: the pid file's lock says whether there is one, the
record who it is, and a pidfd makes sure that nobody else is signalled.
"""

from __future__ import annotations

import errno
import os

from ..embedding import send
from ..errors import DaemonError
from ..pidfile.holder import let_go
from ..system import open_pidfd
from ..system.groups import Group
from . import statusfile
from .status import status_of
from .waiting import settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..pidfile import PidFile
    from .waiting import Waiting

TAKEN_OVER = ", or start: that takes the file over"


def _remedy(path: str) -> str:
    """What can be done about what may be the daemon, beside what its status says."""
    lives = let_go(path)
    if lives is not None:
        return ": no start goes beside it" if lives.proven else TAKEN_OVER
    known = os.access(path, os.R_OK)
    return f"; end it by its pid if it is the daemon{TAKEN_OVER}" if known else ""


class Target:
    """A live daemon: proven, its pidfd, and proven again."""

    def __init__(self, pidfile: PidFile, pid: int, pidfd: int, waiting: Waiting | None) -> None:
        self.pidfile, self.pid, self.pidfd, self.waiting = pidfile, pid, pidfd, waiting
        self.group: Group | None = None

    @classmethod
    def find(cls, pidfile: PidFile, waiting: Waiting | None = None) -> Target | None:
        """The live daemon; None if there is none.

        :raises DaemonError: there may be one, but it can't be proven, or not be reached
        """
        holder = settled(pidfile, waiting)
        if holder.state == "free":
            found = status_of(pidfile)
            if found.state == "unknown":
                text = f"cannot signal the daemon: {found.reason}{_remedy(pidfile.path)}"
                raise DaemonError(text, path=pidfile.path)
            return None
        if not holder.proven or not holder.pid:
            number = errno.EACCES if holder.state == "running" and holder.pid else None
            text = f"cannot signal the daemon: {holder} (pid file {pidfile.path!r})"
            raise DaemonError(text, path=pidfile.path, errno=number)
        return cls._prove(pidfile, holder.pid, waiting)

    @classmethod
    def _prove(cls, pidfile: PidFile, pid: int, waiting: Waiting | None) -> Target | None:
        try:
            pidfd = open_pidfd(pid)
        except ProcessLookupError:  # ended meanwhile; who has the lock now?
            return cls.find(pidfile, waiting)
        if pidfd is None:
            raise DaemonError("this system has no pidfds, which signalling safely needs")
        try:
            target = cls(pidfile, pid, pidfd, waiting)
            holder = pidfile.holder()
        except BaseException:
            os.close(pidfd)
            raise
        if holder.proven and holder.pid == pid:
            target.group = Group(pid, pidfd, holder.session)
            return target
        target.close()  # it ended, and the number may be another's by now
        return cls.find(pidfile, waiting)

    def close(self) -> None:
        """Let go of the pidfd."""
        os.close(self.pidfd)

    def send(self, number: int) -> None:
        """Signal the daemon, also one that hangs at its end and has let go of the pid file.

        :raises DaemonOSEnvironmentError: this user may not
        """
        send(self.pid, self.pidfd, number)

    def said(self) -> dict[str, Any] | None:
        """What its status file says; None if there is none of its, or none that may be read."""
        return statusfile.read_of(self.pidfile.path, self.pid)
