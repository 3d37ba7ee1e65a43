"""Who started us: every measured launcher as facts, and the cheap ones for real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from daemon_context import DaemonContext
from daemon_context.manager.facts import _is_command
from daemon_context.manager.supervisor import MANAGERS, decide

from . import support

ME, PARENT = 100, 90
UNIT = "0::/system.slice/feed.service\n"
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


# --- real processes

PROBE = """
    import sys
    from daemon_context import DaemonContext
    context = DaemonContext()
    found = context.supervisor
    if not sys.argv[1:]:
        assert context.detach_process is found.detach
        assert str(found) in str(context.explain())
    print(found.name, found.detach, found.reason, sep="|", flush=True)
"""
# Runs a command on a new terminal that it controls, and takes its output.
ON_TERMINAL = """
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    os.write(1, data.replace(b"\\r", b""))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
TERMINAL = [sys.executable, "-c", ON_TERMINAL]
# Takes another name, as /proc has it, and runs a command as its child.
NAMED = """
import subprocess, sys
with open("/proc/self/comm", "w") as file:
    file.write(sys.argv[1])
own = sys.argv[2] == "own"
sys.exit(subprocess.run(sys.argv[3:], start_new_session=own).returncode)
"""
NEW_PIDS = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture
def clean(box: support.Sandbox) -> support.Sandbox:
    """Without the marks of whoever runs the tests."""
    for name in ("INVOCATION_ID", "SYSTEMD_EXEC_PID", "PIDFILE", "NOTIFY_SOCKET", "LISTEN_PID"):
        box.environ.pop(name, None)
    return box


def asked(
    box: support.Sandbox, *prefix: str, args: tuple[str, ...] = (), **kwargs: Any
) -> tuple[str, bool, str]:
    done = box.run(PROBE, *args, prefix=list(prefix), **kwargs)
    assert (done.returncode, done.stderr) == (0, ""), done
    name, detach, reason = done.stdout.strip().split("|")
    return name, detach == "True", reason


def test_on_a_terminal_it_detaches(clean: support.Sandbox) -> None:
    assert asked(clean, *TERMINAL) == ("shell", True, "it was started from a terminal")


def test_without_a_terminal_and_a_supervisor_it_detaches(clean: support.Sandbox) -> None:
    name, detach, _ = asked(clean, "setsid", "--wait", "sh", "-c", '"$@"; exit $?', "sh")
    assert (name, detach) == ("shell", True)


@pytest.mark.root
def test_as_process_1_it_stays(clean: support.Sandbox) -> None:
    name, detach, reason = asked(clean, *NEW_PIDS)
    assert (name, detach) == ("container", False)
    assert "process 1" in reason


@pytest.mark.root
@pytest.mark.needs("unshare")
@pytest.mark.parametrize("terminal", [[], TERMINAL], ids=["no-tty", "tty"])
def test_below_a_shell_as_process_1_it_stays(clean: support.Sandbox, terminal: list[str]) -> None:
    name, detach, reason = asked(clean, *terminal, *NEW_PIDS, "sh", "-c", '"$@"; exit $?', "sh")
    assert (name, detach) == ("init", False)
    assert "parent is process 1" in reason


@pytest.mark.root
@pytest.mark.needs("unshare")
@pytest.mark.parametrize("terminal", [False, True])
def test_run_into_a_container_it_detaches_only_on_a_terminal(
    clean: support.Sandbox, terminal: bool
) -> None:
    script = clean.script("import sys; print('up', flush=True); sys.stdin.read()", "init.py")
    init = clean.popen(script, prefix=NEW_PIDS)
    assert init.stdout is not None
    assert init.stdout.readline() == "up\n"
    (inner,) = (
        int(pid) for pid in Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()
    )
    enter = ["nsenter", "--target", str(inner), "--pid", "--mount"]
    name, detach, reason = asked(clean, *(TERMINAL if terminal else []), *enter)
    assert (name, detach) == ("container", terminal)
    assert ("terminal" if terminal else "outside the container") in reason
    init.communicate()


ORPHAN = """
    import os, time
    deadline = time.monotonic() + 20
    while os.getppid() != 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    from daemon_context import DaemonContext
    found = DaemonContext().supervisor
    with open("found.tmp", "w") as file:
        print(found.name, found.detach, os.getppid(), sep="|", file=file)
    os.rename("found.tmp", "found")
"""


