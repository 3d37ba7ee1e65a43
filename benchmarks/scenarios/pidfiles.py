"""Pid files: locking one again and again, and many starts on one."""

from __future__ import annotations

import os
import resource
import select
import signal
import tempfile
from functools import partial
from pathlib import Path

from .. import limb
from ..bench import Bench
from ..contenders import BARE, OURS, PD, C, Contender
from ..figures import Figures, Measures, Outcome, Plot, Sample, Table, those
from ..limb import Failed
from ..scene import Place, Scene
from .counts import total_calls

NAMES = {C: "C with flock", BARE: "flock by hand"}
IN_EACH = ", constructed in each"


def lock(bench: Bench) -> Outcome:
    """Locking and unlocking a pid file, again and again in one process; also on a disk."""
    commands: dict[str, tuple[str, ...]] = {
        C: (bench.environment.limit, "lock"),
        BARE: bench.contenders.python("locks", "flock"),
        OURS: bench.contenders.python("locks", "ours"),
        PD: bench.contenders.python("locks", "python-daemon"),
    }
    count = "300" if bench.quick else "1000"

    def measure(command: tuple[str, ...], disk: str, place: Place) -> Sample:
        path = f"{disk}/bench.pid" if disk else place.pidfile
        place.require(limb.reaped(place.spawn([*command, path, count])))
        nanoseconds = place.numbers()[0]
        return {"time": nanoseconds / 1e3, "rate": 1e9 / nanoseconds}

    with tempfile.TemporaryDirectory(prefix="daemon-bench-") as directory:
        measures: Measures = {
            (NAMES.get(name, name), bool(disk)): partial(
                bench.apart, Scene(), partial(measure, command, disk)
            )
            for name, command in commands.items()
            for disk in ("", directory)
            if bench.named(name)
        }
        found = bench.interleave(measures, 0.3)
        calls = _lock_calls(bench, commands)
    outcome = Outcome(calls)
    for disk, key, where in ((False, "lock", ""), (True, "lock-disk", ", in the directory TMPDIR")):
        rows = those(found, lambda name, kind, disk=disk: kind == disk)
        for quantity, suffix, title, unit in (
            ("time", "", "Lock and unlock of a pid file", "µs"),
            ("rate", "-rate", "Lock and unlock, per second", "1/s"),
        ):
            outcome.tables.append(
                bench.table(key + suffix, title + where, unit, rows, quantity, against=(PD,))
            )
    return outcome


def _lock_calls(bench: Bench, commands: dict[str, tuple[str, ...]]) -> list[Table]:
    """System calls of one lock and unlock: what more rounds take more."""
    tool = bench.environment.tools.get("strace")

    def total(command: tuple[str, ...], count: int, place: Place) -> int:
        out = Path(place.directory, "strace")
        strace = [tool or "", "-f", "-c", "-U", "calls,name", "-o", str(out)]
        place.require(limb.reaped(place.spawn([*strace, *command, place.pidfile, str(count)])))
        return total_calls(out)

    def measure(command: tuple[str, ...], place: Place) -> Sample:
        return {"calls": (total(command, 40, place) - total(command, 20, place)) / 20}

    measures: Measures = {
        NAMES.get(name, name): partial(bench.apart, Scene(), partial(measure, command))
        for name, command in commands.items()
        if tool and bench.named(name)
    }
    found = bench.interleave(measures, 0.03, warm_up=False)
    title = "Lock and unlock of a pid file: system calls"
    return [bench.table("lock-calls", title, "", found, "calls", against=(PD,))]


