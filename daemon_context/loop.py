"""The daemon's loop: sleeping until the time is over or a stop is requested.

A signal handler alone is not enough: a signal that arrives between the last look at its effects
and `poll` is lost until something else wakes the process, and PEP 475 resumes a `poll` that a
handler interrupted. So the C handler itself writes to a pipe (`signal.set_wakeup_fd`) that `poll`
watches.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from .system import poll_beside as poll
from .system import read, restore_wakeup, signal, signal_name, write
from .system.insisting import insist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn


class Terminated(SystemExit):
    """Raised by `DaemonContext.terminate`: status 0, because a requested stop is no failure."""

    def __init__(self, signal_number: int = 0) -> None:
        super().__init__(f"terminated by {signal_name(signal_number)}")
        self.code = 0
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[Any, ...]:
        return Terminated, (self.signal_number,)


def end_by(number: int, is_over: Callable[[], bool]) -> NoReturn:
    """In the handler of a signal: end the program, by an exception that can't be lost.

    :param is_over: whether it is at its end already, so that nothing needs to be tried again
    """
    if _is_worker():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if not is_over():
        insist(number, Terminated, is_over)
    raise Terminated(number)


def _is_worker() -> bool:
    """Whether this is a child of `multiprocessing`, whose users look at how it ended."""
    processes = sys.modules.get("multiprocessing.process")
    return getattr(processes, "_parent_process", None) is not None


class Stop:
    """Whether a stop was requested, and the sleep that it ends, in any thread.

    :param between: called before a sleep, when a signal has woken it, and between two rounds
    """

    def __init__(self, between: Callable[[], None] | None = None) -> None:
        self._between = between
        #: A sign of life to who started us, where one is due; gives the seconds until the next.
        self.pulse: Callable[[], float | None] = _no_pulse
        self.requested = False
        self._over = False
        self._watched_in = 0  # the process that looks whether there is a request
        self._sleepers: set[object] = set()
        self._pipes_of: dict[int, tuple[int, ...]] = {}  # by process: a fork must not share them

    def look(self) -> bool:
        """Whether a stop is requested, for who is going to look again."""
        self._watched_in = os.getpid()
        self.pulse()
        return self.requested

    @property
    def is_watched(self) -> bool:
        """Whether anybody looks in this process, and not in the one that it was forked from."""
        return self._watched_in == os.getpid()

    def request(self) -> None:
        """Request a stop: every sleep ends at once, in all threads."""
        self.requested = True
        fds = self.fds
        if fds:
            # Never read, so the pipe stays readable and wakes whoever sleeps.
            try:
                write(fds[1], b"s")
            except BlockingIOError:  # full of earlier requests
                pass

    @property
    def fds(self) -> tuple[int, ...]:
        """The pipes, if there are any, of this process: a forked child must not stop its parent."""
        return self._pipes_of.get(os.getpid(), ())

    def begin(self) -> None:
        """The context is about to be opened: what was requested before it was closed is over."""
        if self._over:
            self._over = self.requested = False
            for stop_r in self.fds[:1]:
                _emptied(stop_r)  # it would wake again and again who sleeps on
        self._close()

    def end(self) -> None:
        """The context is closed. A request stays: threads may not have seen it yet."""
        self._over = True
        self._close()

    def _close(self) -> None:
        fds = self._pipes_of.pop(os.getpid(), ())
        # Popped first: whoever sleeps from now on has other ones.
        if fds and self._sleepers and self._pipes_of.setdefault(os.getpid(), fds) is fds:
            return  # a thread watches them
        for fd in fds:
            os.close(fd)

    def sleep(self, seconds: float | None = None) -> bool:
        """Sleep; True when the time is over, False as soon as a stop is requested.

        :param seconds: how long; None sleeps until a stop is requested
        """
        deadline = None if seconds is None else monotonic() + seconds
        self.look()
        sleeper = object()
        self._sleepers.add(sleeper)
        try:
            return self._sleep(deadline)
        finally:
            self._sleepers.discard(sleeper)

    def _sleep(self, deadline: float | None) -> bool:
        stop_r, _, wake_r, wake_w = self._pipes()
        previous = _set_wakeup(wake_w)
        # The wake-up pipe belongs to the main thread, which empties it.
        watched = {stop_r} if previous is None else {stop_r, wake_r}
        taken = b""
        try:
            # CPython may note a signal that came just as it took the GIL, and not look at its note
            # before it takes the GIL anew, behind `poll`. This call looks.
            signal.pthread_sigmask(signal.SIG_BLOCK, ())
            if self._between is not None:  # a signal that came before is not going to wake us
                self._between()
            while not self.requested:
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return True
                due = self.pulse()
                woken = poll(watched, due if left is None or (due and due < left) else left)
                if wake_r in woken:
                    data = _emptied(wake_r)
                    if previous == wake_w:  # this is a handler, in a sleep that needs them too
                        taken += data
                    else:
                        _hand_on(data, previous)
                    if self._between is not None:
                        self._between()
            return False
        finally:
            if previous is not None:
                restore_wakeup(previous)
            _hand_on(taken, previous)

    def every(self, seconds: float) -> Iterator[int]:
        """Yield 0, 1, 2, … now and then each `seconds`, until a stop is requested.

        A round that took longer delays the next one; rounds are not made up for.
        """
        due = monotonic()
        count = 0
        while not self.look():
            yield count
            count += 1
            due = max(due + seconds, monotonic())
            if not self.sleep(due - monotonic()):
                return
            if self._between is not None:
                self._between()

    def _pipes(self) -> tuple[int, ...]:
        process = os.getpid()
        fds = self._pipes_of.get(process)
        if fds is None:
            made = (*os.pipe(), *os.pipe())
            for fd in made:
                os.set_blocking(fd, False)
            # Another thread, or a signal handler, may have been faster: all must share one set.
            fds = self._pipes_of.setdefault(process, made)
            if fds is not made:
                for fd in made:
                    os.close(fd)
            if self.requested:
                self.request()
        return fds


def _no_pulse() -> None:
    return None


def _set_wakeup(fd: int) -> int | None:
    """Only the main thread can; the others are woken by the stop alone."""
    try:
        return signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    except ValueError:
        return None


def _emptied(reader: int) -> bytes:
    try:
        return read(reader, 4096)
    except BlockingIOError:  # a handler that slept has emptied it
        return b""


def _hand_on(data: bytes, previous: int | None) -> None:
    """To the program's own wake-up descriptor: what it would have got."""
    if data and previous is not None and previous >= 0:
        try:
            write(previous, data)
        except OSError:  # full or gone: the C handler would have ignored it, too
            pass
