#!/usr/bin/env python3
"""Draw docs/pictures/*.svg, in light and dark; with --check only tell which are not up to date.

    python docs/pictures.py [--check]

Names, order, processes and what a step changes come from `DEFAULT_STEPS`; locks and streams are
those of real daemons. `docs/terminal.py` makes the picture of a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import observed  # noqa: E402
import traces  # noqa: E402
from svg import DARK, LIGHT, Canvas  # noqa: E402

from daemon_context import DEFAULT_STEPS  # noqa: E402
from daemon_context.look.snapshot import IDS  # noqa: E402

PICTURES = ROOT / "docs/pictures"
LANES = {"launcher": 20, "session leader": 296, "daemon": 572}  # where each process has its column
KINDS = {"launcher": "launcher", "session leader": "leader", "daemon": "daemon"}
LANE, ROW = 256, 46
WORDS = {
    "launcher": "what you have started",
    "session leader": "the daemon's parent",
    "daemon": "where open() returns",
}
LOCK_KINDS = {"POSIX": "of a process", "OFDLCK": "inherited", "FLOCK": "flock, inherited"}


def _heads(canvas: Canvas) -> None:
    for process, x in LANES.items():
        canvas.box(x, 12, LANE, 44, KINDS[process])
        canvas.text(x + LANE / 2, 31, process, bold=True, anchor="middle")
        canvas.text(x + LANE / 2, 48, WORDS[process], size=12, faint=True, anchor="middle")


def processes() -> Canvas:
    """The three processes, and what each step changes in them."""
    canvas = Canvas(848, "The three processes of a start, and what each step changes in them")
    y = 74
    lines, boxes = Canvas(848, ""), Canvas(848, "")
    tops = dict.fromkeys(LANES, 56)
    detach = DEFAULT_STEPS.index("detach")
    for number, step in enumerate(DEFAULT_STEPS):
        changes = ", ".join(sorted(step.touches)) or "changes nothing"
        if number == detach:
            y = _detach(boxes, y, tops)
        else:
            process = "launcher" if number < detach else "daemon"
            _step(boxes, LANES[process], y, KINDS[process], step.name, changes)
        y += ROW
    y = _end(boxes, y + 2)
    for process, x in LANES.items():
        bottom = y if process == "daemon" else y - ROW
        lines.line(x + LANE / 2, tops[process], x + LANE / 2, bottom, dashed=process != "daemon")
    canvas.join(lines, boxes)
    _heads(canvas)
    return canvas


def _step(canvas: Canvas, x: float, y: float, kind: str, name: str, changes: str) -> None:
    assert len(changes) <= 46, f"{changes!r} is wider than its box: make LANE wider"
    canvas.box(x, y, LANE, ROW - 8, kind)
    canvas.text(x + 10, y + 15, name, size=12, mono=True, bold=True)
    canvas.text(x + 10, y + 31, changes, size=11, faint=True)


def _detach(canvas: Canvas, y: float, tops: dict[str, int]) -> float:
    """Both forks and setsid; each new process begins where it is forked."""
    launcher, leader, daemon = LANES.values()
    changed = _changed_ids()
    _step(canvas, launcher, y, "launcher", "detach", "forks, and waits")
    canvas.line(launcher + LANE, y + 19, leader, y + 19, arrow=True)
    _step(canvas, leader, y, "leader", "first fork", changed["first fork"])
    tops["session leader"] = round(y)
    y += ROW
    _step(canvas, leader, y, "leader", "setsid", changed["setsid"])
    y += ROW
    _step(canvas, leader, y, "leader", "detach", "forks, and waits")
    canvas.line(leader + LANE, y + 19, daemon, y + 19, arrow=True)
    _step(canvas, daemon, y, "daemon", "second fork", changed["second fork"])
    tops["daemon"] = round(y)
    return y


def _changed_ids() -> dict[str, str]:
    """Which of the process's numbers each part of `detach` has changed, in a real trace."""
    head, *rows = traces.lines()
    changed = {}
    for before, after in pairwise(rows):
        names = [name for name, old, new in zip(head, before, after, strict=True) if old != new]
        changed[after[2]] = ", ".join(name for name in names if name in IDS)
    return changed


