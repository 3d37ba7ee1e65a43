"""What a walk carries, as far as the walk is concerned. For the type checker: no start loads it."""

from __future__ import annotations

from typing import NoReturn, Protocol

from .step import Step
from .walk import Walk


class Body(Protocol):
    """The context that is opened, as far as a walk is concerned."""

    def ready(self, status: str = "") -> None: ...


class Report(Protocol):
    """How the three processes of a start tell each other: see `daemon_context.report`."""

    @property
    def fds(self) -> set[int]: ...

    def progress(self, number: int) -> None: ...
    def ready(self, status: str) -> bool: ...
    def fail(self, error: BaseException | None, number: int) -> NoReturn: ...


class Trace(Protocol):
    """What records a walk: see `daemon_context.look.trace`."""

    def begin(self, walk: Walk) -> None: ...
    def apply(self, walk: Walk, step: Step) -> None: ...
    def skip(self, walk: Walk, step: Step) -> None: ...
    def part(self, walk: Walk, what: str) -> None: ...


class LastWords(Protocol):
    """A connection to syslog: see `daemon_context.report.lastwords`."""

    def tell(self, error: BaseException) -> None: ...
    def close(self) -> None: ...
