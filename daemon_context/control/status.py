"""What state a daemon is in, from outside.

Only what is proven counts: the pid file's lock says whether there is a daemon, the record who it
is; the status file beside it has the daemon's own words.
"""

from __future__ import annotations

import os
from time import monotonic, sleep

from ..pidfile.holder import LOOKS, RETRY, SUFFIX, let_go
from ..pidfile.record import has_own_numbers
from ..system import is_alive, stat_fields
from ..system.endings import started_at
from . import statusfile
from .lastend import REQUESTED, as_told, in_words, last_of
from .statusfile import BEGUN, TEXT_LARGEST
from .underway import is_underway

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..pidfile import PidFile
    from ..pidfile.holder import Holder


class Status:
    """What can be known about a daemon from here.

    :ivar state: ``"ready"``, ``"running"`` (whether it is ready is not to be known from here),
        ``"starting"``, ``"stopping"``, ``"stopped"``, ``"dead"`` (but its pid file is there) or
        ``"unknown"``
    :ivar pid: the live daemon's pid, or None; `reason` says where it isn't proven
    :ivar since: when the process started, in seconds since the epoch, or None
    :ivar text: the daemon's own words about its state, or None
    :ivar visible: whether the process is visible from here (it is not in another pid namespace)
    :ivar last_end: how the last daemon ended, where there is none now: a dictionary with ``how``
        (``requested``, ``exit``, ``exception``, ``signal``, ``killed`` or ``vanished``), ``at``
        (ISO 8601, UTC), ``pid``, ``exit_status``, ``signal``, ``error``, ``where`` and ``text``; or
        None
    :ivar previous: the same, of the one before the daemon that runs
    :ivar reason: why the state is what it is, in words
    """

    def __init__(self, state: str, reason: str, **facts: Any) -> None:
        self.state = state
        self.reason = reason
        self.pid: int | None = facts.get("pid")
        self.since: float | None = facts.get("since")
        self.text: str | None = facts.get("text")
        self.visible: bool = facts.get("visible", False)
        self.last_end: dict[str, Any] | None = facts.get("last_end")
        self.previous: dict[str, Any] | None = facts.get("previous")

    @property
    def is_running(self) -> bool:
        """Whether there is a live daemon, ready or not."""
        return self.state in ("ready", "running", "starting", "stopping")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))

    def __str__(self) -> str:
        return self.reason

    def __repr__(self) -> str:
        return f"<Status {self.state}: {self.reason}>"


def status_of(pidfile: PidFile, log: str = "") -> Status:
    """The state of the pid file's daemon. Changes nothing.

    :param log: where it has said more about its end
    """
    holder = pidfile.holder()  # first: before there is an owner, a start has replaced the file
    if holder.state == "free":
        said = statusfile.read(statusfile.path_of(pidfile.path))
        status = _status_unlocked(pidfile, said)
        return status if status.state == "unknown" else _with_end(status, said, log)
    if holder.state == "starting":
        return Status("starting", str(holder))
    if holder.state != "running":
        return Status("unknown", str(holder), pid=None)
    return _status_running(pidfile.path, holder)


def _status_running(path: str, holder: Holder) -> Status:
    from ..system.text import shown

    pid = holder.pid
    said = statusfile.read_of(path, pid)
    visible = bool(pid) and has_own_numbers() and stat_fields(pid or 0) is not None
    since = started_at(pid) if pid and visible else None
    state = "stopping" if is_underway(path) else _state(said)
    text = said.get("text") if said else None
    text = shown(text, TEXT_LARGEST, lines=True) if isinstance(text, str) else None
    words = f": {shown(text, TEXT_LARGEST)}" if text else ""
    name = f"running with pid {pid}" if pid else "running in another pid namespace"
    if holder.why:
        name += f", {holder.why}"
    name += {"starting": ", not ready yet", "stopping": ", stopping"}.get(state, "")
    return Status(
        state,
        f"{name}{words}",
        pid=pid,
        since=since,
        text=text,
        visible=visible,
        previous=_previous(path, said),
    )


def _state(said: dict[str, Any] | None) -> str:
    """By the daemon's own words."""
    if said is None:
        return "running"
    if said.get("stopping") is True or said.get("cleanup") == BEGUN:
        return "stopping"
    return "ready" if said.get("ready") is True and not _settles(said) else "starting"


def _previous(path: str, said: dict[str, Any] | None) -> dict[str, Any] | None:
    """The end of the one before, also where the one that runs has no status file."""
    if said is None:
        return last_of(statusfile.read(statusfile.path_of(path)))
    return as_told(said.get("previous"))


def _with_end(status: Status, said: dict[str, Any] | None, log: str) -> Status:
    """Nobody is there: how the last one ended, and where to read more."""
    status.last_end = last_of(said)
    if status.last_end is not None:
        status.reason += f"; {in_words(status.last_end)}"
        status.reason += f"; see {log}" if log and status.last_end["how"] != REQUESTED else ""
    return status


def _settles(said: dict[str, Any]) -> bool:
    """Whether `run` has not lived long enough yet; by the clock that all processes share."""
    until = said.get("settled")
    return isinstance(until, (int, float)) and monotonic() < until


def _status_unlocked(pidfile: PidFile, said: dict[str, Any] | None) -> Status:
    """Nobody holds the lock: not running, if the file is one of ours."""
    lives = _without_lock(pidfile.path)
    if lives is not None:
        return Status("unknown", f"{lives}; end it by its pid (kill {lives.pid})")
    if not os.path.lexists(pidfile.path):
        return Status("stopped", "not running")
    if not os.access(pidfile.path, os.R_OK):
        text = f"the pid file {pidfile.path!r} may not be read by this user; ask as "
        return Status("unknown", text + _reader(pidfile.path))
    named = pidfile.read_pid()
    if named is None:
        return Status("stopped", "not running")
    ours = said is not None and "ended" not in said and said.get("pid") == named
    if not ours and not os.path.lexists(pidfile.path + SUFFIX) and is_alive(named):
        return Status(
            "unknown",
            f"the pid file {pidfile.path!r} names pid {named}, which runs, but nothing proves that "
            "it is the daemon: nobody holds the file's lock",
        )
    return Status("dead", f"not running, but its pid file is there (it was pid {named})")


def _without_lock(path: str) -> Holder | None:
    """Who was the daemon and lives on. What is ending loses its locks before its last thread."""
    for _ in range(LOOKS):
        holder = let_go(path)
        if holder is None:
            return None
        sleep(RETRY)
    return holder


def _reader(path: str) -> str:
    """Who may read the file."""
    import pwd

    try:
        name = pwd.getpwuid(os.lstat(path).st_uid).pw_name
    except (OSError, KeyError):
        return "root"
    return "root" if name == "root" else f"root, or as {name}"
