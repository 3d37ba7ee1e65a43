"""A start that fails, wherever and however: the launcher gets the error, and nothing is left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers import launching, support

LAST = len(launching.DEFAULT_STEPS)
IN_LAUNCHER = range(launching.LAST_IN_LAUNCHER + 1)
IN_DAEMON = range(launching.LAST_IN_LAUNCHER + 1, LAST + 1)

EVERYWHERE = """
    import os, sys
    from tests.helpers.launching import *

    os.makedirs("work", exist_ok=True)
    way, wanted = sys.argv[1], [int(n) for n in sys.argv[2].split(",")]
    outcomes = {}
    for number, insert in positions():
        if number in wanted:
            print(f"<{number}>", end="")   # buffered: to be written once, whatever happens
            outcomes[number] = attempt(DaemonContext(
                pidfile="d.pid", stdout="out.log", stderr="err.log", working_directory="work",
                umask=0o027, detach_process=True, steps=insert(Fail(way)),
                start_timeout=0.2 if "loop" in way else None,
            ))
    report("outcomes", outcomes)
    sys.exit(5)
"""


def fail_at(box: support.Sandbox, way: str, numbers: range) -> dict[int, dict[str, Any]]:
    """One launcher that fails to start at each of the positions, one after the other."""
    done = box.run(EVERYWHERE, way, ",".join(map(str, numbers)))
    assert (done.returncode, done.stderr) == (5, ""), done
    assert done.stdout == "".join(f"<{n}>" for n in numbers)
    outcomes = {int(k): v for k, v in json.loads(box.text("outcomes")).items()}
    assert list(outcomes) == list(numbers)
    for number, outcome in outcomes.items():
        assert outcome["changed"] == {}, number
        assert not outcome["is_open"]
    box.settled()
    return outcomes


def place(number: int) -> str:
    return f"(step {number + 1} of {LAST + 1}, fail)"


RAISED = {
    "OSError": ("cannot fail: No such file or directory: '/proc/no-such-place'", "os.mkdir("),
    "OSError-bare": ("cannot fail: OSError: no number", "OSError: no number"),
    "RuntimeError": ("cannot fail: RuntimeError: out of luck", "RuntimeError: out of luck"),
    "SystemExit-3": ("cannot fail: it called sys.exit(3)", "sys.exit(3)"),
    "SystemExit-0": ("cannot fail: it called sys.exit(0)", "sys.exit(0)"),
    "SystemExit-text": ("cannot fail: it called sys.exit('enough')", "SystemExit: enough"),
    "KeyboardInterrupt": ("cannot fail: KeyboardInterrupt", "KeyboardInterrupt"),
    "GeneratorExit": ("cannot fail: GeneratorExit", "GeneratorExit"),
    "RecursionError": ("cannot fail: RecursionError: maximum recursion depth", "_recurse()"),
    "DaemonError": ("one of yours", "DaemonError"),
    "fork": ("cannot fail: RuntimeError: after a fork", "_fork_and_fail"),
    "subprocess": ("cannot fail: RuntimeError: with a program running", "_run_and_fail"),
    "huge": ("cannot fail: RuntimeError: xxxxxxxxxx", "xxxxxxxxxx"),
    "huge-wide": ("cannot fail: RuntimeError: begin\U0001f600", "in apply"),
    "huge-notes": ("cannot fail: RuntimeError: with notes", "in apply"),
    "surrogates": ("cannot fail: RuntimeError: a \udcff b", "in apply"),
    "unprintable": ("cannot fail: Unprintable", "in apply"),
    "unknown": ("cannot fail: Unknown: nobody knows me", "Unknown: nobody knows me"),
}


@pytest.mark.parametrize("way", RAISED)
def test_what_a_step_raises_in_the_daemon_is_raised_in_the_launcher(
    box: support.Sandbox, way: str
) -> None:
    message, traced = RAISED[way]
    for number, outcome in fail_at(box, way, IN_DAEMON).items():
        # Half of a pair can't be shown: see test_untrusted_text.
        assert outcome["message"].startswith(message.replace("\udcff", r"\udcff")), number
        assert outcome["message"].endswith(place(number))
        assert outcome["step"] == "fail"
        notes = "\n".join(outcome["notes"])
        assert "In the daemon (pid " in notes
        assert traced in notes
        assert len(outcome["message"]) + len(notes) < 1 << 20
        expected = "StepError"
        if way.startswith("OSError"):
            expected = "DaemonOSEnvironmentError"
        elif way == "DaemonError":
            expected = "DaemonError"
            # Such facts the launcher takes from nobody: see test_report_hostile.
            assert outcome["path"] is None
            assert f"In the daemon (pid {outcome['pid']}):" in notes
            assert outcome["pid"] != 4711
        assert outcome["class"] == expected
        if way == "OSError":
            assert (outcome["errno"], outcome["path"]) == (2, None)
            assert "OSError" in outcome["kinds"]


IN_ONE_PROCESS = sorted(set(RAISED) - {"fork", "subprocess", "KeyboardInterrupt", "GeneratorExit"})


@pytest.mark.parametrize("way", IN_ONE_PROCESS)
def test_what_a_step_raises_in_the_launcher_is_raised_there(box: support.Sandbox, way: str) -> None:
    for number, outcome in fail_at(box, way, IN_LAUNCHER).items():
        assert outcome["message"].startswith(RAISED[way][0]), number
        assert outcome["message"].endswith(place(number))
        assert outcome["step"] == "fail"
        assert "DaemonError" in outcome["kinds"]


@pytest.mark.parametrize("way", ["KeyboardInterrupt", "GeneratorExit"])
def test_an_interrupt_in_the_launcher_stays_what_it_is(box: support.Sandbox, way: str) -> None:
    for outcome in fail_at(box, way, IN_LAUNCHER).values():
        assert outcome["class"] == way


@pytest.mark.parametrize("way", ["OSError", "SystemExit-3", "unknown", "KeyboardInterrupt"])
def test_in_the_foreground_what_can_be_undone_is_undone(box: support.Sandbox, way: str) -> None:
    # The core limit and what was closed can't come back, so these steps are not part of it.
    done = box.run(
        """
        import sys
        from tests.helpers.launching import *

        outcomes = {}
        for number, insert in positions():
            steps = insert(Fail(sys.argv[1])).remove("close-descriptors", "prevent-core")
            print(f"<{number}>", end="")
            outcomes[number] = attempt(DaemonContext(
                pidfile="d.pid", stdout="out.log", stderr="err.log", umask=0o027,
                detach_process=False, steps=steps))
        report("outcomes", outcomes)
        print(".", end="")
        """,
        way,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == "".join(f"<{n}>" for n in range(LAST + 1)) + "."
    for outcome in json.loads(box.text("outcomes")).values():
        assert outcome["changed"] == {}
        if way != "KeyboardInterrupt":
            assert outcome["step"] == "fail"


def test_in_the_foreground_the_error_lists_what_has_changed_for_good(box: support.Sandbox) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        DaemonContext(detach_process=False, steps=DEFAULT_STEPS.insert_after(
            "prevent-core", Fail("RuntimeError"))).open()
    """)
    assert done.returncode == 1
    assert "changed for good in this process by: close-descriptors, prevent-core" in done.stderr


