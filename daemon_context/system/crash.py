"""Where `faulthandler` would write a dump: it has no way to ask, so a child crashes to find out.

Closed, or under another file, the number would get the dump into somebody's data.
"""

from __future__ import annotations

import _thread
import os
import sys

from .own import fork, own, write
from .processes import SIGNALS, reap, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

REGION = 1 << 16  # more than a dump takes


def crash_descriptors(numbers: set[int]) -> set[int]:
    """Those of the descriptors that faulthandler is enabled on, or has for a signal."""
    faulthandler = sys.modules.get("faulthandler")
    if faulthandler is None or not hasattr(os, "memfd_create"):
        return set()
    signals = [*_registered(faulthandler)]
    if faulthandler.is_enabled():
        signals.append(signal.SIGSEGV)
    candidates = sorted(numbers)
    return {fd for number in signals for fd in _written(number, candidates)}


def _registered(faulthandler: Any) -> bytes:
    """The signals that were given to ``faulthandler.register``: who takes one back gets to know."""

    def take_back(answer: int) -> None:
        for number in SIGNALS:
            try:
                if faulthandler.unregister(number):
                    write(answer, bytes([number]))
            except (RuntimeError, ValueError):  # a signal that it does not take
                pass

    answer = os.memfd_create("faulthandler")
    try:
        _in_child(take_back, answer)
        return os.pread(answer, 256, 0)
    finally:
        os.close(answer)


def _written(number: int, candidates: list[int]) -> list[int]:
    """The one of the candidates that faulthandler writes to on that signal, if any."""

    def crash(probe: int) -> None:
        _silence()
        for index, fd in enumerate(candidates):
            region = os.open(f"/proc/self/fd/{probe}", os.O_WRONLY)
            os.lseek(region, index * REGION, os.SEEK_SET)
            os.dup2(region, fd)
            os.close(region)
        signal.set_wakeup_fd(-1)
        # Not in the main thread: there the program's handler would run, if faulthandler calls it.
        over = own(_thread, "allocate_lock")()
        over.acquire()
        own(_thread, "start_new_thread")(_hit, (number,))
        over.acquire()

    probe = os.memfd_create("faulthandler")
    try:
        _in_child(crash, probe)
        # Each candidate had a region of its own, and one region has been written to.
        return [candidates[os.lseek(probe, 0, os.SEEK_DATA) // REGION]]
    except OSError:  # nothing was written: it goes to stderr
        return []
    finally:
        os.close(probe)


def _hit(number: int) -> None:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.pthread_kill(own(_thread, "get_ident")(), number)
    finally:
        os._exit(0)


def _silence() -> None:
    """No core, to a file or to a pipe (with a limit of 1, core(5)), and no dump on stderr."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard and 1, hard))  # 1 may be more than it allows
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _in_child(work: Callable[[int], None], fd: int) -> None:
    pid = fork()
    if pid:
        reap(pid)
        return
    try:
        work(fd)
    finally:
        os._exit(0)