def _end(canvas: Canvas, y: float) -> float:
    launcher, leader, daemon = LANES.values()
    canvas.line(daemon, y - ROW + 17, launcher + LANE / 2, y - ROW + 17, arrow=True)
    canvas.text(leader + LANE / 2, y - ROW + 12, "ready", size=12, anchor="middle")
    canvas.text(launcher, y + 50, "Below each step stands what it may change.", size=12, faint=True)
    for x, kind, words in (
        (leader, "leader", "ends, before the launcher does"),
        (launcher, "launcher", "exits with status 0"),
        (daemon, "daemon", "goes on: the body, or run()"),
    ):
        canvas.box(x, y, LANE, 28, kind)
        canvas.text(x + LANE / 2, y + 18, words, size=12, anchor="middle")
    return y + ROW


def locks() -> Canvas:
    """Who holds which lock, after each step after which that has changed."""
    canvas = Canvas(710, "Who holds which lock after each step of a start")
    lanes = {process: 140 + 190 * number for number, process in enumerate(LANES)}
    for process, x in lanes.items():
        canvas.box(x, 12, 180, 28, KINDS[process])
        canvas.text(x + 90, 30, process, bold=True, anchor="middle")
    canvas.text(12, 30, "after", faint=True)
    y = 54.0
    for moment, held in observed.locks():
        height = 8 + 38 * max([len(found) for found in held.values()], default=0.7)
        step = moment in DEFAULT_STEPS
        words = moment if step else MOMENTS[moment]
        canvas.text(12, y + height / 2 + 4, words, size=12, mono=step)
        if not held:
            canvas.text(150, y + height / 2 + 4, "nobody holds a lock", size=12, faint=True)
        for process, found in held.items():
            canvas.box(lanes[process], y, 180, height, KINDS[process])
            for row, lock in enumerate(found):
                _lock(canvas, lanes[process] + 10, y + 20 + 38 * row, *lock)
        y += height + 10
    return canvas


def _lock(canvas: Canvas, x: float, y: float, file: str, kind: str, access: str) -> None:
    canvas.text(x, y, file, size=12, mono=True, bold=True)
    canvas.text(x, y + 16, f"{access.lower()} lock, {LOCK_KINDS[kind]}", size=12)


MOMENTS = {"ready": "launcher gone", "closed": "after close()"}


def output() -> Canvas:
    """Where output goes, by what the options were given."""
    canvas = Canvas(770, "Where a daemon's output goes")
    y = 12.0
    for title, rows in _outputs():
        canvas.text(20, y + 14, title, bold=True)
        y += 26
        for given, destination in rows:
            canvas.box(20, y, 330, 30, "plain")
            canvas.text(32, y + 19, given, size=12, mono=True)
            canvas.line(350, y + 15, 410, y + 15, arrow=True)
            canvas.box(410, y, 340, 30, "daemon")
            canvas.text(422, y + 19, destination, size=12, mono=True)
            y += 38
        y += 10
    return canvas


def _outputs() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    kinds = {
        "stdout=None": "None",
        'stdout="app.log"': "path",
        'stdout=open("given.log", "a")': "file",
    }
    goes = {given: observed.streams(kind) for given, kind in kinds.items()}
    yield (
        "print(), and what the programs that it runs print",
        [
            *((given, stdout) for given, (stdout, _) in goes.items()),
            ("stdout=None, kept in the foreground", "as the manager gave it"),
        ],
    )
    logs = {log for _, log in goes.values()}
    yield (
        "logging, set up before the start",
        [
            ('FileHandler("own.log"), SysLogHandler(…)', ", ".join(logs) + ", syslog: as before"),
            ("StreamHandler(), on a terminal", "nowhere: it is closed"),
        ],
    )
    yield (
        "an exception that ends the daemon",
        [("stderr=None", "syslog, with its traceback"), ('stderr="app.log"', "app.log")],
    )


DRAWN: dict[str, Callable[[], Canvas]] = {
    "processes": processes,
    "locks": locks,
    "output": output,
}


def drawn(name: str) -> dict[Path, str]:
    """The files of a picture, and what has to be in them."""
    canvas = DRAWN[name]()
    return {
        PICTURES / f"{name}-light.svg": canvas.render(LIGHT),
        PICTURES / f"{name}-dark.svg": canvas.render(DARK),
    }


def main() -> int:
    """Draw all. Returns how many were not up to date, with --check."""
    stale = 0
    for name in DRAWN:
        for path, text in drawn(name).items():
            if not path.exists() or path.read_text() != text:
                stale += 1
                print(f"{path.relative_to(ROOT)} is stale")
                if "--check" not in sys.argv:
                    path.write_text(text)
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
