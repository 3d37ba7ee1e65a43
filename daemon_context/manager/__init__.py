"""Who started us, and whether they want us to stay in the foreground.

What belongs here: facts about supervisors, and the rule made of them (`supervisor`). What does not:
what a start does about it.
"""

from __future__ import annotations


class Supervisor:
    """Who started us: ``name``, whether to ``detach``, and the ``reason`` in words."""

    __slots__ = ("detach", "name", "reason")

    def __init__(self, name: str, detach: bool, reason: str) -> None:
        self.name, self.detach, self.reason = name, detach, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    def __repr__(self) -> str:
        return f"Supervisor({self.name!r}, detach={self.detach}, {self.reason!r})"
