"""The process group that a daemon's start has made, and to be ended with it: setsid(2), killpg(3).

The group has the number of the session leader, which has ended. The kernel gives that number to
nobody as long as the group, or the session of that number, has a member; and not a moment longer.
"""

from __future__ import annotations

import os
import time

from . import KILL_TIMEOUT, is_alive, open_pidfd, poll, send_signal, signal, stat_fields

TICK = 0.02  # seconds between looks at who is left
GROUP, SESSION, STARTED = 2, 3, 19  # of the fields of /proc/PID/stat behind the name


class Group:
    """The group of a daemon that lives when this is made.

    :param pidfd: the daemon's
    :param recorded: the number of the group that its start has made, as its record says; 0: none
    """

    def __init__(self, pid: int, pidfd: int, recorded: int) -> None:
        self.pid, self.pidfd = pid, pidfd
        # First: who has started before it and is in that session is in the daemon's own.
        self.since = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
        self.number = recorded if recorded and _of_start(pid) == recorded else 0

    def kill(self) -> None:
        """SIGKILL to all that the daemon leaves behind in it, and to nobody who has got its number
        since.
        """
        if self.number and (self._has_daemon() or self._has_member_from_before()):
            try:
                if os.getpgrp() == self.number:  # a child of the daemon has it stopped or restarted
                    os.setpgid(0, 0)
                os.killpg(self.number, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

    def _has_daemon(self) -> bool:
        try:
            return os.getpgid(self.pid) == self.number and not poll({self.pidfd}, 0)
        except ProcessLookupError:
            return False

    def _has_member_from_before(self) -> bool:
        return any(self._is_from_before(pid) for pid in os.listdir("/proc") if pid.isdigit())

    def _is_from_before(self, pid: str) -> bool:
        fields = stat_fields(pid)
        # A session is only inherited, or made anew: nobody could have joined that of a stranger.
        return (
            fields is not None
            and int(fields[GROUP]) == int(fields[SESSION]) == self.number
            and int(fields[STARTED]) < self.since
        )


def end_group(grace: float) -> None:
    """End the group that this daemon's start has made, but for this process: by SIGTERM, and those
    who are left after the grace by SIGKILL. In the daemon.
    """
    number = _of_start(os.getpid())
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while number and (members := _members(number)):
        late = time.monotonic() >= deadline
        if time.monotonic() >= deadline + KILL_TIMEOUT:
            return  # what can't be killed is in a system call, or another user's
        for pid in members if late else members - asked:
            _send(pid, number, signal.SIGKILL if late else signal.SIGTERM)
        asked |= members
        poll(set(), TICK)


def _members(number: int) -> set[int]:
    """Who is in the group beside this process, and lives."""
    found = set()
    for pid in os.listdir("/proc") if os.path.isdir("/proc") else ():
        fields = stat_fields(pid) if pid.isdigit() and int(pid) != os.getpid() else None
        if fields is not None and int(fields[GROUP]) == number and fields[0] not in "ZX":
            found.add(int(pid))
    return found


def _send(pid: int, number: int, what: int) -> None:
    """To the process of that number while it is surely one of the group."""
    try:
        pidfd = open_pidfd(pid)
    except ProcessLookupError:
        return
    try:
        if pid in _members(number):
            send_signal(pid, pidfd, what)
    except PermissionError:  # it has become another user
        pass
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _of_start(pid: int) -> int:
    """The number of the group that the daemon's start created; 0: it is in another, which is not
    ours.
    """
    fields = stat_fields(pid)
    if fields is None:
        return 0
    group, session = int(fields[GROUP]), int(fields[SESSION])
    return group if group == session != pid and not is_alive(group) else 0
