"""For the tests of habits: programs written for python-daemon."""

from __future__ import annotations

import os
import signal

from tests.helpers import support
from tests.helpers.docs import regenerate

# As the page has it: a few lines of names, and all that the programs here import of ours.
(MODULE,) = [
    program.code
    for program in regenerate.programs(support.ROOT / "docs/howto/from-python-daemon.md")
    if program.file == "daemon.py"
]


def log(box: support.Sandbox, *lines: str) -> None:
    """Wait until the daemon has written exactly these lines."""
    expected = "".join(f"{line}\n" for line in lines)
    path = box.path / "log"
    found = support.until(
        lambda: path.exists() and path.read_text().count("\n") >= len(lines) and path.read_text(),
        what=f"{len(lines)} lines in {path}",
    )
    assert found == expected


def run(box: support.Sandbox, body: str, *args: object) -> None:
    """Run a launcher, which has nothing to say."""
    done = box.run(body, *args)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def stop(box: support.Sandbox, number: int = signal.SIGTERM) -> None:
    pid = box.pid()
    os.kill(pid, number)
    support.gone(pid)
