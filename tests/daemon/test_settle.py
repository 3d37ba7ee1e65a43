"""What happens to a daemon in its first moments is told to who has started it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import support

SCRIPT = """
    import os, signal, sys, threading, time
    from daemon_context import Daemon
    OPTIONS = {{}}
    class Work(Daemon):
        def run(self):
            {body}
        def cleanup(self):
            {cleanup}
    {options}
    if __name__ == "__main__":
        Work("d.pid", stderr="d.err", **OPTIONS).main()
"""


def program(box: support.Sandbox, body: str, cleanup: str = "pass", options: str = "pass") -> Path:
    body = body.replace("\n", "\n" + " " * 12)
    return box.script(SCRIPT.format(body=body, cleanup=cleanup, options=options), "work.py")


def left(box: support.Sandbox) -> set[str]:
    return {entry.name for entry in box.path.iterdir()} - {"work.py", "program.py", "d.err"}


FAILING = {
    "raises": ("raise RuntimeError('port 80 is taken')", "RuntimeError", "port 80 is taken"),
    "exits": ("sys.exit(3)", "sys.exit(3)", ""),
    "exits with a text": ("sys.exit('no config')", "no config", ""),
    "returns a status": ("return 3", "sys.exit(3)", ""),
    "dies": ("os._exit(3)", "exited with status 3", ""),
    "is killed": ("os.kill(os.getpid(), 9)", "was killed by SIGKILL", ""),
    "a moment later": ("time.sleep(0.1)\nraise RuntimeError('too late?')", "too late?", ""),
}


@pytest.mark.parametrize("way", FAILING)
def test_a_run_that_dies_at_once_is_a_failed_start(box: support.Sandbox, way: str) -> None:
    body, *wanted = FAILING[way]
    done = box.run(program(box, body), "start")
    assert done.returncode == 1, done
    assert not done.stdout
    for words in wanted:
        assert words in done.stderr
    if "raise" in body:
        assert 'work.py", line' in done.stderr
    box.settled()
    assert left(box) == set()


def test_a_run_that_raises_after_its_time_was_started(box: support.Sandbox) -> None:
    script = program(box, "time.sleep(0.5)\nraise RuntimeError('late')")
    begun = time.monotonic()
    done = box.run(script, "start")
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun > 0.3
    box.settled()
    assert "RuntimeError: late" in box.text("d.err")


@pytest.mark.parametrize("body", ["return", "sys.exit()", "sys.exit(0)", "os._exit(0)"])
def test_a_run_that_ends_well_was_started_at_once(box: support.Sandbox, body: str) -> None:
    script = program(box, body, options="OPTIONS['settle'] = 60")
    begun = time.monotonic()
    done = box.run(script, "start")
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun < 10
    box.settled()


def test_a_cleanup_does_not_make_a_failed_start_a_good_one(box: support.Sandbox) -> None:
    script = program(box, "raise RuntimeError('early')", "time.sleep(1)")
    done = box.run(script, "start")
    assert done.returncode == 1
    assert "early" in done.stderr


def test_a_cleanup_that_fails_at_once_is_a_failed_start(box: support.Sandbox) -> None:
    done = box.run(program(box, "return", "raise RuntimeError('not tidy')"), "start")
    assert done.returncode == 1
    assert "not tidy" in done.stderr


def test_without_settle_a_start_is_over_with_setup(box: support.Sandbox) -> None:
    script = program(
        box, "time.sleep(0.3)\nraise ValueError('late')", options="OPTIONS['settle']=0"
    )
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "ValueError: late" in box.text("d.err"))
    box.settled()


def test_until_it_has_settled_it_is_starting(box: support.Sandbox) -> None:
    script = program(box, "self.sleep()", options="OPTIONS['settle'] = 4")
    starting = box.popen(script, "start")
    pid = box.pid()
    support.until(lambda: b"settled" in (box.path / "d.pid.status").read_bytes())
    done = box.run(script, "status", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "starting")
    done = box.run(script, "start")
    assert (done.returncode, done.stdout) == (0, f"Work: is being started, pid {pid}\n")
    assert starting.wait(30) == 0
    assert json.loads(box.run(script, "status", "--json").stdout)["state"] == "ready"
    assert f"runs already, pid {pid}" in box.run(script, "start").stdout
    assert box.run(script, "stop").returncode == 0


def test_a_loop_keeps_no_pipe_of_its_start(box: support.Sandbox) -> None:
    script = program(box, "for _ in self.every(0.02): self.tell('x')")
    assert box.run(script, "start").returncode == 0
    pid = box.pid()

    def pipes() -> list[str]:
        return [name for name in support.descriptors(pid).values() if name.startswith("pipe")]

    support.until(lambda: len(pipes()) == 4, what="no pipes but those of the loop")  # two of them
    assert box.run(script, "stop").returncode == 0


def test_a_start_that_is_interrupted_while_it_settles_is_cancelled(box: support.Sandbox) -> None:
    starting = box.popen(program(box, "self.sleep()", options="OPTIONS['settle'] = 60"), "start")
    support.until(
        lambda: (
            b"settled" in (box.path / "d.pid.status").read_bytes()
            if (box.path / "d.pid.status").exists()
            else False
        )
    )
    starting.send_signal(signal.SIGINT)
    assert starting.wait(30) == 130
    box.settled()
    assert left(box) == set()


def test_a_stop_while_it_settles_ends_it(box: support.Sandbox) -> None:
    script = program(box, "self.sleep()", options="OPTIONS['settle'] = 60")
    starting = box.popen(script, "start")
    support.until(
        lambda: (
            b"settled" in (box.path / "d.pid.status").read_bytes()
            if (box.path / "d.pid.status").exists()
            else False
        )
    )
    assert box.run(script, "stop").returncode == 0
    assert starting.wait(30) == 0
    box.settled()


# --- the context, launch and spawn

CONTEXT = """
    import os, sys, time
    from daemon_context import DaemonContext, DaemonError
    def body():
        {body}
    context = DaemonContext(detach_process=True, pidfile="d.pid", settle=0.3)
    try:
        {way}
    except DaemonError as error:
        print("failed:", error, *getattr(error, "__notes__", ()))
        sys.exit(7)
    print("started")
