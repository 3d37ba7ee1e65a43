"""Waiting for what another process is at: a start, a stop, a reload."""

from __future__ import annotations

from time import monotonic, sleep

from .status import status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..pidfile import PidFile
    from ..pidfile.holder import Holder

    Waiting = Callable[[str, float], None]

STARTING = 30.0  # seconds to wait for a start that is under way
STOPPING = 60.0  # seconds to wait for a stop that is under way
TICK = 0.02  # seconds between looks at what has no event: the lock, the status file


def looks(seconds: float, what: str, waiting: Waiting | None) -> Iterator[None]:
    """One each `TICK`, for so long; who waits is told about once a second what for."""
    begun = told = now = monotonic()
    while now - begun < seconds:
        yield
        sleep(TICK)
        now = monotonic()
        if waiting is not None and now - told > 1:
            told = now
            waiting(what, now - begun)


def settled(pidfile: PidFile, waiting: Waiting | None) -> Holder:
    """Who holds the lock, once a start that is under way has come to its end."""
    holder = pidfile.holder()
    for _ in looks(STARTING, "the start that is under way", waiting):
        if holder.state != "starting":
            break
        holder = pidfile.holder()
    return holder


def finish_stopping(pidfile: PidFile, waiting: Waiting | None = None) -> None:
    """Wait for the end of a daemon that is stopping, for `STOPPING` seconds at most."""
    for _ in looks(STOPPING, "the daemon that is stopping to end", waiting):
        if status_of(pidfile).state != "stopping":
            break
