"""The table of the launchers: made by the run of the tests, when SUPERVISORS_TABLE names a file.

python -m tests.supervisors.table FILE     print it, as Markdown
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
    rows = [json.loads(line) for line in text.splitlines()]
    lines = [[_cell(row.get(key, "–")) for key in COLUMNS] for row in rows]
    heads = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*heads, *lines])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}"
    text = re.sub(r"\(pid \d+\)", "(pid N)", str(value))
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1]).read_text()))
