"""Importing, starting whole processes, and the detach alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from .. import limb
from ..bench import Bench
from ..contenders import BARE, INLINE, INTERPRETER, OURS, PD, WAITING, C, Contender
from ..figures import Found, Measures, Outcome, Sample, those
from ..scene import Place, Scene

PYTHON_PEERS = ("daemonocle", "daemonize", "daemons")
COMMANDS = ("zdaemon", "start-stop-daemon", "daemonize (Debian)", "daemon (Debian)")


def imports(bench: Bench) -> Outcome:
    """Importing, and constructing a context; inside the process, so without the interpreter."""
    measures: Measures = {}
    for contender in bench.named(OURS, PD, *PYTHON_PEERS):
        for pidfile in (False, True):
            if contender.pidfile == "must" and not pidfile:
                continue
            name = contender.name + (" + pid file" if pidfile else "")
            scene = Scene(pidfile=pidfile, stage="import")
            measures[name] = partial(bench.apart, scene, partial(_import, contender, pidfile))
    found = bench.interleave(measures)
    against = (PD,)
    return Outcome(
        [
            bench.table("import-alone", "Import: wall time", "ms", found, "alone",
                        against=against),
            bench.table("import", "Import and construct: wall time", "ms", found, "wall",
                        against=against),
            bench.table("import-cpu", "Import and construct: CPU", "ms", found, "cpu",
                        against=against,
                        note="user and system; apart the kernel counts them in ticks only"),
            bench.table("import-modules", "Import and construct: modules loaded", "", found,
                        "modules", against=against),
            bench.table("import-memory", "Import and construct: memory", "KiB", found, "memory",
                        against=against, note="growth of the unique set"),
            bench.table("import-faults", "Import and construct: page faults", "", found, "faults",
                        against=against),
        ]
    )  # fmt: skip


def _import(contender: Contender, pidfile: bool, place: Place) -> Sample:
    program = place.spawn(contender.arguments(place.directory, None), pidfile=pidfile)
    place.require(limb.reaped(program))
    alone, wall, cpu, modules, memory, faults = place.numbers()
    return {
        "alone": alone / 1e6,
        "wall": wall / 1e6,
        "cpu": cpu / 1e6,
        "modules": modules,
        "memory": memory / 1024,
        "faults": faults,
    }


def launch(bench: Bench) -> Outcome:
    """Whole processes: spawn to launcher reaped, and spawn to the body's first instruction."""
    outcome = Outcome()
    kinds = (
        ("", "without pid file", Scene(),
         (INTERPRETER, C, BARE, WAITING, INLINE, OURS, PD, "daemonocle", *COMMANDS)),
        ("-pidfile", "with a pid file", Scene(pidfile=True),
         (C, BARE, OURS, PD, *PYTHON_PEERS, *COMMANDS[1:])),
        ("-signals", "with a pid file and a signal map", Scene(pidfile=True, signals=True),
         (BARE, OURS, PD)),
    )  # fmt: skip
    measures: Measures = {}
    for key, _, scene, names in kinds:
        for contender in bench.named(*names):
            if key or contender.pidfile != "must":
                measures[key, contender.name] = partial(bench.start, contender, scene)
    found = bench.interleave(measures)
    for key, words, _, _ in kinds:
        part = those(found, lambda kind, name, key=key: kind == key, 1)
        for quantity, title in (
            ("launch", "Launch: spawn → launcher reaped"),
            ("ready", "Ready: spawn → the body's first instruction"),
            ("cpu", "CPU of the launcher and the processes that it has reaped"),
        ):
            outcome.tables.append(
                bench.table(quantity + key, f"{title}, {words}", "ms", part, quantity,
                            against=(BARE, PD))
            )  # fmt: skip
    return outcome


def detach(bench: Bench) -> Outcome:
    """Inside the process: from the line before the detach to the body, and to the launcher's end;
    and to the body from the first line, before the import.

    *Cold* is what a program has: modules that are imported at first use are paid for. *Warm* has
    all that the start needs imported before.
    """
    contenders = bench.named(C, BARE, WAITING, INLINE, OURS, PD)
    measures: Measures = {}
    for contender in contenders:
        measures["", contender.name] = partial(bench.start, contender, Scene())
        if contender.name in (OURS, PD):
            names = cache(partial(modules, bench, contender))
            measures["-warm", contender.name] = partial(_warm, bench, contender, names)
    found = bench.interleave(measures, 1.5)
    tables = []
    for quantity, title in (("detach", "to the body"), ("back", "to the launcher reaped")):
        rows: Found = {
            name + (" (warm)" if kind else ""): figures for (kind, name), figures in found.items()
        }
        tables.append(
            bench.table(quantity, f"The detach alone, {title}, no pid file", "ms", rows, quantity,
                        against=(INLINE, PD))
        )  # fmt: skip
    whole = those(found, lambda kind, name: not kind, 1)
    tables.append(
        bench.table("inside", "Import, construct and open, to the body, no pid file", "ms", whole,
                    "inside", against=(INLINE, PD), note="without the interpreter's own start")
    )  # fmt: skip
    return Outcome(tables)


def _warm(bench: Bench, contender: Contender, names: Callable[[], list[str]]) -> Sample:
    return bench.start(contender, Scene(preload=",".join(names())))


def modules(bench: Bench, contender: Contender, *, pidfile: bool = False) -> list[str]:
    """The names of what a start has loaded when its body runs."""

    def work(place: Place) -> list[str]:
        arguments = contender.arguments(place.directory, place.pidfile if pidfile else None)
        place.require(limb.reaped(place.spawn(arguments, pidfile=pidfile)))
        return place.words()[1:]

    names = bench.apart(Scene(stage="modules", then="exit"), work)
    return [name for name in names if name not in ("__main__", "stage")]
