"""Waiting for what another process is at: a start, or a stop."""

from __future__ import annotations

from time import monotonic, sleep

from .status import status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..pidfile import PidFile
    from ..pidfile.holder import Holder

    Waiting = Callable[[str, float], None]

STARTING = 30.0  # seconds to wait for a start that is under way
STOPPING = 60.0  # seconds to wait for a stop that is under way
TICK = 0.02  # seconds between looks at what has no event: the lock, the status file


def settled(pidfile: PidFile, waiting: Waiting | None) -> Holder:
    """Who holds the lock, once a start that is under way has come to its end."""
    begun = told = monotonic()
    while (holder := pidfile.holder()).state == "starting" and monotonic() - begun < STARTING:
        sleep(TICK)
        if waiting is not None and monotonic() - told > 1:
            told = monotonic()
            waiting("the start that is under way", told - begun)
    return holder


def finish_stopping(pidfile: PidFile, waiting: Waiting | None = None) -> None:
    """Wait for the end of a daemon that is stopping, for `STOPPING` seconds at most."""
    begun = told = monotonic()
    while monotonic() - begun < STOPPING:
        if status_of(pidfile).state != "stopping":
            return
        if waiting is not None and monotonic() - told > 1:
            told = monotonic()
            waiting("the daemon that is stopping to end", told - begun)
        sleep(TICK)