"""
WAYS = {
    "with": "with context: body()",
    "open": "context.open(); body()",
    "spawn": "context.spawn(body)",
    "launch": "context.launch() or (body(), os._exit(0))",
}


@pytest.mark.parametrize("body", ["raise RuntimeError('at once')", "time.sleep(0.1); os._exit(5)"])
@pytest.mark.parametrize("way", WAYS)
def test_settle_for_a_context(box: support.Sandbox, way: str, body: str) -> None:
    done = box.run(CONTEXT.format(body=body, way=WAYS[way]))
    assert done.returncode == 7, done
    assert ("at once" in done.stdout) if "raise" in body else ("status 5" in done.stdout)
    box.settled()
    assert left(box) == set()


@pytest.mark.parametrize("way", WAYS)
def test_a_context_that_settles_is_started(box: support.Sandbox, way: str) -> None:
    body = "open('lives', 'w').close(); time.sleep(1); open('lived', 'w').close()"
    done = box.run(CONTEXT.format(body=f"os.chdir({str(box.path)!r}); {body}", way=WAYS[way]))
    assert done.returncode == 0, done
    box.settled()
    assert {"lives", "lived"} <= left(box)


def test_a_fresh_interpreters_target_settles(box: support.Sandbox) -> None:
    box.script("def body():\n    raise RuntimeError('at once')", "body.py")
    done = box.run(
        """
        from daemon_context import DaemonContext, DaemonError
        try:
            DaemonContext(settle=0.3).spawn("body:body")
        except DaemonError as error:
            print(error)
        """,
        env={"PYTHONPATH": f"{support.ROOT}:{box.path}"},
    )
    assert "RuntimeError" in done.stdout
    assert "at once" in done.stdout


@pytest.mark.parametrize("value", [-1, None, "1", float("nan"), True])
def test_settle_is_a_number_of_seconds(value: object) -> None:
    from daemon_context import DaemonContext, OptionError

    with pytest.raises(OptionError, match="settle="):
        DaemonContext(settle=value).check()  # type: ignore[arg-type]


# --- readiness="explicit"

EXPLICIT = "OPTIONS['readiness'] = 'explicit'"


def test_run_says_itself_when_it_is_ready(box: support.Sandbox) -> None:
    body = "while not os.path.exists(GO): time.sleep(0.01)\nself.ready('serving')\nself.sleep()"
    script = program(box, body, options=EXPLICIT + f"; GO = {str(box.path / 'go')!r}")
    starting = box.popen(script, "start")
    support.until(lambda: (box.path / "d.pid.status").exists() and box.text("d.pid.status"))
    assert json.loads(box.run(script, "status", "--json").stdout)["state"] == "starting"
    assert starting.poll() is None
    (box.path / "go").touch()
    assert starting.wait(30) == 0
    assert "serving" in box.run(script, "status").stdout
    assert box.run(script, "stop").returncode == 0


def test_a_run_that_never_says_it_is_a_failed_start(box: support.Sandbox) -> None:
    done = box.run(program(box, "return", options=EXPLICIT), "start")
    assert done.returncode == 1
    assert "ended without saying ready()" in done.stderr
    assert left(box) == set()


def test_setup_may_say_ready(box: support.Sandbox) -> None:
    script = program(
        box,
        "time.sleep(5)\nraise RuntimeError('after ready')",
        options=EXPLICIT + "; Work.setup = lambda self: self.ready('from setup')",
    )
    done = box.run(script, "start")
    assert (done.returncode, done.stderr) == (0, "")
    assert "from setup" in box.run(script, "status").stdout
    box.settled()


def test_ready_ends_the_settling(box: support.Sandbox) -> None:
    script = program(box, "self.ready()\nself.sleep()", options="OPTIONS['settle'] = 60")
    assert box.run(script, "start", timeout=30).returncode == 0
    assert json.loads(box.run(script, "status", "--json").stdout)["state"] == "ready"
    assert box.run(script, "stop").returncode == 0


def test_a_unit_test_calls_run(box: support.Sandbox) -> None:
    done = box.run(
        program(box, "self.ready('x')\nprint('ran')")
        and box.script("from work import Work\nWork('d.pid').run()")
    )
    assert (done.stdout, done.stderr) == ("ran\n", "")
    assert os.listdir(box.path).count("d.pid") == 0