@pytest.mark.root
@pytest.mark.needs("unshare")
@pytest.mark.parametrize("terminal", [False, True])
def test_an_orphan_detaches_only_on_a_terminal(clean: support.Sandbox, terminal: bool) -> None:
    # Process 1 of the namespace is a shell; below it a session, in which a launcher goes away.
    orphan = clean.script(ORPHAN, "orphan.py")
    launch = f"(sh -c '{sys.executable} {orphan} </dev/null &'); "
    launch += "while ! [ -e found ]; do sleep 0.01; done; cat found"
    session = TERMINAL if terminal else ["setsid", "--wait"]
    done = clean.run(
        clean.script("import subprocess, sys; subprocess.run(sys.argv[1:])", "outer.py"),
        *NEW_PIDS, "sh", "-c", '"$@"; exit $?', "sh", *session, "sh", "-c", launch,
    )  # fmt: skip
    expected = "shell|True|1" if terminal else "init|False|1"
    assert (done.stdout.strip(), done.stderr) == (expected, "")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["inet", "unix"])
def test_a_connected_socket_on_stdin_is_inetds(
    clean: support.Sandbox, family: socket.AddressFamily
) -> None:
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(clean.path / "s"))
        listener.listen()
        name, detach, reason = asked(clean, stdin=listener)
        assert (name, detach) == ("inetd", False)
        assert "listening" in reason
        assert "(wait)" in reason
        with (
            socket.create_connection(listener.getsockname())
            if family == socket.AF_INET
            else (socket.socket(family)) as client
        ):
            if family == socket.AF_UNIX:
                client.connect(listener.getsockname())
            with listener.accept()[0] as connection:
                name, detach, reason = asked(clean, stdin=connection)
    assert (name, detach) == ("inetd", False)
    assert "connected" in reason
    assert "(nowait)" in reason


def test_a_datagram_socket_on_stdin_is_inetds(clean: support.Sandbox) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        name, detach, reason = asked(clean, stdin=server)
    assert (name, detach) == ("inetd", False)
    assert "unconnected" in reason
    assert "(wait)" in reason


def test_an_unnamed_socket_pair_on_stdin_is_not(clean: support.Sandbox) -> None:
    left, right = socket.socketpair()
    with left, right:
        assert asked(clean, "setsid", "--wait", stdin=right)[:2] == ("shell", True)
        left.close()
        assert asked(clean, "setsid", "--wait", stdin=right)[:2] == ("shell", True)


def test_a_socket_of_ones_own_that_got_the_number_of_a_closed_stdin_is_not(
    clean: support.Sandbox,
) -> None:
    done = clean.run(
        """
        import socket
        from daemon_context import DaemonContext
        listener = socket.create_server(("127.0.0.1", 0))
        assert listener.fileno() == 0
        found = DaemonContext().supervisor
        print(found.name, found.detach)
        """,
        prefix=["setsid", "--wait", "sh", "-c", '"$@" <&-', "sh"],
    )
    assert (done.stdout, done.stderr) == ("shell True\n", "")


@pytest.mark.parametrize("stdin", ["null", "closed", "pair", "pipe"])
def test_used_up_descriptors_are_not_taken_for_inetd(clean: support.Sandbox, stdin: str) -> None:
    left, right = socket.socketpair()
    prefix = ["sh", "-c", '"$@" <&-', "sh"] if stdin == "closed" else []
    with left, right:
        done = clean.run(
            """
            import os, resource, sys
            from daemon_context import DaemonContext, DaemonError
            from daemon_context.manager.supervisor import detect
            from daemon_context.options.freezing import freeze
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
            try:
                while True:
                    os.open("/dev/null", os.O_RDONLY)
            except OSError as error:
                assert error.errno == 24
            found = detect()
            print(found.name, found.detach)
            try:
                DaemonContext().open()
            except (DaemonError, OSError) as error:
                print(error)
                sys.exit(7)
            """,
            prefix=["setsid", "--wait", *prefix],
            stdin={"pair": right, "pipe": subprocess.PIPE}.get(stdin, subprocess.DEVNULL),
        )
    first, second = done.stdout.splitlines()
    assert first == "shell True"
    assert "Too many open files" in second
    assert done.returncode == 7
    clean.settled()


@pytest.mark.parametrize("manager", sorted(MANAGERS))
@pytest.mark.parametrize("session", ["shared", "own"])
def test_below_a_process_supervisor_it_stays(
    clean: support.Sandbox, manager: str, session: str
) -> None:
    start = ["setsid", "--wait", sys.executable, "-c", NAMED, manager, session]
    name, detach, reason = asked(clean, *start)
    assert (name, detach) == (manager, False)
    assert reason.startswith(f"{manager} (pid ")


