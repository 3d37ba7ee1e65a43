"""The process group that a daemon's start has made, and to be ended with it: setsid(2), killpg(3).

The group has the number of the session leader, which has ended. The kernel gives that number to
nobody as long as the group, or the session of that number, has a member; and not a moment longer.
"""

from __future__ import annotations

import os
import time

from . import is_alive, poll, signal, stat_fields

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


def _of_start(pid: int) -> int:
    """The number of the group that the daemon's start created; 0: it is in another, which is not
    ours.
    """
    fields = stat_fields(pid)
    if fields is None:
        return 0
    group, session = int(fields[GROUP]), int(fields[SESSION])
    return group if group == session != pid and not is_alive(group) else 0
