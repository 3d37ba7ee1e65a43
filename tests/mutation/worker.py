"""Runs tests on a mutant: in a copy of the tree, in namespaces of its own.

A mutant may signal any process, leave daemons or fill a directory. So each runs in a pid namespace,
whose end kills all that it has started, and in a file system in memory that vanishes with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.support import ROOT

from .mutants import Mutant

LONGEST = 5.0  # seconds; tests that take longer are left out
PATIENCE = 12.0  # seconds that a test may take, and the same number of times what it took before
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "build", "*.egg-info", ".*_cache")
# $0: the memory; then the tree, the mutant and its place. The shell, as process 1, reaps orphans.
SCRIPT = """
    mount -t tmpfs -o mode=755 tmpfs "$0" && mkdir -m 1777 "$0/t" && cp -a "$1" "$0/tree" || exit 99
    if [ -n "$3" ]; then cp "$2" "$0/tree/$3"; fi
    cd "$0/tree" && shift 3
    "$@"
    exit $?
"""


class Worker:
    """A copy of the tree, and the runs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.chmod(0o755)
        (self.path / "memory").mkdir()
        self.log = self.path / "log"
        shutil.copytree(ROOT, self.path / "tree", ignore=LEFT_OUT)
        subprocess.run(  # compiles all, once for all mutants
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
            cwd=self.path / "tree", env=_environ(), check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def durations(self, tests: str) -> dict[str, float]:
        """Seconds that the tests of a file take on what is not mutated; not of those that fail
        here.
        """
        status, log = self._run([tests])
        assert status in (0, 1), f"{tests} without a mutant: status {status}, {log[-1]}"
        found: dict[str, float] = {}
        for words in log:
            if words[0] == "end":
                found[words[1]] = found.get(words[1], 0) + float(words[2])
        for name in {words[1] for words in log if words[0] == "fail"}:
            print(f"left out, because it fails without a mutant: {name}", flush=True)
            found.pop(name, None)
        return found

    def killer(
        self, mutant: Mutant, order: list[str], durations: dict[str, float], patience: float
    ) -> str | None:
        """The test that fails on the mutant, or never ends; None: it has survived."""
        files = dict.fromkeys(name.partition("::")[0] for name in order)
        status, log = self._run(list(files), mutant, order, durations, patience)
        for words in log:
            if words[0] == "fail":
                return words[1]
        if status is None:
            return f"{log[-1][1]} never ends"
        return None if status == 0 else f"status {status}: not even collected"

    def _run(
        self,
        tests: list[str],
        mutant: Mutant | None = None,
        order: list[str] | None = None,
        durations: dict[str, float] | None = None,
        patience: float = 100,
    ) -> tuple[int | None, list[list[str]]]:
        """Exit status, None where a test took too long, and the lines of the log."""
        self.log.write_text("begin\tnothing\n")
        if mutant is not None:
            (self.path / "mutant.py").write_text(mutant.text)
        environ = _environ(MUTATION_LOG=self.log, TMPDIR=self.path / "memory/t")
        if order is not None:
            (self.path / "order").write_text("\n".join(order))
            environ["MUTATION_ORDER"] = str(self.path / "order")
        program = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork",
                "--kill-child", "--mount-proc", "sh", "-c",
                SCRIPT, self.path / "memory", self.path / "tree", self.path / "mutant.py",
                f"daemon_context/{mutant.module}.py" if mutant is not None else "",
                sys.executable, "-m", "pytest", "-q", "--tb=no",
                "-p", "tests.mutation.order", "-p", "no:cacheprovider", "--hypothesis-seed=0",
                *(["-x"] if mutant is not None else []), *tests,
            ],
            env=environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            status = self._watch(program, patience, durations or {})
        finally:
            program.kill()  # and with it the namespace
            program.wait()
        return status, [line.split("\t") for line in self.log.read_text().splitlines()]

    def _watch(
        self, program: subprocess.Popen[bytes], patience: float, durations: dict[str, float]
    ) -> int | None:
        size, changed = 0, time.monotonic()
        while program.poll() is None:
            time.sleep(0.02)
            if self.log.stat().st_size != size:
                size, changed = self.log.stat().st_size, time.monotonic()
            elif time.monotonic() > changed + patience:
                name = self.log.read_text().splitlines()[-1].split("\t")[1]
                if time.monotonic() > changed + patience * (1 + durations.get(name, 0)):
                    return None
        return program.returncode


def _environ(**more: object) -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return environ | {name: str(value) for name, value in more.items()}
