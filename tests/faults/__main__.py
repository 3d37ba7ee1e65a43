"""Fail every system call of a start, kill at every one, and say what came of it.

python -m tests.faults                    every fault, in one variant
python -m tests.faults --list pidfile     the system calls of an undisturbed start
python -m tests.faults --full             all variants, deaths, signals, 500 random cycles and the
                                          rivals; writes docs/explanation/guarantees.md
python -m tests.faults --case VARIANT ROLE CALL N ACTION     one run, in full
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from . import campaign, guarantees, programs, rivals
from .run import Case
from .verdict import Verdict, judge

PLANS = {
    "faults": campaign.every_fault,
    "deaths": campaign.every_death,
    "signals": campaign.every_signal,
}


def main() -> int:
    """The exit status: whether anything is wrong."""
    options = _options()
    # Ignored, as under nohup, they would be ignored by all that is tried.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if options.list:
        return _list(options.list)
    if options.case:
        return _one(options.case)
    if options.full:
        return _full(options.cycles, options.seed)
    known = campaign.references([options.variant])
    cases = campaign.cases_of(PLANS[options.plan], [options.variant], known)
    return _told(options.plan, campaign.judged(cases, known))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = list(programs.PROGRAMS)
    parser.add_argument("--variant", choices=names, default="pidfile")
    parser.add_argument("--plan", choices=PLANS, default="faults")
    parser.add_argument("--list", choices=names, metavar="VARIANT")
    parser.add_argument("--case", nargs=5, metavar=("VARIANT", "ROLE", "CALL", "N", "ACTION"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args()


def _list(variant: str) -> int:
    for role, call, nth, path in campaign.references([variant])[variant]["points"]:
        print(f"{role:14} {call:24} {nth:3} {path}")
    return 0


def _one(words: list[str]) -> int:
    variant, role, call, nth, action = words
    known = campaign.references([variant])[variant]
    seen = campaign.run([Case(variant, role, call, int(nth), action)])[0]
    verdict = judge(seen, known)
    print(f"{verdict.outcome}: exit status {seen['status']}, pid file {seen['pidfile']}")
    print(seen["stderr"], *verdict.problems, sep="\n")
    return int(verdict.outcome == "wrong")


def _full(cycles: int, seed: int) -> int:
    known = campaign.references(campaign.ours())
    found = {}
    for name, plan in PLANS.items():
        found[name] = campaign.judged(campaign.cases_of(plan, known, known), known)
        _told(name, found[name])
    print(f"random cycles with --seed {seed}")
    found["cycles"] = campaign.random_cycles(cycles, seed, known)
    _told("cycles", found["cycles"])
    with tempfile.TemporaryDirectory() as name:
        rivals.make_importable(Path(name))
        others = {rival: rivals.verdicts(rival) for rival in programs.RIVALS}
    for rival, verdicts in others.items():
        print(rivals.NAMES[rival], dict(rivals.convictions(verdicts)))
    guarantees.write(found, others)
    return int(any(v.outcome == "wrong" for verdicts in found.values() for v in verdicts))


def _told(name: str, verdicts: Iterable[Verdict]) -> int:
    verdicts = list(verdicts)
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    print(f"{name}: {len(verdicts)} cases: {dict(outcomes)}", flush=True)
    for verdict in verdicts:
        if verdict.outcome == "wrong":
            print(f"  {verdict.case}", *verdict.problems, sep="\n    ", flush=True)
    return int(outcomes["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
