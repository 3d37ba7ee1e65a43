"""The table of the launchers: made by the run of the tests, when SUPERVISORS_TABLE names a file.

``python -m tests.supervisors.table ROWS [PAGE]`` prints it, or puts it into the page, between
``<!-- measured: launchers -->`` and ``<!-- end measured -->``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

COLUMNS = {
    "launcher": "launcher",
    "detected": "detected",
    "fact": "by which fact",
    "detached": "detached",
    "ready": "ready seen",
    "reload": "reload",
    "ms": "SIGTERM to the end, ms",
    "status": "status, as the launcher saw it",
}


def add(**row: Any) -> None:
    """Add a row; by whatever process, as one write."""
    if name := os.environ.get("SUPERVISORS_TABLE"):
        with Path(name).open("a") as file:
            file.write(json.dumps(row) + "\n")


def markdown(text: str) -> str:
    """The rows as a table."""
    rows = sorted(map(json.loads, text.splitlines()), key=lambda row: str(row["launcher"]))
    lines = [[_cell(row.get(key, "–")) for key in COLUMNS] for row in rows]
    heads = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*heads, *lines])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}"
    text = re.sub(r" \(pid \d+\)", "", str(value))
    return text.replace("|", "\\|").replace("\n", " ")


def main(rows: str, page: str = "") -> None:
    """Print the table, or put it into the page."""
    made = markdown(Path(rows).read_text())
    if not page:
        print(made)
        return
    text = Path(page).read_text()
    before, begin, rest = text.partition("<!-- measured: launchers -->\n")
    _, end, after = rest.partition("<!-- end measured -->")
    assert begin, f"{page} has no place for it"
    assert end, f"{page} has no end of its place"
    Path(page).write_text(f"{before}{begin}{made}\n{end}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
