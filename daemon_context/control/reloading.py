"""Having a daemon reload: it is asked by SIGHUP, and its status file tells how that went."""

from __future__ import annotations

import errno
import os

from ..errors import DaemonError
from ..system import poll, signal, stat_fields
from . import statusfile
from .target import Target
from .waiting import TICK, looks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..pidfile import PidFile
    from .waiting import Waiting

TIMEOUT = 30.0
HEARD = 1.0  # seconds in which a daemon that sleeps has run the handler of a signal


class NotRunning(DaemonError):
    """There is no daemon to act on."""


class NotTold(DaemonError):
    """The daemon was asked to reload, and nobody tells how that went."""


def reload(pidfile: PidFile, timeout: float = TIMEOUT, waiting: Waiting | None = None) -> int:
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
        said = target.said()
        if said is None:
            raise _untold(target)
        begun = _begun(target, said)
        target.send(signal.SIGHUP)
        return _reloaded(target, begun, Deaf(target.pid, said.get("hangups")), timeout)
    finally:
        target.close()


def _begun(target: Target, said: dict[str, Any]) -> int:
    """How many reloads it has begun until now: with an older configuration than ours."""
    number = said.get("reloads")
    if not isinstance(number, int):
        text = f"the daemon (pid {target.pid}) is not ready yet, so it can't reload"
        raise DaemonError(f"{text} ({_named(target)})", pid=target.pid)
    return number + bool(said.get("reloading"))


def _untold(target: Target) -> DaemonError:
    path = statusfile.path_of(target.pidfile.path)
    why, who, number = f"there is no {path!r}", "the Daemon class makes one", errno.ENOENT
    if statusfile.read(path) is not None:
        why = f"what is in {path!r} is of an earlier daemon"
    elif os.path.lexists(path):
        why, who, number = f"{path!r} can't be read", "root and the daemon's user may", errno.EACCES
    text = f"cannot reload: {why}, so nobody could tell how it went; only {who}"
    return DaemonError(text, pid=target.pid, errno=number)


def _reloaded(target: Target, before: int, deaf: Deaf, timeout: float) -> int:
    for _ in looks(timeout, "the daemon to reload", target.waiting):
        if poll({target.pidfd}, 0):
            text = f"the daemon (pid {target.pid}) ended while it reloaded ({_named(target)})"
            raise DaemonError(text, pid=target.pid)
        said = target.said() or {}
        done = said.get("reloads")
        if isinstance(done, int) and done > before:
            if said.get("reload_error"):
                raise _refused(said["reload_error"], target)
            return target.pid
        if deaf.is_sure(said):
            raise NotTold(
                f"sent SIGHUP to pid {target.pid}, whose run() has a handler of its own for it: "
                "nobody tells how it went",
                pid=target.pid,
            )
    raise DaemonError(
        f"the daemon (pid {target.pid}) has not taken the reload within {timeout:g} seconds "
        f"({_named(target)}): run() may be busy, it reloads when it comes to sleep()",
        pid=target.pid,
    )


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


def _refused(said: Any, target: Target) -> DaemonError:
    from ..report.failures import in_short

    pid = target.pid
    words, traceback = in_short(said)
    if isinstance(said, dict) and said.get("reloaded") is True:
        why = words.partition(": ")[2] or words  # the class says nothing here
        return DaemonError(f"the daemon (pid {pid}) has reloaded, but {why}", pid=pid)
    error = DaemonError(
        f"the daemon (pid {pid}, {_named(target)}) goes on with its old configuration, on_reload() "
        f"raised {words}",
        pid=pid,
    )
    if traceback:
        error.add_note(f"In the daemon (pid {pid}):\n{traceback}")
    return error


def _named(target: Target) -> str:
    return f"pid file {target.pidfile.path!r}"
