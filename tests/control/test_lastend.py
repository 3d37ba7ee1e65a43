"""How the last daemon ended is remembered, and `status` says it."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support

SCRIPT = """
    import os, signal, sys, time, urllib.error
    from daemon_context import Daemon
    class Work(Daemon):
        def run(self):
            while not os.path.exists(GO):
                self.sleep(0.01) if LOOP else time.sleep(0.01)
                if LOOP and self.stop_requested:
                    return
            {body}
        def cleanup(self):
            with open(ENDING, "a") as file:
                print(self.ending.how, self.ending.signal, self.ending.exit_status, file=file)
                print(repr(self.ending.error), file=file)
    GO, ENDING, LOOP = os.path.abspath("go"), os.path.abspath("ending"), {loop}
    if __name__ == "__main__":
        Work("d.pid", stderr="d.err", settle=0).main()
"""


def program(box: support.Sandbox, body: str = "pass", loop: bool = True) -> Path:
    return box.script(SCRIPT.format(body=body, loop=loop), "poller.py")


def last_end(box: support.Sandbox, script: Path, status: int = 3) -> dict[str, Any]:
    done = box.run(script, "status", "--json")
    assert done.returncode == status, done
    found: dict[str, Any] = json.loads(done.stdout)["last_end"]
    assert set(found) == {
        *("how", "at", "pid", "exit_status", "signal", "error", "where", "text"),
    }
    return found


def words(box: support.Sandbox, script: Path) -> str:
    return box.run(script, "status").stdout.strip()


def start(box: support.Sandbox, script: Path) -> int:
    done = box.run(script, "start")
    assert done.returncode == 0, done
    return box.pid()


WAYS = {
    "urllib.request.urlopen('nonsense://x')": ("exception", 1, "URLError: <urlopen error"),
    "raise KeyError('k')": ("exception", 1, "KeyError: 'k'"),
    "sys.exit(3)": ("exit", 3, None),
    "sys.exit('no\\x1b[2J more')": ("exit", 1, None),
    "return 4": ("exit", 4, None),
    "return": ("exit", 0, None),
}


@pytest.mark.parametrize("body", WAYS)
def test_an_end_of_its_own(box: support.Sandbox, body: str) -> None:
    how, status, error = WAYS[body]
    script = program(box, f"import urllib.request; {body}")
    pid = start(box, script)
    (box.path / "go").touch()
    support.gone(pid)
    found = last_end(box, script)
    assert (found["how"], found["exit_status"], found["pid"]) == (how, status, pid)
    assert found["signal"] is None
    at = datetime.fromisoformat(found["at"])
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    said = words(box, script)
    assert re.match(
        rf"Work: not running; the last one \(pid {pid}\) ended \d{{4}}-\d\d-\d\d ", said
    )
    assert "\x1b" not in said
    if error:
        assert found["error"].startswith(error)
        assert re.fullmatch(rf"{script}:\d+", found["where"])
        assert re.search(rf"{re.escape(error)}.* \(poller\.py:\d+\); see {box.path}/d\.err$", said)
    else:
        assert (found["error"], found["where"]) == (None, None)
        assert f"exit status {status}" in said
    assert box.text("ending").startswith(f"{how} None {status}\n")


@pytest.mark.parametrize("loop", [False, True])
def test_a_stop_was_requested(box: support.Sandbox, loop: bool) -> None:
    script = program(box, loop=loop)
    pid = start(box, script)
    assert json.loads(box.run(script, "status", "--json").stdout)["last_end"] is None
    assert box.run(script, "stop").stdout.startswith(f"Work: stopped (pid {pid}")
    found = last_end(box, script)
    assert (found["how"], found["signal"], found["exit_status"]) == ("requested", "SIGTERM", 0)
    assert words(box, script).endswith(": asked to stop, by SIGTERM")
    assert box.text("ending").startswith("requested SIGTERM 0\n")


def test_after_the_next_start_it_is_the_previous_one(box: support.Sandbox) -> None:
    script = program(box, "raise KeyError('k')")
    start(box, script)
    (box.path / "go").touch()
    box.settled()
    found = last_end(box, script)
    (box.path / "go").unlink()
    start(box, script)
    status = json.loads(box.run(script, "status", "--json").stdout)
    assert (status["last_end"], status["previous"]) == (None, found)
    assert box.run(script, "stop").returncode == 0
    assert last_end(box, script)["how"] == "requested"


def test_a_failed_start_leaves_what_was_remembered(box: support.Sandbox) -> None:
    script = program(box, "raise KeyError('k')")
    start(box, script)
    (box.path / "go").touch()
    box.settled()
    found = last_end(box, script)
    failing = box.script(
        "import os, poller\n"
        "class Work(poller.Work):\n"
        "    def setup(self): raise OSError('no')\n"
        "Work('d.pid').main()"
    )
    assert box.run(failing, "start").returncode == 1
    assert last_end(box, script) == found


def test_one_that_was_killed_from_outside_has_vanished(box: support.Sandbox) -> None:
    script = program(box)
    pid = start(box, script)
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)
    found = last_end(box, script, status=1)
    assert (found["how"], found["pid"], found["at"]) == ("vanished", pid, None)
    assert "vanished" in words(box, script)
    done = box.run(script, "stop")
    assert (done.returncode, done.stdout) == (
        0,
        f"Work: was not running; removed what pid {pid} had left\n",
    )
    assert not (box.path / "d.pid").exists()
    assert not (box.path / "d.pid.lock").exists()
    assert last_end(box, script)["how"] == "vanished"
    start(box, script)
    status = json.loads(box.run(script, "status", "--json").stdout)
    assert status["previous"]["how"] == "vanished"


def test_a_start_after_one_that_vanished_remembers_it(box: support.Sandbox) -> None:
    script = program(box)
    pid = start(box, script)
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)
    start(box, script)
    status = json.loads(box.run(script, "status", "--json").stdout)
    assert (status["previous"]["how"], status["previous"]["pid"]) == ("vanished", pid)


@pytest.mark.root
def test_of_another_users_daemon(public: Path, box: support.Sandbox) -> None:
    """The file stays, though the daemon may neither remove nor replace it; who kills it, can."""
    script = box.script(f"""
        import signal, sys, time
        from daemon_context import Daemon
        class Work(Daemon):
            stop_schedule = (("TERM", 0.2), ("KILL", 5))
            def run(self):
                self.sleep() if sys.argv[2] == "good" else time.sleep(1000)
        if sys.argv[1:] == ["start", "bad"]:
            Work("{public}/d.pid", uid=65534, signal_map={{signal.SIGTERM: None}}).main(["start"])
        Work("{public}/d.pid", uid=65534).main([*sys.argv[1:2], *sys.argv[3:]])
    """)
    assert box.run(script, "start", "good").returncode == 0
    assert box.run(script, "stop", "good").returncode == 0
    end = json.loads(box.run(script, "status", "good", "--json").stdout)["last_end"]
    assert (end["how"], end["signal"]) == ("requested", "SIGTERM")
    assert (public / "d.pid.status").stat().st_uid == 65534
    assert box.run(script, "start", "bad").returncode == 0
    pid = box_pid(public)
    done = box.run(script, "stop", "bad")
    assert done.returncode == 0
    assert f"killed pid {pid}, which had not ended 0.2 s after SIGTERM" in done.stdout
    found = (public / "d.pid.status").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o644)
    end = json.loads(box.run(script, "status", "bad", "--json").stdout)["last_end"]
    assert (end["how"], end["pid"]) == ("killed", pid)


def box_pid(public: Path) -> int:
    return int(support.until(lambda: (public / "d.pid").read_text().strip()))


@pytest.mark.root
def test_root_follows_nothing_of_the_daemons_user(public: Path, box: support.Sandbox) -> None:
    """Who has made a link of the status file gets nothing written through it."""
    secret = box.path / "secret"
    secret.write_text("mine")
    public.chmod(0o777)
    script = box.script(f"""
        import os, signal, sys, time
        from daemon_context import Daemon
        class Work(Daemon):
            stop_schedule = (("TERM", 0.2), ("KILL", 5))
            def run(self):
                for name in "d.pid.status", "d.pid.status.new":
                    path = os.path.join("{public}", name)
                    if os.path.lexists(path):
                        os.unlink(path)
                    os.symlink("{secret}", path)
                open("{public}/done", "w").close()
                while True:
                    time.sleep(1)
        Work("{public}/d.pid", uid=65534, signal_map={{signal.SIGTERM: None}}).main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: (public / "done").exists())
    assert "killed pid" in box.run(script, "stop").stdout
    assert secret.read_text() == "mine"
    assert box.run(script, "status").returncode == 3


@pytest.mark.parametrize(
    "said",
    [
        {"ended": {"how": "exception", "text": "\x1b[2J", "pid": "x", "at": 7, "more": 1}},
        {"ended": {"how": ["x"]}},
        {"ended": 5, "previous": {"how": "nonsense"}},
        {"ended": {"how": "exit", "at": "9" * 5000, "text": "x" * 100_000, "pid": 10**400}},
    ],
)
def test_nothing_of_it_is_believed(box: support.Sandbox, said: dict[str, Any]) -> None:
    script = program(box)
    (box.path / "d.pid.status").write_text(json.dumps(said))
    done = box.run(script, "status")
    assert (done.returncode, done.stderr) == (3, "")
    assert "\x1b" not in done.stdout
    assert len(done.stdout) < 20_000
    done = box.run(script, "status", "--json")
    assert done.returncode == 3
    assert "more" not in done.stdout
    start(box, script)
