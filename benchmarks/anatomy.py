"""Where the time of a launch goes, from the tables of one run; and what was learnt on the way."""

from __future__ import annotations

from collections.abc import Iterator

from .contenders import INTERPRETER, OURS, WAITING
from .figures import Table

LEARNT = """\
- **Modules.** The package is imported in a fraction of a millisecond; what a start needs is
  imported when a context is constructed. To be found and opened a module costs some 50 µs, whatever
  is in it: all those of a start in one file, tried when they were eighteen as one file of code
  objects, took 2.1 ms instead of 3.1, and in five files little more than half a millisecond less;
  so the code keeps one file for each concern. The rest is loading code (1 ms) and running it for
  the first time (as much); it grows with the code, and most of it is memory that is touched for the
  first time.
- **The code of a start** is 320 KB in 28 modules, without a pid file and with all else at its
  defaults; the mark is 120 KB in 10. What is loaded only when it is asked for: the checks of
  options, the owners of descriptors, `launch()`'s handle, the words of errors. About two thirds of
  it run. The rest is what a daemon that fails tells and undoes, what the session leader does then
  (both import nothing once a start has begun), the loop, and what steps say of themselves.
  Docstrings are some 36 KB of it, and annotations 16.
- **A launcher that has an answer** waits for two forks, for the daemon's steps and for the session
  leader to leave. *Bare, waits for ready* has only the forks and the wait, and is the limit for the
  marks of *launch*: what they leave above it has to pay for imports, checks, steps and the report.
- **After a fork, code is dear.** What a process touches for the first time after it is copied page
  by page, and running Python touches what it runs, for the counts of references. So all that can be
  decided, opened and listed is so before the first fork, and the daemon's steps are few system
  calls each. Of the page faults above the interpreter's own, 210 come with the modules, some 80
  with each of the two processes and 30 with the one that forks it; the other 650 are pages that
  three processes copy where they run: about eight for each function that one calls for the first
  time. A bare double fork has 200 in all. Files below `/proc` are read without the buffer and the
  codec that file objects have otherwise, which cost several times as much.
- **A large heap** costs its page tables at each fork, and again when a process that has it ends.
  The session leader, which tells how the daemon died, has them too, and leaves before the launcher
  does: that is what *large heap* pays above *bare, waits for ready*.
- **Descriptors.** Asking `poll` about all numbers takes two milliseconds at ten thousand, reserving
  five thousand numbers as much, and telling what each one was (`fstat`) four: a call for each
  beyond these doubled it. So did a tuple for each: the garbage collector counts them, runs in the
  middle of it, and writes to whatever it looks at, which after a fork means that it is copied.
  python-daemon only closes, without knowing what.
- **Locking.** By hand it is open, `flock`, write, unlink, close. A pid file of ours also has a
  record beside it, which says who the daemon is, a lock on each of the two, and a look at whether
  the numbers are still its own before they are closed.
- **Racing starts** are forked by a program that has constructed its context already, so that
  none of them imports what a start needs. `lockfile`, whose errors the refusals are, is imported by
  none of them: it costs more than all else together.
  A third of what a refused start costs is the interpreter's own end, which looks at every object
  once more.
- **Memory.** Most of the idle daemon is the interpreter, which all have. What we add is the code of
  the start: some 400 code objects and 40 classes in two thirds of a MiB. The mark leaves room for
  half of that.
"""


def to_markdown(tables: dict[str, Table]) -> str:
    """The section of the page."""
    lines = ["## Where the time goes", ""]
    parts = list(_parts(tables))
    if parts:
        lines += ["A launch without pid file; from the medians below.", ""]
        lines += ["| part | ms |", "| --- | ---: |"]
        lines += [f"| {what} | {milliseconds:.2f} |" for what, milliseconds in parts]
        lines.append("")
    return "\n".join(lines) + "\n" + LEARNT


def _parts(tables: dict[str, Table]) -> Iterator[tuple[str, float]]:
    def median(key: str, name: str) -> float:
        found = tables[key].median(name) if key in tables else None
        return float("nan") if found is None else found

    warm = f"{OURS} (warm)"
    if not {"launch", "import", "detach", "back"} <= set(tables) or warm not in tables["back"].rows:
        return
    forks = median("back", WAITING)
    yield "the interpreter's own start and end", median("launch", INTERPRETER)
    yield "importing the package, constructing a context", median("import", OURS)
    yield (
        "modules that `open()` imports in the launcher",
        median("back", OURS) - median("back", warm),
    )
    yield "two forks and a wait, by hand", forks
    yield "options, checks, report, steps, the session leader's end", median("back", warm) - forks
