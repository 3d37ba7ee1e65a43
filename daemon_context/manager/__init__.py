"""Who started us, whether they want us to stay in the foreground, and speaking to them.

What belongs here: facts about supervisors (`facts`), the rule made of them (`supervisor`), what
contradicts them, their protocols (`notify`, `sockets`). What does not: what a start does about it.
"""

from __future__ import annotations

import os

from ..system import of_proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..loop import Stop


FIRST_SOCKET, MOST_SOCKETS = 3, 1 << 16  # SD_LISTEN_FDS_START; and no program has more open


class Supervisor:
    """Who started us: ``name``, whether to ``detach``, and the ``reason`` in words."""

    __slots__ = ("detach", "name", "reason")

    def __init__(self, name: str, detach: bool, reason: str) -> None:
        self.name, self.detach, self.reason = name, detach, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    def __repr__(self) -> str:
        return f"Supervisor({self.name!r}, detach={self.detach}, {self.reason!r})"


class Manager:
    """Who wants to hear how it goes. This one is nobody: it hears nothing.

    Only the process that called `begin` speaks; in its children every method does nothing.
    """

    def begin(self, stop: Stop) -> None:
        """Speak from now on: in the process in which `open` returns, in its main thread.

        :param stop: whose loop gives the signs of life
        """

    def ready(self, text: str = "") -> None:
        """It works."""

    def tell(self, text: str) -> None:
        """A few words about the state."""

    def reloading(self) -> None:
        """A reload begins, if it was ready."""

    def reloaded(self, text: str = "") -> None:
        """The reload has ended, well or not."""

    def around(self, handler: Any) -> Any:
        """A SIGHUP handler that reloads, so that the manager hears of it."""
        return handler

    def beat(self) -> None:
        """A sign of life, by the program's own word; from then on no other counts."""

    def stopping(self) -> None:
        """It is going to end."""

    def end(self) -> None:
        """It ends, and nothing comes any more."""


def handed_over(*pids: int) -> range:
    """The numbers of the sockets that a manager has handed over to one of these processes, as it
    claims (sd_listen_fds(3)).
    """
    if os.environ.get("LISTEN_PID", "") not in [*map(str, pids)]:
        return range(0)
    try:
        count = int(os.environ["LISTEN_FDS"])
    except (KeyError, ValueError):
        return range(0)
    return range(FIRST_SOCKET, FIRST_SOCKET + max(0, min(count, MOST_SOCKETS)))


def may_be_tracked() -> bool:
    """Whether somebody may track this process by its pid; cheap, for those that seldom are."""
    pid = str(os.getpid())
    marked = "INVOCATION_ID" in os.environ and os.environ.get("SYSTEMD_EXEC_PID", pid) == pid
    return marked or pid == "1" or os.getppid() == 1


def connection(keep: Callable[[int], int], *, stays: bool, helper: bool) -> Manager:
    """Whom to speak to. In the launcher, before root, owner and descriptors change.

    :param keep: takes a descriptor over, and returns its number
    :param stays: whether this process is going to be the daemon
    :param helper: whether it is one of `spawn`, about which the program's manager hears nothing
    """
    given = bool(os.environ.get("NOTIFY_SOCKET"))
    supervise = stays and of_proc(f"{os.getppid()}/comm") == "s6-supervise\n"
    if not given and not supervise:
        return Manager()
    from . import notify  # not before: most starts have nobody to speak to

    return notify.Unheard() if helper else notify.connect(keep, supervise=supervise)
