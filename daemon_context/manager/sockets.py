"""Sockets that a manager has opened and handed over (sd_listen_fds_with_names(3))."""

from __future__ import annotations

import os
import socket
import stat

from . import handed_over

_taken: list[tuple[str, socket.socket]] = []


def listen_fds() -> list[tuple[str, socket.socket]]:
    """Name and socket of each that was handed over to this process, in the manager's order.

    Before `open` or after it, which keeps them; from now on close-on-exec. What was handed over
    and is no socket, such as a FIFO, is left out. Each call returns the same socket objects.
    """
    numbers = handed_over(os.getpid())
    if numbers and not _taken:
        _taken.extend(_sockets_of(numbers))
    return list(_taken) if numbers else []


def _sockets_of(numbers: range) -> list[tuple[str, socket.socket]]:
    given = os.environ.get("LISTEN_FDNAMES", "")
    names = dict(zip(numbers, given.split(":") if given else (), strict=False))
    found = []
    for fd in numbers:
        try:
            os.set_inheritable(fd, False)
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append((names.get(fd, "unknown"), socket.socket(fileno=fd)))
        except OSError:  # the count is a claim: from here on nothing is open
            break
    return found
