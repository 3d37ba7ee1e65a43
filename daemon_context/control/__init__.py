"""Daemons from outside: stopping one, having it reload.

Only what is proven counts: the pid file's lock says whether there is a daemon, the record who it
is, a pidfd makes sure that nobody else is signalled, and stopped means that the process is gone
*and* the lock is free.
"""

from __future__ import annotations

import errno
import os
from time import monotonic, sleep

from ..embedding import SCHEDULE, send, signal_number
from ..errors import DaemonError
from ..pidfile import PidFile
from ..system import open_pidfd, poll, signal, signal_name, stat_fields
from ..system.endings import exit_words
from ..system.groups import Group
from . import statusfile
from .recording import remember
from .status import status_of
from .stopped import Stopped
from .waiting import TICK, settled
from .waiting import finish_stopping as finish_stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .waiting import Waiting as Waiting

RELOAD_TIMEOUT = 30.0
TAKEN_OVER = "; end it by its pid if it is, or start: that takes the file over"
HEARD = 1.0  # seconds in which a daemon that sleeps has run the handler of a signal


def stop(
    pidfile: PidFile,
    schedule: Iterable[tuple[str | int, float]] = SCHEDULE,
    waiting: Waiting | None = None,
) -> Stopped:
    """Stop the daemon; returns when it is gone and its lock is free.

    :param schedule: pairs of a signal and the seconds to wait after it
    :param waiting: called with what is waited for and for how long, about once a second
    :raises DaemonError: it is not gone, or it can't be proven who the daemon is
    """
    stages = tuple((signal_number(name), seconds) for name, seconds in schedule)
    target = Target.find(pidfile, waiting)
    stopped = Stopped()
    if target is not None:
        try:
            stopped = target.stop(stages)
        finally:
            target.close()
    if stopped.pid != os.getpid():
        left = _swept(pidfile)
        stopped.left = None if stopped.pid else left
        remember(pidfile.path, stopped)
    return stopped


def _swept(pidfile: PidFile) -> int | None:
    """Remove what a daemon leaves that is dead, or may not remove its own files; which it was."""
    if not os.path.lexists(pidfile.path):
        return None
    pid = pidfile.read_pid()
    try:
        PidFile(pidfile.path).break_lock()
    except DaemonError:  # not permitted either, or there is a new one
        return None
    return pid


class Target:
    """The process that a stop or reload is about: proven, its pidfd, and proven again."""

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
                remedy = TAKEN_OVER if os.access(pidfile.path, os.R_OK) else ""
                text = f"cannot signal the daemon: {found.reason}{remedy}"
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

    def stop(self, schedule: tuple[tuple[int, float], ...]) -> Stopped:
        """Signal and wait, as the schedule says."""
        begun = monotonic()
        facts: dict[str, Any] = {"asked": signal_name(schedule[0][0]) if schedule else ""}
        for stage, (number, seconds) in enumerate(schedule, 1):
            if number == signal.SIGKILL:
                said = statusfile.read(statusfile.path_of(self.pidfile.path)) or {}
                facts.update(killed=monotonic() - begun, cleanup=said.get("cleanup"))
            self.send(number)
            if self.pid == os.getpid():  # which can't wait for its own end
                return Stopped(self.pid, **facts)
            if stage == len(schedule) and number == signal.SIGKILL and self.group is not None:
                self.group.kill()
            if self._gone(begun, seconds):
                return Stopped(self.pid, exit_words(self.pidfd), **facts)
        holder = self.pidfile.holder()
        why = f"pid {self.pid} still runs" if not poll({self.pidfd}, 0) else str(holder)
        raise DaemonError(
            f"the daemon did not stop within {monotonic() - begun:.0f} seconds and all signals of "
            f"the schedule: {why} (pid file {self.pidfile.path!r})",
            pid=self.pid,
            path=self.pidfile.path,
        )

    def _gone(self, begun: float, seconds: float) -> bool:
        """Wait for the process, by its pidfd, and then for the lock, which has no event."""
        deadline = monotonic() + seconds
        while not poll({self.pidfd}, max(0.0, min(1.0, deadline - monotonic()))):
            if monotonic() >= deadline:
                return False
            self._tell(begun)
        while not self._is_free():
            if monotonic() >= deadline:
                return False
            sleep(TICK)
        return True

    def _tell(self, begun: float) -> None:
        if self.waiting is not None:
            self.waiting(f"pid {self.pid} to end", monotonic() - begun)

    def _is_free(self) -> bool:
        """Free, or already held by another daemon that was started since."""
        holder = self.pidfile.holder()
        return holder.state == "free" or (
            holder.state in ("starting", "running") and holder.pid != self.pid
        )


