"""Daemons started by programs that go on: the handle, and `spawn`'s two ways to run a target."""

from __future__ import annotations

import os
from time import monotonic

from ..errors import DaemonError, DaemonOSEnvironmentError, refuse
from ..system import SIGNALS, open_pidfd, poll_beside, send_signal, signal, signal_name
from ..system.child import identity_of, is_process
from ..system.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..sequence import Walk

STARTING = 10.0  # seconds to wait for a start that is under way
WORDS_LARGEST = 1000  # characters of what a daemon says when it is ready
SCHEDULE = (("TERM", 10.0), ("KILL", 5.0))

#: In the daemon of `spawn`, for the target: its context, which has `ready` and the loop.
current: Any = None


class Handle:
    """A daemon that this process started, or found running; not its child.

    Holds no descriptor: what it does goes through a pidfd that is opened for it, and that is
    used only if the process is still the one that the handle is about.

    :ivar pid: the daemon's pid
    :ivar status: what it said when it became ready; '' if nothing, or if it was found running
    """

    def __init__(self, pid: int, status: str = "", known: str | None = None) -> None:
        self.pid = pid
        self.status = status
        # What the daemon has told itself: who has the number now may be another.
        self.identity = identity_of(pid) if known is None else known

    def __repr__(self) -> str:
        try:
            return f"<daemon {self.pid}, {'running' if self.is_alive() else 'ended'}>"
        except DaemonError:
            return f"<daemon {self.pid}>"

    def is_alive(self) -> bool:
        """Whether the daemon runs; a zombie does not."""
        return not self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the daemon has ended; False when the time is over first.

        :param timeout: seconds; None: as long as it takes
        """
        pidfd = self._open()
        if pidfd is None:
            return True
        try:
            return bool(poll_beside({pidfd}, timeout))
        finally:
            os.close(pidfd)

    def stop(self, schedule: Iterable[tuple[str | int, float]] = SCHEDULE) -> None:
        """Signal, wait, signal, wait; returns when the daemon has ended.

        :param schedule: pairs of a signal (``"TERM"``, ``"SIGTERM"`` or its number) and the seconds
            to wait after it
        :raises DaemonError: it still runs at the end of the schedule
        """
        stages = [(signal_number(name), seconds) for name, seconds in schedule]
        pidfd = self._open()
        if pidfd is None:
            return
        begun = monotonic()
        try:
            if poll_beside({pidfd}, 0):
                return
            for number, seconds in stages:
                send(self.pid, pidfd, number)
                if poll_beside({pidfd}, seconds):
                    return
        finally:
            os.close(pidfd)
        raise DaemonError(
            f"the daemon (pid {self.pid}) still runs after {monotonic() - begun:.1f} seconds and "
            "all signals of the schedule; it may be in a system call that can't be interrupted",
            pid=self.pid,
        )

    def _open(self) -> int | None:
        """A pidfd of the daemon; None: it has ended, and who has its number by now is another."""
        try:
            pidfd = open_pidfd(self.pid)
        except ProcessLookupError:
            return None
        if pidfd is None:
            raise DaemonError("this system has no pidfds (Linux 5.3 has), which a handle needs")
        try:
            meant = is_process(self.pid, pidfd, self.identity)
        except BaseException:
            os.close(pidfd)
            raise
        if meant:
            return pidfd
        os.close(pidfd)
        return None


def handle_of(walk: Walk) -> Handle | None:
    """In the launcher, whose walk is over: the handle of the daemon that it has started."""
    if not walk.over:
        return None
    return Handle(walk.daemon, shown(walk.words, WORDS_LARGEST), walk.identity)


def send(pid: int, pidfd: int, number: int) -> None:
    """Signal a daemon through its pidfd.

    :raises DaemonOSEnvironmentError: this user may not
    """
    try:
        send_signal(pid, pidfd, number)
    except PermissionError as error:
        raise DaemonOSEnvironmentError(
            f"cannot send {signal_name(number)} to the daemon (pid {pid}): "
            f"{error.strerror}; only root and its own user may",
            errno=error.errno,
            pid=pid,
        ) from error


def signal_number(name: str | int) -> int:
    """The number of a signal in a schedule.

    :raises OptionError: there is no such signal
    """
    if isinstance(name, str):
        number = getattr(signal, f"SIG{name.removeprefix('SIG')}", None)
    else:
        number = name if name in SIGNALS else None
    if number is None:
        raise refuse("schedule", name, "the name or the number of a signal, such as 'TERM'")
    return int(number)


def running(path: str) -> Handle:
    """The handle of the daemon that owns the pid file: proven, and proven again.

    :raises DaemonError: nobody owns it, or not within `STARTING` seconds
    """
    from time import sleep

    from ..pidfile import PidFile

    pidfile = PidFile(path)
    deadline = monotonic() + STARTING
    while (holder := pidfile.holder()).state == "starting" and monotonic() < deadline:
        sleep(0.01)
    if holder.proven and holder.pid:
        handle = Handle(holder.pid)
        if pidfile.owner() == handle.pid:
            return handle
    raise DaemonError(f"no daemon can be found by {path!r}: {holder}", path=path)
