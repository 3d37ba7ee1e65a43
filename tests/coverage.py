"""Which lines the tests reach, in all processes: those that fork, `os._exit` and daemons as well.

python -m tests.coverage                        all tests
python -m tests.coverage tests/report           some; the arguments are pytest's
python -m tests.coverage --page                 all, and write docs/project/coverage.md

Programs that the tests start are measured because coverage's `.pth` file starts it in every Python
of this environment, the processes that these fork because a tracer survives a fork; they save what
they have seen when they end, by `os._exit` too. Not measured: what is killed with SIGKILL, has
another root, or another environment. Daemons that a test leaves to the sandbox are asked to end,
and not killed at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support

# They ask which modules a start imports and what it costs, which is not the same when measured.
LEFT_OUT = ["--ignore=tests/whole/test_import.py", "--ignore=tests/whole/test_benchmarks.py",
            "--ignore=tests/faults/test_faults.py"]  # fmt: skip
# Their processes have no place for what was measured, and say so on the stderr that is looked at.
LEFT_OUT += [
    "--deselect=tests/steps/test_privileges.py::test_the_naive_way_fails_this_test",
    "--deselect=tests/look/test_remarks.py::test_the_root_of_an_overlaid_system_is_not_named",
]
PAGE = support.ROOT / "docs/project/coverage.md"
TEXT = """# Coverage

Which lines and branches the tests reach, in all processes of a start. This page is written by

```sh
python -m tests.coverage --page
```

which needs what `pip install -e ".[coverage]"` installs; `python -m tests.coverage
tests/report` tells the same about some tests. Measured are the launcher, the session
leader, the daemon and the programs that the tests start, also where they end in `os._exit`, have
closed all descriptors or have another user. Not measured is what a process has done that is killed
with SIGKILL, is in a chroot (its figures have no place to go) or was started with an empty
environment: most of what is missing in `report.py` is the last moment of a session leader, which
kills its own group.

{table}
"""
PATIENCE = 1.0  # seconds for daemons to end, which is when they save


def main(args: list[str]) -> int:
    """The exit status of pytest; prints the report."""
    page = args == ["--page"]
    args = [] if page else args
    with tempfile.TemporaryDirectory(prefix="daemon-context-coverage-") as name:
        Path(name).chmod(0o1777)  # processes save as whichever user they are by then
        os.environ["COVERAGE_FILE"] = f"{name}/data"
        status = _coverage("run", "-m", "pytest", "-q", "-p", "tests.coverage", *LEFT_OUT, *args)
        _coverage("combine", "--quiet")
        if page:
            table = _coverage("report", "--format=markdown", said=True)
            rows = [line for line in table.splitlines() if line.startswith("|")]
            PAGE.write_text(TEXT.format(table="\n".join(rows)))
        else:
            _coverage("report")
    return status


def _coverage(*args: str, said: bool = False) -> Any:
    """The exit status of the command, or what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "coverage", *args], cwd=support.ROOT, check=False, text=True,
        stdout=subprocess.PIPE if said else None,
    )  # fmt: skip
    return done.stdout if said else done.returncode


@pytest.fixture(autouse=True, scope="session")
def _daemons_are_asked_to_end() -> None:
    kill = support.Sandbox.end

    def end(box: support.Sandbox) -> None:
        for pid in box.processes():
            try:
                os.kill(pid, signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                pass
        deadline = time.monotonic() + PATIENCE
        while box.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        kill(box)

    support.Sandbox.end = end  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
