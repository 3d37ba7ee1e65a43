"""Samples, and what is made of them."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Sample = dict[str, float]
Measure = Callable[[], Sample]
Measures = dict[Any, Measure]  # by name, or by name and whatever else distinguishes it


@dataclass
class Figures:
    """The samples of one quantity of one contender."""

    values: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The spread: half of the samples lie between these."""
        if not self.values:
            return None
        if len(self.values) == 1:
            return (self.values[0], self.values[0])
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (low, high)


Found = dict[Any, dict[str, Figures]]  # by the keys of the measures, then by quantity


@dataclass
class Table:
    """One quantity of several contenders.

    :ivar key: its name in the JSON and for the marks
    :ivar against: contenders whose medians the ratios are of
    """

    key: str
    title: str
    unit: str
    rows: dict[str, Figures] = field(default_factory=dict)
    against: tuple[str, ...] = ()
    note: str = ""

    def median(self, name: str) -> float | None:
        return self.rows[name].median if name in self.rows else None

    def ratio(self, name: str, other: str) -> float | None:
        own, reference = self.median(name), self.median(other)
        return own / reference if own is not None and reference else None


@dataclass
class Plot:
    """Growth: the median of each line over what grows."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, dict[float, float | None]]
    log: bool = True


@dataclass
class Outcome:
    """What a scenario found."""

    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)


def those(found: Found, wanted: Callable[..., bool], part: int = 0) -> Found:
    """Of figures whose keys are tuples those that are wanted, by one part of the key."""
    return {key[part]: figures for key, figures in found.items() if wanted(*key)}


def number(value: float) -> str:
    """As tables show it."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}".replace(",", " ")


def filled(text: str, tables: dict[str, Table]) -> str:
    """The text with each ``{table/row}`` replaced by its median and unit; a second row, after a
    ``−``, is taken away. A dash stands for what was not measured.
    """

    def median(match: re.Match[str]) -> str:
        key, _, names = match[1].partition("/")
        table = tables.get(key)
        medians = [table.median(name) if table else None for name in names.split(" − ")]
        known = [value for value in medians if value is not None]
        if table is None or len(known) < len(medians):
            return "–"
        value = known[0] - sum(known[1:])
        return f"{number(value)} {table.unit}".strip()

    return re.sub(r"\{([^{}]+)\}", median, text)


def bullet(text: str, tables: dict[str, Table]) -> str:
    """The text, filled, as an item of a list in Markdown."""
    return textwrap.fill(
        filled(text, tables), 100, initial_indent="- ", subsequent_indent="  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
