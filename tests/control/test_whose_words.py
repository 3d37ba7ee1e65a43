"""The status file counts for the process that has written it, and for no other."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support

TALKER = """
    import sys, time
    from daemon_context import Daemon
    class Talker(Daemon):
        stop_schedule = (("TERM", 0.5), ("KILL", 5))
        def setup(self):
            if "slow" in sys.argv[0]:
                time.sleep(1000)
        def run(self):
            self.tell("old words")
            self.sleep()
        def cleanup(self):
            time.sleep(1000)
    Talker("d.pid").main()
"""
PLAIN = """
    import sys, time
    from daemon_context import DaemonContext
    with DaemonContext(pidfile="d.pid", detach_process=True, signal_map={15: None}) as daemon:
        while True:
            time.sleep(1)
"""


def told(box: support.Sandbox, script: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.run(script, "status", "--json").stdout)
    return found


def succeeded(box: support.Sandbox, script: Path) -> tuple[int, int]:
    """A talker is killed, and a plain context's daemon comes; the pids of both."""
    assert box.run(script, "start").returncode == 0
    support.until(lambda: told(box, script)["text"] == "old words")
    old = box.pid()
    os.kill(old, signal.SIGKILL)
    support.gone(old)
    assert box.run(PLAIN).returncode == 0
    return old, box.pid()


@pytest.fixture
def talker(box: support.Sandbox) -> Path:
    return box.script(TALKER, "talker.py")


def test_a_later_daemon_without_a_status_file_has_no_words(
    box: support.Sandbox, talker: Path
) -> None:
    old, pid = succeeded(box, talker)
    status = told(box, talker)
    assert (status["state"], status["pid"], status["text"]) == ("running", pid, None)
    assert (status["previous"]["how"], status["previous"]["pid"]) == ("vanished", old)
    assert f"runs already, pid {pid}" in box.run(talker, "start").stdout


def test_it_is_not_reloaded(box: support.Sandbox, talker: Path) -> None:
    """SIGHUP would end it."""
    _, pid = succeeded(box, talker)
    done = box.run(talker, "reload")
    assert done.returncode == 1
    assert "what is in" in done.stderr
    assert "is of an earlier daemon" in done.stderr
    assert support.alive(pid)
    assert support.status(pid)["ShdPnd"] == "0" * 16


def test_its_end_is_its_own(box: support.Sandbox, talker: Path) -> None:
    assert box.run(talker, "start").returncode == 0
    old = box.pid()
    assert "had not come to its end" in box.run(talker, "stop").stdout
    assert box.run(PLAIN).returncode == 0
    pid = box.pid()
    assert told(box, talker)["previous"]["pid"] == old
    assert "its cleanup() did not run" in box.run(talker, "stop").stdout
    end = told(box, talker)["last_end"]
    assert (end["how"], end["pid"]) == ("killed", pid)


def test_a_pid_that_has_come_again_is_not_enough(box: support.Sandbox, talker: Path) -> None:
    _, pid = succeeded(box, talker)
    path = box.path / "d.pid.status"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "pid": pid}))
    assert told(box, talker)["state"] == "running"
    assert box.run(talker, "reload").returncode == 1
    assert support.alive(pid)


def test_one_that_was_killed_while_it_was_made_leaves_no_words_for_others(
    box: support.Sandbox,
) -> None:
    slow = box.script(TALKER, "slow.py")
    box.popen(slow, "start")
    support.until(lambda: (box.path / "d.pid.status").exists() and told(box, slow)["pid"])
    support.until(lambda: box.text("d.pid.status"))
    old = box.pid()
    for number in (signal.SIGSTOP, signal.SIGKILL):  # first, so that nobody tidies up
        for pid in box.processes():
            os.kill(pid, number)
    support.until(lambda: not box.processes())
    assert box.run(PLAIN).returncode == 0
    status = told(box, slow)
    assert (status["state"], status["pid"]) == ("running", box.pid())
    assert (status["previous"]["how"], status["previous"]["pid"]) == ("vanished", old)


@pytest.mark.parametrize("by", [{}, {"started": "x"}, {"started": [], "boot": {}, "inode": None}])
def test_nothing_of_a_writer_is_believed(box: support.Sandbox, talker: Path, by: Any) -> None:
    assert box.run(PLAIN).returncode == 0
    said = {**by, "pid": box.pid(), "ready": True, "text": "x", "reloads": 0}
    (box.path / "d.pid.status").write_text(json.dumps(said))
    assert told(box, talker)["state"] == "running"
