"""What is open: flushed before the forks, and closed in the daemon if nothing preserves it."""

from __future__ import annotations

import os
import sys

from ..errors import DaemonOSEnvironmentError
from ..step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..options import Options
    from ..sequence import Walk


class FlushStreams(Step):
    """Write what the standard streams have buffered, so that it is written once, by the launcher,
    and not again, or elsewhere, by the daemon.
    """

    name = "flush-streams"

    def describe(self, options: Options) -> str:
        return "write what the standard streams have buffered"

    def apply(self, walk: Walk) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None or getattr(stream, "closed", False):
                continue
            try:
                stream.flush()
            except OSError as error:
                raise DaemonOSEnvironmentError(
                    f"cannot write what sys.{name} has buffered: {error.strerror}; it would be "
                    "lost: make room, or discard it first",
                    errno=error.errno,
                ) from error


class CloseDescriptors(Step):
    """Close every descriptor that nothing preserves: callers that wait for the end of a pipe
    return, file systems can be unmounted, secrets stay with the launcher.

    The cost follows what is open, not the limit: see `bound`.
    """

    name = "close-descriptors"
    touches = frozenset({"descriptors"})
    after = {"detach": "the launcher goes on with its descriptors if the start fails"}

    def describe(self, options: Options) -> str:
        kept = len(options.files_preserve)
        return f"close every descriptor from 3 on that is not preserved ({kept} given)"

    def apply(self, walk: Walk) -> None:
        close_others(preserved(walk))


def preserved(walk: Walk) -> set[int]:
    """All descriptors that stay open."""
    options = walk.options
    kept = {0, 1, 2, *options.files_preserve, *walk.descriptors}
    kept.update(target.fd for target in options.streams if target.fd > 2)
    if options.pidfile_lock is not None:
        kept.update(options.pidfile_lock.descriptors)
    kept.update(_activated(walk.launcher))
    if options.preserve_logging:
        kept.update(_logging())
    return kept


def _activated(launcher: int) -> range:
    """The sockets that a supervisor has handed over (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") not in (str(launcher), str(os.getpid())):
        return range(0)
    count = os.environ.get("LISTEN_FDS", "")
    return range(3, 3 + int(count)) if count.isdigit() else range(0)


def _logging() -> set[int]:
    """Log handlers on regular files and sockets go on working; those on pipes and terminals don't:
    a caller would wait for their end.
    """
    logging = sys.modules.get("logging")
    if logging is None:
        return set()
    import stat

    found = set()
    for reference in logging._handlerList:
        handler = reference()
        for name in ("stream", "sock", "socket"):
            try:
                fd = getattr(handler, name).fileno()
                mode = os.fstat(fd).st_mode
            except (AttributeError, OSError, ValueError, TypeError):
                continue
            if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
                found.add(fd)
    return found


def close_others(kept: Iterable[int]) -> None:
    """Close all descriptors from 3 on but those kept."""
    kept = sorted(fd for fd in kept if fd > 2)
    limit = bound()
    if limit is None:
        _close_listed(set(kept))
        return
    start = 3
    for fd in kept:
        if fd >= limit:
            break
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, limit)


SMALL_TABLE = 1 << 16


def bound() -> int | None:
    """A number that every open descriptor is below; None: too large to try every number, list them.

    ``FDSize`` is the size of the kernel's table of this process. It follows what is open, where
    the limits may be a billion, and `os.closerange` tries each number where ``close_range`` does
    not work. A hard limit bounds nothing: it may have been lowered after a descriptor was opened.
    """
    size = _table_size()
    if size is not None:
        return size if size <= SMALL_TABLE else None
    # Without /proc: the limit that holds, and with it the cost of trying every number.
    return os.sysconf("SC_OPEN_MAX")


def _table_size() -> int | None:
    try:
        fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    _, found, rest = text.partition(b"FDSize:")
    return int(rest.split(None, 1)[0]) if found else None


def _close_listed(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:  # the descriptor of the listing itself
                pass