@pytest.mark.parametrize(
    ("way", "words", "facts"),
    [
        ("exit-7", "exited with status 7", {"exit_status": 7}),
        ("exit-0", "exited with status 0", {"exit_status": 0}),
        ("SIGKILL", "was killed by SIGKILL", {"signal_number": 9}),
        ("SIGSEGV", "was killed by SIGSEGV", {"signal_number": 11}),
    ],
)
def test_how_a_step_killed_the_daemon_is_told(
    box: support.Sandbox, way: str, words: str, facts: dict[str, int]
) -> None:
    for number, outcome in fail_at(box, way, IN_DAEMON).items():
        assert outcome["class"] == "StartError"
        assert f"{words} before it was ready {place(number)}" in outcome["message"]
        assert outcome["step"] == "fail"
        assert facts.items() <= outcome.items()


@pytest.mark.parametrize(
    ("way", "numbers"),
    [
        ("loop", IN_DAEMON),
        ("loop-with-program", range(LAST - 1, LAST + 1)),
        ("loop-deaf", range(LAST, LAST + 1)),
    ],
)
def test_a_step_that_never_ends_is_ended(box: support.Sandbox, way: str, numbers: range) -> None:
    for outcome in fail_at(box, way, numbers).values():
        assert outcome["class"] == "StartError"
        assert "was not ready after 0.2 seconds (start_timeout)" in outcome["message"]
        assert outcome["seconds"] >= 0.2


