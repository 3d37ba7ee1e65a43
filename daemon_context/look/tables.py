"""Aligned tables for terminals."""

from __future__ import annotations

WIDTH = 100  # of a line, in characters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines; the last column is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    return [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in cells
    ]


def wrapped(text: str, indent: str = "      ") -> list[str]:
    """Indented lines of at most `WIDTH`, but for words that are longer."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return lines
