"""A stop says what it did, and what it did not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers import support

SLOW = """
    import os, signal, subprocess, sys, time
    from daemon_context import Daemon
    class Slow(Daemon):
        {more}
        def run(self):
            {run}
        def cleanup(self):
            {cleanup}
    if __name__ == "__main__":
        Slow("d.pid", stdout="d.log", stderr="d.log", working_directory=".").main()
"""


def slow(
    box: support.Sandbox, cleanup: str = "pass", more: str = "pass", run: str = "self.sleep()"
) -> Path:
    return box.script(SLOW.format(cleanup=cleanup, more=more, run=run), "slow.py")


STUBBORN = "signal.signal(15, signal.SIG_IGN); time.sleep(1000)"


def test_what_had_to_be_killed(box: support.Sandbox) -> None:
    script = slow(box, more="stop_schedule = (('TERM', 0.5), ('KILL', 5))", run=STUBBORN)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    done = box.run(script, "stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"Slow: killed pid {pid}, which had not ended 0.5 s after SIGTERM; "
        "its cleanup() did not run\n"
    )
    assert not (box.path / "d.pid").exists()
    assert not (box.path / "d.pid.lock").exists()
    done = box.run(script, "status", "--json")
    assert done.returncode == 3
    end = json.loads(done.stdout)["last_end"]
    assert (end["how"], end["signal"], end["pid"]) == ("killed", "SIGKILL", pid)
    assert "0.5 s after SIGTERM" in box.run(script, "status").stdout


def test_a_schedule_without_sigkill_kills_nobody(box: support.Sandbox) -> None:
    cleanup = "open('cleaned', 'w').close()"
    script = slow(box, cleanup, more="stop_schedule = (('TERM', 20),)")
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    done = box.run(script, "stop")
    assert done.stdout.startswith(f"Slow: stopped (pid {pid}")
    assert (box.path / "cleaned").exists()


def test_one_that_outlives_the_schedule(box: support.Sandbox) -> None:
    script = slow(box, more="stop_schedule = (('TERM', 1),)", run=STUBBORN)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    done = box.run(script, "stop")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(rf"did not stop within [1-9] seconds .*: pid {pid} still runs ", done.stderr)
    assert support.alive(pid)


def test_a_cleanup_that_hangs(box: support.Sandbox) -> None:
    script = slow(box, cleanup="time.sleep(1000)")
    assert box.run(script, "start").returncode == 0
    done = box.run(script, "stop", "--timeout", "0.7")
    assert done.returncode == 0
    assert "0.7 s after SIGTERM; its cleanup() had not come to its end\n" in done.stdout


def test_a_restart_has_a_timeout_as_well(box: support.Sandbox) -> None:
    script = slow(box, run=STUBBORN)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    begun = time.monotonic()
    assert box.run(script, "restart", "--timeout", "0.2").returncode == 0
    assert time.monotonic() - begun < 8
    assert box.pid() != pid
    assert box.run(script, "stop", "--timeout=0.1").returncode == 0
    for wrong in ("-1", "nan", "x", "inf"):
        assert box.run(script, "stop", f"--timeout={wrong}").returncode == 2


def test_a_signal_that_ends_it_at_once(box: support.Sandbox) -> None:
    script = slow(box, run="signal.signal(15, signal.SIG_DFL); time.sleep(1000)")
    assert box.run(script, "start").returncode == 0
    support.until(lambda: int(support.status(box.pid())["SigCgt"], 16) >> 14 & 1 == 0)
    assert box.run(script, "stop").returncode == 0
    end = json.loads(box.run(script, "status", "--json").stdout)["last_end"]
    assert (end["how"], end["signal"]) == ("requested", "SIGTERM")


def test_while_it_stops(box: support.Sandbox) -> None:
    """`status` says so, and a start waits for the end."""
    script = slow(box, cleanup="open('cleaning', 'w').close(); time.sleep(2)")
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    stopping = box.popen(script, "stop")
    support.until(lambda: (box.path / "cleaning").exists())
    done = box.run(script, "status", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "stopping")
    assert f"running with pid {pid}, stopping" in box.run(script, "status").stdout
    done = box.run(script, "start")
    assert (done.returncode, done.stderr) == (0, "")
    assert not support.alive(pid)
    assert done.stdout == f"Slow: started, pid {box.pid()}\n"
    assert stopping.wait(20) == 0
    assert box.run(script, "stop").returncode == 0


def state(box: support.Sandbox, script: Path) -> str:
    return str(json.loads(box.run(script, "status", "--json").stdout)["state"])


def test_one_that_does_not_listen_is_stopping_while_a_stop_waits(box: support.Sandbox) -> None:
    """And no longer, however the stop ends."""
    run = STUBBORN.replace(
        "time.sleep(1000)", "[self.tell('busy') or time.sleep(0.05) for _ in iter(int, 1)]"
    )
    script = slow(box, run=run)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    stopping = box.popen(script, "stop", "--timeout", "1000")
    support.until(lambda: state(box, script) == "stopping")
    assert f"running with pid {pid}, stopping: busy" in box.run(script, "status").stdout
    stopping.kill()
    stopping.wait()
    assert state(box, script) == "ready"
    stopping = box.popen(script, "stop", "--timeout", "1000")
    support.until(lambda: state(box, script) == "stopping")
    starting = box.popen(script, "start")
    with pytest.raises(subprocess.TimeoutExpired):
        starting.wait(1)
    os.kill(pid, signal.SIGKILL)
    assert starting.communicate(timeout=20)[0] == f"Slow: started, pid {box.pid()}\n"
    assert (stopping.wait(20), box.pid() != pid) == (0, True)
    assert box.run(script, "stop", "--timeout", "0").returncode == 0


@pytest.mark.root
def test_a_strangers_lock_is_no_stop(box: support.Sandbox, public: Path) -> None:
    script = box.script(f"""
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.sleep()
        D("{public}/d.pid").main()
    """, "daemon.py")  # fmt: skip
    assert box.run(script, "start").returncode == 0
    stranger = box.popen(f"""
        import fcntl, os, sys
        os.setuid(65534)
        file = open("{public}/d.pid")
        fcntl.lockf(file, fcntl.LOCK_SH)
        print("locked", flush=True)
        sys.stdin.read()
    """)
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == "locked\n"
    assert state(box, script) == "ready"
    assert "runs already" in box.run(script, "start").stdout
    stranger.kill()
    assert box.run(script, "stop").returncode == 0


@pytest.mark.parametrize("end", ["return", "raise OSError(5)", "sys.exit(3)"])
def test_one_that_ends_by_itself_is_stopping_while_it_tidies_up(
    box: support.Sandbox, end: str
) -> None:
    script = slow(
        box, "open('cleaning', 'w').close(); time.sleep(1000)", run=f"self.sleep(0.5); {end}"
    )
    assert box.run(script, "start").returncode == 0
    support.until(lambda: (box.path / "cleaning").exists())
    assert state(box, script) == "stopping"


def test_one_that_has_let_go_of_its_lock(box: support.Sandbox) -> None:
    """What to do about it is said once."""
    script = slow(box, run="os.closerange(3, 100); open('closed', 'w').close(); time.sleep(1000)")
    assert box.run(script, "start").returncode == 0
    support.until(lambda: (box.path / "closed").exists())
    pid = box.pid()
    for verb in ("status", "stop", "reload", "restart"):
        done = box.run(script, verb)
        said = done.stdout + done.stderr
        assert done.returncode == (4 if verb == "status" else 1)
        assert said.count(f"pid {pid}") == 1
        assert said.count("has let go of the lock") == 1
        assert said.count(f"end it by its pid (kill {pid})") == 1
        assert said.count("no start goes beside it") == (verb != "status")


@pytest.mark.root
def test_one_that_is_ending_has_not_let_go_of_its_lock(box: support.Sandbox, public: Path) -> None:
    """Its last thread ends later, and this one may not remove the files."""
    done = box.run(f"""
        import os, time
        from daemon_context import Daemon, DaemonContext
        states = set()
        for _ in range(20):
            context = DaemonContext(pidfile="{public}/d.pid", uid=65534, gid=65534)
            os.kill(context.spawn(time.sleep, 1000).pid, 15)
            while (state := Daemon("{public}/d.pid").status().state) == "running":
                pass
            states.add(state)
        print(states)
    """)
    assert (done.stdout, done.stderr) == ("{'dead'}\n", "")


CHILD_PROGRAM = """
    import signal, sys, time
    def asked(*args):
        print("asked", flush=True)
        if sys.argv[1] == "good":
            sys.exit()
    signal.signal(15, asked)
    print("there", flush=True)
    while True:
        time.sleep(1)
