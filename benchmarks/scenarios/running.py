"""Daemons that run: their memory, their idleness, and how they are stopped."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from .. import limb
from ..bench import Bench
from ..contenders import BARE, CLASSIC, INLINE, OURS, PD, C, Contender
from ..figures import Measures, Outcome, Sample
from ..limb import Failed
from ..scene import Place, Scene
from .starts import PYTHON_PEERS


def memory(bench: Bench) -> Outcome:
    """The idle daemon: what is in memory for it alone, its descriptors and threads."""
    measures: Measures = {}
    for contender in bench.named(C, BARE, INLINE, OURS, PD, *PYTHON_PEERS):
        for pidfile in (False, True):
            if contender.pidfile in ("can", "must" if pidfile else "not"):
                name = contender.name + (" + pid file" if pidfile else "")
                scene = Scene(pidfile=pidfile)
                measures[name] = partial(bench.apart, scene, partial(_memory, contender, pidfile))
    found = bench.interleave(measures, 0.3, warm_up=False)
    tables = []
    for quantity, title, unit in (
        ("unique", "unique set", "KiB"), ("pss", "PSS", "KiB"), ("rss", "RSS", "KiB"),
        ("descriptors", "descriptors", ""), ("threads", "threads", ""),
    ):  # fmt: skip
        tables.append(
            bench.table(f"memory-{quantity}", f"The idle daemon: {title}", unit, found, quantity,
                        against=(BARE, PD))
        )  # fmt: skip
    return Outcome(tables)


def _memory(contender: Contender, pidfile: bool, place: Place) -> Sample:
    arguments = contender.arguments(place.directory, place.pidfile if pidfile else None)
    place.require(limb.reaped(place.spawn(arguments, pidfile=pidfile)))
    pid = place.numbers()[0]
    _settled(pid)
    sums: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        sums[name] = int(value.split()[0])
    status = _status(pid)
    sample: Sample = {
        "unique": sums["Private_Clean"] + sums["Private_Dirty"],
        "pss": sums["Pss"],
        "rss": sums["Rss"],
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
    }
    limb.end(pid)
    return sample


def _settled(pid: int) -> None:
    """Return when the daemon is the only one left of its start, and sleeps."""
    deadline = time.monotonic() + 20
    while True:
        for child in limb.children() - {pid}:
            os.waitpid(child, os.WNOHANG)
        if limb.children() == {pid} and _status(pid)["State"].startswith("S"):
            return
        if time.monotonic() > deadline:
            raise Failed(f"it does not come to rest: {limb.children()}")
        time.sleep(0.005)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def stop(bench: Bench) -> Outcome:
    """Stopping: from the daemon's death to the return of stop, and from the call to it."""
    python = bench.contenders.python
    verbs: dict[str, tuple[tuple[str, ...], tuple[str, ...], bool]] = {
        OURS: (python("ours_service", "start"), python("ours_service", "stop"), True),
        CLASSIC: (python("classic", "start"), python("classic", "stop"), True),
        "daemonocle": (python("with_daemonocle"), python("with_daemonocle", "stop"), True),
    }
    verbs = {name: entry for name, entry in verbs.items() if bench.named(name)}
    command = bench.environment.tools.get("start-stop-daemon")
    if command:
        options = ("--stop", "--quiet", "--retry", "TERM/5", "--pidfile", "{pidfile}")
        start = bench.named("start-stop-daemon")
        if start:
            verbs["start-stop-daemon"] = (
                (start[0].command[0], *start[0].options, *start[0].command[1:]),
                (command, *options),
                False,
            )
    found = bench.interleave(
        {name: partial(bench.apart, Scene(then="idle"), partial(_stop, *entry))
         for name, entry in verbs.items()},
        0.3,
    )  # fmt: skip
    return Outcome(
        [
            bench.table("stop", "stop returns after the daemon's death", "ms", found, "after",
                        note="a negative figure: before its parent could reap it"),
            bench.table("stop-whole", "stop, from its call to its return", "ms", found, "whole"),
        ]
    )  # fmt: skip


def _stop(start: tuple[str, ...], stop: tuple[str, ...], tells: bool, place: Place) -> Sample:
    def words(command: tuple[str, ...]) -> list[str]:
        return [word.format(pidfile=place.pidfile) for word in command]

    place.require(limb.reaped(place.spawn(words(start), pidfile=True)))
    pid = place.numbers()[0]
    deadline = time.monotonic() + 20
    while not (Path(place.pidfile).exists() and Path(place.pidfile).read_text().strip()):
        if time.monotonic() > deadline:
            raise Failed("it has written no pid file")
        time.sleep(0.005)
    _settled(pid)
    began = limb.now()
    stopper = place.spawn(words(stop), pidfile=True)
    os.waitpid(pid, 0)
    died = limb.now()
    place.require(limb.reaped(stopper))
    returned = limb.now()
    if tells:
        began, returned = place.numbers()
    return {"after": (returned - died) / 1e6, "whole": (returned - began) / 1e6}


def idle(bench: Bench) -> Outcome:
    """The daemon that sleeps without a limit, and the usual loop that wakes each second."""
    seconds = 2.0 if bench.quick else 5.0
    entries = {
        f"{OURS}: sleep()": (OURS, "idle"),
        "time.sleep(1) in a loop": (PD, "tick"),
    }

    def measure(name: str, place: Place) -> Sample:
        contender = bench.contenders.all[name]
        place.require(limb.reaped(place.spawn(contender.arguments(place.directory, None))))
        pid = place.numbers()[0]
        _settled(pid)
        before = _effort(pid)
        time.sleep(seconds)
        after = _effort(pid)
        limb.end(pid)
        return {key: after[key] - before[key] for key in after}

    found = bench.interleave(
        {name: partial(bench.apart, Scene(then=then), partial(measure, contender))
         for name, (contender, then) in entries.items() if bench.named(contender)},
        0.07, warm_up=False,
    )  # fmt: skip
    return Outcome(
        [
            bench.table("idle-switches", f"Wake-ups in {seconds:g} idle seconds", "", found,
                        "switches", note="context switches, voluntary and not"),
            bench.table("idle-cpu", f"CPU in {seconds:g} idle seconds", "µs", found, "cpu"),
        ]
    )  # fmt: skip


def _effort(pid: int) -> Sample:
    switches = cpu = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                switches += int(line.split()[1])
        cpu += int((task / "schedstat").read_text().split()[0])
    return {"switches": switches, "cpu": cpu / 1e3}
