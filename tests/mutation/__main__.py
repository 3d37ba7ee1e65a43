"""Mutate the library, one place at a time, and see whether a test fails. Needs root.

python -m tests.mutation                      every mutant of every module not tried yet: hours
python -m tests.mutation --sample 60          until 60 of each module, chosen by --seed, are tried
python -m tests.mutation --survivors          again those that have survived and that nobody
                                              has judged, on more tests
python -m tests.mutation --list loop          the mutants of a module
python -m tests.mutation --page               write docs/project/mutation.md from the results

Results are kept in a file, one line for each mutant; the newest counts.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

from tests.helpers.support import ROOT

from . import page
from .mutants import Mutant, mutants_of
from .plan import PLAN, files_of
from .results import Results
from .worker import LONGEST, PATIENCE, Worker


def main() -> int:
    """The exit status: whether a mutant has survived that is not judged."""
    options = _options()
    if options.list:
        print(*(f"{m.function}: {m.change}" for m in mutants_of(options.list)), sep="\n")
        return 0
    results = Results(options.results)
    if not options.page:
        chosen = _chosen(options, results)
        # Ignored, as under nohup, they would be ignored by all that is tested.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        Campaign(chosen, results, options.budget, options.survivors).run(options.workers)
    else:
        page.write(results)
    return page.tell_unjudged(results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--module", choices=PLAN, action="append", help="only this one")
    parser.add_argument("--sample", type=int, metavar="N", help="so many of each module")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument("--budget", type=float, default=60, help="seconds of tests for a mutant")
    parser.add_argument("--list", choices=PLAN, metavar="MODULE")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / ".mutation.jsonl")
    return parser.parse_args()


def _chosen(options: argparse.Namespace, results: Results) -> list[Mutant]:
    chosen = []
    judged = page.judgements()
    for module in options.module or PLAN:
        chooser = random.Random(options.seed)
        mutants = mutants_of(module)
        if options.survivors:
            survivors = filter(results.survived, mutants)
            chosen += [mutant for mutant in survivors if mutant.key not in judged]
            continue
        chooser.shuffle(mutants)  # so that a larger sample has the smaller one in it
        sample = mutants[: options.sample]
        chosen += [mutant for mutant in sample if mutant.key not in results.killers]
    random.Random(options.seed).shuffle(chosen)
    return chosen


class Campaign:
    """Mutants, spread over workers; what one learns about the tests helps the others."""

    def __init__(self, mutants: list[Mutant], results: Results, budget: float, more: bool) -> None:
        self.mutants, self.results, self.budget, self.more = mutants, results, budget, more
        self.durations: dict[str, float] = {}
        self.kills: dict[str, Counter[str]] = defaultdict(Counter)
        for (module, function, _), killer in results.killers.items():
            self._count(module, function, killer)
        self.lock = threading.Lock()

    def run(self, workers: int) -> None:
        """Try all mutants."""
        with tempfile.TemporaryDirectory(prefix="mu-") as name:
            Path(name).chmod(0o755)
            crew = []
            for number in range(workers):
                (Path(name) / str(number)).mkdir()
                crew.append(Worker(Path(name) / str(number)))
            modules = {mutant.module for mutant in self.mutants}
            files = sorted({file for module in modules for file in files_of(module, self.more)})
            self._everywhere(crew, lambda worker: self._time(worker, files))
            print(f"{len(self.mutants)} mutants, {sum(self.durations.values()):.0f} s of tests")
            self._everywhere(crew, self._work)

    @staticmethod
    def _everywhere(crew: list[Worker], work: Callable[[Worker], None]) -> None:
        with ThreadPoolExecutor(len(crew)) as pool:
            list(pool.map(work, crew))

    def _time(self, worker: Worker, files: list[str]) -> None:
        while files:
            file = files.pop()
            times = {} if self.results.times.knows(file) else worker.durations(file)
            with self.lock:
                self.results.times.add(file, times)
                self.durations.update(self.results.times.of(file))

    def _work(self, worker: Worker) -> None:
        while True:
            with self.lock:
                if not self.mutants:
                    return
                mutant = self.mutants.pop()
                order = self._order(mutant)
            killer = worker.killer(
                mutant, order, self.durations, PATIENCE * (5 if self.more else 1)
            )
            with self.lock:
                self._note(mutant, killer)

    def _order(self, mutant: Mutant) -> list[str]:
        here, near = self.kills[f"{mutant.module}.{mutant.function}"], self.kills[mutant.module]
        durations, files = self.durations, files_of(mutant.module, self.more)
        mine = (name for name in durations if name.partition("::")[0] in files)
        fast = [name for name in mine if durations[name] <= LONGEST]
        fast.sort(key=lambda name: (-here[name], -near[name], durations[name]))
        sums = accumulate(durations[name] for name in fast)
        return [name for name, total in zip(fast, sums, strict=True) if total <= self.budget]

    def _note(self, mutant: Mutant, killer: str | None) -> None:
        self.results.add(mutant, killer)
        if killer is None:
            print(f"{len(self.mutants)} left; {mutant.module}: {mutant.function}: {mutant.change}",
                  flush=True)  # fmt: skip
        self._count(mutant.module, mutant.function, killer)

    def _count(self, module: str, function: str, killer: str | None) -> None:
        if killer is not None:
            self.kills[module][killer] += 1
            self.kills[f"{module}.{function}"][killer] += 1


if __name__ == "__main__":
    sys.exit(main())
