"""The kernel's list of locks, read while others take and drop theirs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from daemon_context.pidfile import locks
from tests.helpers import support

CHURN = """
    import fcntl, os
    print("up", flush=True)
    while True:
        fds = [os.open(f"churned-{number}", os.O_RDWR | os.O_CREAT) for number in range(100)]
        for fd in fds:
            fcntl.flock(fd, fcntl.LOCK_EX)
        for fd in fds:
            os.close(fd)
"""
LOOKS = 1500  # one reading misses two or three of a thousand


def test_a_lock_that_is_held_is_not_missed_while_others_come_and_go(box: support.Sandbox) -> None:
    for _ in range(2):
        program = box.popen(CHURN)
        assert program.stdout is not None
        assert program.stdout.readline() == "up\n"
    path = Path(box.path / "held")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = os.fstat(file.fileno())
        mine = ("FLOCK", "WRITE", os.getpid())
        assert [look for look in range(LOOKS) if mine not in locks.shown(found)] == []
