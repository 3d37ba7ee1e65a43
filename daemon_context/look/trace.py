"""What a sequence did: a record for each step, with what it changed, in all three processes.

The daemon has the whole trace, because each fork copies what was recorded before it.
"""

from __future__ import annotations

import os
import time

from ..errors import text_of
from ..sequence import described
from .snapshot import IDS, changes, take
from .tables import table, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..sequence import Walk
    from ..sequence.step import Step


class Record:
    """What one step did in one process.

    :ivar number: position of the step in the sequence, from 1
    :ivar name: the step's name
    :ivar outcome: ``"done"``, ``"not needed"``, ``"failed"``; or the part of `detach` that is done
    :ivar process: ``"launcher"``, ``"session leader"``, ``"daemon"`` or ``"this process"``
    :ivar description: what the step does, or why it was not needed
    :ivar changes: name → (before, after), by the names that `Step.touches` uses
    :ivar ids: pid, ppid, pgid, sid and tty afterwards, as ``ps -axj`` shows them
    """

    def __init__(self, walk: Walk, step: Step, outcome: str, description: str) -> None:
        self.number = walk.number
        self.name = step.name
        self.outcome = outcome
        self.process = walk.process
        self.description = description
        self.changes: dict[str, tuple[Any, Any]] = {}
        self.ids: dict[str, Any] = {}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


class Trace:
    """The records of one walk: iterate over them, or print them as a table."""

    def __init__(self, observer: Callable[[Record], None] | None = None) -> None:
        self.records: list[Record] = []
        self._observer = observer
        self._proc: int | None = None
        self._before: dict[str, Any] = {}

    def begin(self, walk: Walk) -> None:
        """Keep ``/proc`` in reach, in a chroot too, until the walk is over and not longer."""
        try:
            self._proc = walk.acquire(os.open("/proc", os.O_PATH | os.O_DIRECTORY))
        except OSError:
            self._proc = None

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, name: str) -> Record:
        """The last record of the step of that name."""
        for record in reversed(self.records):
            if record.name == name:
                return record
        raise KeyError(name)

    def apply(self, walk: Walk, step: Step) -> None:
        """Apply a step, as the walk does, and record what it changed."""
        self._before = self._take()
        description = described(step, walk.options)
        try:
            walk.attempted = step
            memory = step.apply(walk)
            walk.attempted = None
        except BaseException as error:
            self._record(Record(walk, step, "failed", f"{description}: {text_of(error)}"))
            raise
        walk.applied.append((walk.process, step, memory))
        if not walk.over:
            self._record(Record(walk, step, "done", description))

    def skip(self, walk: Walk, step: Step) -> None:
        """Record that a step was not needed."""
        self._before = self._take()
        self._record(Record(walk, step, "not needed", step.why_not(walk.options)))

    def part(self, walk: Walk, what: str) -> None:
        """Record a part of the step in work: each fork, and setsid."""
        step = walk.steps[walk.number - 1]
        self._record(Record(walk, step, what, f"{what} (in the {walk.process})"))

    def _record(self, record: Record) -> None:
        after = self._take()
        record.changes = changes(self._before, after)
        record.ids = {name: after[name] for name in IDS}
        self._before = after
        self.records.append(record)
        if self._observer is not None:
            self._observer(record)

    def _take(self) -> dict[str, Any]:
        state = take(self._proc)
        state["descriptors"].pop(self._proc, None)  # our own is not part of the picture
        return state

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [("#", "step", "outcome", "process", *IDS)]
        cells += [
            (str(r.number), r.name, r.outcome, r.process, *(str(r.ids[name]) for name in IDS))
            for r in self.records
        ]
        head, *lines = table(cells)
        return "\n".join([head, *map(_with_changes, lines, self.records)])


def _with_changes(line: str, record: Record) -> str:
    """What a step changed stands below its line: beside it nothing would fit on a screen."""
    words = summary(record.changes)
    return "\n".join([line, *wrapped(words)]) if words else line


def summary(changed: dict[str, tuple[Any, Any]]) -> str:
    """The changes in words, '' where there are none; ids have columns of their own."""
    words = []
    for name, (before, after) in changed.items():
        if name in IDS:
            continue
        if isinstance(before, dict):
            words.append(f"{name}: {_keys(before, after)}")
        else:
            words.append(f"{name} {before} -> {after}")
    return "; ".join(words)


def _keys(before: dict[Any, Any], after: dict[Any, Any]) -> str:
    words = [f"{key} {after[key]}" for key in after]
    return ", ".join([*words, *(f"{key} closed" for key in before if key not in after)])


def pausing(fd: int, seconds: float) -> Callable[[Record], None]:
    """An observer that prints each record at once, and stops, so that one can look with ``ps``.

    :param fd: where to print; has to be preserved
    """

    def observe(record: Record) -> None:
        ids = " ".join(f"{name} {record.ids[name]}" for name in IDS)
        where = f"{record.outcome} in the {record.process}"
        os.write(fd, f"{record.number:2} {record.name}: {where}: {ids}\n".encode())
        time.sleep(seconds)

    return observe
