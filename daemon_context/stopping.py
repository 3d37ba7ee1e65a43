"""The daemon's loop: sleeping until the time is over or a stop is requested.

A signal handler alone is not enough: a signal that arrives between the last look at its effects
and `poll` is lost until something else wakes the process, and PEP 475 resumes a `poll` that a
handler interrupted. So the C handler itself writes to a pipe (`signal.set_wakeup_fd`) that `poll`
watches.
"""

from __future__ import annotations

import os
from time import monotonic

from .process import poll, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stop:
    """Whether a stop was requested, and the sleep that it ends, in any thread.

    :param between: called before a sleep, when a signal has woken it, and between two rounds
    """

    def __init__(self, between: Callable[[], None] | None = None) -> None:
        self._between = between
        self.requested = False
        self._pipes_of: dict[int, tuple[int, ...]] = {}  # by process: a fork must not share them

    def request(self) -> None:
        """Request a stop: every sleep ends at once, in all threads."""
        self.requested = True
        fds = self._pipes_of.get(os.getpid())  # a forked child must not stop its parent
        if fds is not None:
            # Never read, so the pipe stays readable and wakes whoever sleeps.
            try:
                os.write(fds[1], b"s")
            except BlockingIOError:  # full of earlier requests
                pass

    def clear(self) -> None:
        """Forget the request, and close the pipes."""
        self.requested = False
        for fd in self._pipes_of.pop(os.getpid(), ()):
            os.close(fd)
        self._pipes_of.clear()

    def sleep(self, seconds: float | None = None) -> bool:
        """Sleep; True when the time is over, False as soon as a stop is requested.

        :param seconds: how long; None sleeps until a stop is requested
        """
        deadline = None if seconds is None else monotonic() + seconds
        stop_r, _, wake_r, wake_w = self._pipes()
        previous = _set_wakeup(wake_w)
        # The wake-up pipe belongs to the main thread, which empties it.
        watched = {stop_r} if previous is None else {stop_r, wake_r}
        try:
            if self._between is not None:  # a signal that came before is not going to wake us
                self._between()
            while not self.requested:
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return True
                # One poll can't last longer than a C int of milliseconds.
                woken = poll(watched, None if left is None else min(left, 1e6))
                if wake_r in woken:
                    _forward(wake_r, previous)
                    if self._between is not None:
                        self._between()
            return False
        finally:
            if previous is not None:
                signal.set_wakeup_fd(previous)

    def every(self, seconds: float) -> Iterator[int]:
        """Yield 0, 1, 2, … now and then each `seconds`, until a stop is requested.

        A round that took longer delays the next one; rounds are not made up for.
        """
        due = monotonic()
        count = 0
        while not self.requested:
            yield count
            count += 1
            due = max(due + seconds, monotonic())
            if not self.sleep(due - monotonic()):
                return
            if self._between is not None:
                self._between()

    def _pipes(self) -> tuple[int, ...]:
        process = os.getpid()
        if process not in self._pipes_of:
            fds = (*os.pipe(), *os.pipe())
            for fd in fds:
                os.set_blocking(fd, False)
            # Another thread, or a signal handler, may have been faster: all must share one set.
            if self._pipes_of.setdefault(process, fds) is not fds:
                for fd in fds:
                    os.close(fd)
            if self.requested:
                self.request()
        return self._pipes_of[process]


def _set_wakeup(fd: int) -> int | None:
    """Only the main thread can; the others are woken by the stop alone."""
    try:
        return signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    except ValueError:
        return None


def _forward(wake_r: int, previous: int | None) -> None:
    """Empty the pipe, and hand on what the program's own wake-up descriptor would have got."""
    try:
        data = os.read(wake_r, 4096)
    except BlockingIOError:  # a handler that slept has emptied it
        return
    if previous is not None and previous >= 0:
        try:
            os.write(previous, data)
        except OSError:  # full or gone: the C handler would have ignored it, too
            pass