@pytest.mark.parametrize("way", ["OSError", "exit-0", "exit-7", "SIGKILL", "SystemExit-0"])
@pytest.mark.parametrize("readiness", ["open", "explicit"])
def test_an_uncaught_error_is_seen_and_is_the_exit_status(
    box: support.Sandbox, way: str, readiness: str
) -> None:
    done = box.run(
        """
        import sys
        from tests.helpers.launching import *
        steps = DEFAULT_STEPS.insert_before("enter-pidfile", Fail(sys.argv[1]))
        with DaemonContext(pidfile="d.pid", detach_process=True, steps=steps,
                           readiness=sys.argv[2]):
            pass
        """,
        way,
        readiness,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "step 14 of 16, fail)" in done.stderr
    assert done.stderr.count("Traceback") <= 2
    assert [p.name for p in box.path.iterdir()] == ["program.py"]
    box.settled()


@pytest.mark.parametrize("readiness", ["open", "explicit"])
def test_what_the_program_does_with_uncaught_errors_is_done_in_the_daemon(
    box: support.Sandbox, readiness: str
) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        sys.excepthook = lambda kind, error, traceback: report("uncaught", str(error))
        context = DaemonContext(detach_process=True, readiness=sys.argv[1], working_directory=".")
        context.open()
        if sys.argv[1] == "explicit":
            context.ready()
        raise RuntimeError("in the body")
    """, readiness)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(box.text("uncaught")) == "in the body"


def test_a_step_that_kills_the_launcher_leaves_no_lock(box: support.Sandbox) -> None:
    program = box.script("""
        import sys
        from tests.helpers.launching import *
        steps = DEFAULT_STEPS
        if sys.argv[1:]:
            steps = steps.insert_before("detach", Fail(sys.argv[1]))
        with DaemonContext(pidfile="d.pid", detach_process=True, steps=steps) as daemon:
            daemon.sleep()
    """)
    assert box.run(program, "SIGKILL").returncode == -9
    assert box.run(program, "exit-7").returncode == 7
    assert (box.path / "d.pid").read_text() == ""
    assert box.run(program).returncode == 0
    assert support.alive(box.pid())


def test_a_step_that_cannot_be_described_or_undone_does_not_hide_the_error(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        from tests.helpers.launching import *

        class Silent(Fail):
            def describe(self, options):
                raise ValueError("no words")

        class Stuck(Step):
            def apply(self, walk):
                pass
            def undo(self, walk, memory):
                raise ValueError("no way back")

        class Exit(Step):
            def apply(self, walk):
                pass
            def undo(self, walk, memory):
                sys.exit("enough")

        for name in ("flush-streams", "open-streams", "detach", "write-pidfile"):
            for way in ("RuntimeError", "SystemExit-3"):
                steps = DEFAULT_STEPS.insert_after(name, Stuck(), Exit(), Silent(way))
                outcome = attempt(DaemonContext(pidfile="d.pid", detach_process=True, steps=steps))
                print(json.dumps(outcome))
    """)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == 8
    for outcome in outcomes:
        assert "cannot fail: " in outcome["message"]
        assert outcome["step"] == "fail"
        assert "could not undo stuck: ValueError: no way back" in outcome["notes"]
        assert "could not undo exit: it called sys.exit('enough')" in outcome["notes"]
        assert outcome["changed"] == {}


