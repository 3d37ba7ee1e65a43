"""Which modules are mutated, and which tests have to notice."""

from __future__ import annotations

from tests.helpers.support import ROOT

PACKAGE = ROOT / "daemon_context"

# Tests that belong together, in several files.
GROUPS: dict[str, str] = {
    "class": "daemon/test_verbs daemon/test_surroundings daemon/test_status_file "
    "daemon/test_reload daemon/test_end",
    "descriptors": "steps/test_descriptors steps/test_closed_descriptors "
    "steps/test_any_descriptors",
    "habits": "whole/habits/test_pidfiles whole/habits/test_subclasses "
    "whole/habits/test_files_and_signals "
    "whole/habits/test_context_managers",
    "lastwords": "report/test_lastwords report/test_rsyslogd report/test_uncaught",
    "loop": "loop/test_sleep loop/test_sigterm",
    "options": "options/test_options options/test_refusals options/test_place",
    "pidfile": "pidfile/test_interface pidfile/test_start pidfile/test_holders",
    "pidfile_hostile": "pidfile/test_hostile pidfile/test_file_systems pidfile/test_content "
    "pidfile/test_threats pidfile/test_let_go pidfile/test_lock_list",
    "report": "report/test_failing_steps report/test_readiness "
    "report/test_interrupted report/test_unwinding report/test_limits "
    "report/test_children report/test_causes",
    "sequence": "sequence/test_sequence sequence/test_own_steps "
    "sequence/test_foreground look/test_explain",
    "signals": "steps/test_signals loop/test_sleep",
    "spawn": "embedding/test_spawn embedding/test_handle embedding/test_named_target",
    "stop": "control/test_stop embedding/test_handle",
    "supervisor": "manager/test_rule manager/test_supervisor manager/test_contradictions "
    "manager/test_supervised",
}

# The files with fast tests of the module, those most likely to fail first.
PLAN: dict[str, str] = {
    "sequence/__init__": "context/test_start sequence report look/test_trace",
    "sequence/step": "options/test_options sequence/test_sequence sequence/test_own_steps "
    "context/test_start",
    "sequence/walk": "context/test_start report/test_readiness daemon/test_settle sequence report "
    "manager/test_notify",
    "sequence/hooks": "report/test_uncaught report/test_readiness report/test_lastwords "
    "steps/test_closed_descriptors daemon/test_settle",
    "sequence/keeping": "descriptors steps/test_preserved embedding/test_fresh",
    "report/__init__": "context/test_start report report/test_hostile daemon/test_settle",
    "report/launcher": "context/test_start report report/test_hostile daemon/test_settle",
    "report/leader": "context/test_start report report/test_hostile daemon/test_settle",
    "report/frames": "context/test_start report/test_hostile report system/test_untrusted_text",
    "report/failures": "context/test_start report/test_hostile report system/test_untrusted_text",
    "report/lastwords": "lastwords system/test_untrusted_text",
    "loop": "loop steps/test_signals",
    "life": "context/test_start report/test_readiness loop manager/test_notify",
    "pidfile/__init__": "pidfile pidfile_hostile",
    "pidfile/lockedfile": "pidfile pidfile_hostile",
    "pidfile/files": "pidfile pidfile_hostile",
    "pidfile/fitness": "pidfile pidfile_hostile",
    "pidfile/locks": "pidfile pidfile_hostile",
    "pidfile/record": "pidfile pidfile_hostile",
    "pidfile/holder": "pidfile pidfile_hostile",
    "manager/supervisor": "supervisor manager/test_notify",
    "manager/facts": "supervisor",
    "manager/notify": "manager/test_notify manager/test_s6 manager/test_supervised",
    "control/statusfile": "daemon/test_status_file control/test_lastend control/test_whose_words "
    "system/test_untrusted_text",
    "control/lastend": "control/test_lastend control/test_whose_words control/test_stop",
    "control/stopping": "stop control/test_lastend",
    "options/frozen": "options supervisor context/test_start look/test_explain",
    "steps/descriptors": "descriptors steps/test_buffers steps/test_past sequence",
    "system/descriptors": "descriptors steps/test_buffers steps/test_connections",
    "system/owners": "descriptors steps/test_buffers steps/test_connections",
    "system/child": "context/test_start report/test_children embedding/test_handle "
    "report/test_interrupted report/test_limits",
    "system/groups": "control/test_stop daemon/test_end whole/test_identity",
    "system/insisting": "loop/test_sigterm daemon/test_end",
}


# Slower ones, for those mutants that have survived the others.
MORE: dict[str, str] = {
    "sequence/__init__": "manager/test_notify class lastwords signals habits",
    "sequence/walk": "steps/test_closed_descriptors lastwords signals habits look/test_trace",
    "sequence/keeping": "steps/test_streams steps/test_buffers habits",
    "report/__init__": "steps/test_privileges signals class spawn embedding/test_fresh",
    "report/launcher": "signals class spawn embedding/test_fresh",
    "report/leader": "signals class spawn",
    "report/failures": "lastwords class",
    "loop": "class report/test_interrupted whole/test_green",
    "life": "steps/test_closed_descriptors class habits daemon/test_settle steps/test_output",
    "pidfile/__init__": "habits pidfile/test_other_libraries pidfile/test_machine",
    "pidfile/lockedfile": "whole/test_races class pidfile/test_machine",
    "pidfile/locks": "whole/test_races class pidfile/test_machine",
    "pidfile/record": "whole/test_identity class stop",
    "pidfile/holder": "whole/test_identity class stop",
    "manager/supervisor": "options whole/test_callers",
    "manager/facts": "options whole/test_callers",
    "manager/notify": "class manager/test_sockets",
    "control/statusfile": "class",
    "control/lastend": "class",
    "control/stopping": "class spawn",
    "options/frozen": "spawn class steps/test_owner steps/test_privileges",
    "steps/descriptors": "steps/test_preserved steps/test_connections steps/test_output "
    "steps/test_streams",
    "system/descriptors": "steps/test_preserved steps/test_streams report/test_limits "
    "report/test_readiness",
    "system/owners": "steps/test_preserved",
    "system/child": "spawn report/test_hostile whole/test_identity class",
    "system/groups": "class stop whole/test_callers",
    "system/insisting": "class whole/test_green",
}


def files_of(module: str, more: bool) -> list[str]:
    """The test files of a module."""
    names = PLAN[module].split() + (MORE.get(module, "").split() if more else [])
    files = [file for name in names for file in GROUPS.get(name, name).split()]
    return [f"tests/{file}.py" for file in dict.fromkeys(files)]