@pytest.mark.parametrize("manager", ["supervisord", "honcho", "foreman", "PM2 v5.3.0: God"])
def test_a_manager_on_a_terminal_decides_before_it(clean: support.Sandbox, manager: str) -> None:
    start = [*TERMINAL, sys.executable, "-c", NAMED, manager, "shared"]
    assert asked(clean, *start)[:2] == (manager, False)


@pytest.mark.root
@pytest.mark.parametrize("terminal", [[], TERMINAL], ids=["no-tty", "tty"])
@pytest.mark.parametrize("session", ["shared", "own"])
def test_wrappers_below_an_init_are_seen_through(
    clean: support.Sandbox, terminal: list[str], session: str
) -> None:
    init = [*NEW_PIDS, sys.executable, "-c", NAMED, "tini", session]
    wrappers = ["sh", "-c", '"$@"; exit $?', "sh", "timeout", "60"]
    name, detach, reason = asked(clean, *terminal, *init, *wrappers)
    assert (name, detach) == ("init", False)
    assert "it runs below sh (pid " in reason


@pytest.mark.root
def test_a_shell_that_is_typed_into_is_no_wrapper(clean: support.Sandbox) -> None:
    init = [*NEW_PIDS, sys.executable, "-c", NAMED, "tini", "shared", "bash", "--norc", "-i"]
    outer = clean.script("import os, sys; os.execvp(sys.argv[1], sys.argv[1:])", "outer.py")
    with support.Terminal() as terminal:
        clean.popen(outer, *init, prefix=["setsid", "--ctty"], **terminal.streams)
        terminal.type(f"{sys.executable} {clean.script(PROBE)} once > found; exit\n")
        assert clean.text("found") == "shell|True|it was started from a terminal\n"
        clean.settled()


@pytest.mark.parametrize(("arguments", "runs"), [
    ("", False), ("-i", False), ("-l", False), ("--login", False), ("--norc -i", False),
    ("-c x", True), ("-lc x", True), ("-e script", True), ("script", True), ("-", False),
])  # fmt: skip
def test_what_a_shell_was_given_to_run(arguments: str, runs: bool) -> None:
    assert any(map(_is_command, arguments.split())) is runs


def test_a_wrapper_below_a_process_supervisor_changes_nothing(clean: support.Sandbox) -> None:
    start = ["setsid", "--wait", sys.executable, "-c", NAMED, "runsv", "shared"]
    assert asked(clean, *start, "sh", "-c", '"$@"; exit $?', "sh")[:2] == ("runsv", False)


def test_a_parent_that_is_no_supervisor_changes_nothing(clean: support.Sandbox) -> None:
    start = ["setsid", "--wait", sys.executable, "-c", NAMED, "monit", "shared"]
    assert asked(clean, *start)[:2] == ("shell", True)


# --- systemd's answer, from a systemctl that the test puts on the path

SYSTEMCTLS = {
    "simple": (
        '[ "$*" = "show -p Type -p MainPID feed.service" ] && echo MainPID=1 && echo Type=simple',
        False,
        "Type=simple",
    ),
    "forking": ("echo Type=forking", True, "Type=forking"),
    "fails": ("echo Type=forking; exit 4", False, "main process"),
    "hangs": ("exec sleep 600", False, "main process"),
    "silent": ("exit 0", False, "main process"),
    "absent": ("", False, "main process"),
}


@pytest.mark.root
@pytest.mark.parametrize("behaviour", SYSTEMCTLS)
def test_systemctl_is_asked_and_need_not_answer(clean: support.Sandbox, behaviour: str) -> None:
    body, detach, words = SYSTEMCTLS[behaviour]
    begun = time.monotonic()
    name, found, reason = asked(clean, *_as_main(clean, body))
    assert (name, found) == ("systemd", detach)
    assert words in reason
    assert time.monotonic() - begun < 4  # asked once, though the probe wants to know it thrice
    assert clean.text("times") == ("asked\n" if body else "no\n")


def _as_main(box: support.Sandbox, body: str, tail: str = "") -> list[str]:
    """A prefix that makes a program the main process of a service, with a systemctl of ours."""
    box.script(f"#!/bin/sh\necho asked >> {box.path}/times\n{body}\n", "systemctl")
    if not body:
        (box.path / "systemctl").chmod(0o644)
        (box.path / "times").write_text("no\n")
    (box.path / "cgroup").write_text(UNIT)
    command = (
        "mount --bind cgroup /proc/$$/cgroup; mount --bind systemctl /usr/bin/systemctl; "
        "export SYSTEMD_EXEC_PID=$$ INVOCATION_ID=8c; " + (tail or 'exec "$@"')
    )
    return ["unshare", "--mount", "sh", "-ec", command, "sh"]


