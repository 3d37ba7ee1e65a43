"""What does not depend on the load of the machine: system calls, page faults, instructions."""

from __future__ import annotations

import resource
from functools import partial
from pathlib import Path

from .. import limb
from ..bench import Bench
from ..contenders import BARE, INLINE, INTERPRETER, OURS, PD, C, Contender
from ..figures import Measures, Outcome, Sample
from ..limb import Failed
from ..scene import Place, Scene


def counts(bench: Bench) -> Outcome:
    """What does not depend on the load of the machine: system calls, page faults, instructions."""
    kinds = [
        (name + (" + pid file" if pidfile else ""), name, Scene(pidfile=pidfile, then="exit"))
        for name in (INTERPRETER, C, BARE, INLINE, OURS, PD)
        for pidfile in (False, True)
        if not pidfile or name in (BARE, OURS, PD)
    ]
    faults: Measures = {
        row: partial(bench.apart, scene, partial(_faults, contender, scene))
        for row, name, scene in kinds
        for contender in bench.named(name)
    }
    found = bench.interleave(faults, 0.1, warm_up=False)
    title = "Page faults of a whole start, all processes"
    tables = [bench.table("faults", title, "", found, "count", against=(BARE, PD))]
    for tool, key, title, unit, count, share in (
        ("strace", "syscalls", "System calls of a whole start, all processes", "", _syscalls, 0.1),
        ("valgrind", "instructions", "Instructions, exec to the body", "million",
         _instructions, 0.03),
    ):  # fmt: skip
        if tool not in bench.environment.tools or (bench.quick and tool == "valgrind"):
            continue
        path = bench.environment.tools[tool]
        measures: Measures = {
            row: partial(bench.apart, scene, partial(count, path, contender, scene))
            for row, name, scene in kinds
            for contender in bench.named(name)
        }
        found = bench.interleave(measures, share, warm_up=False)
        note = "valgrind's own descriptors are open, too" if tool == "valgrind" else ""
        tables.append(bench.table(key, title, unit, found, "count", against=(BARE, PD), note=note))
    return Outcome(tables)


def _syscalls(tool: str, contender: Contender, scene: Scene, place: Place) -> Sample:
    out = Path(place.directory, "strace")
    _run_whole([tool, "-f", "-c", "-U", "calls,name", "-o", str(out)], contender, scene, place)
    return {"count": total_calls(out)}


def total_calls(out: Path) -> int:
    """What `strace -c` has counted."""
    total = [line.split() for line in out.read_text().splitlines() if line.endswith(" total")]
    return int(total[-1][0])


def _faults(contender: Contender, scene: Scene, place: Place) -> Sample:
    def so_far() -> int:
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt

    before = so_far()
    _run_whole([], contender, scene, place)
    return {"count": so_far() - before}


def _instructions(tool: str, contender: Contender, scene: Scene, place: Place) -> Sample:
    out = Path(place.directory, "callgrind")
    arguments = [tool, "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}.%p"]
    pid = _run_whole(arguments, contender, scene, place)
    # A forked process goes on with its parent's count: the daemon's own is that of the whole way.
    for line in Path(f"{out}.{pid}").read_text().splitlines():
        if line.startswith(("summary:", "totals:")):
            return {"count": int(line.split()[1]) / 1e6}
    raise Failed("callgrind has counted nothing")


def _run_whole(prefix: list[str], contender: Contender, scene: Scene, place: Place) -> int:
    """One start under a tool, until all of it has ended by itself; the daemon's pid."""
    pidfile = place.pidfile if scene.pidfile else None
    arguments = contender.arguments(place.directory, pidfile)
    program = place.spawn([*prefix, *arguments], pidfile=scene.pidfile)
    place.require(limb.reaped(program))
    pid = place.numbers()[0]
    limb.wait_for_all()
    return pid
