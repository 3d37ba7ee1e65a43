"""What grows: the limit on descriptors, the descriptors open, and the heap."""

from __future__ import annotations

import resource
from functools import partial

from .. import limb
from ..bench import Bench
from ..contenders import BARE, INLINE, OURS, PD, WAITING, Contender
from ..figures import Figures, Found, Measures, Outcome, Plot, Sample
from ..limb import Failed
from ..scene import Place, Scene, start

ORDINARY = 4096  # where the limit is what is varied
MiB = 1 << 20
PIECES = (  # of programs/pieces.py
    "ask poll about all numbers", "list /proc/self/fd", "fstat each that is closed",
    "reserve the number of each", "close each",
)  # fmt: skip


def limits(bench: Bench) -> Outcome:
    """A large RLIMIT_NOFILE, with close_range(2) and without."""
    cases = {"ordinary": ORDINARY, "2^20": 1 << 20, "2^30": 1 << 30}
    measures: Measures = {}
    for contender in bench.named(OURS, PD, "daemonize"):
        for refused in (False, True):
            for name, number in cases.items():
                if contender.name == "daemonize" and (number > 1 << 20 or refused):
                    continue
                scene = _limited(bench, number, refused)
                key = (contender.name, name, refused)
                measures[key] = partial(_start_in_time, bench, contender, scene)
    found = bench.interleave(measures, 0.5)
    tables = []
    lines: dict[str, dict[float, float | None]] = {}
    for quantity in ("ready", "launch"):
        rows: Found = {}
        for (name, case, refused), figures in found.items():
            without = ", no close_range" if refused else ""
            rows[f"{name}, {case}{without}"] = figures
            if quantity == "ready":
                median = figures.get("ready", Figures()).median
                lines.setdefault(f"{name}{without}", {})[float(cases[case])] = median
        tables.append(
            bench.table(f"{quantity}-limit", f"{quantity.capitalize()}, by RLIMIT_NOFILE", "ms",
                        rows, quantity, against=(f"{OURS}, ordinary",),
                        note=f"ordinary: {ORDINARY}; close_range refused by seccomp")
        )  # fmt: skip
    plot = Plot("limit", "Ready, by the limit on descriptors", "RLIMIT_NOFILE", "ms", lines)
    return Outcome(tables, [plot])


def _limited(bench: Bench, number: int, refused: bool) -> Scene:
    setups = [limb.refuse_close_range] if refused else []
    if number <= _highest():
        return Scene(setups=(limb.raise_limit(number), *setups))
    bench.remark(
        f"RLIMIT_NOFILE can't be set to {number} here: a preloaded getrlimit and sysconf "
        "report it instead"
    )
    return Scene(setups=(limb.raise_limit(ORDINARY), *setups), nofile=number)


def _highest() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for number in (1 << 30, 1 << 20):
        try:
            limb.apart(limb.raise_limit(number))
            return number
        except Failed:
            continue
    return hard


def _start_in_time(bench: Bench, contender: Contender, scene: Scene) -> Sample:
    # The stand-in is loaded for all, so that it costs all the same.
    environ = {"LD_PRELOAD": bench.environment.nofile} if bench.environment.nofile else {}
    if scene.nofile and not environ:
        raise Failed("the limit can't be raised, and there is no gcc for the stand-in")

    def work(place: Place) -> Sample:
        place.environ.update(environ)
        return start(place, contender, scene)

    sample: Sample = bench.apart(scene, work, timeout=5)
    return sample


def descriptors(bench: Bench) -> Outcome:
    """Many open descriptors, every second one kept: inside the process, to the body."""
    most = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)
    if most < 10_000:
        bench.remark(f"only {most} descriptors can be opened here")
    counts = (most,) if bench.quick else (100, 1000, most)
    measures: Measures = {}
    for count in counts:
        scene = Scene(descriptors=count, setups=(limb.soft_limit_to_hard,))
        for contender in bench.named(INLINE, OURS, PD):
            measures[contender.name, count] = partial(bench.start, contender, scene)
    if bench.named(INLINE):
        measures[PIECES, most] = partial(_pieces, bench, scene)
    found = bench.interleave(measures, 0.7)
    pieces = found.pop((PIECES, most), {})
    title = f"{most} descriptors open, every second kept"
    outcome = grown(
        bench, found, most, ("back", "detach"), key="descriptors", plot="descriptors open",
        title=title, against=(INLINE, PD),
    )  # fmt: skip
    rows: Found = {words: {"time": figures} for words, figures in pieces.items()}
    note = "in a forked process, each one apart; python-daemon needs the last alone"
    outcome.tables.append(
        bench.table("descriptors-pieces", f"{title}: pieces by hand", "ms", rows, "time", note=note)
    )
    return outcome


def _pieces(bench: Bench, scene: Scene) -> Sample:
    def work(place: Place) -> list[int]:
        place.require(limb.reaped(place.spawn([*bench.contenders.python("pieces")])))
        return place.numbers()

    return {
        words: microseconds / 1e3
        for words, microseconds in zip(PIECES, bench.apart(scene, work), strict=True)
    }


def heap(bench: Bench) -> Outcome:
    """A large heap: two gibibytes and five million objects; inside the process."""
    scale = (1 / 8,) if bench.quick else (1 / 8, 1 / 2, 1)
    measures: Measures = {}
    sizes = [(int(part * 2048) * MiB, int(part * 5_000_000)) for part in scale]
    for size in sizes:
        for contender in bench.named(BARE, WAITING, OURS, PD, "daemonize", "daemonocle"):
            if contender.name not in (BARE, OURS, PD) and size != sizes[-1]:
                continue
            measures[contender.name, size[0] // MiB] = partial(
                bench.start, contender, Scene(heap=size)
            )
    found = bench.interleave(measures, 0.1, warm_up=False)
    most, objects = sizes[-1][0] // MiB, sizes[-1][1]
    return grown(
        bench, found, most, ("back", "detach", "both"), key="heap", plot="heap in MiB",
        title=f"{most} MiB and {objects} objects", against=(BARE, WAITING, PD),
    )  # fmt: skip


def grown(
    bench: Bench, found: Found, most: int,
    quantities: tuple[str, ...], *, key: str, plot: str, title: str, against: tuple[str, ...],
) -> Outcome:  # fmt: skip
    words = {
        "detach": "body running",
        "back": "launcher back",
        "both": "launcher back and body running",
    }
    largest: Found = {}
    lines: dict[str, dict[float, float | None]] = {}
    for (name, count), figures in found.items():
        if count == most:
            largest[name] = figures
        median = figures.get(quantities[-1], Figures()).median
        lines.setdefault(name, {})[float(count)] = median
    tables = [
        bench.table(f"{key}-{quantity}", f"{title}: {words[quantity]}", "ms", largest, quantity,
                    against=against)
        for quantity in quantities
    ]  # fmt: skip
    label = f"{key.capitalize()}: {words[quantities[-1]]}"
    return Outcome(tables, [Plot(key, label, plot, "ms", lines)])
