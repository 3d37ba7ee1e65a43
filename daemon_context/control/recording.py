"""What `stop` records of a daemon that could not tell its end: it was killed, or had vanished.

It replaces the status file, and follows nothing that the daemon's user has put there. As root it
writes only where nobody else could lead the path elsewhere.
"""

from __future__ import annotations

import os

from . import statusfile
from .lastend import KILLED, REQUESTED, SIGNAL, VANISHED, as_told, last_of, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .stopping import Stopped


def remember(path: str, stopped: Stopped) -> None:
    """Record the end of the daemon that was stopped, or found dead, unless it has told it itself.

    :param path: of the pid file
    """
    file = statusfile.path_of(path)
    said = statusfile.read(file)
    if said is None:
        return  # none of ours, or nothing for this user to read
    ended = _of_stop(stopped, said) if stopped.pid else _of_dead(said)
    if ended is not None:
        _replace(file, {"ended": ended})


def _of_stop(stopped: Stopped, said: dict[str, Any]) -> dict[str, Any] | None:
    told = as_told(said.get("ended"))
    if stopped.killed is not None:
        return record(KILLED, stopped.pid, signal="SIGKILL", text=f"stop {stopped}")
    if told is not None and told["pid"] == stopped.pid:
        return None
    how = f": it {stopped.how}" if stopped.how else ""
    text = f"asked to stop, by {stopped.asked}, without an end of its own{how}"
    kind, _, name = (stopped.how or "").rpartition(" ")
    if kind == "was killed by" and name != stopped.asked:
        return record(SIGNAL, stopped.pid, signal=name, text=text)
    return record(REQUESTED, stopped.pid, signal=stopped.asked, text=text)


def _of_dead(said: dict[str, Any]) -> dict[str, Any] | None:
    told = last_of(said)
    return told if told is not None and told["how"] == VANISHED and "ended" not in said else None


def _replace(file: str, values: dict[str, Any]) -> None:
    directory = os.path.realpath(os.path.dirname(file))
    if os.geteuid() or _leads_only_there(directory):
        statusfile.put(os.path.join(directory, os.path.basename(file)), values, 0o644)


def _leads_only_there(directory: str) -> bool:
    """Whether only root could put another directory in this one's place."""
    while (above := os.path.dirname(directory)) != directory:
        found = os.stat(above)
        if found.st_uid or (found.st_mode & 0o022 and not found.st_mode & 0o1000):
            return False
        if found.st_mode & 0o022 and os.stat(directory).st_uid:
            return False  # its owner may rename it, below a directory such as /tmp
        directory = above
    return True
