#!/usr/bin/env python3
"""Bring the generated parts of README.md and the pages in docs/ up to date; with --check only tell.

    python docs/regenerate.py [--check]

Two kinds of parts are generated, so that they can't say what the code does not do:

* between ``<!-- generated: NAME -->`` and ``<!-- end -->``: a table made from the code;
* a ``text`` block behind ``<!-- output -->`` and a ``python`` block: what that program prints;
* a ``console`` block: its commands, behind ``$``, are run, and what they print follows each.
  One behind ``<!-- needs: NAME -->`` is left alone without that package, or without ``root``.

A python block behind ``<!-- fragment -->`` is no complete program: it is compiled, but not run.
One behind ``<!-- file: NAME -->`` neither: it is a file for the programs behind it on its page.
One behind ``<!-- arguments: start -->`` is run with these arguments. One behind
``<!-- status: 3 -->`` ends with that status, the others with 0.

The console blocks of a page are one session, in a directory with the page's files.
``/srv/app`` in programs and commands is the directory in which they are run.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from traces import TRACES  # noqa: E402

from daemon_context import DEFAULT_STEPS, Step  # noqa: E402
from tests.helpers import support  # noqa: E402

PLACE = "/srv/app"  # stands for the directory in which a program was run
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = re.compile(
    r"(?P<fragment><!-- fragment -->\n)?(?:<!-- file: (?P<file>\S+) -->\n)?"
    r"(?:<!-- arguments: (?P<arguments>[^\n]+?) -->\n)?"
    r"(?:<!-- status: (?P<status>\d+) -->\n)?"
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n<!-- output -->\n```text\n(?P<output>.*?)^```\n)?",
    re.M | re.S,
)
SESSION = re.compile(
    r"(?P<needs><!-- needs: \w+ -->\n)?^```console\n(?P<text>.*?)^```\n", re.M | re.S
)
COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.M)
# Where in the library a program's method was called from is nobody's business on a page.
LIBRARY_FRAME = re.compile(r'  File "\S+/daemon_context/\S+", line \d+, in \w+\n(?:    .*\n)+')
PYTHON = """#!/bin/sh
exec {python} "$@"
"""
SECTION = re.compile(r"(<!-- generated: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.S)


class Program:
    """A python block: its code, whether it is a fragment, and what it is said to print.

    :ivar file: its name, if it is a file for others
    :ivar beside: the files that are there when it is run
    """

    def __init__(self, page: Path, match: re.Match[str]) -> None:
        self.code = match["code"]
        self.file = match["file"]
        self.beside = files(match.string, match.start())
        self.fragment = bool(match["fragment"] or self.file)
        self.arguments = (match["arguments"] or "").split()
        self.status = int(match["status"] or 0)
        self.output = match["output"]
        line = page.read_text().count("\n", 0, match.start("code"))
        self.place = f"{page.relative_to(ROOT)}:{line + 1}"

    def run(self, box: support.Sandbox) -> subprocess.CompletedProcess[str]:
        """Run it as from a shell: in a session of its own, so that our supervisor is not its."""
        write_files(self.beside, box)
        write_files({"app.py": self.code}, box)
        return run([sys.executable, str(box.path / "app.py"), *self.arguments], box)


def files(text: str, end: int) -> dict[str, str]:
    """The files for the programs behind them, by name, of a page up to that place."""
    return {m["file"]: m["code"] for m in PROGRAM.finditer(text, 0, end) if m["file"]}


def write_files(contents: dict[str, str], box: support.Sandbox) -> None:
    """Into the sandbox, which is the directory that a page names."""
    for name, text in contents.items():
        (box.path / name).parent.mkdir(parents=True, exist_ok=True)
        box.script(text.replace(PLACE, str(box.path)), name)


def run(command: list[str], box: support.Sandbox) -> subprocess.CompletedProcess[str]:
    """As from a shell: in a session of its own, so that our supervisor is not its."""
    environ = {key: value for key, value in box.environ.items() if key != "INVOCATION_ID"}
    environ["PATH"] = f"{box.path / 'bin'}:{environ.get('PATH', os.defpath)}"
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=box.path,
        env=environ,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )


def is_here(needs: str) -> bool:
    """Whether what a console block needs, root or a package, is here."""
    _, _, what = needs.rstrip(" ->\n").rpartition(" ")
    return os.geteuid() == 0 if what == "root" else not what or find_spec(what) is not None


def session(text: str, box: support.Sandbox) -> str:
    """The page with its console blocks made anew: each command is run, in their order."""
    if not SESSION.search(text):
        return text
    write_files({"bin/python": PYTHON.format(python=sys.executable)}, box)

    def command(match: re.Match[str]) -> str:
        line = match["command"].replace(PLACE, str(box.path))
        done = run(["sh", "-c", f"exec 2>&1; {line}"], box)
        return f"$ {match['command']}\n{told(done, box.path)}"

    def block(match: re.Match[str]) -> str:
        if not is_here(match["needs"] or ""):
            return match[0]
        write_files(files(text, match.start()), box)
        return f"{match['needs'] or ''}```console\n{COMMAND.sub(command, match['text'])}```\n"

    return SESSION.sub(block, text)


def programs(page: Path) -> Iterator[Program]:
    """All python blocks of the page."""
    return (Program(page, match) for match in PROGRAM.finditer(page.read_text()))


def told(done: subprocess.CompletedProcess[str], place: Path) -> str:
    """What a program has printed, with the numbers and places of this run replaced."""
    text = (done.stdout + done.stderr).replace(str(place), PLACE)
    return as_everywhere(text)


def as_everywhere(text: str) -> str:
    """Without what differs from run to run, or between users and machines."""
    text = re.sub(r"^remark: .*\n", "", text, flags=re.M)
    text = LIBRARY_FRAME.sub("", text)
    text = re.sub(r"\bin \d+\.\d\ds", "in 0.50s", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-28 09:00:00", text)
    text = re.sub(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", "Sat Nov 28 09:00:00 2026", text)
    text = re.sub(r'"since": [\d.]+', '"since": 1795856400.0', text)
    text = re.sub(r"""\bpid([ =]|': |": )\d+""", r"pid\g<1>4711", text)
    return re.sub(r"has uid \d+ and gid \d+", "has uid 1000 and gid 1000", text)


def steps_table() -> str:
    """The steps, from `DEFAULT_STEPS` alone."""
    lines = ["| # | step | process | what it does, and why |", "| --- | --- | --- | --- |"]
    detach = DEFAULT_STEPS.index("detach")
    for number, step in enumerate(DEFAULT_STEPS):
        process = "launcher" if number < detach else "daemon" if number > detach else "all three"
        what = " ".join((type(step).__doc__ or "").replace("``", "`").split())
        lines.append(f"| {number + 1} | `{step.name}` | {process} | {what} |")
    return "\n".join(lines) + "\n"


def order_table() -> str:
    """What must come before what, and why."""
    lines = ["| step | must come after | because |", "| --- | --- | --- |"]
    lines += [
        f"| `{step.name}` | `{other}` | {reason} |"
        for step in DEFAULT_STEPS
        for other, reason in step.after.items()
    ]
    return "\n".join(lines) + "\n"


def touches_table() -> str:
    """What each step changes, and whether that can be undone."""
    lines = ["| step | what it changes | undone when a start in the foreground fails |"]
    lines.append("| --- | --- | --- |")
    for step in DEFAULT_STEPS:
        if step.touches:
            undone = "no" if type(step).undo is Step.undo else "yes"
            lines.append(f"| `{step.name}` | {', '.join(sorted(step.touches))} | {undone} |")
    return "\n".join(lines) + "\n"


def explain_output() -> str:
    """``python -m daemon_context explain``, as an ordinary user in a terminal sees it."""
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "daemon_context", "explain"],
            stdin=slave,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if key != "INVOCATION_ID"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            check=True,
        )
    finally:
        os.close(master)
        os.close(slave)
    text = as_everywhere(done.stdout)
    return f"```text\n$ python -m daemon_context explain\n{text}```\n"


