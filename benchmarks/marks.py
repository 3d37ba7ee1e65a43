"""The marks that the library is held to, computed from the tables of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .contenders import BARE, INLINE, OURS, PD, WAITING
from .figures import Table, filled, number

Tables = dict[str, Table]


@dataclass(frozen=True)
class Mark:
    """One mark.

    :ivar measured: in the mark's unit; None: this run can't tell
    :ivar floor: what a contender reaches that does nothing else, written by hand: the limit
    :ivar excess: by how much it is missed, in the unit of what was measured
    :ivar way: what stands in the way, and what would be needed
    """

    what: str
    mark: str
    measured: float | None
    limit: float
    unit: str = "×"
    floor: float | None = None
    excess: str = ""
    way: str = ""

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
        if value is None:
            return ""
        shown = f"{value:.2f}" if self.unit == "×" else number(value)
        return f"{shown} {self.unit}".strip()


# What stands in the way of each, and what would be needed. Figures are `{table/row}` of the run.

CODE = """\
Of what a start loads {code/daemon_context: run in any of its processes} run,
{code/daemon_context: run in any of its processes, without docstrings} without docstrings: more than
the mark, had it loaded nothing else. Needed: a start that does less, or does it in C. python-daemon
loads {code/python-daemon: loaded} of its own, and {code/python-daemon: loaded of Python's own} of
Python's standard library, which here nothing is loaded of but
{code/daemon_context: loaded of Python's own}."""
MODULES = """\
One file keeps one concern, so that it can be read. Needed: files that keep several; each one less
saves what it costs to find and open a file, and nothing of its code."""
FAULTS = """\
{import-faults/daemon_context} come with importing and constructing. The others are pages that the
three processes copy where they run Python: {code-objects/daemon_context: run in the launcher}
functions and bodies run in the launcher,
{code-objects/daemon_context: run in the session leader} in the session leader,
{code-objects/daemon_context: run in the daemon} in the daemon. Needed: less code that is loaded,
and less that runs after the forks."""
IMPORT_ALONE = """\
It imports `daemon_context.context`, and what that needs to be defined: see `python -X importtime -c
"import daemon_context"`. Needed: to import some of it only when a context is constructed."""
IMPORT = """\
It loads {code/daemon_context: loaded} in {code-modules/daemon_context: loaded} modules, of which
the import alone takes {import-alone/daemon_context}; python-daemon takes {import/python-daemon},
for {code/python-daemon: loaded} of its own and {code/python-daemon: loaded of Python's own} of the
standard library. Needed: less code, in the same proportion."""
LAUNCH = """\
{launch/python alone} are the interpreter's own start and end, {import/daemon_context} importing and
constructing, {back/bare, waits for ready} two forks and a wait for an answer, by hand. Checks,
steps, the report and the end of the session leader are what is left. Needed: less code to load and
to run; or a launcher that doesn't wait for an answer, as python-daemon's."""
SIGNALS = """\
As without a signal map. Beside it the program itself imports `signal`, of which python-daemon has
paid most already: it is among what that loads of the standard library."""
INSIDE = """\
{import/daemon_context} are importing and constructing, {detach/daemon_context} `open()`; the steps
of PEP 3143 by hand take {inside/all steps inline}, modules of the standard library included.
Needed: less code to load."""
DETACH = """\
After each fork what Python runs is copied page by page:
{code-objects/daemon_context: run in the daemon} functions run in the daemon before its body, in
python-daemon's {code-objects/python-daemon: run in the daemon}. They apply the steps, keep what is
needed to tell of a failure, and tell of success. Needed: fewer functions, so fewer steps as
objects, or no answer."""
DESCRIPTORS = """\
python-daemon closes them and does not know what they were: {descriptors-pieces/close each} by hand.
To ask which are open takes {descriptors-pieces/ask poll about all numbers}, to keep the number of
each from being another file's {descriptors-pieces/reserve the number of each}, to look what each
was {descriptors-pieces/fstat each that is closed}: each by hand, in a loop that does nothing else.
Needed: not to tell what was closed, or not to reserve numbers, which keeps an object that still
uses one from writing into somebody else's file."""
HEAP = """\
Each process that is forked has page tables as large as the heap, and returns them when it ends.
In *bare, waits for ready* the process between ends beside the others. Here it is the session
leader, which stays until the daemon is ready, as it tells how a daemon died, and whose end the
launcher waits for, so that it leaves nobody but the daemon. Needed: not to wait for it, or to do
without it."""
MEMORY = """\
{memory-unique/bare double fork} is the interpreter with a bare double fork.
{memory-unique/daemon_context − bare double fork} more are mostly the
{code/daemon_context: loaded} of code that were loaded, with their functions and classes. Needed:
less code to load."""
LOCK = """\
{lock-calls/daemon_context} system calls, by hand {lock-calls/flock by hand}, python-daemon
{lock-calls/python-daemon}. Beside the pid file is a record, which says who the daemon is; each has
a lock, so that neither can be forged or replaced; and before a use we look whether path and numbers
are still our own. Needed: one file with one lock, whose holder anybody can pretend to be."""
RACE = """\
Each one that loses tells so, by a message and its status: of python-daemon's
{race-messages/python-daemon} have a message, and {race-refused/python-daemon} a status that is not
0. Needed: less code
for a refusal, as the interpreter's own end after it is the same for all."""
RACE_IN_EACH = """\
Each loads what a start needs when it constructs: {code/daemon_context: loaded} without a pid file,
{code/daemon_context + pid file: loaded} with one. python-daemon has loaded all when it is imported,
which here happens before the race. Needed: to load with the import, which would make no program
faster; or less code."""
REFUSED = """\
One that succeeds leaves by `os._exit`; one that is refused raises, and the interpreter ends in the
orderly way, which takes its time: by hand {refused/bare double fork: refused}, and
{refused/bare double fork: successful} where it succeeds. Needed: less code that both load, before
the lock is tried."""


def marks(tables: Tables) -> list[Mark]:
    """All marks, in the order in which they were set."""
    return list(_marks(tables))


def _marks(tables: Tables) -> Iterator[Mark]:
    def ratio(
        what: str, key: str, other: str, limit: float, floor: str = "", way: str = "",
        kind: str = "", name: str = OURS,
    ) -> Mark:  # fmt: skip
        mark, table = f"≤ {limit:g} × {other}", tables.get(key)
        if table is None:
            return Mark(what, mark, None, limit)
        own, reference = table.median(name + kind), table.median(other + kind)
        excess = ""
        if own is not None and reference is not None:
            excess = f"{number(own - limit * reference)} {table.unit}".strip()
        return Mark(
            what, mark, table.ratio(name + kind, other + kind), limit,
            floor=table.ratio(floor, other + kind) if floor else None,
            excess=excess, way=filled(way, tables),
        )  # fmt: skip

    def figure(
        what: str,
        key: str,
        limit: float,
        unit: str,
        name: str = OURS,
        way: str = "",
        less: str = "",
    ) -> Mark:
        mark, table = f"≤ {limit:g} {unit}".strip(), tables.get(key)
        measured = table.median(name) if table else None
        if table and less and measured is not None:
            base = table.median(less)
            measured = None if base is None else measured - base
        excess = "" if measured is None else f"{number(measured - limit)} {unit}".strip()
        return Mark(what, mark, measured, limit, unit, excess=excess, way=filled(way, tables))

    loaded = f"{OURS}: loaded"
    yield figure("byte code that a start loads", "code", 120, "KB", loaded, CODE)
    yield figure("modules of ours that a start loads", "code-modules", 10, "", loaded, MODULES)
    yield figure(
        "page faults of a start, above the bare one's", "faults", 500, "", OURS, FAULTS, BARE
    )
    yield ratio("import alone", "import-alone", PD, 0.15, way=IMPORT_ALONE)
    yield ratio("import and construct", "import", PD, 0.4, way=IMPORT)
    for quantity in ("launch", "ready"):
        yield ratio(quantity, quantity, PD, 0.8, WAITING, LAUNCH)
        yield ratio(f"{quantity}, pid file", f"{quantity}-pidfile", PD, 0.8, BARE, LAUNCH)
    for quantity in ("launch", "ready"):
        what = f"{quantity}, pid file and signal map"
        yield ratio(what, f"{quantity}-signals", PD, 0.95, BARE, SIGNALS)
    what = "import, construct and open in one process, to the body"
    yield ratio(what, "inside", PD, 0.6, INLINE, INSIDE)
    yield ratio("detach inside the process", "detach", PD, 1.5, INLINE, DETACH)
    yield from _limits(tables)
    what = "10 000 descriptors, every second kept"
    yield ratio(what, "descriptors-detach", PD, 1.5, INLINE, DESCRIPTORS)
    what = "large heap: launcher back and body running"
    yield ratio(what, "heap-both", WAITING, 1.25, way=HEAP)
    yield ratio("unique set of the idle daemon", "memory-unique", PD, 0.85, BARE, MEMORY)
    yield ratio("lock and unlock of a pid file", "lock", PD, 1.0, "flock by hand", LOCK)
    yield ratio("racing starts: settled", "race-time", PD, 0.8, BARE, RACE)
    what = "racing starts, constructed in each: settled"
    yield ratio(what, "race-time", PD, 1.0, BARE, RACE_IN_EACH, ", constructed in each")
    yield from _race(tables)
    what = "a refused start, whole process, to its message"
    successful, refused = f"{OURS}: successful", f"{OURS}: refused"
    yield ratio(what, "refused", successful, 0.8, f"{BARE}: refused", REFUSED, name=refused)
    yield figure("stop returns after the daemon's death", "stop", 1, "ms")
    sleeper = f"{OURS}: sleep()"
    yield figure("wake-ups in sleep() without a limit", "idle-switches", 0, "", sleeper)
    yield figure("CPU in sleep() without a limit", "idle-cpu", 0, "µs", sleeper)


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
        rows = tables[key].rows if key in tables else {}
        return [value for name in rows if name.startswith(OURS) for value in rows[name].values]

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
