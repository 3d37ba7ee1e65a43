"""docs/tutorials/first-daemon.md: its pieces make a daemon, and its trace is a real one."""

from __future__ import annotations

import os
import re
import signal

from daemon_context import DEFAULT_STEPS
from tests.helpers import support
from tests.helpers.docs import regenerate

PAGE = support.ROOT / "docs/tutorials/first-daemon.md"
TEXT = PAGE.read_text()


def test_the_pieces_put_together_are_a_daemon(box: support.Sandbox) -> None:
    pieces = [program.code for program in regenerate.programs(PAGE) if program.fragment]
    done = box.run("\n\n".join(pieces))
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid("first.pid")
    start, first, leader, second = (
        dict(zip(("pid", "ppid", "pgid", "sid"), re.findall(r"\d+", line), strict=True))
        for line in done.stdout.splitlines()
    )
    assert first["pid"] == leader["pid"] == leader["pgid"] == leader["sid"] == second["sid"]
    assert first["pgid"] == start["pgid"] != leader["pgid"]
    assert second["pid"] == str(pid) != second["sid"]
    support.until(lambda: "still here" in box.text("first.log"))
    assert support.stat(pid)[4] == "0"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert support.status(pid)["Umask"] == "0022"
    log = str(box.path / "first.log")
    assert support.descriptors(pid) == {0: os.devnull, 1: log, 2: log}
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert box.text("first.log").endswith("stopped\n")
    assert not (box.path / "first.pid").exists()
    box.settled()


def test_every_part_of_the_trace_is_explained() -> None:
    shown = re.findall(r"<!-- generated: (trace\S*) -->", TEXT)
    assert sorted(shown) == sorted(regenerate.TRACES)


def test_the_trace_is_whole() -> None:
    table = regenerate.SECTIONS["trace"]()
    assert [name for name in DEFAULT_STEPS.names if f"  {name} " not in table] == []
    assert not re.search(r"/tmp/(?!scratch)|pts/[1-9]", table)


def test_a_trace_fits_on_a_screen() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```$", TEXT, re.S | re.M)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 100


def test_every_section_has_something_to_try_or_to_run() -> None:
    sections = TEXT.split("\n## ")[1:]
    poor = [
        section.partition("\n")[0]
        for section in sections
        if "Try it:" not in section and "```python" not in section
    ]
    assert poor == []
