"""Which modules are mutated, and which tests have to notice."""

from __future__ import annotations

from tests.helpers.support import ROOT

PACKAGE = ROOT / "daemon_context"

# Tests that belong together, in several files.
GROUPS: dict[str, str] = {
    "daemon": "daemon/test_verbs daemon/test_surroundings daemon/test_status_file "
    "daemon/test_reload daemon/test_end",
    "descriptors": "steps/test_descriptors steps/test_closed_descriptors "
    "steps/test_any_descriptors",
    "habits": "whole/habits/test_pidfiles whole/habits/test_subclasses "
    "whole/habits/test_files_and_signals "
    "whole/habits/test_context_managers",
    "lastwords": "report/test_lastwords report/test_rsyslogd report/test_uncaught",
    "pidfile": "pidfile/test_interface pidfile/test_start pidfile/test_holders",
    "pidfile_hostile": "pidfile/test_hostile pidfile/test_file_systems pidfile/test_content",
    "report": "report/test_failing_steps report/test_readiness "
    "report/test_interrupted report/test_unwinding report/test_limits "
    "report/test_children",
    "sequence": "sequence/test_sequence sequence/test_own_steps "
    "sequence/test_foreground look/test_explain",
    "signals": "steps/test_signals loop/test_sleep",
    "spawn": "embedding/test_spawn embedding/test_handle embedding/test_named_target",
}

# The files with fast tests of the module, those most likely to fail first.
PLAN: dict[str, str] = {
    "sequence": "context/test_start sequence report look/test_trace",
    "report": "context/test_start report report/test_hostile",
    "launcher": "context/test_start report report/test_hostile",
    "frames": "context/test_start report/test_hostile report",
    "failures": "context/test_start report/test_hostile report",
    "pidfile": "pidfile pidfile_hostile",
    "lockedfile": "pidfile pidfile_hostile",
    "fitness": "pidfile pidfile_hostile",
    "locks": "pidfile pidfile_hostile",
    "descriptors": "descriptors steps/test_buffers",
    "owners": "descriptors steps/test_buffers",
    "steps/descriptors": "descriptors steps/test_buffers sequence",
}


# Slower ones, for those mutants that have survived the others.
MORE: dict[str, str] = {
    "sequence": "lastwords signals",
    "failures": "lastwords daemon",
    "report": "signals daemon",
    "launcher": "signals daemon spawn",
    "pidfile": "habits",
    "lockedfile": "whole/test_races daemon",
    "locks": "whole/test_races daemon",
    "descriptors": "steps/test_preserved steps/test_streams",
    "owners": "steps/test_preserved",
    "steps/descriptors": "steps/test_preserved",
}


def files_of(module: str, more: bool) -> list[str]:
    """The test files of a module."""
    names = PLAN[module].split() + (MORE.get(module, "").split() if more else [])
    files = [file for name in names for file in GROUPS.get(name, name).split()]
    return [f"tests/{file}.py" for file in files]
