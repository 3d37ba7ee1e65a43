#!/usr/bin/env python3
"""Make docs/pictures/terminal-*.svg from real runs; with --check only tell if they are stale.

    python docs/terminal.py [--check]

One broken daemon, started with python-daemon and with this library. It needs the extra `docs`,
which installs rich and python-daemon.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from html import unescape
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import regenerate  # noqa: E402

from tests.helpers import support  # noqa: E402

PICTURES = ROOT / "docs/pictures"
NO_COLOURS = [(0, 0, 0)] * 8
#: The terminal's background and text; the colours of comments, and of what went well or wrong.
THEMES = {
    "light": (
        TerminalTheme((246, 248, 250), (31, 35, 40), NO_COLOURS),
        "#667085",
        "#1a7f37",
        "#b42318",
    ),
    "dark": (
        TerminalTheme((19, 20, 22), (230, 232, 235), NO_COLOURS),
        "#9aa4b2",
        "#56b87c",
        "#ff8a80",
    ),
}
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
PROGRAM = """import sys
import time

from daemon import DaemonContext
from daemon.pidfile import TimeoutPIDLockFile

try:
    with DaemonContext(pidfile=TimeoutPIDLockFile("/run/feed/feed.pid", 1)):
        time.sleep(600)
except Exception as error:
    sys.exit(f"feed: {error}")
"""
SESSION = """# The pid file's directory, /run/feed, is missing. First with python-daemon:
$ python feed.py; echo "status $?"
# Nothing was said, and nothing runs. Now with daemon_context:
$ sed -i 's/^from daemon/from daemon_context/' feed.py
$ python feed.py; echo "status $?"
"""


def transcript() -> list[str]:
    """What is typed and said, line by line."""
    assert not Path("/run/feed").exists()
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        for box in support.sandbox(Path(directory)):
            python = regenerate.PYTHON.format(python=sys.executable)
            regenerate.write_files({"bin/python": python, "feed.py": PROGRAM}, box)
            for line in SESSION.splitlines():
                lines.append(line)
                if line.startswith("$ "):
                    done = regenerate.run(["sh", "-c", f"exec 2>&1; {line[2:]}"], box)
                    lines += done.stdout.splitlines()
                    support.until(lambda: not box.processes(), what="nothing runs")  # noqa: B023
    return lines


def drawn(lines: list[str], name: str) -> str:
    """The terminal, as a picture that needs no font from elsewhere."""
    theme, *colours = THEMES[name]
    console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text(line, style=_style(line, *colours)), soft_wrap=False)
    svg = console.export_svg(title="feed.py", theme=theme, unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.S)
    return re.sub(r"font-family: (?!arial)[^;]*;", f"font-family: {MONO};", svg)


def _style(line: str, comment: str, well: str, wrong: str) -> str:
    if line.startswith("#"):
        return comment
    if line.startswith("$ "):
        return "bold"
    return well if line == "status 0" else wrong


def said(svg: str) -> str:
    """The words of a picture, whatever it looks like."""
    return " ".join(unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))).split())


def main() -> int:
    """Draw both. Returns how many were not up to date, with --check."""
    lines, stale = transcript(), 0
    for name in THEMES:
        path, svg = PICTURES / f"terminal-{name}.svg", drawn(lines, name)
        if not path.exists() or said(path.read_text()) != said(svg):
            stale += 1
            print(f"{path.relative_to(ROOT)} is stale")
            if "--check" not in sys.argv:
                path.write_text(svg)
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
