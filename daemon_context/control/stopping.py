"""Stopping a daemon: signals by a schedule. Stopped means that the process is gone *and* the lock
is free.
"""

from __future__ import annotations

import os
from time import monotonic, sleep

from ..embedding import SCHEDULE, signal_number
from ..errors import DaemonError
from ..pidfile import PidFile
from ..system import poll, signal, signal_name
from ..system.endings import exit_words
from .recording import remember
from .statusfile import BEGUN, DONE
from .target import Target
from .underway import Underway
from .waiting import TICK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .waiting import Waiting

    Stages = tuple[tuple[int, float], ...]


class Stopped:
    """How a stop went.

    :ivar pid: the daemon's; None: there was nothing to stop
    :ivar how: how it ended, where the kernel tells
    :ivar asked: the name of the first signal
    :ivar killed: for how many seconds it had not ended when it was killed; None: it was not
    :ivar cleanup: what it has said of its `cleanup`
    :ivar left: the pid of a dead daemon whose pid file was removed
    """

    def __init__(self, pid: int | None = None, how: str | None = None, **facts: Any) -> None:
        self.pid, self.how = pid, how
        self.asked: str = facts.get("asked", "")
        self.killed: float | None = facts.get("killed")
        self.cleanup: Any = facts.get("cleanup")
        self.left: int | None = facts.get("left")

    def __str__(self) -> str:
        if self.pid is None:
            return f"was not running{f'; removed what pid {self.left} had left' * bool(self.left)}"
        if self.killed is None:
            return f"stopped (pid {self.pid}{', ' + self.how if self.how else ''})"
        patience = ""
        if self.asked != "SIGKILL":
            patience = f", which had not ended {round(self.killed, 1):g} s after {self.asked}"
        return f"killed pid {self.pid}{patience}; its cleanup() {self._tidied()}"

    def _tidied(self) -> str:
        words = {BEGUN: "had not come to its end", DONE: "had run"}
        return words.get(str(self.cleanup), "did not run")


def stop(
    pidfile: PidFile,
    schedule: Iterable[tuple[str | int, float]] = SCHEDULE,
    waiting: Waiting | None = None,
) -> Stopped:
    """Stop the daemon; returns when it is gone and its lock is free.

    :param schedule: pairs of a signal and the seconds to wait after it
    :param waiting: called with what is waited for and for how long, about once a second
    :raises DaemonError: it is not gone, or it can't be proven who the daemon is
    """
    stages = tuple((signal_number(name), seconds) for name, seconds in schedule)
    target = Target.find(pidfile, waiting)
    stopped = Stopped()
    if target is not None:
        try:
            with Underway(pidfile.path):
                stopped = _stop(target, stages)
        finally:
            target.close()
    if stopped.pid != os.getpid():
        left = _swept(pidfile)
        stopped.left = None if stopped.pid else left
        remember(pidfile.path, stopped)
    return stopped


def _stop(target: Target, stages: Stages) -> Stopped:
    """Signal and wait, as the schedule says."""
    begun = monotonic()
    facts: dict[str, Any] = {"asked": signal_name(stages[0][0]) if stages else ""}
    for stage, (number, seconds) in enumerate(stages, 1):
        if number == signal.SIGKILL:
            said = target.said() or {}
            facts.update(killed=monotonic() - begun, cleanup=said.get("cleanup"))
        target.send(number)
        if target.pid == os.getpid():  # which can't wait for its own end
            return Stopped(target.pid, **facts)
        if stage == len(stages) and number == signal.SIGKILL and target.group is not None:
            target.group.kill()
        if _gone(target, begun, seconds):
            return Stopped(target.pid, exit_words(target.pidfd), **facts)
    raise _not_stopped(target, monotonic() - begun)


def _gone(target: Target, begun: float, seconds: float) -> bool:
    """Wait for the process, by its pidfd, and then for the lock, which has no event."""
    deadline = monotonic() + seconds
    while not poll({target.pidfd}, max(0.0, min(1.0, deadline - monotonic()))):
        if monotonic() >= deadline:
            return False
        if target.waiting is not None:
            target.waiting(f"pid {target.pid} to end", monotonic() - begun)
    while not _is_free(target):
        if monotonic() >= deadline:
            return False
        sleep(TICK)
    return True


def _is_free(target: Target) -> bool:
    """Free, or already held by another daemon that was started since."""
    holder = target.pidfile.holder()
    return holder.state == "free" or (
        holder.state in ("starting", "running") and holder.pid != target.pid
    )


def _not_stopped(target: Target, seconds: float) -> DaemonError:
    lives = not poll({target.pidfd}, 0)
    why = f"pid {target.pid} still runs" if lives else str(target.pidfile.holder())
    path = target.pidfile.path
    return DaemonError(
        f"the daemon did not stop within {seconds:.0f} seconds and all signals of the schedule: "
        f"{why} (pid file {path!r})",
        pid=target.pid,
        path=path,
    )


def _swept(pidfile: PidFile) -> int | None:
    """Remove what a daemon leaves that is dead, or may not remove its own files; which it was."""
    if not os.path.lexists(pidfile.path):
        return None
    pid = pidfile.read_pid()
    try:
        PidFile(pidfile.path).break_lock()
    except DaemonError:  # not permitted either, or there is a new one
        return None
    return pid
