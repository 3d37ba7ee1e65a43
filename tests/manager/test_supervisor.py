"""Who started us: the cheap launchers for real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from daemon_context.manager.facts import _is_command
from daemon_context.manager.supervisor import MANAGERS
from tests.helpers import support
from tests.helpers.managers import NAMED, NEW_PIDS, as_main_process

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


@pytest.mark.root
@pytest.mark.needs("unshare")
def test_below_a_process_supervisor_that_is_process_1_it_stays(clean: support.Sandbox) -> None:
    start = [*NEW_PIDS, sys.executable, "-c", NAMED, "supervisord", "shared"]
    wrapper = [sys.executable, "-c", NAMED, "launch.py", "shared"]
    name, detach, reason = asked(clean, *start, *wrapper)
    assert (name, detach) == ("supervisord", False)
    assert reason.startswith("supervisord (pid 1) ")


@pytest.mark.parametrize("manager", ["supervisord", "honcho", "foreman", "PM2 v5.3.0: God"])
def test_a_manager_on_a_terminal_decides_before_it(clean: support.Sandbox, manager: str) -> None:
    start = [*TERMINAL, sys.executable, "-c", NAMED, manager, "shared"]
    assert asked(clean, *start)[:2] == (manager, False)


@pytest.mark.root
@pytest.mark.needs("unshare")
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
    name, found, reason = asked(clean, *as_main_process(clean, body))
    assert (name, found) == ("systemd", detach)
    assert words in reason
    assert time.monotonic() - begun < 4  # asked once, though the probe wants to know it thrice
    assert clean.text("times") == ("asked\n" if body else "no\n")


@pytest.mark.root
def test_a_path_is_not_believed_about_systemctl(clean: support.Sandbox) -> None:
    as_main = as_main_process(clean, "echo Type=simple")
    (clean.path / "bin").mkdir()
    clean.script("#!/bin/sh\ntouch evil\necho Type=forking\n", "bin/systemctl")
    env = {"PATH": f"{clean.path}/bin:{os.environ['PATH']}"}
    name, detach, reason = asked(clean, *as_main, env=env)
    assert (name, detach) == ("systemd", False)
    assert "feed.service has Type=simple" in reason
    assert not (clean.path / "evil").exists()