SECTIONS: dict[str, Callable[[], str]] = {
    "steps": steps_table,
    "order": order_table,
    "touches": touches_table,
    "explain": explain_output,
    **TRACES,
}


def sections(text: str) -> str:
    """The page with its generated sections made anew."""
    return SECTION.sub(lambda match: match[1] + SECTIONS[match["name"]]() + match[3], text)


@contextmanager
def scratch() -> Iterator[support.Sandbox]:
    """A sandbox in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        yield from support.sandbox(Path(directory))


def _outputs(text: str, page: Path) -> str:
    def fresh(match: re.Match[str]) -> str:
        if match["output"] is None:
            return match[0]
        with scratch() as box:
            output = told(Program(page, match).run(box), box.path)
        start, end = (place - match.start() for place in match.span("output"))
        return match[0][:start] + output + match[0][end:]

    return PROGRAM.sub(fresh, text)


def main() -> int:
    """Bring all pages up to date. Returns the number of pages that were not."""
    stale = 0
    for page in PAGES:
        text = page.read_text()
        with scratch() as box:
            fresh = session(_outputs(sections(text), page), box)
        if fresh != text:
            stale += 1
            print(f"{page.relative_to(ROOT)} is stale")
            if "--check" not in sys.argv:
                page.write_text(fresh)
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
