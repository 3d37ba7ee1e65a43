"""The examples that embed a daemon: a tool with a helper, and an asyncio service."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.helpers import support


@pytest.fixture
def examples(box: support.Sandbox) -> Path:
    """A copy of the examples, which nothing ties to the repository."""
    return Path(shutil.copytree(support.ROOT / "examples", box.path / "examples"))


# --- the tool and its helper


def tool(box: support.Sandbox, examples: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return box.run(examples / "helper_tool.py", *args)


def test_the_tool_starts_its_helper_once_and_goes_on(box: support.Sandbox, examples: Path) -> None:
    first = tool(box, examples, "next")
    assert (first.returncode, first.stdout, first.stderr) == (0, "1\n", "")
    pid = box.pid("helper.pid")
    assert support.stat(pid)[3] != str(pid)
    assert [tool(box, examples, "next").stdout for _ in range(2)] == ["2\n", "3\n"]
    assert box.pid("helper.pid") == pid
    assert (box.path / "helper.socket").stat().st_mode & 0o777 == 0o700
    assert tool(box, examples, "stop").returncode == 0
    assert not box.processes()
    assert not (box.path / "helper.pid").exists()
    assert not (box.path / "helper.socket").exists()
    assert (box.path / "helper.log").read_text() == ""


def test_many_tools_at_once_share_one_helper(box: support.Sandbox, examples: Path) -> None:
    tools = [box.popen(examples / "helper_tool.py", "next") for _ in range(12)]
    answers = [program.communicate(timeout=support.DEADLINE) for program in tools]
    assert {errors for _, errors in answers} == {""}
    assert sorted(int(number) for number, _ in answers) == [*range(1, 13)]
    assert box.processes() == {box.pid("helper.pid")}
    assert tool(box, examples, "stop").returncode == 0


def test_the_tool_replaces_a_helper_that_was_killed(box: support.Sandbox, examples: Path) -> None:
    tool(box, examples, "next")
    pid = box.pid("helper.pid")
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)
    assert (box.path / "helper.socket").exists()
    assert tool(box, examples, "next").stdout == "1\n"
    assert box.pid("helper.pid") != pid
    assert tool(box, examples, "stop").returncode == 0


def test_the_tool_shows_why_its_helper_does_not_start(box: support.Sandbox, examples: Path) -> None:
    place = box.path / ("d" * 120)  # too long for the address of a socket
    place.mkdir()
    done = tool(box, examples, "next", str(place))
    assert (done.returncode, done.stdout) == (1, "")
    assert "AF_UNIX path too long" in done.stderr
    box.settled()
    assert not (place / "helper.pid").exists()


def frozen_helper(box: support.Sandbox, examples: Path) -> int:
    """One that has given its first number, and then stands still until SIGCONT."""
    assert tool(box, examples, "next").stdout == "1\n"
    pid = box.pid("helper.pid")
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_client_that_goes_away_does_not_end_the_helper(
    box: support.Sandbox, examples: Path
) -> None:
    pid = frozen_helper(box, examples)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(box.path / "helper.socket"))
    os.kill(pid, signal.SIGCONT)
    assert tool(box, examples, "next").stdout == "3\n"
    assert box.pid("helper.pid") == pid
    assert tool(box, examples, "stop").returncode == 0


def test_a_tool_whose_helper_dies_before_it_answers_asks_another_one(
    box: support.Sandbox, examples: Path
) -> None:
    pid = frozen_helper(box, examples)
    asking = box.popen(examples / "helper_tool.py", "next")
    place = f"{box.path / 'helper.socket'}\n"
    support.until(lambda: Path("/proc/net/unix").read_text().count(place) == 2, what="connected")
    os.kill(pid, signal.SIGKILL)
    assert asking.communicate() == ("1\n", "")
    assert tool(box, examples, "stop").returncode == 0


def test_stopping_no_helper_is_an_error(box: support.Sandbox, examples: Path) -> None:
    done = tool(box, examples, "stop")
    assert done.returncode == 1
    assert "helper.pid" in done.stderr
    assert tool(box, examples).returncode == 2


# --- the service


def service(box: support.Sandbox, examples: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return box.run(examples / "asyncio_service.py", *args)


def test_the_service_answers_says_how_it_is_and_stops(box: support.Sandbox, examples: Path) -> None:
    assert service(box, examples, "status").returncode == 3
    started = service(box, examples, "start")
    assert (started.returncode, started.stderr) == (0, "")
    pid = box.pid("asyncio-service.pid")
    with socket.create_connection(("127.0.0.1", int(started.stdout))) as client:
        client.sendall(b"hello\n")
        assert client.recv(64) == b"HELLO\n"
        running = service(box, examples, "status")
        assert running.returncode == 0
        assert running.stdout == f"running with pid {pid}\n"
        again = service(box, examples, "start")
        assert (again.returncode, again.stdout) == (1, "")
        assert f"already running with pid {pid}" in again.stderr
        assert service(box, examples, "stop").returncode == 0
        assert client.recv(64) == b""
    assert not box.processes()
    assert not (box.path / "asyncio-service.pid").exists()
    assert box.text("asyncio-service.log") == "the loop has ended\n"
    stopped = service(box, examples, "status")
    assert (stopped.returncode, stopped.stdout) == (3, "not running\n")
    assert service(box, examples, "stop").returncode == 1
    assert service(box, examples).returncode == 2


def test_sigterm_ends_the_loop_cleanly(box: support.Sandbox, examples: Path) -> None:
    assert service(box, examples, "start").returncode == 0
    pid = box.pid("asyncio-service.pid")
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert box.text("asyncio-service.log") == "the loop has ended\n"
    assert not (box.path / "asyncio-service.pid").exists()
    box.settled()
