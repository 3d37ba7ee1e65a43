"""Rendering of what a sequence would do, and of what it did."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from .context import DaemonContext
    from .options import Options
    from .step import Steps


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

    def __init__(self, rows: Sequence[Row], supervisor: str) -> None:
        self.rows = tuple(rows)
        self.supervisor = supervisor

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        cells = [("#", "step", "process", "what")]
        cells += [
            (str(r.number), r.name, r.process, r.text if r.needed else f"– not needed: {r.text}")
            for r in self.rows
        ]
        return "\n".join([*table(cells), "", f"started by {self.supervisor}"])


def table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines; the last column is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    return [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in cells
    ]


def explain(context: DaemonContext) -> Explanation:
    """What each step would do; see `DaemonContext.explain`."""
    from .context import as_steps
    from .options import freeze

    steps = as_steps(context.steps)
    options = freeze(context)
    rows = []
    for number, step in enumerate(steps, 1):
        needed = step.needed(options)
        text = step.describe(options) if needed else step.why_not(options)
        rows.append(Row(number, step.name, _process(steps, step.name, options), needed, text))
    return Explanation(rows, str(options.supervisor))


def _process(steps: Steps, name: str, options: Options) -> str:
    if not options.detach_process or "detach" not in steps:
        return "this process"
    distance = steps.index(name) - steps.index("detach")
    return "launcher" if distance < 0 else "daemon" if distance else "all three"
