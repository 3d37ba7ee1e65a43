"""Where the time of a launch goes, from the tables of one run; and what was learnt on the way."""

from __future__ import annotations

from collections.abc import Iterator

from .contenders import INTERPRETER, OURS, WAITING
from .figures import Table, bullet

# Figures are `{table/row}` of the run.
LEARNT = (
    """\
**Modules.** The package is imported in {import-alone/daemon_context}; what a start needs is
imported when a context is constructed, which takes
{import/daemon_context} with the import. A part of it is finding and opening
{code-modules/daemon_context: loaded} files; one file for all was tried, and saved that part only:
the code keeps one file for each concern. The rest is loading code and running it for the first
time; it grows with the code, and most of it is memory that is touched for the first time. For each
module: `python -X importtime -c "from daemon_context import DaemonContext; DaemonContext()"`.""",
    """\
**The code of a start** is {code/daemon_context: loaded} in {code-modules/daemon_context: loaded}
modules, without a pid file and with all else at its defaults. What is loaded only when it is asked
for: the checks of options, the owners of descriptors, `launch()`'s handle, the words of errors.
{code/daemon_context: run in any of its processes} of it run in a start that succeeds:
{code-objects/daemon_context: run in any of its processes} functions, and bodies of classes and
modules. The rest is what a daemon that fails tells and undoes, what the session leader does then
(both import nothing once a start has begun), the loop, and what steps say of themselves. Without
docstrings they are {code/daemon_context: loaded, without docstrings} and
{code/daemon_context: run in any of its processes, without docstrings}. With a pid file
{code/daemon_context + pid file: loaded} are loaded, and
{code/daemon_context + pid file: run in any of its processes} run.""",
    """\
**A launcher that has an answer** waits for two forks, for the daemon's steps and for the session
leader to leave. *Bare, waits for ready* has only the forks and the wait, and is the limit for the
marks of *launch*: what they leave above it has to pay for imports, checks, steps and report.""",
    """\
**After a fork, code is dear.** What a process touches for the first time after it is copied page by
page, and running Python touches what it runs, for the counts of references. So all that can be
decided, opened and listed is so before the first fork, and the daemon's steps are few system calls
each. A whole start has {faults/daemon_context − python alone} page faults more than the
interpreter's own start and end; {import-faults/daemon_context} of them come with importing and
constructing. A bare double fork has {faults/bare double fork − python alone} more,
python-daemon {faults/python-daemon − python alone}. Files below `/proc` are read without the buffer
and the codec that file objects have otherwise.""",
    """\
**A large heap** costs its page tables at each fork, and again when a process that has it ends. The
session leader, which tells how the daemon died, has them too, and leaves before the launcher does:
that is what *large heap* pays above *bare, waits for ready*.""",
    """\
**Descriptors.** By hand, at the greatest number: asking `poll` about all numbers takes
{descriptors-pieces/ask poll about all numbers}, a listing of `/proc/self/fd`
{descriptors-pieces/list /proc/self/fd}, reserving half of the numbers
{descriptors-pieces/reserve the number of each}, and telling what each one was (`fstat`)
{descriptors-pieces/fstat each that is closed}. Each Python call and each object for every
descriptor beyond these counts: the garbage collector counts objects, runs in the middle of it, and
writes to whatever it looks at, which after a fork means that it is copied. python-daemon only
closes, without knowing what: {descriptors-pieces/close each}.""",
    """\
**Locking** takes {lock-calls/daemon_context} system calls with the unlocking. By hand it is open,
`flock`, write, unlink, close, {lock-calls/flock by hand} in all. A pid file of ours also has a
record beside it, which says who the daemon is, a lock on each of the two, and a look at whether the
numbers are still its own before they are closed.""",
    """\
**Racing starts** are forked by a program that has constructed its context already, so that none of
them imports what a start needs; where each constructs, each does. `lockfile`, whose errors the
refusals are, is imported by none of them. Part of what a refused start costs is the interpreter's
own end, which looks at every object once more: by hand a refused one takes
{refused/bare double fork: refused}, and one that succeeds, and leaves by `os._exit`,
{refused/bare double fork: successful}.""",
    """\
**Memory.** Most of the idle daemon is the interpreter, which all have:
{memory-unique/bare double fork} with a bare double fork. What we add,
{memory-unique/daemon_context − bare double fork}, is mostly the code of the start.""",
)


def to_markdown(tables: dict[str, Table]) -> str:
    """The section of the page."""
    lines = ["## Where the time goes", ""]
    parts = list(_parts(tables))
    if parts:
        lines += ["A launch without pid file; from the medians below.", ""]
        lines += ["| part | ms |", "| --- | ---: |"]
        lines += [f"| {what} | {milliseconds:.2f} |" for what, milliseconds in parts]
        lines.append("")
    return "\n".join([*lines, *(bullet(text, tables) for text in LEARNT)]) + "\n"


def _parts(tables: dict[str, Table]) -> Iterator[tuple[str, float]]:
    def median(key: str, name: str) -> float:
        found = tables[key].median(name) if key in tables else None
        return float("nan") if found is None else found

    if not {"launch", "import", "import-alone", "back"} <= set(tables):
        return
    alone, forks = median("import-alone", OURS), median("back", WAITING)
    yield "the interpreter's own start and end", median("launch", INTERPRETER)
    yield "importing the package", alone
    yield "constructing a context, which imports what a start needs", median("import", OURS) - alone
    yield "two forks and a wait, by hand", forks
    yield "checks, report, steps, the session leader's end", median("back", OURS) - forks