@pytest.mark.root
def test_a_path_is_not_believed_about_systemctl(clean: support.Sandbox) -> None:
    as_main = _as_main(clean, "echo Type=simple")
    (clean.path / "bin").mkdir()
    clean.script("#!/bin/sh\ntouch evil\necho Type=forking\n", "bin/systemctl")
    env = {"PATH": f"{clean.path}/bin:{os.environ['PATH']}"}
    name, detach, reason = asked(clean, *as_main, env=env)
    assert (name, detach) == ("systemd", False)
    assert "feed.service has Type=simple" in reason
    assert not (clean.path / "evil").exists()


# --- what follows from it

STARTED = """
    import os, sys
    from daemon_context import DaemonContext
    launcher = os.getpid()
    with DaemonContext(detach_process=eval(sys.argv[1])) as daemon:
        print("to stdout", flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        with open(sys.argv[2], "w") as file:
            print(os.getpid() == launcher, daemon.supervisor.reason, sep="|", file=file)
            print(*(os.readlink(f"/proc/self/fd/{n}") for n in range(3)), sep="|", file=file)
"""
SUPERVISED = ["setsid", "--wait", sys.executable, "-c", NAMED, "runsv", "shared"]


def test_a_supervised_process_stays_and_keeps_its_streams(clean: support.Sandbox) -> None:
    with (clean.path / "in").open("w+") as stdin:
        done = clean.run(STARTED, None, clean.path / "found", prefix=SUPERVISED, stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr) == (0, "to stdout\n", "to stderr\n")
    first, second = (clean.path / "found").read_text().splitlines()
    assert first.startswith("True|runsv (pid ")
    assert second.split("|")[0] == str(clean.path / "in")
    assert all(place.startswith("pipe:") for place in second.split("|")[1:])


@pytest.mark.parametrize("detach", [False, True])
def test_a_given_detach_process_wins_and_none_is_dev_null(
    clean: support.Sandbox, detach: bool
) -> None:
    done = clean.run(STARTED, detach, clean.path / "found", prefix=SUPERVISED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    support.until(lambda: (clean.path / "found").exists() and "null" in clean.text("found"))
    first, second = clean.text("found").splitlines()
    assert first == f"{not detach}|detach_process={detach} was given"
    assert second == "/dev/null|/dev/null|/dev/null"
    clean.settled()


def test_supervisor_and_explain_give_the_reason() -> None:
    context = DaemonContext(detach_process=False)
    assert "detach_process=False was given" in context.explain()["detach"].text
    assert DaemonContext().supervisor.reason


@pytest.mark.parametrize("preserve", [None, []])
def test_activated_sockets_are_preserved_and_follow_the_daemon(
    clean: support.Sandbox, preserve: Any
) -> None:
    done = clean.run(
        """
        import os, socket, sys
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for number, listener in enumerate(listeners):
            os.dup2(listener.fileno(), 50 + number)
        for number in range(2):
            os.dup2(50 + number, 3 + number)
        other = os.open("/dev/null", os.O_RDONLY)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
        print(*(listener.getsockname()[1] for listener in listeners), flush=True)
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=True, files_preserve=eval(sys.argv[1]), stdout="log"):
            assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ["LISTEN_PID"]
            for number in (3, 4):
                with socket.socket(fileno=os.dup(number)) as listener:
                    listener.settimeout(20)
                    with listener.accept()[0] as connection:
                        connection.sendall(os.environ["LISTEN_FDS"].encode())
            for number in (other, 50, 51):
                try:
                    os.read(number, 0)
                except OSError:
                    print("closed", flush=True)
        """,
        preserve,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for port in done.stdout.split():
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as client:
            assert client.recv(9) == b"2"
    support.until(lambda: clean.text("log") == "closed\n" * 3)
    clean.settled()


def test_marks_of_another_process_are_left_alone(clean: support.Sandbox) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
    done = clean.run(
        """
        import os
        from daemon_context import DaemonContext
        null = os.open("/dev/null", os.O_RDONLY)
        with DaemonContext(detach_process=True, stdout="log"):
            try:
                os.fstat(null)
                os.read(null, 1)
            except OSError:
                print(os.environ["LISTEN_PID"], flush=True)
        """,
        env=environ,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert clean.text("log") == f"{os.getpid()}\n"
