"""What a sequence would do, and what will surprise; nothing is changed."""

from __future__ import annotations

from ..sequence import described
from .remarks import remarks
from .tables import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ..options.frozen import Options
    from ..sequence.step import Steps


class Row:
    """One step of an explanation."""

    __slots__ = ("name", "needed", "number", "process", "text")

    def __init__(self, number: int, name: str, process: str, needed: bool, text: str) -> None:
        self.number, self.name, self.process, self.needed, self.text = (
            number,
            name,
            process,
            needed,
            text,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            slot: getattr(self, slot) for slot in ("number", "name", "process", "needed", "text")
        }


class Explanation:
    """What each step would do: iterate over its rows, or print it as a table."""

    def __init__(self, rows: Sequence[Row], supervisor: str, remarks: Sequence[str] = ()) -> None:
        self.rows = tuple(rows)
        self.supervisor = supervisor
        self.remarks = tuple(remarks)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __str__(self) -> str:
        cells = [("#", "step", "process", "what")]
        cells += [
            (str(r.number), r.name, r.process, r.text if r.needed else f"- not needed: {r.text}")
            for r in self.rows
        ]
        remarks = [f"remark: {remark}" for remark in self.remarks]
        return "\n".join([*table(cells), "", f"who started it: {self.supervisor}", *remarks])


def explain(options: Options, steps: Steps) -> Explanation:
    """What each step would do; see `DaemonContext.explain`."""
    rows = []
    for number, step in enumerate(steps, 1):
        needed = step.needed(options)
        text = described(step, options) if needed else step.why_not(options)
        rows.append(Row(number, step.name, _process(steps, step.name, options), needed, text))
    return Explanation(rows, str(options.supervisor), remarks(options, steps))


def _process(steps: Steps, name: str, options: Options) -> str:
    if not options.detach_process:
        return "this process"
    distance = steps.index(name) - steps.index("detach")
    return "launcher" if distance < 0 else "daemon" if distance else "all three"