def race(bench: Bench) -> Outcome:
    """Many starts at once on one pid file: until all but the winner have ended.

    They are forked by one program that has imported and constructed everything, so that it is the
    starts that race, and not the interpreters for the processors; or that has imported only, and
    each of them constructs.
    """
    most = 40 if bench.quick else 200
    measures: Measures = {}
    for count in (most,) if bench.quick else (20, 60, most):
        for contender in bench.named(BARE, OURS, PD):
            scene = Scene(pidfile=True, race=count, race_from="constructed")
            measures[contender.name, count] = partial(bench.apart, scene, partial(_race, contender))
    for contender in bench.named(OURS, PD):
        scene = Scene(pidfile=True, race=most, race_from="imported")
        measures[f"{contender.name}{IN_EACH}", most] = partial(
            bench.apart, scene, partial(_race, contender)
        )
    found = bench.interleave(measures, 0.15, warm_up=False)
    outcome = Outcome()
    largest = those(found, lambda name, count: count == most)
    for quantity, title, unit in (
        ("time", "settled after", "ms"), ("cpu", "CPU of all", "ms"), ("winners", "winners", ""),
        ("refused", "launchers that ended with a status that is not 0", ""),
        ("messages", "messages on stderr that name the pid file", ""),
    ):  # fmt: skip
        outcome.tables.append(
            bench.table(f"race-{quantity}", f"{most} racing starts: {title}", unit, largest,
                        quantity, against=(BARE, PD) if unit else (),
                        note="" if unit else f"of {most}")
        )  # fmt: skip
    lines: dict[str, dict[float, float | None]] = {}
    for (name, count), figures in found.items():
        if not name.endswith(IN_EACH):
            lines.setdefault(name, {})[float(count)] = figures.get("time", Figures()).median
    outcome.plots.append(Plot("race", "Racing starts: settled", "starts at once", "ms", lines))
    return outcome


def _race(contender: Contender, place: Place) -> Sample:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    arguments = contender.arguments(place.directory, place.pidfile)
    place.require(limb.reaped(place.spawn(arguments, pidfile=True)))
    began, *launchers = place.numbers()
    refused = 0
    winners: set[int] = set()
    while not winners or limb.children() - winners:
        if not place.pending():
            select.select([place.fd, reader], [], [])
        while place.pending():
            winners.add(place.numbers()[0])
        if select.select([reader], [], [], 0)[0]:
            os.read(reader, 1 << 16)
        refused += _reap(launchers)
    settled = limb.now()
    while place.pending():
        winners.add(place.numbers()[0])
    for pid in winners:
        limb.end(pid)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in place.said().splitlines() if place.pidfile in line]
    return {
        "time": (settled - began) / 1e6,
        "cpu": 1e3 * (usage.ru_utime + usage.ru_stime),
        "winners": len(winners),
        "refused": refused,
        "messages": len(lines),
    }


def _reap(launchers: list[int]) -> int:
    """Reap whoever has ended; how many launchers among them ended with a status that is not 0."""
    refused = 0
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return refused
        if not pid:
            return refused
        refused += pid in launchers and status != 0


def refused(bench: Bench) -> Outcome:
    """A start whose pid file a running daemon holds, from spawn to its launcher's end; and one that
    succeeds. Of those that refuse with a message and a status.
    """
    measures: Measures = {}
    for contender in bench.named(BARE, OURS):
        scene = Scene(pidfile=True)
        work = partial(_refused, contender)
        measures[f"{contender.name}: refused"] = partial(bench.apart, scene, work)
        measures[f"{contender.name}: successful"] = partial(_successful, bench, contender, scene)
    found = bench.interleave(measures)
    note = "the message names the pid file, and the status is not 0"
    return Outcome(
        [
            bench.table("refused", "A refused start: spawn → launcher reaped, its message written",
                        "ms", found, "launch", against=(f"{OURS}: successful",), note=note)
        ]
    )  # fmt: skip


def _refused(contender: Contender, place: Place) -> Sample:
    arguments = contender.arguments(place.directory, place.pidfile)
    place.require(limb.reaped(place.spawn(arguments, pidfile=True)))
    holder = place.numbers()[0]
    spawned = limb.now()
    status = limb.reaped(place.spawn(arguments, pidfile=True))
    reaped = limb.now()
    if not status or place.pidfile not in place.said():
        raise Failed(f"it was not refused with a message: status {status}")
    limb.end(holder)
    return {"launch": (reaped - spawned) / 1e6}


def _successful(bench: Bench, contender: Contender, scene: Scene) -> Sample:
    return {"launch": bench.start(contender, scene)["launch"]}
