"""A real sshd and a real cron get their session back, and hear of a start that fails."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.helpers import servers, support

PROGRAM = """
    import os
    from daemon_context import DaemonContext
    from tests.helpers.launching import report
    print("starting", flush=True)
    context = DaemonContext(pidfile="d.pid", working_directory=".")
    facts = [context.supervisor.name, context.detach_process]
    with context as daemon:
        report("facts", [*facts, os.getuid()])
        daemon.sleep()
"""
FAILURES = {
    "in the launcher": ("DaemonContext(pidfile='no/d.pid').open()", 1, "No such file or directory"),
    "in the daemon": (
        "DaemonContext(pidfile='d.pid', readiness='explicit').open(); 1 / 0",
        1,
        "ZeroDivisionError: division by zero",
    ),
    "told by the program": (
        """
try:
    DaemonContext(pidfile="d.pid", steps=DEFAULT_STEPS.insert_after("set-umask", Fail("exit-7")))\\
        .open()
except DaemonError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
        """,
        3,
        "exited with status 7 before it was ready (step 8 of 16, fail)",
    ),
}
USERS = [pytest.param(name, marks=pytest.mark.root) for name in ("root", "nobody")]
ONESELF = [] if os.geteuid() == 0 else [""]  # without a mount namespace, which needs root


def uid(user: str) -> int:
    return {"root": 0, "nobody": servers.NOBODY, "": os.getuid()}[user]


def check_daemon(server: servers.Server) -> None:
    """It is up by itself, without a terminal, and is no supervisor's; end it."""
    box = server.box
    pid = box.pid()
    assert support.alive(pid)
    assert json.loads(box.text("facts")) == ["shell", True, uid(server.user)]
    assert support.stat(pid)[4] == "0"
    assert {support.descriptors(pid)[fd] for fd in range(3)} == {"/dev/null"}
    assert server.others() == {pid}
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert not (box.path / "d.pid").exists()


def failing(failure: str) -> tuple[str, int, str]:
    body, status, words = FAILURES[failure]
    return f"from tests.helpers.launching import *\n{body.strip()}\n", status, words


# --- sshd


@pytest.fixture(params=[*USERS, *ONESELF], ids=lambda user: user or "oneself")
def sshd(open_box: support.Sandbox, request: pytest.FixtureRequest) -> Iterator[servers.Sshd]:
    shell = pwd.getpwuid(os.getuid()).pw_shell
    if not request.param and os.path.basename(shell) in ("nologin", "false"):
        pytest.skip("this user may not log in")
    with servers.Sshd(open_box, request.param) as sshd:
        sshd.start()
        yield sshd


def ssh(sshd: servers.Sshd, terminal: str, body: str) -> tuple[int, str, str]:
    """Start a program by ssh, with or without a terminal there and here."""
    if terminal and not sshd.user:
        with support.Terminal() as probe:
            if os.fstat(probe.slave).st_gid != servers.TTY:
                pytest.skip("terminals have another group here, which only root's sshd can mend")
    box = sshd.box
    command = sshd.command(*terminal.split(), program=box.script(body))
    if terminal != "-t":
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * support.DEADLINE, env=box.environ,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.replace("\r", ""), done.stderr
    with support.Terminal() as here:
        client = subprocess.Popen(
            ["setsid", "--ctty", *command], env=box.environ, text=True, **here.streams
        )
        box.started.append(client)
        return client.wait(2 * support.DEADLINE), here.output().replace("\r", ""), ""


@pytest.mark.parametrize("terminal", ["", "-tt", "-t"])
def test_ssh_returns_when_the_daemon_has_started(sshd: servers.Sshd, terminal: str) -> None:
    assert ssh(sshd, terminal, PROGRAM) == (0, "starting\n", "")
    sshd.settled()  # and with it the terminal is gone
    check_daemon(sshd)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("terminal", ["", "-tt"])
def test_ssh_tells_how_a_start_has_failed(sshd: servers.Sshd, terminal: str, failure: str) -> None:
    body, status, words = failing(failure)
    returned, out, err = ssh(sshd, terminal, body)
    assert returned == status, (out, err)
    assert words in (out if terminal else err)
    assert (err if terminal else out) == ""
    sshd.settled()
    assert sshd.others() == set()
    assert not (sshd.box.path / "d.pid").exists()


def test_ssh_waits_for_a_daemon_that_keeps_its_streams(sshd: servers.Sshd) -> None:
    """Or the tests above would prove nothing."""
    box = sshd.box
    with (box.path / "out").open("w") as out:
        client = subprocess.Popen(
            sshd.command(program=box.script(support.NAIVE)), stdin=subprocess.DEVNULL, stdout=out,
            env=box.environ, text=True,
        )  # fmt: skip
    box.started.append(client)
    assert box.text("out") == "the launcher is gone\n"
    assert client.poll() is None
    os.kill(box.pid(), signal.SIGKILL)
    assert client.wait(support.DEADLINE) == 0


# --- cron


@pytest.fixture(params=USERS)
def cron(open_box: support.Sandbox, request: pytest.FixtureRequest) -> Iterator[servers.Cron]:
    with servers.Cron(open_box, request.param) as cron:
        yield cron


def test_cron_starts_a_daemon_and_mails_what_the_launcher_has_printed(cron: servers.Cron) -> None:
    cron.run(cron.box.script(PROGRAM))
    assert cron.mail() == "starting\n"
    cron.settled()
    check_daemon(cron)


@pytest.mark.parametrize("failure", FAILURES)
def test_cron_mails_how_a_start_has_failed(cron: servers.Cron, failure: str) -> None:
    body, _, words = failing(failure)
    cron.run(cron.box.script(body))
    assert words in cron.mail()
    cron.settled()
    assert cron.others() == set()
    assert not (cron.box.path / "d.pid").exists()
