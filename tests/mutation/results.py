"""What has come of each mutant, kept in a file."""

from __future__ import annotations

import functools
import hashlib
import json
from datetime import date
from pathlib import Path

from tests.helpers.support import ROOT

from .mutants import Mutant

Key = tuple[str, str, str]


class Results:
    """The tests that killed the mutants, None for survivors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times = Times(path.with_suffix(".times"))
        self.killers: dict[Key, str | None] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                *key, killer = json.loads(line)
                self.killers[tuple(key)] = killer  # type: ignore[index]

    def add(self, mutant: Mutant, killer: str | None) -> None:
        """Note a result."""
        self.killers[mutant.key] = killer
        with self.path.open("a") as file:
            file.write(json.dumps([*mutant.key, killer]) + "\n")

    @property
    def day(self) -> date:
        """When the newest of them was noted."""
        return date.fromtimestamp(self.path.stat().st_mtime)

    def survived(self, mutant: Mutant) -> bool:
        """Whether it was tried, and no test has failed."""
        return self.killers.get(mutant.key, "not tried") is None


class Times:
    """How long the tests of a file take, as long as the file stays as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = json.loads(path.read_text()) if path.exists() else {}

    def knows(self, file: str) -> bool:
        """Whether they were taken for the file as it is now."""
        return file in self.files and bool(self.files[file]["text"] == _digest(file))

    def of(self, file: str) -> dict[str, float]:
        """Seconds of each test."""
        return dict(self.files[file]["tests"])

    def add(self, file: str, tests: dict[str, float]) -> None:
        """Keep them; none: as they were."""
        if tests:
            self.files[file] = {"text": _digest(file), "tests": tests}
            self.path.write_text(json.dumps(self.files))


@functools.cache  # as it was when it was copied
def _digest(file: str) -> str:
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
