"""What has to be done about many descriptors to know and to reserve them, by hand, each apart.

Tells the microseconds of each piece, in the order of `pieces`. In a forked process, as in a daemon.
"""

import os
import select

import stage


def ask():
    """Which numbers are open, by asking poll(2) about all."""
    poller = select.poll()
    for fd in range(highest):
        poller.register(fd, 0)
    poller.poll(0)


def list_all():
    """The same by a listing."""
    os.listdir("/proc/self/fd")


def look():
    """What each one that will be closed is."""
    for fd in others:
        os.fstat(fd)


def reserve():
    """Close each, and keep its number from being another file's."""
    for fd in others:
        os.dup2(stand_in, fd, inheritable=False)


def close():
    """Close each."""
    for fd in others:
        os.close(fd)


stage.begin()
kept = set(stage.kept)
highest = max(kept) + 2
stand_in = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
others = [fd for fd in range(min(kept), highest) if fd not in kept and fd != stand_in]
if os.fork():
    os._exit(0)
times = []
for piece in (ask, list_all, look, reserve, close):
    began = stage.time.monotonic_ns()
    piece()
    times.append((stage.time.monotonic_ns() - began) // 1000)
stage._tell(*times)
