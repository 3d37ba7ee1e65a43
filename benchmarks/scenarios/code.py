"""The byte code of a start: what it loads, and what of that runs in its processes. Counted."""

from __future__ import annotations

import marshal
import platform
import sys
from functools import cache, partial
from pathlib import Path
from types import CodeType

from .. import limb
from ..bench import Bench
from ..contenders import INTERPRETER, OURS, PD, Contender
from ..figures import Found, Measures, Outcome, Sample
from ..scene import Place, Scene
from .starts import modules

ROLES = ("launcher", "session leader", "daemon")
LOADED, RUN, PYTHONS = "loaded", "run in any of its processes", "loaded of Python's own"
PLAIN = ", without docstrings"
KB = 1000
Called = tuple[str, int, str]  # module, first line, qualified name


def code(bench: Bench) -> Outcome:
    """The byte code that a start loads, and what of it runs in its three processes; counted."""
    measures: Measures = {
        contender.name + (" + pid file" if pidfile else ""): partial(
            _measure, bench, contender, pidfile
        )
        for contender in bench.named(OURS, PD)
        for pidfile in (False, True)
    }
    found = bench.interleave(measures, 0.03, warm_up=False)
    version = f"{platform.python_implementation()} {platform.python_version()}"
    what = "of modules that are not Python's own; those of the interpreter's own start do not count"
    return Outcome(
        [
            bench.table("code-modules", "Modules that a start loads", "",
                        _rows(found, "modules"), "it", note=what),
            bench.table("code", "Byte code that a start loads, and what of it runs", "KB",
                        _rows(found, "KB"), "it", note=f"{what}; as {version} marshals it"),
            bench.table("code-objects", "Functions, and bodies of classes and modules, that run",
                        "", _rows(found, "objects"), "it", note=what),
        ]
    )  # fmt: skip


def _rows(found: Found, kind: str) -> Found:
    """A row of each contender and each quantity of the kind."""
    rows: Found = {}
    for name, quantities in found.items():
        for quantity, figures in quantities.items():
            unit, _, words = quantity.partition(": ")
            if unit in (kind, ""):
                rows[f"{name}: {words}".removesuffix(": ")] = {"it": figures}
    return rows


def _measure(bench: Bench, contender: Contender, pidfile: bool) -> Sample:
    alone = modules(bench, bench.contenders.all[INTERPRETER])
    new = set(modules(bench, contender, pidfile=pidfile)) - set(alone)
    pythons = {name for name in new if name.partition(".")[0] in sys.stdlib_module_names}
    own = new - pythons
    called = _called(bench, contender, pidfile)
    everywhere = set().union(*called.values())
    sample: Sample = {f"modules: {LOADED}": len(own), f"modules: {PYTHONS}": len(pythons)}
    for words, plain in (("", False), (PLAIN, True)):
        sample[f"KB: {LOADED}{words}"] = _size(bench, own, plain)
        sample[f"KB: {RUN}{words}"] = _size(bench, own, plain, everywhere)
    sample[f"KB: {PYTHONS}"] = _size(bench, pythons, False)
    for words, calls in (
        (RUN, everywhere),
        *((f"run in the {role}", called[role]) for role in ROLES),
    ):
        sample[f"objects: {words}"] = sum(module in own for module, *_ in calls)
    return sample


def _called(bench: Bench, contender: Contender, pidfile: bool) -> dict[str, set[Called]]:
    """What each process of a start calls, by role."""

    def work(place: Place) -> list[list[str]]:
        arguments = contender.arguments(place.directory, place.pidfile if pidfile else None)
        launcher = place.spawn(arguments, pidfile=pidfile)
        place.require(limb.reaped(launcher))
        daemon = place.numbers()[0]
        limb.wait_for_all()
        roles = {str(launcher): "launcher", str(daemon): "daemon"}
        lines = Path(f"{place.fifo}.calls").read_text().splitlines()
        calls = [line.split(" ", 3) for line in lines]
        return [[roles.get(pid, "session leader"), *words] for pid, *words in calls]

    found: dict[str, set[Called]] = {role: set() for role in ROLES}
    for role, module, line, name in bench.apart(Scene(stage="calls", then="exit"), work):
        found[role].add((module, int(line), name))
    return found


def _size(bench: Bench, names: set[str], plain: bool, calls: set[Called] | None = None) -> float:
    """KB of the byte code of these modules; with `calls` had they no more than what is called."""
    total = 0
    for name in names:
        if (whole := _compiled(bench.environment.sources(), name, plain)) is not None:
            total += len(marshal.dumps(whole if calls is None else _only(whole, name, calls)))
    return total / KB


@cache
def _compiled(places: tuple[Path, ...], name: str, plain: bool) -> CodeType | None:
    """Of a module; None: not written in Python."""
    path = name.replace(".", "/")
    for place in places:
        for source in (place / f"{path}.py", place / path / "__init__.py"):
            if source.exists():
                text = source.read_bytes()
                return compile(text, source, "exec", dont_inherit=True, optimize=2 if plain else 0)
    return None


def _only(whole: CodeType, module: str, calls: set[Called]) -> CodeType:
    """The code without any within it that is not called."""
    constants = tuple(
        constant
        if not isinstance(constant, CodeType)
        else _only(constant, module, calls)
        if (module, constant.co_firstlineno, constant.co_qualname) in calls
        else None
        for constant in whole.co_consts
    )
    return whole.replace(co_consts=constants)
