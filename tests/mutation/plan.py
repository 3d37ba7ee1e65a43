"""Which modules are mutated, and which tests have to notice."""

from __future__ import annotations

from ..support import ROOT

PACKAGE = ROOT / "daemon_context"

# The files with fast tests of the module, those most likely to fail first.
PLAN: dict[str, str] = {
    "sequence": "start steps report trace",
    "report": "start report report_hostile",
    "launcher": "start report report_hostile",
    "frames": "start report_hostile report",
    "failures": "start report_hostile report",
    "pidfile": "pidfile pidfile_hostile",
    "lockedfile": "pidfile pidfile_hostile",
    "fitness": "pidfile pidfile_hostile",
    "locks": "pidfile pidfile_hostile",
    "descriptors": "descriptors buffers",
    "owners": "descriptors buffers",
    "steps/descriptors": "descriptors buffers steps",
}


# Slower ones, for those mutants that have survived the others.
MORE: dict[str, str] = {
    "sequence": "lastwords signals",
    "failures": "lastwords daemon_class",
    "report": "signals daemon_class",
    "launcher": "signals daemon_class spawn",
    "pidfile": "habits",
    "lockedfile": "races daemon_class",
    "locks": "races daemon_class",
    "descriptors": "preserved streams",
    "owners": "preserved",
    "steps/descriptors": "preserved",
}


def files_of(module: str, more: bool) -> list[str]:
    """The test files of a module."""
    names = PLAN[module].split() + (MORE.get(module, "").split() if more else [])
    return [f"tests/test_{name}.py" for name in names]
