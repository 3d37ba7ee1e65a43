"""Who started us, and whether to detach: never fork under somebody who tracks us by pid.

The rule is a list of questions; the first one with an answer decides, and its answer carries the
fact that decided. The facts were measured with the real launchers (docs/howto/supervisors.md).
"""

from __future__ import annotations

from . import Supervisor
from .facts import Facts, outermost

MANAGERS = {
    "runsv",
    "s6-supervise",
    "supervise",
    "supervisord",
    "circusd",
    "supervise-daemo",
    "perpd",
    "containerd-shim",
    "conmon",
    "honcho",
    "foreman",
}  # as /proc/PID/comm has them: at most 15 characters
PM2 = "PM2 v"  # and its version


def detect() -> Supervisor:
    """Who started this process, by the facts of this moment."""
    return decide(Facts())


def decide(facts: Facts) -> Supervisor:
    """The rule: the first question that has an answer."""
    for question in QUESTIONS:
        answer = question(facts)
        if answer is not None:
            return answer
    return Supervisor("shell", True, "no supervisor was found among the ancestors, so it detaches")


def _pid_one(facts: Facts) -> Supervisor | None:
    if facts.pid != 1:
        return None
    return Supervisor("container", False, "this is process 1: a container ends when it exits")


def _systemd(facts: Facts) -> Supervisor | None:
    role = role_in_service(facts)
    if not role:
        return None  # what marks there are were inherited, as by a login session's shells
    unit, user = unit_of(facts.cgroup)
    kind = facts.service(unit, user=user).get("Type") if unit else ""
    if kind:
        forking = kind == "forking"
        expects = "it to detach" if forking else "it to stay"
        reason = f"systemctl says that {unit} has Type={kind}, so systemd expects {expects}"
        return Supervisor("systemd", forking, reason)
    if "PIDFILE" in facts.environ and "NOTIFY_SOCKET" not in facts.environ:
        return Supervisor(
            "systemd", True, "PIDFILE is set, so the unit has PIDFile=, as Type=forking has"
        )
    if role == "main":
        return Supervisor(
            "systemd", False, f"this is the main process of a systemd service: {MARK}"
        )
    return None


MARK = "SYSTEMD_EXEC_PID is its pid, or systemd its parent"


def role_in_service(facts: Facts) -> str:
    """``main``: systemd has started this process; ``wrapped``: one that runs it; or ''."""
    if "INVOCATION_ID" not in facts.environ:
        # An emptied environment, as of `sudo` and `env -i`.
        top = outermost(facts)
        if not unit_of(facts.cgroup)[0] or facts.name_of(_parent(facts, top)) != "systemd":
            return ""
        return "main" if top == facts.pid else "wrapped"
    tracked = facts.environ.get("SYSTEMD_EXEC_PID", "")
    if not tracked:  # before systemd 248
        return _role_by_ancestors(facts)
    if tracked == str(facts.pid):
        return "main"
    return "wrapped" if tracked in (str(facts.ppid), str(outermost(facts))) else ""


def _role_by_ancestors(facts: Facts) -> str:
    if facts.name_of(facts.ppid) == "systemd":
        return "main"
    above = (facts.parent_of(facts.ppid), _parent(facts, outermost(facts)))
    return "wrapped" if "systemd" in map(facts.name_of, above) else ""


def unit_of(cgroup: str) -> tuple[str, bool]:
    """The unit of this process, and whether a user's manager runs it."""
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        name = path.rpartition("/")[2]
        if name.endswith(".service"):
            return name, "/user@" in path
    return "", False


def _parent(facts: Facts, pid: int) -> int:
    return facts.ppid if pid == facts.pid else facts.parent_of(pid)


def _superserver(facts: Facts) -> Supervisor | None:
    kind = facts.stdin
    if not kind:
        return None
    how = "nowait" if kind == "connected" else "wait"
    return Supervisor("inetd", False, f"stdin is a {kind} socket, as inetd ({how}) gives it")


def _entered_container(facts: Facts) -> Supervisor | None:
    top = outermost(facts)
    if _parent(facts, top) != 0:
        return None
    if facts.has_tty:
        return Supervisor("container", True, "it was run in a container from a terminal")
    return Supervisor(
        "container",
        False,
        f"{_whose(facts, top)} parent is outside the container, and waits for it",
    )


def _child_of_init(facts: Facts) -> Supervisor | None:
    top = outermost(facts)
    if _parent(facts, top) != 1:
        return None
    if facts.has_tty and facts.session not in (top, facts.session_of(1)):
        return Supervisor("shell", True, "whoever started it is gone, but its terminal is there")
    return Supervisor(
        "init", False, f"{_whose(facts, top)} parent is process 1, which may be waiting for it"
    )


def _whose(facts: Facts, top: int) -> str:
    return "its" if top == facts.pid else f"it runs below {facts.name_of(top)} (pid {top}), whose"


def _terminal(facts: Facts) -> Supervisor | None:
    if not facts.has_tty:
        return None
    return Supervisor("shell", True, "it was started from a terminal")


def _manager_in_session(facts: Facts) -> Supervisor | None:
    """Before the terminal, from which such a manager may have been started itself."""
    return _process_manager(facts, above=False)


def _manager_above(facts: Facts) -> Supervisor | None:
    """After it: a getty's, and with that a login's, is not what a shell's program runs under."""
    return _process_manager(facts, above=True)


def _process_manager(facts: Facts, *, above: bool) -> Supervisor | None:
    """Among the ancestors in our session, and the one above them."""
    pid = facts.ppid
    while pid:
        ours = facts.session_of(pid) == facts.session
        name = facts.name_of(pid)
        if (ours or above) and (name in MANAGERS or name.startswith(PM2)):
            return Supervisor(name, False, f"{name} (pid {pid}) tracks it by its pid")
        if not ours:
            return None
        pid = facts.parent_of(pid)
    return None


QUESTIONS = (
    _pid_one,
    _systemd,
    _superserver,
    _entered_container,
    _child_of_init,
    _manager_in_session,
    _terminal,
    _manager_above,
)
