"""Who started us: every measured launcher as facts."""

from __future__ import annotations

import pytest

from daemon_context.manager.supervisor import MANAGERS, decide
from tests.helpers.managers import UNIT

ME, PARENT = 100, 90

USER_UNIT = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/feed.service\n"
MINE = {"INVOCATION_ID": "8c9f", "SYSTEMD_EXEC_PID": str(ME)}
PARENTS = {"INVOCATION_ID": "8c9f", "SYSTEMD_EXEC_PID": str(PARENT)}


class Facts:
    """What was measured under one launcher.

    `processes` is the ancestry from the parent upwards, as (pid, name, session); a ``bash`` in it
    is typed into, any other shell has a command.
    """

    def __init__(
        self, *processes: tuple[int, str, int], pid: int = ME, session: int = ME,
        tty: bool = False, stdin: str = "", type: str = "", cgroup: str = "0::/\n",
        main: int = ME, init: str = "init", **environ: str,
    ) -> None:  # fmt: skip
        self.environ, self.pid, self.session = environ, pid, session
        self.has_tty, self.stdin, self.type, self.cgroup = tty, stdin, type, cgroup
        self.processes = (*processes, (1, init, 1))
        self.main = main
        self.ppid = self.processes[0][0]
        self.asked: list[tuple[str, bool]] = []

    def service(self, unit: str, *, user: bool) -> dict[str, str]:
        self.asked.append((unit, user))
        return {"Type": self.type, "MainPID": str(self.main)} if self.type else {}

    def arguments_of(self, pid: int) -> list[str]:
        return [] if self.name_of(pid) == "bash" else ["-c", "prog; true"]

    def _of(self, pid: int) -> tuple[int, str, int]:
        return next((p for p in self.processes if p[0] == pid), (pid, "", -1))

    def name_of(self, pid: int) -> str:
        return self._of(pid)[1]

    def session_of(self, pid: int) -> int | None:
        return self._of(pid)[2]

    def parent_of(self, pid: int) -> int:
        pids = [p[0] for p in self.processes]
        return pids[pids.index(pid) + 1] if pid in pids[:-1] else 0


SHELL, SSHD, CRON = (PARENT, "bash", 80), (PARENT, "sshd", PARENT), (70, "cron", 70)
SH = (PARENT, "sh", PARENT)

