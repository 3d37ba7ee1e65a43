"""Which of many descriptors may belong to event loops, without a look at each, which would take as
long as to close them. Imported by the launcher, and only where there are so many.
"""

from __future__ import annotations

import select
from io import FileIO

from .descriptors import FEW, asked


def suspects(fds: set[int]) -> set[int]:
    """Those that have to be looked at."""
    return fds if _has_ring() else _unwritable(fds)


def _has_ring() -> bool:
    """Whether there may be an io_uring, which is nothing without memory that it shares."""
    try:
        with FileIO("/proc/self/maps") as file:
            return b"[io_uring]" in file.readall()
    except OSError:
        return False


def _unwritable(fds: set[int]) -> set[int]:
    """Those that can't be written to now, as no epoll or inotify descriptor ever can: `poll` tells
    it for hundreds in one call.
    """
    found: set[int] = set()
    everything = list(fds)
    for start in range(0, len(everything), FEW):
        numbers = everything[start : start + FEW]
        answers = asked(numbers, select.POLLOUT) or ()
        writable = [fd for fd, event in answers if event & select.POLLOUT]
        if len(writable) < len(numbers):
            found.update(set(numbers).difference(writable))
    return found
