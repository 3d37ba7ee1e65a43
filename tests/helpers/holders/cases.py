"""What a case is: objects that hold descriptors, and how they are used."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

Made = tuple[list[Any], Callable[[], object]]

EARLY, LATE = "early\n", "late\n"


class Case(NamedTuple):
    """What to preserve, and how it is used late; what the file ``old`` has to contain then."""

    make: Callable[[], Made]
    early: str | None
    late: str | None
    kind: str


CASES: dict[str, Case] = {}


def holder(
    early: str | None = EARLY, late: str | None = EARLY + LATE, kind: str = "given"
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Add a case.

    :param early: what ``old`` contains when nothing is preserved; None: there is no such file
    :param late: what it contains when all is preserved and was used
    :param kind: ``given``: late use raises unless preserved; ``logging``: preserved by default;
        ``always``: late use works in any case
    """

    def add(make: Callable[[], Made]) -> Callable[[], Made]:
        CASES[make.__name__] = Case(make, early, late, kind)
        return make

    return add


def opened(pattern: str) -> list[int]:
    """The descriptors whose link in /proc contains the pattern."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if pattern in os.readlink(f"/proc/self/fd/{name}"):
                found.append(int(name))
        except OSError:  # the listing's own
            pass
    return found


def _file(file: Any, *, early: Any = EARLY, late: Any = LATE) -> Made:
    file.write(early)

    def use() -> None:
        file.write(late)
        file.flush()

    return [file], use