"""
CHILD = "subprocess.Popen([sys.executable, 'child.py', '{kind}'])"


def test_children_are_stopped_with_it(box: support.Sandbox) -> None:
    run = "; ".join(CHILD.format(kind=kind) for kind in ("good", "bad")) + "; self.sleep()"
    box.script(CHILD_PROGRAM, "child.py")
    script = slow(box, more="stop_children = True", run=run)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: box.text("d.log").count("there") == 2)
    children = box.processes() - {box.pid()}
    assert len(children) == 2
    assert "killed" not in box.run(script, "stop").stdout
    assert not box.processes()
    assert box.text("d.log").count("asked") == 2
    assert not children & box.processes()


def test_children_are_left_alone_by_default(box: support.Sandbox) -> None:
    box.script(CHILD_PROGRAM, "child.py")
    script = slow(box, run=CHILD.format(kind="good") + "; self.sleep()")
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "there" in box.text("d.log"))
    assert box.run(script, "stop").returncode == 0
    assert len(box.processes()) == 1


def test_children_of_a_daemon_that_ends_by_itself(box: support.Sandbox) -> None:
    run = CHILD.format(kind="bad") + "; self.sleep(0.5)"
    box.script(CHILD_PROGRAM, "child.py")
    script = slow(box, more="stop_children = True", run=run)
    assert box.run(script, "start").returncode == 0
    box.settled()
    assert "asked" in box.text("d.log")
