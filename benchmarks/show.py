"""What is shown of a run: tables on the terminal, and JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from .contenders import OURS
from .figures import Figures, Outcome, Plot, Table, number
from .marks import Mark, marks


@dataclasses.dataclass
class Run:
    """All that one run has found.

    :ivar command: that would do it again
    """

    command: str
    machine: dict[str, str]
    rounds: int
    seconds: float
    remarks: list[str]
    outcomes: dict[str, Outcome]

    @property
    def tables(self) -> dict[str, Table]:
        tables = [table for outcome in self.outcomes.values() for table in outcome.tables]
        return {table.key: table for table in tables if table.rows}

    @property
    def plots(self) -> list[Plot]:
        plots = [plot for outcome in self.outcomes.values() for plot in outcome.plots]
        return [plot for plot in plots if plot.lines]

    @property
    def marks(self) -> list[Mark]:
        return marks(self.tables)


def to_terminal(run: Run, *, whole: bool) -> None:
    """Tables of all quantities, then the marks; of a part of the scenarios those measured."""
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console()
    if not console.is_terminal:
        console.width = 120
    for table in run.tables.values():
        grid = Grid(title=table.title, caption=table.note or None, title_justify="left")
        header, rows = cells(table)
        for column, name in enumerate(header):
            grid.add_column(name, justify="right" if column else "left", no_wrap=not column)
        for row in rows:
            grid.add_row(*row, style="bold" if row[0].startswith(OURS) else None)
        console.print(grid)
    grid = Grid("what", "mark", "measured", "by hand", "", title="Marks", title_justify="left")
    colours = {"met": "green", "missed": "red"}
    for mark in run.marks:
        if whole or mark.measured is not None:
            style = colours.get(mark.verdict, "yellow")
            grid.add_row(
                mark.what, mark.mark, mark.words, mark.lowest, f"[{style}]{mark.verdict}[/]"
            )
    console.print(grid)
    for remark in run.remarks:
        console.print(f"Note: {remark}.")


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    unit = f" {table.unit}" if table.unit else ""
    references = [name for name in table.against if name in table.rows]
    header = ["", f"median{unit}", "middle half", "samples"]
    header += [f"× {name}" for name in references]
    rows = []
    for name, figures in table.rows.items():
        ratios = [_ratio(table.ratio(name, other)) for other in references]
        samples = str(len(figures.values))
        rows.append([name, _median(figures), _spread(figures), samples, *ratios])
    return header, rows


def _median(figures: Figures) -> str:
    if figures.note and not figures.values:
        return figures.note if len(figures.note) < 30 else "failed"
    return "–" if figures.median is None else number(figures.median)


def _spread(figures: Figures) -> str:
    quartiles = figures.quartiles
    return "" if quartiles is None else f"{number(quartiles[0])} – {number(quartiles[1])}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def to_json(run: Run, path: Path) -> None:
    """Everything, with all samples."""
    document: dict[str, Any] = {
        "command": run.command,
        "machine": run.machine,
        "rounds": run.rounds,
        "seconds": round(run.seconds, 1),
        "remarks": run.remarks,
        "marks": [{**dataclasses.asdict(mark), "verdict": mark.verdict} for mark in run.marks],
        "tables": {
            key: {
                "title": table.title,
                "unit": table.unit,
                "note": table.note,
                "rows": {
                    name: {
                        "median": figures.median,
                        "quartiles": figures.quartiles,
                        "ratios": {
                            other: table.ratio(name, other)
                            for other in table.against
                            if other in table.rows
                        },
                        "samples": figures.values,
                        "note": figures.note,
                    }
                    for name, figures in table.rows.items()
                },
            }
            for key, table in run.tables.items()
        },
        "plots": [dataclasses.asdict(plot) for plot in run.plots],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
