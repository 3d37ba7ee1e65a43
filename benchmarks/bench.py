"""Rounds: one start of every contender, in turn, again and again."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import limb
from .contenders import INTERPRETER, Contender, Contenders
from .environment import Environment
from .figures import Figures, Found, Measures, Sample, Table
from .limb import Failed, TooSlow
from .scene import Place, Scene, start

SLOW = 0.7  # seconds
LEAST, SELDOM = 3, 4  # a slow one has so many samples at least, and is in every so many-th round


class Bench:
    """What a scenario works with: the contenders, the number of rounds, and how to measure."""

    def __init__(
        self, environment: Environment, rounds: int, *, quick: bool, only: set[str] | None = None
    ) -> None:
        self.environment = environment
        self.contenders = Contenders(environment)
        self.chosen = only
        self.base_rounds = rounds
        self.quick = quick
        self.mark = f"BENCH_MARK={uuid.uuid4().hex}"
        self.directory = Path()
        self.remarks: list[str] = list(environment.remarks)

    def named(self, *names: str) -> list[Contender]:
        """Contenders by name, those that are here and chosen."""
        return [
            contender
            for contender in self.contenders.named(*names)
            if self.chosen is None or contender.name in self.chosen
        ]

    def rounds(self, share: float) -> int:
        """So many rounds, for a scenario whose rounds cost more or less than others'."""
        return max(1, round(self.base_rounds * share))

    def remark(self, text: str) -> None:
        """Something that readers of the figures must know."""
        if text not in self.remarks:
            self.remarks.append(text)

    # --- rounds

    def interleave(self, measures: Measures, share: float = 1, *, warm_up: bool = True) -> Found:
        """Round by round, a sample of each; in another order each time.

        A contender that fails or is too slow drops out, and the reason is noted; one that takes
        long takes part in every fourth round, or more often where the rounds are few.
        """
        rounds = self.rounds(share)
        every = max(1, min(SELDOM, (rounds - 1) // (LEAST - 1)))
        found: Found = {key: {} for key in measures}
        out: set[Any] = set()
        slow: dict[Any, bool] = dict.fromkeys(measures, False)
        for number in range(-1 if warm_up else 0, rounds):
            # Shuffled, so that none always has to follow the same one; in each run the same way.
            for key in random.Random(number).sample(list(measures), len(measures)):
                if key in out or (slow[key] and number % every):
                    continue
                began = time.monotonic()
                try:
                    sample = measures[key]()
                except (Failed, TooSlow) as error:
                    out.add(key)
                    self._drop(key, error, found[key])
                    continue
                slow[key] = time.monotonic() - began > SLOW
                for quantity, value in sample.items():
                    figures = found[key].setdefault(quantity, Figures())
                    if number >= 0:
                        figures.values.append(value)
        return found

    def _drop(self, key: Any, error: Exception, found: dict[str, Figures]) -> None:
        text = str(error).strip()
        note = text.splitlines()[-1] if text else "failed"
        name = key if isinstance(key, str) else ", ".join(str(part) for part in key if part)
        if isinstance(error, Failed):
            print(f"{name}: {text}", file=sys.stderr)
        samples = max((len(figures.values) for figures in found.values()), default=0)
        if samples or isinstance(error, Failed):
            self.remark(f"{name} dropped out after {samples} samples: {note}")
        found.setdefault("", Figures())
        for figures in found.values():
            figures.note = note

    # --- one start

    def start(self, contender: Contender, scene: Scene) -> Sample:
        """Start a daemon, stop it, and see that all is gone; milliseconds and more.

        ``launch``: spawn to launcher reaped. ``ready``: spawn to the body's first instruction.
        ``inside``: from the program's first line, before the import, to the body. ``detach``: from
        the line before the detach to the body. ``back``: from that line to the launcher reaped.
        ``cpu``: of the launcher and what it has waited for.
        """
        if contender.name == INTERPRETER:  # no daemon: it ends by itself
            scene = replace(scene, then="exit")
        sample: Sample = self.apart(scene, lambda place: start(place, contender, scene))
        return sample

    def apart(self, scene: Scene, work: Callable[[Place], Any], timeout: int = 60) -> Any:
        """Do the work in a limb, in a directory of its own."""
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            environ = {**self._environ(), **scene.environ()}
            return limb.apart(lambda: work(Place(name, environ)), *scene.setups, timeout=timeout)

    def _environ(self) -> dict[str, str]:
        key, _, value = self.mark.partition("=")
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, key: value}

    def left_behind(self) -> set[int]:
        """Processes with our mark: there must be none."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in entry.read_bytes().split(b"\0"):
                    found.add(int(entry.parent.name))
            except OSError:
                continue
        return found

    # --- tables

    def table(
        self,
        key: str,
        title: str,
        unit: str,
        found: Found,
        quantity: str,
        **more: Any,
    ) -> Table:
        """One quantity of all contenders; those that dropped out with their reason."""
        rows = {
            str(name): quantities.get(quantity, quantities.get("", Figures()))
            for name, quantities in found.items()
            if quantity in quantities or "" in quantities
        }
        return Table(key, title, unit, rows, **more)
