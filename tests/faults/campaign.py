"""Makes the cases from an undisturbed start, and spreads them over workers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import calls, programs
from .run import Case
from .verdict import Verdict, judge

ROOT = Path(__file__).resolve().parent.parent.parent
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
WORKERS = 2
TRIES = 3
CYCLED = ("pidfile", "owner", "explicit", "spawn")

Point = Sequence[Any]  # role, call, nth, path
Plan = Callable[[str, list[Point]], list[Case]]


def run(cases: Iterable[Case], *options: str) -> list[dict[str, Any]]:
    """Run the cases, a few at a time; what was seen, in their order."""
    cases = list(cases)
    shares = [cases[n::WORKERS] for n in range(min(WORKERS, len(cases)))]
    with tempfile.TemporaryDirectory(prefix="daemon-context-faults-") as name:
        os.chmod(name, 0o755)  # the change of owner must not lose sight of it
        workers = [_worker(Path(name) / str(n), share, options) for n, share in enumerate(shares)]
        for worker in workers:
            worker.wait()
        found = [_seen(Path(name) / str(n), share) for n, share in enumerate(shares)]
    return [found[n % WORKERS][n // WORKERS] for n in range(len(cases))]


def _worker(place: Path, cases: list[Case], options: Sequence[str]) -> subprocess.Popen[bytes]:
    place.with_suffix(".json").write_text(json.dumps(cases))
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith("COV_")},
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C",
    }
    command = [sys.executable, "-m", "tests.faults.worker", str(place)]
    command.append(str(place.with_suffix(".json")))
    with open(place.with_suffix(".out"), "wb") as out, open(place.with_suffix(".err"), "wb") as err:
        return subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ, cwd="/",
        )  # fmt: skip


def _seen(place: Path, cases: list[Case]) -> list[dict[str, Any]]:
    seen = [json.loads(line) for line in place.with_suffix(".out").read_text().splitlines()]
    if len(seen) != len(cases):
        stuck = cases[len(seen)]
        raise RuntimeError(f"the worker ended at {stuck}: {place.with_suffix('.err').read_text()}")
    return seen


def references(variants: Iterable[str]) -> dict[str, dict[str, Any]]:
    """An undisturbed start of each variant, with the list of its calls."""
    variants = list(variants)
    found = dict(zip(variants, run(Case(variant) for variant in variants), strict=True))
    for variant, seen in found.items():
        wrong = judge(seen, seen)
        if wrong.outcome != "tolerated":
            raise RuntimeError(f"undisturbed, {variant} fails: {wrong.problems} {seen['stderr']}")
        for _, call, _, _ in seen["points"]:
            calls.errors(call)
    return found


def judged(cases: Iterable[Case], known: dict[str, dict[str, Any]]) -> list[Verdict]:
    """The verdicts; what was not reached is tried again."""
    verdicts: dict[Case, Verdict] = {}
    todo = list(cases)
    for _ in range(TRIES):
        for seen in run(todo):
            verdict = judge(seen, known[seen["case"][0]])
            verdicts[verdict.case] = verdict
        todo = [case for case in todo if verdicts[case].outcome == "not reached"]
        if not todo:
            break
    return list(verdicts.values())


# --- which cases


def every_fault(variant: str, points: list[Point]) -> list[Case]:
    """Each call, with each error that the kernel can give there."""
    return [
        Case(variant, role, call, nth, error)
        for role, call, nth, _ in points
        for error in calls.errors(call)
    ]


def every_death(variant: str, points: list[Point]) -> list[Case]:
    """SIGKILL before each call, and to the daemon right after ready."""
    marks = [("daemon", f"{programs.MARK}ready", 1, "")] if variant != "foreground" else []
    return [Case(variant, role, call, nth, "kill") for role, call, nth, _ in [*points, *marks]]


def every_signal(variant: str, points: list[Point]) -> list[Case]:
    """To the launcher's process group before each call."""
    return [
        Case(variant, role, call, nth, name)
        for role, call, nth, _ in points
        for name in SIGNALS
    ]  # fmt: skip


def cases_of(plan: Plan, variants: Iterable[str], known: dict[str, Any]) -> list[Case]:
    """All cases of a plan in the variants."""
    return [case for variant in variants for case in plan(variant, known[variant]["points"])]


def ours() -> list[str]:
    """Our variants, as far as this user may run them."""
    return [v for v in programs.OURS if os.geteuid() == 0 or v not in programs.FOR_ROOT]


def random_cycles(count: int, seed: int, known: dict[str, dict[str, Any]]) -> list[Verdict]:
    """Starts that end by a death or a signal at random, and starts after them, in one directory.

    After each death an undisturbed start follows, which has to work whatever was left.
    """
    chance = random.Random(seed)
    variants = [variant for variant in known if variant in CYCLED]
    choices = cases_of(every_death, variants, known) + cases_of(every_signal, variants, known)
    seen = run((chance.choice(choices) for _ in range(count)), "--keep")
    return [judge(one, known[one["case"][0]]) for one in seen]