# The launcher, what it looks like, who that is, and whether to detach.
TABLE: dict[str, tuple[Facts, str, bool]] = {
    "interactive shell": (Facts(SHELL, (80, "tmux", 80), session=80, tty=True), "shell", True),
    "setsid in a shell": (Facts(SHELL), "shell", True),
    "sh -c in CI": (Facts((PARENT, "sh", 60), (60, "runner", 60), session=60), "shell", True),
    "ssh command": (Facts(SSHD, SSH_CONNECTION="::1 1 ::1 22"), "shell", True),
    "ssh -tt": (Facts(SSHD, tty=True, SSH_TTY="/dev/pts/1"), "shell", True),
    "cron": (Facts(SH, CRON, session=PARENT), "shell", True),
    "at": (Facts((PARENT, "sh", 60), (60, "atd", 60), session=60), "shell", True),
    "monit": (Facts((PARENT, "monit", PARENT)), "shell", True),
    "node spawn, socketpair on stdin": (Facts((PARENT, "node", 80), session=80), "shell", True),
    "systemd simple": (Facts(type="simple", cgroup=UNIT, **MINE), "systemd", False),
    "systemd exec": (Facts(type="exec", cgroup=UNIT, **MINE), "systemd", False),
    "systemd notify": (
        Facts(type="notify", cgroup=UNIT, NOTIFY_SOCKET="/run/n", **MINE), "systemd", False),
    "systemd forking": (Facts(type="forking", cgroup=UNIT, **MINE), "systemd", True),
    "systemd forking, no answer": (Facts(PIDFILE="/run/x", cgroup=UNIT, **MINE), "systemd", True),
    "systemd simple, no answer": (Facts(cgroup=UNIT, **MINE), "systemd", False),
    "systemd notify, no answer": (
        Facts(PIDFILE="/run/x", NOTIFY_SOCKET="/run/n", cgroup=UNIT, **MINE), "systemd", False),
    "systemd before 248": (
        Facts((1, "systemd", 1), type="simple", cgroup=UNIT, INVOCATION_ID="8c"), "systemd", False),
    "systemd before 248, through sh -c": (
        Facts(SH, (1, "systemd", 1), type="simple", cgroup=UNIT, INVOCATION_ID="8c"),
        "systemd", False),
    "systemd forking, through sh -c": (
        Facts(SH, session=PARENT, type="forking", cgroup=UNIT, **PARENTS), "systemd", True),
    "systemd simple, through sh -c": (
        Facts(SH, session=PARENT, type="simple", cgroup=UNIT, **PARENTS), "systemd", False),
    "socket activation": (
        Facts(type="simple", cgroup=UNIT, LISTEN_PID=str(ME), LISTEN_FDS="1", **MINE),
        "systemd", False),
    "Accept=yes, StandardInput=socket": (
        Facts(stdin="connected", type="simple", cgroup=UNIT, REMOTE_ADDR="::1", **MINE),
        "systemd", False),
    "systemd --user": (
        Facts((PARENT, "systemd", PARENT), type="simple", cgroup=USER_UNIT,
              MANAGERPID=str(PARENT), **MINE), "systemd", False),
    "systemd-run --scope": (
        Facts(SHELL, (80, "tmux", 80), session=80, tty=True, INVOCATION_ID="8c9f"), "shell", True),
    "a shell below a service": (
        Facts(SHELL, (80, "sshd", 80), tty=True, cgroup=UNIT, INVOCATION_ID="8c9f",
              SYSTEMD_EXEC_PID="80"), "shell", True),
    "inetd nowait": (Facts((PARENT, "inetd", PARENT), stdin="connected"), "inetd", False),
    "tcpserver": (Facts((PARENT, "tcpserver", 80), stdin="connected"), "inetd", False),
    "inetd wait": (Facts((PARENT, "inetd", PARENT), stdin="listening"), "inetd", False),
    "inetd wait, datagrams": (Facts((PARENT, "inetd", 9), stdin="unconnected"), "inetd", False),
    "s6": (Facts((PARENT, "s6-supervise", PARENT)), "s6-supervise", False),
    "runit": (Facts((PARENT, "runsv", 80), session=80), "runsv", False),
    "daemontools": (Facts((PARENT, "supervise", 80), session=80), "supervise", False),
    "perp": (Facts((PARENT, "perpd", 80), session=80), "perpd", False),
    "supervisord": (Facts((PARENT, "supervisord", 80), session=80), "supervisord", False),
    "supervisord as process 1": (Facts(init="supervisord", session=1), "init", False),
    "supervisord as process 1, through python": (
        Facts((PARENT, "python3", 1), init="supervisord", session=1), "supervisord", False),
    "circus": (Facts((PARENT, "circusd", 80)), "circusd", False),
    "openrc supervise-daemon": (
        Facts((PARENT, "supervise-daemo", PARENT), RC_SVCNAME="feed"), "supervise-daemo", False),
    "runit, through sh": (
        Facts((*SH[:2], 80), (85, "runsv", 80), session=80), "runsv", False),
    "runit, two sessions above": (Facts(SH, (85, "runsv", 85)), "shell", True),
    "docker without init": (Facts((0, "", 0), pid=1, session=1), "container", False),
    "docker run -t": (Facts((0, "", 0), pid=1, session=1, tty=True), "container", False),
    "openrc command_background": (Facts(session=77, RC_CMD="start"), "init", False),
    "start-stop-daemon --background": (Facts(session=77), "init", False),
    "tini, in its session": (Facts(session=1), "init", False),
    "dumb-init, own session": (Facts(), "init", False),
    "tini, run -t": (Facts(session=1, tty=True), "init", False),
    "dumb-init, run -t": (Facts(session=ME, tty=True), "init", False),
    "a shell as pid 1": (Facts((1, "sh", 1), session=1), "init", False),
    "exec into a container": (Facts((0, "", 0)), "container", False),
    "exec -t into a container": (Facts((0, "", 0), tty=True), "container", True),
    "orphan without a tty": (Facts(session=77), "init", False),
    "orphan on a tty": (Facts(session=77, tty=True), "shell", True),
    "a pod's shell": (
        Facts(SHELL, session=80, tty=True, KUBERNETES_SERVICE_HOST="10.0.0.1"), "shell", True),
    # Wrappers.
    "container: init, sh -c": (Facts((50, "sh", 1), session=1), "init", False),
    "container: init, sh -c, with -t": (Facts((50, "sh", 1), session=1, tty=True), "init", False),
    "container: init with sessions, uv run": (Facts((50, "uv", 50), session=50), "init", False),
    "container: sh, sudo, timeout": (
        Facts((60, "timeout", 1), (50, "sudo", 1), session=1), "init", False),
    "container: init, a shell that is typed into": (
        Facts((50, "bash", 50), session=50, tty=True), "shell", True),
    "exec into a container, sh -c": (
        Facts((50, "sh", 50), (0, "", 0), session=50), "container", False),
    "systemd simple, two shells": (
        Facts((60, "sh", 50), (50, "sh", 50), session=50, type="simple", cgroup=UNIT,
              INVOCATION_ID="8c", SYSTEMD_EXEC_PID="50"), "systemd", False),
    "systemd forking, sh -c flock": (
        Facts((60, "flock", 50), (50, "sh", 50), session=50, type="forking", cgroup=UNIT,
              INVOCATION_ID="8c", SYSTEMD_EXEC_PID="50"), "systemd", True),
    "systemd simple, sudo -u": (
        Facts((50, "sudo", 50), session=50, type="simple", cgroup=UNIT, init="systemd"),
        "systemd", False),
    "systemd forking, env -i": (
        Facts(type="forking", cgroup=UNIT, init="systemd"), "systemd", True),
    "systemd --user forking, env -i": (
        Facts((90, "systemd", 90), type="forking", cgroup=USER_UNIT), "systemd", True),
    "cron.service": (
        Facts(SH, CRON, session=PARENT, cgroup=UNIT, type="simple", init="systemd"), "shell", True),
    "a scope's shell": (
        Facts((50, "sh", 50), (90, "systemd", 90), session=50, cgroup="0::/user.slice/a.scope\n"),
        "shell", True),
    "a python wrapper below a service": (
        Facts((60, "python3", 50), (50, "sh", 50), session=50, type="simple", cgroup=UNIT,
              INVOCATION_ID="8c", SYSTEMD_EXEC_PID="50"), "shell", True),
    # Managers in our session, and names.
    "supervisord -n in a terminal": (
        Facts((PARENT, "supervisord", 80), (80, "bash", 80), session=80, tty=True),
        "supervisord", False),
    "runsvdir in a terminal": (
        Facts((95, "sh", 80), (PARENT, "runsv", 80), (85, "runsvdir", 80), session=80, tty=True),
        "runsv", False),
    "a login below a supervised getty": (
        Facts((50, "bash", 40), (40, "login", 40), (30, "runsv", 30), session=40, tty=True),
        "shell", True),
    "honcho": (Facts((PARENT, "honcho", 80)), "honcho", False),
    "honcho, in a terminal": (
        Facts((PARENT, "honcho", 80), (80, "bash", 80), session=80, tty=True), "honcho", False),
    "foreman, in a terminal": (
        Facts((PARENT, "foreman", 80), (80, "bash", 80), session=80, tty=True), "foreman", False),
    "pm2": (Facts((PARENT, "PM2 v5.3.0: God", PARENT)), "PM2 v5.3.0: God", False),
}  # fmt: skip


@pytest.mark.parametrize("launcher", TABLE)
def test_the_rule_gives_the_measured_answer(launcher: str) -> None:
    facts, name, detach = TABLE[launcher]
    found = decide(facts)  # type: ignore[arg-type]
    assert (found.name, found.detach) == (name, detach), str(found)
    assert len(found.reason.split()) > 3
    assert str(found) == f"{name}: {found.reason}"


def test_systemd_is_asked_about_the_unit_by_its_manager() -> None:
    for launcher, unit, user in [
        ("systemd simple", "feed.service", False),
        ("systemd --user", "feed.service", True),
    ]:
        facts = TABLE[launcher][0]
        facts.asked.clear()
        reason = decide(facts).reason  # type: ignore[arg-type]
        assert facts.asked == [(unit, user)]
        assert "feed.service has Type=simple" in reason
    facts = TABLE["a shell below a service"][0]
    decide(facts)  # type: ignore[arg-type]
    assert not facts.asked


def test_names_of_managers_are_as_the_kernel_has_them() -> None:
    assert all(len(name) <= 15 for name in MANAGERS)
