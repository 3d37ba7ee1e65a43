"""Those who start a program once: shells, cron, sshd, inetd, start-stop-daemon."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers import support
from tests.helpers.servers import Cron, Sshd

from .conftest import which
from .jail import Jail
from .subject import Subject

WAIT = "while :; do wait; sleep 0.01; done"


@pytest.fixture
def jail(open_box: support.Sandbox) -> Iterator[Jail]:
    with Jail(open_box) as jail:
        yield jail


def killed(subject: Subject) -> float:
    """Milliseconds."""
    pid = str(subject.found()["pid"])
    return subject.stop(lambda: subject.jail.ask("kill", pid))


def detaches(subject: Subject, launcher: str, status: str) -> None:
    """What whoever waits for a command sees, after that has returned."""
    found = subject.found()
    assert (found["name"], found["detached"]) == ("shell", True), found
    subject.record(launcher, ready="the command returned", ms=killed(subject), status=status)


# --- detached


@pytest.mark.parametrize("how", ["in a terminal", "nohup", "setsid"])
def test_from_a_shell(jail: Jail, how: str) -> None:
    subject = Subject(jail, "program")
    line = {"nohup": "nohup {}", "setsid": "setsid --wait {}"}.get(how, "{}").format(subject.line())
    jail.begin(WAIT)
    # A session of its own, as a login has.
    if how == "setsid":
        done = jail.ask("setsid", "--wait", "sh", "-c", f"{line}; exit $?")
    else:
        typescript = str(jail.box.path / "typescript")
        done = jail.ask("script", "-qec", f"{line}; exit $?", typescript)
    assert done.returncode == 0, done
    detaches(subject, f"a shell, {how}", "the command: 0")


@pytest.mark.parametrize("terminal", [False, True])
def test_by_ssh_it_detaches_and_the_command_returns(jail: Jail, terminal: bool) -> None:
    which("ssh")
    subject = Subject(jail, "program")
    server = Sshd(jail.box, "root")
    server.port = 2222  # of a network of its own
    log = jail.box.path / "sshd.log"
    jail.begin(f"{shlex.join(server._command(log))} & {WAIT}")
    support.until(lambda: log.exists() and "Server listening" in log.read_text(), what=jail.said)
    options = ["-tt"] if terminal else []
    *ssh, _ = server.command(*options, program="")
    _, *arguments = subject.argv()
    done = jail.ask(*ssh, shlex.join([server.python, *arguments]))
    assert (done.returncode, done.stderr) == (0, ""), (done, jail.said)
    detaches(subject, "ssh -tt" if terminal else "ssh", "the command: 0")


class JailedCron(Cron):
    """cron, below process 1 of the namespaces."""

    def __init__(self, jail: Jail) -> None:
        super().__init__(jail.box, "root")
        self.jail = jail

    def begin(self, command: list[str]) -> None:  # type: ignore[override]
        self.jail.begin(f"{shlex.join(command)} & {WAIT}")


def test_by_cron_it_detaches(jail: Jail) -> None:
    which("cron")
    subject = Subject(jail, "program")
    cron = JailedCron(jail)
    _, _, *arguments = subject.argv()
    cron.run(shlex.join(arguments))  # type: ignore[arg-type]
    detaches(subject, "cron", "no mail")
    assert not (jail.box.path / "mail").exists()


# --- not detached


@pytest.mark.parametrize("kind", ["nowait", "wait"])
def test_below_inetd_it_stays(jail: Jail, kind: str) -> None:
    inetd = which("inetd")
    subject = Subject(jail, "program")
    environ = f"PYTHONPATH={jail.environ['PYTHONPATH']}"
    config = jail.box.path / "inetd.conf"
    config.write_text(f"2323 stream tcp {kind} root /usr/bin/env env {environ} {subject.line()}\n")
    jail.begin(f"{inetd} -i {config} & {WAIT}")
    client = f"import socket, time\n{CONNECT}"
    connection = subprocess.Popen(jail.enter(sys.executable, "-c", client), stdin=subprocess.PIPE)
    try:
        found = subject.found()
        assert (found["name"], found["detached"]) == ("inetd", False), found
        assert f"({kind})" in found["reason"]
        subject.record(f"inetd, {kind}", ms=killed(subject), status="not looked at")
    finally:
        connection.communicate()
    assert subject.wrote("ended") == "0"


CONNECT = """
deadline = time.monotonic() + 20
while True:
    try:
        connection = socket.create_connection(("127.0.0.1", 2323))
        break
    except OSError: # not yet
        assert time.monotonic() < deadline
        time.sleep(0.01)
input_is_closed = open(0).read()
"""


@pytest.mark.parametrize("await_ready", [False, True])
def test_below_start_stop_daemon_it_stays(jail: Jail, await_ready: bool) -> None:
    command = which("start-stop-daemon")
    subject = Subject(jail, "program")
    pidfile = jail.box.path / "ssd.pid"
    ours = ["--background", "--make-pidfile", "--pidfile", str(pidfile), "--startas"]
    notify = ["--notify-await", "--notify-timeout", "6"] if await_ready else []
    jail.begin(WAIT)
    python, *arguments = subject.argv()
    done = jail.ask(command, "--start", *notify, *ours, python, "--", *arguments)
    assert done.returncode == 0, done
    found = subject.found()
    assert (found["name"], found["detached"]) == ("init", False), found
    assert int(pidfile.read_text()) == found["pid"]
    if await_ready:
        assert "NOTIFY_SOCKET" not in found["marks"]
    stop = ["--stop", "--pidfile", str(pidfile), "--retry", "TERM/8"]
    statuses: list[int] = []
    ms = subject.stop(lambda: statuses.append(jail.ask(command, *stop).returncode))
    assert statuses == [0]
    subject.record(
        "start-stop-daemon --background" + " --notify-await" * await_ready,
        ready="READY=1" if await_ready else "not asked", ms=ms, status="--stop: 0",
    )  # fmt: skip
    assert subject.wrote("ended") == "0"
