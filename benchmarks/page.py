"""The page of the docs that a run writes: first what users want to know, then the rest."""

from __future__ import annotations

import time
from pathlib import Path

from . import anatomy
from .contenders import OURS, PEERS
from .figures import Table, bullet, number
from .plots import to_plots
from .show import Run, cells

INTRODUCTION = """\
# Benchmarks

What becoming a daemon costs, with this library and with its peers. Medians; the less the better. A
dash: not measured, or nothing that it could do.
"""

METHOD = """\
## How it is measured

All figures of this page come from one run of one command, which also writes the page:

```sh
{command}
```

`python -m benchmarks` alone measures and prints; `--quick` takes less than two minutes, `--only
NAME` takes one scenario, `--json FILE` keeps every sample, `--install` fetches Debian's peers and
tools, as root. It needs the extra `bench`; the Python peers are installed into an environment of
their own, in `.venv-bench`.

All contenders of a table run in turn, round by round, each round in another
order, so that the load of the machine meets all alike. Where a start is what is timed, a first
round is thrown away; not so for large heaps, races, memory, idleness and counts, whose rounds are
also fewer. One that takes longer than 0.7 seconds is in every fourth round only where there are
many. The tables tell how many samples there are. Medians, beside them the range in which the middle
half of the samples lies, and ratios of medians. Times are CLOCK_MONOTONIC. Each sample is taken in
a process apart that is the reaper of all that it starts: every daemon is stopped, and the kernel
confirms that none is left.

The contenders beside the libraries: the *bare double fork* is written by hand in Python, with a
lock before the fork where there is a pid file: the limit in Python. *All steps inline* does by hand
what PEP 3143 asks for. *daemon(3) in C* is the limit at all. None of the three tells its caller
whether the daemon works; *bare, waits for ready* does, and nothing else: the limit for a launcher
that has an answer. *python alone* is the interpreter's own start, of which nobody can save
anything. Commands that run another program as a daemon (zdaemon, start-stop-daemon, …) are ready
when the interpreter that they start is. The programs are in `benchmarks/programs/`.
"""


#: The rows that the page begins with: a table, what its row has after the name, and words, which
#: are the table's own where these tell how much of what was measured.
SUMMARY = (
    ("import", "", "import, and construct a context"),
    ("launch", "", "the command that starts the daemon, from its start to its end"),
    ("launch-pidfile", "", "the same with a pid file"),
    ("ready-pidfile", "", "with a pid file, until the daemon's own code runs"),
    ("ready-limit", ", 2^20", "until it runs, where 2^20 descriptors are permitted"),
    ("descriptors-detach", "", ""),
    ("heap-both", "", ""),
    ("race-time", "", ""),
    ("lock", "", "lock and unlock a pid file"),
    ("memory-unique", "", "memory of the idle daemon that nobody shares"),
)

BY_HAND = """\
The marks that the library is held to. *By hand* is what the limit reaches against the same
reference, in the same run: written out, in one process after another, with none of the checks. A
mark below it can't be met here."""


def to_docs(run: Run, page: Path, directory: Path) -> None:
    """Write the page, and its plots beside it."""
    plots = to_plots(run, directory)
    parts = [INTRODUCTION, _summary(run)]
    for title, path in plots:
        parts.append(f"![{title}]({path.relative_to(page.parent).as_posix()})\n")
    parts += [METHOD.format(command=run.command), _machine(run), _marks(run)]
    parts.append(anatomy.to_markdown(run.tables))
    parts.append("## All figures\n")
    for table in run.tables.values():
        parts.append(_markdown(table))
    page.write_text("\n".join(parts))


def _summary(run: Run) -> str:
    """What a user wants to know, in ten rows."""
    names = (OURS, *PEERS)
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for key, kind, words in SUMMARY:
        if table := run.tables.get(key):
            cells = [_short(table, name + kind) for name in names]
            lines.append(f"| {words or table.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _short(table: Table, name: str) -> str:
    median = table.median(name)
    return "–" if median is None else f"{number(median)} {table.unit}"


def _machine(run: Run) -> str:
    date = time.strftime("%Y-%m-%d", time.gmtime())
    lines = [f"Measured on {date}, {run.rounds} rounds, in {run.seconds:.0f} seconds, on:\n"]
    lines += ["| | |", "| --- | --- |"]
    names = {"cpu": "processors", "python": "Python", "load": "load before the run"}
    lines += [f"| {names.get(key, key)} | {value} |" for key, value in run.machine.items()]
    if run.remarks:
        lines += ["", *(f"- {remark[0].upper()}{remark[1:]}." for remark in run.remarks)]
    return "\n".join(lines) + "\n"


def _marks(run: Run) -> str:
    lines = ["## Marks", "", *BY_HAND.splitlines(), "", "| what | mark | measured | by hand | |"]
    lines.append("| --- | --- | ---: | ---: | --- |")
    for mark in run.marks:
        cells = (mark.what, mark.mark, mark.words, mark.lowest, mark.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_missed(run)]) + "\n"


def _missed(run: Run) -> list[str]:
    """By how much marks are missed, what stands in the way, and what would be needed."""
    missed = [mark for mark in run.marks if mark.verdict == "missed"]
    if not missed:
        return ["All that were measured are met."]
    ways: dict[str, list[str]] = {}
    for mark in missed:
        ways.setdefault(mark.way, []).append(f"{mark.what} ({mark.excess or 'one'} too much)")
    count = f"{len(missed)} of {len(run.marks)}"
    lines = [f"Missed are {count}. What stands in the way, and what would be needed:", ""]
    texts = [f"**{'; '.join(names)}.** {way or 'Not known.'}" for way, names in ways.items()]
    return [*lines, *(bullet(text, {}) for text in texts)]


def _markdown(table: Table) -> str:
    header, rows = cells(table)
    lines = [f"### {table.title}", ""]
    if table.note:
        lines += [f"{table.note[0].upper()}{table.note[1:]}.", ""]
    lines.append(f"| {' | '.join(header)} |")
    lines.append(f"| --- |{' ---: |' * (len(header) - 1)}")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
