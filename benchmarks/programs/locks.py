"""Lock and unlock a pid file again and again; tells the nanoseconds of one round.

locks.py NAME PATH COUNT
"""

import os
import sys
import time

import stage


def flock(path):
    """By hand: the limit in Python."""
    import fcntl

    def once():
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_size:  # ext4 flushes a file that was truncated to 0: milliseconds
            os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        os.unlink(path)
        os.close(fd)

    return once


def of(lock):
    def once():
        lock.acquire()
        lock.release()

    return once


def ours(path):
    from daemon_context import PidFile

    return of(PidFile(path))


def python_daemon(path):
    from daemon.pidfile import TimeoutPIDLockFile

    return of(TimeoutPIDLockFile(path, acquire_timeout=0))


name, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
once = {"flock": flock, "ours": ours, "python-daemon": python_daemon}[name](path)
for _ in range(10):
    once()
began = time.monotonic_ns()
for _ in range(count):
    once()
stage._tell((time.monotonic_ns() - began) // count)
