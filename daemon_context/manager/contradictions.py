"""Where a daemon that detaches would be taken for one that has ended, and killed."""

from __future__ import annotations

from .facts import Facts
from .supervisor import role_in_service, unit_of

# Not oneshot, nor a process of ExecStartPre= and -Post=: these may start a daemon and end.
TRACKED = {"simple", "exec", "notify", "notify-reload", "idle", "dbus"}
INITS = {"tini", "tini-static", "dumb-init", "catatonit", "docker-init", "podman-init"}


def contradiction(facts: Facts) -> str:
    """Why nobody may detach here, in words; '' if one may."""
    if facts.pid == 1:
        return "this is process 1, and a container ends with it, the daemon included"
    return _below_an_init(facts) or _main_process(facts)


def _below_an_init(facts: Facts) -> str:
    name = facts.name_of(1)
    # In another session it is an orphan, for which nobody waits.
    waits = facts.ppid == 1 and facts.session in (facts.pid, facts.session_of(1))
    if not waits or name not in INITS:
        return ""
    return f"{name}, as process 1, ends the container with its child, the daemon included"


def _main_process(facts: Facts) -> str:
    if role_in_service(facts) != "main":
        return ""
    unit, user = unit_of(facts.cgroup)
    service = facts.service(unit, user=user) if unit else {}
    kind = service.get("Type", "")
    if kind not in TRACKED or service.get("MainPID") != str(facts.pid):
        return ""
    return (
        f"this is the main process of {unit}, which has Type={kind}: systemd takes the service for "
        "ended with it, and kills the daemon"
    )