def reload(
    pidfile: PidFile, timeout: float = RELOAD_TIMEOUT, waiting: Waiting | None = None
) -> int:
    """Have the daemon reload; returns its pid when it has taken the new configuration.

    :raises NotTold: it was asked, but has given the signal to somebody else
    :raises DaemonError: it is not running, did not answer in time, or could not take it: then
        the old configuration still works
    """
    target = Target.find(pidfile, waiting)
    if target is None:
        text = f"the daemon is not running, so it can't reload (pid file {pidfile.path!r})"
        raise NotRunning(text, path=pidfile.path)
    try:
        path = statusfile.path_of(pidfile.path)
        begun = _begun(path, target.pid)
        heard = (statusfile.read(path) or {}).get("hangups")
        target.send(signal.SIGHUP)
        return _reloaded(target, path, begun, heard, timeout)
    finally:
        target.close()


class NotRunning(DaemonError):
    """There is no daemon to act on."""


class NotTold(DaemonError):
    """The daemon was asked to reload, and nobody tells how that went."""


def _begun(path: str, pid: int) -> int:
    """How many reloads it has begun until now: with an older configuration than ours."""
    said = statusfile.read(path)
    if said is None and not os.path.lexists(path):
        raise DaemonError(
            f"cannot reload: there is no {path!r}, so nobody could tell how it went; only the "
            "Daemon class makes one",
            pid=pid,
            errno=errno.ENOENT,
        )
    if said is None:
        raise DaemonError(
            f"cannot reload: {path!r} can't be read, so nobody could tell how it went; only root "
            "and the daemon's user may",
            pid=pid,
            errno=errno.EACCES,
        )
    number = said.get("reloads")
    if not isinstance(number, int):
        text = f"the daemon (pid {pid}) is not ready yet, so it can't reload"
        raise DaemonError(f"{text} ({_named(path)})", pid=pid)
    return number + bool(said.get("reloading"))


def _reloaded(target: Target, path: str, before: int, heard: Any, timeout: float) -> int:
    begun = told = monotonic()
    deaf = Deaf(target.pid, heard)
    while monotonic() - begun < timeout:
        if poll({target.pidfd}, TICK):
            raise DaemonError(
                f"the daemon (pid {target.pid}) ended while it reloaded ({_named(path)})",
                pid=target.pid,
            )
        said = statusfile.read(path) or {}
        done = said.get("reloads")
        if isinstance(done, int) and done > before:
            if said.get("reload_error"):
                raise _refused(said["reload_error"], target.pid, path)
            return target.pid
        if deaf.is_sure(said):
            raise NotTold(
                f"sent SIGHUP to pid {target.pid}, whose run() has a handler of its own for it: "
                "nobody tells how it went",
                pid=target.pid,
            )
        if target.waiting is not None and monotonic() - told > 1:
            told = monotonic()
            target.waiting("the daemon to reload", told - begun)
    raise DaemonError(
        f"the daemon (pid {target.pid}) has not taken the reload within {timeout:g} seconds "
        f"({_named(path)}): run() may be busy, it reloads when it comes to sleep()",
        pid=target.pid,
    )


def _named(path: str) -> str:
    """The pid file of a status file, in words."""
    return f"pid file {path.removesuffix(statusfile.SUFFIX)!r}"


class Deaf:
    """Whether a signal has not come to our handler, though the daemon could have run it: it was not
    busy, but slept, in so many looks.
    """

    def __init__(self, pid: int, heard: Any) -> None:
        self.pid, self.heard, self.looks = pid, heard, 0

    def is_sure(self, said: dict[str, Any]) -> bool:
        if not isinstance(self.heard, int) or said.get("hangups") != self.heard:
            return False
        self.looks += (stat_fields(self.pid) or "?")[0] == "S"
        return self.looks > HEARD / TICK


def _refused(said: Any, pid: int, path: str) -> DaemonError:
    from ..report.failures import in_short

    words, traceback = in_short(said)
    if isinstance(said, dict) and said.get("reloaded") is True:
        why = words.partition(": ")[2] or words  # the class says nothing here
        return DaemonError(f"the daemon (pid {pid}) has reloaded, but {why}", pid=pid)
    error = DaemonError(
        f"the daemon (pid {pid}, {_named(path)}) goes on with its old configuration, on_reload() "
        f"raised {words}",
        pid=pid,
    )
    if traceback:
        error.add_note(f"In the daemon (pid {pid}):\n{traceback}")
    return error
