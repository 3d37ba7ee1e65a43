"""What follows from who started us."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest

from daemon_context import DaemonContext
from tests.helpers import support
from tests.helpers.managers import NAMED

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
