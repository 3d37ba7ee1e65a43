"""The time in which a body that has begun may still fail the start. In the session leader."""

from __future__ import annotations

from time import monotonic

from .frames import BEGUN, Frames


class Settling:
    """From *begun* until the time is over.

    :param seconds: as the option ``settle`` says
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.words = b""  # the daemon's own, for *ready*
        self.begun = False
        self.due: float | None = None

    def take(self, frames: Frames) -> bool:
        """Take the frame that says that the body begins, if that is the first."""
        if not frames.complete or frames.first()[0] != BEGUN:
            return False
        self.words = frames.first()[1]
        self.begun, self.due = True, monotonic() + self.seconds
        frames.drop()
        return True

    def end(self) -> None:
        """The time is over now."""
        self.due = monotonic() if self.begun else None

    @property
    def left(self) -> float | None:
        """Seconds to wait; None: for as long as it takes."""
        return None if self.due is None else max(0.0, self.due - monotonic())

    def is_over(self) -> bool:
        """Whether the time is over; True once."""
        if self.due is None or monotonic() < self.due:
            return False
        self.due = None
        return True
