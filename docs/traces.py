"""The trace of a real start, for docs/first-daemon.md: run, and made the same on every machine.

The command runs as a shell would run it: on a terminal of its own, as a job with a process group
of its own. Numbers and places that differ from run to run are replaced, the same ones by the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from daemon_context.look.tables import table, wrapped

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "python -m daemon_context trace"
HOME = "/home/you"
SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.umask(0o002)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.execv(sys.executable, [sys.executable, "-m", "daemon_context", "trace"])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
"""
#: Which lines of the trace a section of the page shows, by step or by part of `detach`.
PARTS = {
    "launcher": ("flush-streams", "lock-pidfile", "open-streams"),
    "first-fork": ("first fork",),
    "setsid": ("setsid",),
    "second-fork": ("second fork",),
    "umask": ("set-umask",),
    "directory": ("change-directory",),
    "descriptors": ("open-streams", "close-descriptors", "redirect-streams"),
    "signals": ("install-signals",),
    "pidfile": ("lock-pidfile", "write-pidfile"),
    "ready": ("report-ready",),
}


@cache
def lines() -> list[list[str]]:
    """The cells of the trace: its head, then a line for each step."""
    with tempfile.TemporaryDirectory() as directory:
        return _as_everywhere(_cells(_run(directory)), directory)


def _run(directory: str) -> str:
    master, slave = os.openpty()
    try:
        return subprocess.run(
            [sys.executable, "-c", SHELL],
            stdin=slave,
            stdout=subprocess.PIPE,
            text=True,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": directory},
            start_new_session=True,
            check=True,
        ).stdout
    finally:
        os.close(master)
        os.close(slave)


def _cells(text: str) -> list[list[str]]:
    """The table; what a step changed, which stands below its line, is the last cell."""
    head, *rest = text.rstrip().splitlines()
    starts = [match.start() for match in re.finditer(r"(?<!\S)\S+( \S+)*", head)]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    cells = [[head[start:end].strip() for start, end in spans] + ["changes"]]
    for line in rest:
        if line.startswith("      "):
            cells[-1][-1] = f"{cells[-1][-1]} {line.strip()}".strip()
        else:
            cells.append([*(line[start:end].strip() for start, end in spans), ""])
    return cells


def _as_everywhere(cells: list[list[str]], directory: str) -> list[list[str]]:
    head = cells[0]
    by = [dict(zip(head, line, strict=True)) for line in cells[1:]]
    known = {by[0]["ppid"]: "4242", by[0]["sid"]: "4242"}
    for row in by:
        known.setdefault(row["pid"], str(4711 + len(known) - 1))
    numbers: dict[str, str] = {}
    pipes: dict[str, str] = {}
    for row in by:
        for name in ("pid", "ppid", "pgid", "sid"):
            row[name] = known[row[name]]
        row["tty"] = re.sub(r"pts/\d+", "pts/0", row["tty"])
        row[head[-1]] = _change(row, head[-1], directory, numbers, pipes)
    return [head, *([row[name] for name in head] for row in by)]


def _change(
    row: dict[str, str], name: str, directory: str, numbers: dict[str, str], pipes: dict[str, str]
) -> str:
    if row["step"] == "prevent-core":
        return "core 0 unlimited -> 0 0"  # the limits of another machine may be others
    text = re.sub(rf"{re.escape(directory)}/tmp\w+", "/tmp/scratch", row[name])
    text = text.replace(directory, HOME)
    text = re.sub(r", \d+ socket:\[\d+\]", "", text)  # to syslog, where there is one
    text = re.sub(r"pipe:\[(\d+)\]", lambda m: f"pipe:[{_known(pipes, m[1], 1)}]", text)
    if not text.startswith("descriptors: "):
        return text
    return re.sub(r"\b(\d+) (?=\S+(,|$))", lambda m: f"{_descriptor(numbers, m[1])} ", text)


def _descriptor(numbers: dict[str, str], fd: str) -> str:
    return fd if int(fd) < 3 else _known(numbers, fd, 3)


def _known(numbers: dict[str, str], number: str, first: int) -> str:
    return numbers.setdefault(number, str(first + len(numbers)))


def trace(*names: str) -> str:
    """The block for the page: the lines of these steps or parts, by default all."""
    head, *rest = lines()
    shown = [line for line in rest if not names or {line[1], line[2]} & {*names}]
    aligned = table([line[:-1] for line in (head, *shown)])
    below = [[], *(wrapped(line[-1]) if line[-1] else [] for line in shown)]
    text = "\n".join("\n".join([line, *more]) for line, more in zip(aligned, below, strict=True))
    return f"```text\n$ {COMMAND}\n{text}\n```\n"


TRACES: dict[str, Callable[[], str]] = {
    "trace": trace,
    **{f"trace:{part}": partial(trace, *names) for part, names in PARTS.items()},
}