@pytest.mark.parametrize("place", ["flush-streams", "detach"])
def test_an_error_of_others_that_has_a_step_is_told_as_any_other(
    box: support.Sandbox, place: str
) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        class PipelineError(Exception):
            step = "load"
        class Load(Step):
            def apply(self, walk):
                raise PipelineError("no rows")
        steps = DEFAULT_STEPS.insert_after(sys.argv[1], Load())
        outcome = attempt(DaemonContext(detach_process=True, steps=steps))
        print(outcome["class"], outcome["step"], outcome["message"], sep="|")
    """, place)  # fmt: skip
    assert done.stdout.startswith("StepError|load|cannot load: PipelineError: no rows (step "), done


@pytest.mark.parametrize("place", ["flush-streams", "detach"])
def test_a_remedy_follows_the_error(box: support.Sandbox, place: str) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        class Unlucky(Fail):
            remedy = "try another day"
        steps = DEFAULT_STEPS.insert_after(sys.argv[1], Unlucky("RuntimeError"))
        print(attempt(DaemonContext(detach_process=True, steps=steps))["message"])
    """, place)  # fmt: skip
    assert done.stdout.endswith(", fail); try another day\n"), done


def test_what_a_step_printed_before_it_failed_is_not_lost(box: support.Sandbox) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        class Print(Fail):
            def apply(self, walk):
                print("printed", end="")
                sys.stderr.write("told")
                super().apply(walk)
        for name in ("flush-streams", "detach", "redirect-streams"):
            steps = DEFAULT_STEPS.insert_after(name, Print("RuntimeError"))
            context = DaemonContext(detach_process=True, steps=steps, stdout="log", stderr="errors")
            attempt(context)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "printed" * 2, "told" * 2)
    assert (box.text("log"), box.text("errors")) == ("printed", "told")


def test_what_a_step_prints_in_the_launcher_is_printed_there(box: support.Sandbox) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        class Print(Step):
            def apply(self, walk):
                print("starting")
        steps = DEFAULT_STEPS.insert_before("detach", Print())
        with DaemonContext(detach_process=True, steps=steps, stdout="log") as daemon:
            print("started")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "starting\n", "")
    assert box.text("log") == "started\n"


def test_a_failing_check_is_an_error_before_anything_was_done(box: support.Sandbox) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        class Check(Step):
            def check(self, walk):
                raise RuntimeError("not today")
            def apply(self, walk):
                report("applied", True)
        class Note(Step):
            def apply(self, walk):
                report("applied", True)
        for process in (True, False):
            steps = DEFAULT_STEPS.insert_before("flush-streams", Note())
            steps = steps.insert_after("report-ready", Check())
            print(attempt(DaemonContext(detach_process=process, steps=steps))["message"])
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "cannot check: RuntimeError: not today (step 17 of 17, check)\n" * 2
    assert not (box.path / "applied").exists()


def test_a_daemon_that_dies_between_its_two_words(box: support.Sandbox) -> None:
    """It tells the launcher that it is ready, and dies before the session leader hears it."""
    done = box.run("""
        import os, signal
        from daemon_context import DaemonContext, report
        from daemon_context.report.frames import READY

        send, said = report.send, []
        def dying(fd, kind, payload=b""):
            if kind == READY and said:
                os.kill(os.getpid(), signal.SIGKILL)
            said.extend([kind] * (kind == READY))
            return send(fd, kind, payload)
        context = DaemonContext(detach_process=True)
        report.send = dying
        context.open()
        """)
    assert done.returncode == 1
    assert "was killed by SIGKILL before it was ready" in done.stderr
