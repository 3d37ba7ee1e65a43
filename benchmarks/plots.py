"""Plots of a run, as SVG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contenders import OURS
from .figures import Plot, Table
from .show import Run

BARS = {  # what the docs show of the tables
    "ready": "launch and ready, whole processes",
    "ready-pidfile": "with a pid file",
    "import": "import and construct",
    "memory-unique": "unique set of the idle daemon",
    "race-time": "racing starts",
}


def to_plots(run: Run, directory: Path) -> list[tuple[str, Path]]:
    """SVG files of the growth, and of the most important tables; their titles and paths."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for key, name in BARS.items():
        table = run.tables.get(key)
        if table and any(figures.values for figures in table.rows.values()):
            made.append((table.title, _bars(table, directory / f"{key}.svg", name)))
    for plot in run.plots:
        made.append((plot.title, _lines(plot, directory / f"{plot.name}.svg")))
    return made


def _bars(table: Table, path: Path, name: str) -> Path:
    from matplotlib.figure import Figure

    rows = [(name, figures) for name, figures in table.rows.items() if figures.values]
    rows.sort(key=lambda row: -(row[1].median or 0))
    figure = Figure(figsize=(6.5, 0.6 + 0.28 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    medians = [figures.median or 0 for _, figures in rows]
    log = 0 < 20 * min(medians) < max(medians)
    for number, (label, figures) in enumerate(rows):
        median, quartiles = figures.median or 0, figures.quartiles or (0, 0)
        colour = "tab:blue" if label.startswith(OURS) else "lightsteelblue"
        error = [[median - quartiles[0]], [quartiles[1] - median]]
        if log:  # a bar has no length where there is no zero
            axes.errorbar(median, number, xerr=error, fmt="o", color=colour, ecolor="gray")
        else:
            axes.barh(number, median, xerr=error, color=colour, ecolor="gray")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_xlabel(table.unit)
    axes.set_title(table.title, fontsize=10, loc="left")
    if log:
        axes.set_xscale("log")
        axes.grid(axis="x", alpha=0.3)
    _save(figure, path)
    return path


def _lines(plot: Plot, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(plot.lines.items()):
        known = sorted((x, y) for x, y in points.items() if y is not None)
        axes.plot(
            [x for x, _ in known],
            [y for _, y in known],
            marker="o",
            linewidth=2.5 if name.startswith(OURS) else 1,
            linestyle="--" if "no close_range" in name else "-",
            color=f"C{number}",
            label=name,
        )
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.set_title(plot.title, fontsize=10, loc="left")
    if plot.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    _save(figure, path)
    return path


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    # No spaces at the end of lines: editors and reviews stumble over them.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
