"""What a stop has come to, for programs and in words."""

from __future__ import annotations

from .statusfile import BEGUN, DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
