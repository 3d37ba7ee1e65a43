"""For the tests of the sequence."""

from __future__ import annotations

from typing import Any

from daemon_context import Step

ORDER = (
    "flush-streams", "lock-pidfile", "open-streams", "detach", "close-descriptors", "change-root",
    "set-umask", "change-directory", "write-pidfile", "change-owner", "prevent-core",
    "install-signals", "redirect-streams", "enter-pidfile", "report-ready",
)  # fmt: skip


class Mark(Step):
    """A user's step."""

    name = "mark"

    def apply(self, walk: Any) -> None: ...


def named(name: str) -> Step:
    return type("Named", (Step,), {"name": name})()
