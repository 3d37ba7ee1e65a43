"""The program below a launcher, seen from outside."""

from __future__ import annotations

import json
import os
import select
import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers import support

from . import table
from .jail import Jail

PROGRAM = Path(__file__).with_name("program.py")


class Subject:
    """One run of the program, with a place of its own.

    :param options: options of its context
    """

    def __init__(self, jail: Jail, name: str, **options: Any) -> None:
        self.jail, self.name = jail, name
        self.outside, self.inside = jail.outside / name, jail.inside / name
        self.outside.mkdir()
        (self.outside / "options").write_text(json.dumps(options))

    def argv(self, *verb: str) -> list[str]:
        """The command."""
        of_class = ["class", *verb] if verb else []
        return [sys.executable, "-B", str(PROGRAM), str(self.inside), *of_class]

    def line(self, *verb: str) -> str:
        """The command as a line for a shell, or for a unit."""
        return shlex.join(self.argv(*verb))

    def text(self, name: str) -> str:
        """What it wrote under this name, as soon as it is there."""
        path = self.outside / name
        return support.until(lambda: path.exists() and path.read_text(), what=self._what(name))

    def wrote(self, name: str) -> str:
        """What it wrote so far; '' if nothing."""
        path = self.outside / name
        return path.read_text() if path.exists() else ""

    def _what(self, name: str) -> str:
        return f"{self.name} wrote no {name}; {self.jail.said}"

    def found(self) -> dict[str, Any]:
        """What it found out."""
        facts: dict[str, Any] = json.loads(self.text("found"))
        return facts

    def again(self) -> None:
        """Forget what was found: it is started once more."""
        (self.outside / "found").unlink()

    @property
    def pid(self) -> int:
        """The program's pid, outside."""
        inner = self.found()["pid"]
        return support.until(lambda: self.jail.host_pid(inner), what=f"a process {inner}")

    def config(self, text: str) -> None:
        """What the next reload reads."""
        (self.outside / "config").write_text(text)

    def reloads(self, text: str, action: Callable[[], object]) -> None:
        """Have it take a configuration."""
        self.config(text)
        action()
        support.until(lambda: text in self.wrote("reloads"), what=self._what("reloads"))

    def stop(self, action: Callable[[], object]) -> float:
        """Have the launcher end it; milliseconds from SIGTERM to the end of the process."""
        pidfd = os.pidfd_open(self.pid)
        ended: list[float] = []

        def watch() -> None:
            if select.select([pidfd], [], [], support.DEADLINE)[0]:
                ended.append(time.monotonic())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            action()
            watcher.join()
        finally:
            os.close(pidfd)
        assert ended, f"{self.name} lives on"
        return (ended[0] - float(self.text("terminated"))) * 1000

    def record(self, launcher: str, **columns: Any) -> None:
        """A row of the table."""
        found = self.found()
        table.add(
            launcher=launcher, detected=found["name"], fact=found["reason"],
            detached="yes" if found["detached"] else "no", **columns,
        )  # fmt: skip
