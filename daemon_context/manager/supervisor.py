"""Who started us, and whether to detach: never fork under somebody who tracks us by pid.

The rule is a list of questions; the first one with an answer decides, and its answer carries the
reason. The facts behind each were measured with the real launchers (docs/supervisors.md).
"""

from __future__ import annotations

import os
import stat
import sys

from ..system import of_proc
from . import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

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
}  # as /proc/PID/comm has them: at most 15 characters
ASK_TIMEOUT = 2.0


class Facts:
    """What the rule asks about, read when it asks."""

    def __init__(self) -> None:
        self.environ: Mapping[str, str] = os.environ
        self.pid = os.getpid()
        self.ppid = os.getppid()
        self.session = os.getsid(0)
        self._stats: dict[int, str] = {}  # read once: the kernel takes its time to write one

    @property
    def has_tty(self) -> bool:
        """Whether there is a controlling terminal."""
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def session_of(self, pid: int) -> int | None:
        """Session of the process."""
        try:
            return os.getsid(pid)
        except OSError:
            return None

    def name_of(self, pid: int) -> str:
        """Name of the process, cut to 15 characters by the kernel."""
        return self._stat(pid).rpartition(")")[0].partition("(")[2]

    def parent_of(self, pid: int) -> int:
        """Parent of the process; 0: none, or not to be known."""
        fields = self._stat(pid).rpartition(")")[2].split()
        return int(fields[1]) if fields else 0

    def _stat(self, pid: int) -> str:
        if pid not in self._stats:
            self._stats[pid] = of_proc(f"{pid}/stat") or ""
        return self._stats[pid]

    @property
    def stdin(self) -> str:
        """A socket that a superserver may have given: ``listening``, ``unconnected`` (of
        datagrams) or ``connected``; or ''.
        """
        if sys.__stdin__ is None:  # it was closed: what has its number now is the program's own
            return ""
        try:
            if not stat.S_ISSOCK(os.fstat(0).st_mode):
                return ""
        except OSError:  # closed; or no descriptor is free, which is no sign of a superserver
            return ""
        try:
            return _socket_kind()
        except (OSError, ImportError):  # no descriptor is free; what comes next will say so
            return ""

    def service_type(self, unit: str, *, user: bool) -> str:
        """What systemd says that the unit's ``Type=`` is; '' without an answer."""
        import subprocess

        command = [
            "systemctl",
            *(["--user"] if user else []),
            "show",
            "-p",
            "Type",
            "--value",
            unit,
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=ASK_TIMEOUT,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    @property
    def cgroup(self) -> str:
        """Content of ``/proc/self/cgroup``."""
        return of_proc("self/cgroup") or ""


def _socket_kind() -> str:
    import socket

    with socket.socket(fileno=os.dup(0)) as probe:
        if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listening"
        try:
            peer = probe.getpeername()
        except OSError:
            peer = None
        if probe.family == socket.AF_UNIX and not peer and not probe.getsockname():
            return ""
    return "unconnected" if peer is None else "connected"


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
    if "INVOCATION_ID" not in facts.environ:
        return None
    main = _is_main_process(facts)
    if main is None:
        return None  # inherited: by everything below a service, login shells included
    unit, user = _unit(facts.cgroup)
    kind = facts.service_type(unit, user=user) if unit else ""
    if kind:
        forking = kind == "forking"
        return Supervisor(
            "systemd",
            forking,
            f"{unit} has Type={kind}, so systemd expects "
            + ("it to detach" if forking else "it to stay"),
        )
    if "PIDFILE" in facts.environ and "NOTIFY_SOCKET" not in facts.environ:
        return Supervisor("systemd", True, "the unit has PIDFile=, as Type=forking has")
    if main:
        return Supervisor("systemd", False, "this is the main process of a systemd service")
    return None


def _is_main_process(facts: Facts) -> bool | None:
    """Whether systemd tracks this process; False: its parent; None: neither."""
    tracked = facts.environ.get("SYSTEMD_EXEC_PID", "")
    if tracked:
        return {str(facts.pid): True, str(facts.ppid): False}.get(tracked)
    # Before systemd 248.
    if facts.name_of(facts.ppid) == "systemd":
        return True
    return False if facts.name_of(facts.parent_of(facts.ppid)) == "systemd" else None


def _unit(cgroup: str) -> tuple[str, bool]:
    """The unit of this process, and whether a user's manager runs it."""
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        name = path.rpartition("/")[2]
        if name.endswith(".service"):
            return name, "/user@" in path
    return "", False


def _superserver(facts: Facts) -> Supervisor | None:
    kind = facts.stdin
    if not kind:
        return None
    how = "nowait" if kind == "connected" else "wait"
    return Supervisor("inetd", False, f"stdin is a {kind} socket, as inetd ({how}) gives it")


def _entered_container(facts: Facts) -> Supervisor | None:
    if facts.ppid != 0:
        return None
    if facts.has_tty:
        return Supervisor("container", True, "it was run in a container from a terminal")
    return Supervisor("container", False, "its parent is outside the container, and waits for it")


def _child_of_init(facts: Facts) -> Supervisor | None:
    if facts.ppid != 1:
        return None
    if facts.has_tty and facts.session not in (facts.pid, facts.session_of(1)):
        return Supervisor("shell", True, "whoever started it is gone, but its terminal is there")
    return Supervisor("init", False, "its parent is process 1, which may be waiting for it")


def _terminal(facts: Facts) -> Supervisor | None:
    if not facts.has_tty:
        return None
    return Supervisor("shell", True, "it was started from a terminal")


def _process_supervisor(facts: Facts) -> Supervisor | None:
    """Among the ancestors in our session, and the one above them."""
    pid = facts.ppid
    while pid > 1:
        name = facts.name_of(pid)
        if name in MANAGERS:
            return Supervisor(name, False, f"{name} (pid {pid}) tracks it by its pid")
        if facts.session_of(pid) != facts.session:
            return None
        pid = facts.parent_of(pid)
    return None


QUESTIONS = (
    _pid_one,
    _systemd,
    _superserver,
    _entered_container,
    _child_of_init,
    _terminal,
    _process_supervisor,
)
