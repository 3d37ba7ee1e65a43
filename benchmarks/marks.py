"""The marks that the library is held to, computed from the tables of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .contenders import BARE, INLINE, OURS, PD, WAITING
from .figures import Table

Tables = dict[str, Table]


@dataclass(frozen=True)
class Mark:
    """One mark.

    :ivar measured: in the mark's unit; None: this run can't tell
    :ivar floor: what a contender reaches that does nothing else, written by hand: the limit
    """

    what: str
    mark: str
    measured: float | None
    limit: float
    unit: str = "×"
    floor: float | None = None

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        return "met" if self.measured <= self.limit else "missed"

    @property
    def words(self) -> str:
        return self._words(self.measured) or "–"

    @property
    def lowest(self) -> str:
        return self._words(self.floor)

    def _words(self, value: float | None) -> str:
        return "" if value is None else f"{value:.2f} {self.unit}".strip()


def marks(tables: Tables) -> list[Mark]:
    """All marks, in the order in which they were set."""
    return list(_marks(tables))


def _marks(tables: Tables) -> Iterator[Mark]:
    def ratio(what: str, key: str, other: str, limit: float, floor: str = "") -> Mark:
        table = tables.get(key)
        if table is None:
            return Mark(what, f"≤ {limit:g} × {other}", None, limit)
        lowest = table.ratio(floor, other) if floor else None
        return Mark(what, f"≤ {limit:g} × {other}", table.ratio(OURS, other), limit, floor=lowest)

    def figure(what: str, key: str, limit: float, unit: str, name: str = OURS) -> Mark:
        table = tables.get(key)
        measured = table.median(name) if table else None
        return Mark(what, f"≤ {limit:g} {unit}".strip(), measured, limit, unit)

    yield _faults(tables)
    yield ratio("import and construct", "import", PD, 0.4)
    for quantity in ("launch", "ready"):
        yield ratio(quantity, quantity, PD, 0.8, WAITING)
        yield ratio(f"{quantity}, pid file", f"{quantity}-pidfile", PD, 0.8, BARE)
        yield ratio(f"{quantity}, pid file and signal map", f"{quantity}-signals", PD, 0.95, BARE)
    yield ratio("detach inside the process", "detach", PD, 1.5, INLINE)
    yield from _limits(tables)
    yield ratio("10 000 descriptors, every second kept", "descriptors-detach", PD, 1.5, INLINE)
    yield ratio("large heap: launcher back and body running", "heap-both", WAITING, 1.25)
    yield ratio("unique set of the idle daemon", "memory-unique", PD, 0.85, BARE)
    yield ratio("lock and unlock of a pid file", "lock", PD, 1.0, "flock by hand")
    yield ratio("racing starts: settled", "race-time", PD, 0.8, BARE)
    yield from _race(tables)
    yield figure("stop returns after the daemon's death", "stop", 1, "ms")
    sleeper = f"{OURS}: sleep()"
    yield figure("wake-ups in sleep() without a limit", "idle-switches", 0, "", sleeper)
    yield figure("CPU in sleep() without a limit", "idle-cpu", 0, "µs", sleeper)


def _faults(tables: Tables) -> Mark:
    table = tables.get("faults")
    ours, bare = (table.median(name) if table else None for name in (OURS, BARE))
    above = None if ours is None or bare is None else ours - bare
    return Mark("page faults of a start, above the bare one's", "≤ 500", above, 500, "")


def _limits(tables: Tables) -> Iterator[Mark]:
    for quantity in ("ready", "launch"):
        for case in ("2^20", "2^30"):
            for suffix, words in (("", ""), (", no close_range", ", no close_range")):
                table = tables.get(f"{quantity}-limit")
                other = f"{OURS}, ordinary{suffix}"
                measured = table.ratio(f"{OURS}, {case}{suffix}", other) if table else None
                what = f"{quantity}, limit {case}{words}"
                yield Mark(what, "≤ 1.1 × the ordinary limit", measured, 1.1)


def _race(tables: Tables) -> Iterator[Mark]:
    def all_values(key: str) -> list[float]:
        table = tables.get(key)
        return table.rows[OURS].values if table and OURS in table.rows else []

    table = tables.get("race-refused")
    winners, refused = all_values("race-winners"), all_values("race-refused")
    messages = all_values("race-messages")
    if not (table and winners and refused and messages):
        yield Mark("racing starts: one winner", "exactly 1 in every round", None, 1, "")
        return
    others = int(table.note.removeprefix("of ")) - 1
    worst = max(winners, key=lambda count: abs(count - 1))
    yield Mark(
        "racing starts: one winner", "exactly 1 in every round",
        worst if worst >= 1 else float("inf"), 1, "",
    )  # fmt: skip
    silent = others - min(min(refused), min(messages))
    yield Mark("racing starts: others without an error", "none", silent, 0, "")
