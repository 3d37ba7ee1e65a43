"""The table of guarantees in the docs: how many cases stand behind each, and how to rerun them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from . import rivals
from .campaign import ROOT
from .run import Case
from .verdict import Verdict

PAGE = ROOT / "docs/explanation/guarantees.md"
FULL = "python -m tests.faults --full"
MACHINE = "MACHINE_EXAMPLES=250 pytest tests/pidfile/test_machine.py"
Found = Mapping[str, Sequence[Verdict]]

# The guarantee; the test files and rooms behind it; and which runs of this harness.
GUARANTEES: list[tuple[str, str, str, Callable[[Case], bool]]] = [
    (
        "Errors reach the caller",
        "whatever fails, in any step and any of the three processes: `open()` raises an error "
        "that names the step and the operating system's text; nothing is left",
        "report/test_failing_steps.py report/test_readiness.py "
        "report/test_interrupted.py report/test_unwinding.py "
        "report/test_limits.py report/test_children.py context/test_start.py "
        "sequence/test_sequence.py sequence/test_own_steps.py "
        "sequence/test_foreground.py look/test_explain.py",
        lambda case: case.action.startswith("E"),
    ),
    (
        "Exit 0 means ready",
        "a death of any of the three processes, and an interrupted launcher, cancel the start",
        "whole/test_first_daemon.py steps/test_signals.py loop/test_sleep.py",
        lambda case: case.action == "kill" or case.action.startswith("SIG"),
    ),
    (
        "One daemon per pid file",
        "whatever is in it, whoever died; nobody has to remove it",
        "pidfile/ whole/test_races.py",
        lambda case: case.action == "kill" and case.variant != "plain",
    ),
    (
        "Only the daemon is ever signalled",
        "",
        "daemon/ pidfile/ whole/test_races.py",
        lambda case: False,
    ),
    (
        "What is buffered is written once, and no number is used again under its owner",
        "",
        "steps/test_buffers.py steps/test_descriptors.py "
        "steps/test_closed_descriptors.py steps/test_any_descriptors.py "
        "steps/test_preserved.py",
        lambda case: case.variant == "files" and case.action.startswith("E"),
    ),
    (
        "Privileges are dropped for good",
        "also where a call on the way fails",
        "steps/test_privileges.py steps/test_owner.py",
        lambda case: case.variant == "owner" and case.action.startswith("E"),
    ),
    (
        "Cost follows what is open, not the limits",
        "",
        "steps/test_descriptors.py steps/test_closed_descriptors.py steps/test_any_descriptors.py",
        lambda case: False,
    ),
    (
        "Nothing is inherited that makes a caller hang",
        "",
        "whole/test_callers.py whole/test_callers_remote.py",
        lambda case: False,
    ),
    (
        "Under a supervisor it does the right thing",
        "",
        "manager/test_rule.py manager/test_supervisor.py manager/test_supervised.py",
        lambda case: False,
    ),
    (
        "Nothing dies silently",
        "",
        "report/test_lastwords.py report/test_rsyslogd.py report/test_uncaught.py",
        lambda case: False,
    ),
    (
        "One process unwinds",
        "",
        "embedding/test_spawn.py embedding/test_handle.py embedding/test_named_target.py",
        lambda case: case.variant in ("spawn", "explicit") and case.action.startswith("E"),
    ),
]


def write(found: Found, others: Found) -> None:
    """Write the page from the results."""
    PAGE.write_text(_page(found, others))


def _page(found: Found, others: Found) -> str:
    return f"""# Guarantees

Each is proven from outside, on real processes. This page is written by `{FULL}`.
What the tests are worth is in [mutation tests](../project/mutation.md), what they reach in
[coverage](../project/coverage.md).

{_table(found)}

## Faults, deaths and signals

One system call of one process is failed in each run, with an error that the kernel can give
there; or the process is killed before it; or the launcher's process group gets SIGINT, SIGTERM or
SIGHUP. Each run has to end *tolerated* (exit 0, and a daemon that has all that an undisturbed
start gives it: owner, groups, umask, directories, limits, signals, descriptors, pid file and lock)
or *clean* (exit not 0, an error that names the step and the cause, no process, no pid file or an
empty unlocked one, no other file, the launcher as before). After each death an undisturbed start
has to work.

{_outcomes(found)}

*Not reached*: calls that depend on timing, such as one more `poll`, which were not made in three
runs. `python -m tests.faults --list VARIANT` lists the system calls of a start in all three
processes; `python -m tests.faults --case VARIANT ROLE CALL N ACTION` runs one case. What is not
failed, and why, is in `tests/faults/calls.py`.

## Any order of events

Starts, also several at once and while the old daemon ends, SIGTERM, `kill -9`, `stop`, stale
content, removals of the file, children that the daemon forks, in Python or in native code, and
locks of strangers: hypothesis puts them in any order, on real processes. After each step the
kernel's locks, the process table and the file have to agree with a model: at most one daemon
holds the lock, and no process but the daemon is ever signalled. `{MACHINE}` tries a
thousand sequences, others each time; without the variable they are few, and always the same.

## The same runs on others

A harness that finds nothing anywhere proves nothing.

{_comparison(found, others)}

*Silent*: exit 0 without a daemon. *Stale file*: a pid file that names a process that does not
exist. *Next start*: what was left keeps the next start from working. *Launcher changed*: a failure
leaves another umask, directory, limit or descriptor behind in the caller. The words of errors are
not asked of others.
"""


def _table(found: Found) -> str:
    counts = _tests()
    lines = ["| # | guarantee | cases | command |", "| --- | --- | --- | --- |"]
    for number, (name, what, files, applies) in enumerate(GUARANTEES, 1):
        paths = [f"tests/{name}" for name in files.split()]
        tests = sum(n for file, n in counts.items() if file.startswith(tuple(paths)))
        reached = (v for verdicts in found.values() for v in verdicts if v.outcome != "not reached")
        runs = sum(applies(v.case) for v in reached)
        cells = [f"{runs} runs, " * bool(runs) + f"{tests} tests"]
        cells.append(f"`{FULL}`, " * bool(runs) + f"`pytest {' '.join(paths)}`")
        title = f"**{name}**" + (f": {what}" if what else "")
        lines.append(f"| {number} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _tests() -> Counter[str]:
    """Tests in each file."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    return Counter(re.findall(r"^(tests/[\w/]+\.py)::", listed, re.MULTILINE))


def _outcomes(found: Found) -> str:
    names = ("tolerated", "clean", "not reached", "wrong")
    lines = [f"| | cases | {' | '.join(names)} |", "| --- |" + " --- |" * 5]
    for name, verdicts in found.items():
        outcomes = Counter(verdict.outcome for verdict in verdicts)
        cells = [len(verdicts), *(outcomes[outcome] for outcome in names)]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _comparison(found: Found, others: Found) -> str:
    kinds = ("silent", "stale file", "next start", "launcher changed")
    rows = {"daemon_context": [v for name in ("faults", "deaths") for v in found[name]]}
    rows |= {rivals.NAMES[name]: list(verdicts) for name, verdicts in others.items()}
    lines = [f"| | cases | wrong | {' | '.join(kinds)} |", "| --- |" + " --- |" * 6]
    for name, verdicts in rows.items():
        counts = rivals.convictions(verdicts)
        cells = [len(verdicts), rivals.convicted(verdicts), *(counts[kind] for kind in kinds)]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
