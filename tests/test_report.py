"""A start that fails, wherever and however: the launcher gets the error, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from typing import Any

import pytest

from . import launching, support

LAST = len(launching.DEFAULT_STEPS)
IN_LAUNCHER = range(launching.LAST_IN_LAUNCHER + 1)
IN_DAEMON = range(launching.LAST_IN_LAUNCHER + 1, LAST + 1)

EVERYWHERE = """
    import os, sys
    from tests.launching import *

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
        from tests.launching import *

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
        from tests.launching import *
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
        from tests.launching import *
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
        from tests.launching import *
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
        from tests.launching import *
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
        from tests.launching import *

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
        from tests.launching import *
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
        from tests.launching import *
        class Unlucky(Fail):
            remedy = "try another day"
        steps = DEFAULT_STEPS.insert_after(sys.argv[1], Unlucky("RuntimeError"))
        print(attempt(DaemonContext(detach_process=True, steps=steps))["message"])
    """, place)  # fmt: skip
    assert done.stdout.endswith(", fail); try another day\n"), done


def test_what_a_step_printed_before_it_failed_is_not_lost(box: support.Sandbox) -> None:
    done = box.run("""
        from tests.launching import *
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
        from tests.launching import *
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
        from tests.launching import *
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


# --- the body, under readiness="explicit"

BODY = """
    import os, signal, sys, time, warnings
    from pathlib import Path
    from daemon_context import DaemonContext, DaemonError

    how, style = sys.argv[1:]

    def body(daemon):
        Path("daemon").write_text(str(os.getpid()))
        print("from the body", flush=True)
        if how == "raise":
            raise RuntimeError("the body's own error")
        if how == "os-error":
            os.stat("/no/such/file")
        if how == "unprintable":
            from tests.launching import Unprintable
            raise Unprintable
        if how == "exit-3":
            sys.exit(3)
        if how == "exit-huge":
            sys.exit(2**31 + 3)
        if how == "exit-0":
            sys.exit()
        if how == "exit-text":
            sys.exit("the body says so")
        if how == "_exit":
            os._exit(4)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        if how == "sleep":
            time.sleep(1000)
        if how == "wrong-words":
            daemon.ready(42)
        if how in ("ready", "twice"):
            daemon.ready("up")
        if how == "twice":
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                daemon.ready()
            Path("warned").write_text("\\n".join(str(w.message) for w in seen))
        if how in ("ready", "twice"):
            daemon.sleep()

    context = DaemonContext(
        pidfile="d.pid", stdout="d.log", stderr="d.err", detach_process=True,
        working_directory=".", readiness="explicit", start_timeout=0.5 if how == "sleep" else None)
    launcher = os.getpid()
    try:
        if style == "with":
            with context as daemon:
                body(daemon)
        else:
            context.open()
            body(context)
    except DaemonError as error:
        if os.getpid() == launcher:
            import tests.launching as launching
            launching.report("outcome", launching.describe(error))
        raise
"""

BODIES = {
    "raise": ("RuntimeError before it was ready: the body's own error", "body's own error", {}),
    "os-error": ("No such file or directory: '/no/such/file'", "os.stat(", {"errno": 2}),
    "exit-3": ("called sys.exit(3) before it was ready", "", {"exit_status": 3}),
    "exit-huge": ("called sys.exit(2147483651) before it was ready", "", {"exit_status": 3}),
    "wrong-words": ("'int' object has no attribute 'encode'", "daemon.ready(42)", {}),
    "exit-0": ("before it was ready", "", {"exit_status": 0}),
    "unprintable": ("raised Unprintable before it was ready", "(its text can't be made)", {}),
    "exit-text": ("called sys.exit('the body says so')", "", {"exit_status": 1}),
    "_exit": ("exited with status 4 before it was ready", "", {"exit_status": 4}),
    "kill": ("was killed by SIGKILL before it was ready", "", {"signal_number": 9}),
    "sigterm": ("terminated by SIGTERM before it was ready", "", {}),
    "end": ("ended without saying ready()", "", {}),
    "sleep": ("was not ready after 0.5 seconds (start_timeout)", "", {}),
}


@pytest.mark.parametrize("style", ["with", "open"])
@pytest.mark.parametrize("how", BODIES)
def test_a_body_that_ends_before_ready_is_an_error_in_the_launcher(
    box: support.Sandbox, how: str, style: str
) -> None:
    message, note, facts = BODIES[how]
    done = box.run(BODY, how, style)
    assert done.returncode == 1
    outcome = json.loads(box.text("outcome"))
    if style == "open" and how.startswith(("exit", "sigterm")):
        # Without `with` Python shows nobody the SystemExit of its end; only that it ended is known.
        message, facts = "ended without saying ready()", {}
    assert message in outcome["message"]
    assert outcome["message"] in done.stderr
    assert note in "\n".join(outcome["notes"])
    assert facts.items() <= outcome.items()
    assert outcome["step"] is None  # all had been done
    assert "(step" not in outcome["message"]
    assert outcome["pid"] == int(box.text("daemon"))
    assert not support.alive(outcome["pid"])
    assert not (box.path / "d.pid").exists()
    assert box.text("d.log") == "from the body\n"
    box.settled()


@pytest.mark.parametrize("style", ["with", "open"])
@pytest.mark.parametrize("how", ["ready", "twice"])
def test_the_launcher_exits_0_once_the_body_is_ready(
    box: support.Sandbox, how: str, style: str
) -> None:
    done = box.run(BODY, how, style)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert box.pid() == int(box.text("daemon"))
    assert support.alive(box.pid())
    if how == "twice":
        assert "ready() does nothing" in box.text("warned")


def test_a_start_that_takes_its_time_works_without_a_terminal_too(box: support.Sandbox) -> None:
    """After a second a launcher would say on a terminal that it waits: one that polls."""
    done = box.run("""
        import os, time
        from daemon_context import DaemonContext
        del os.pidfd_open  # as where there are none
        with DaemonContext(readiness="explicit", detach_process=True, start_timeout=60) as daemon:
            time.sleep(1.2)
            daemon.ready()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_launcher_waits_for_ready(box: support.Sandbox) -> None:
    launcher = box.popen("""
        import os
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                           working_directory=".") as daemon:
            os.mkfifo("go")
            open("go").read()
            daemon.ready()
            daemon.sleep()
    """)
    support.until((box.path / "go").exists)
    daemon = box.pid()
    # The session leader is the daemon's parent, and the launcher the session leader's.
    leader = int(support.stat(daemon)[1])
    assert int(support.stat(leader)[1]) == launcher.pid
    assert launcher.poll() is None
    (box.path / "go").write_text("")
    assert launcher.wait(support.DEADLINE) == 0
    assert not support.state(leader)
    assert support.alive(daemon)


def test_a_child_of_the_daemon_can_not_say_that_it_is_ready(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from pathlib import Path
        from daemon_context import DaemonContext, DaemonError
        with DaemonContext(readiness="explicit", detach_process=True,
                           working_directory=".") as daemon:
            if os.fork() == 0:
                try:
                    daemon.ready("from the child")
                except DaemonError as error:
                    Path("child").write_text(str(error))
                os._exit(0)
            os.wait()
            raise RuntimeError("the daemon never was")
    """)
    assert done.returncode == 1
    assert "RuntimeError: the daemon never was" in done.stderr
    assert "in a child of the daemon" in box.text("child")


@pytest.mark.parametrize("how", ["ready", "raise"])
def test_a_report_is_not_written_to_a_file_that_got_the_number_of_its_pipe(
    box: support.Sandbox, how: str
) -> None:
    done = box.run("""
        import os, sys
        from pathlib import Path
        from daemon_context import DaemonContext
        with DaemonContext(readiness="explicit", detach_process=True,
                           working_directory=".") as daemon:
            os.closerange(3, 100)
            files = [open(f"file-{n}", "wb", 0) for n in range(20)]
            try:
                if sys.argv[1] == "ready":
                    daemon.ready("up")
                raise RuntimeError("out of luck")
            except Exception as error:
                Path("error").write_text(str(error))
                for file in files:
                    file.close()  # fails where its number is no longer its own
                raise
    """, how)  # fmt: skip
    assert done.returncode == 1
    assert "exited with status 1 before it was ready" in done.stderr
    told = {"ready": "the program has closed the descriptor", "raise": "out of luck"}[how]
    assert told in box.text("error")
    assert [path.stat().st_size for path in box.path.glob("file-*")] == [0] * 20


def test_progress_is_not_written_to_a_file_that_got_the_number_of_its_pipe(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        place = os.getcwd()
        class CloseAll(Step):
            def apply(self, walk):
                os.closerange(3, 100)
                self.files = [os.open(f"{place}/file-{n}", os.O_WRONLY | os.O_CREAT)
                              for n in range(20)]
        steps = DEFAULT_STEPS.insert_after("close-descriptors", CloseAll())
        DaemonContext(steps=steps, detach_process=True).open()
    """)
    assert done.returncode == 1
    assert "exited with status 1 before it was ready (step 6 of 16, close-all)" in done.stderr
    assert [path.stat().st_size for path in box.path.glob("file-*")] == [0] * 20


def test_a_step_that_closes_the_pipe_of_the_progress_is_named(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Close(Step):
            def apply(self, walk):
                os.close(walk.report.progress_w)
        steps = DEFAULT_STEPS.insert_after("close-descriptors", Close())
        DaemonContext(steps=steps, detach_process=True).open()
    """)
    assert done.returncode == 1
    assert "step 'close' has closed the descriptor by which the launcher is told" in done.stderr


@pytest.mark.parametrize("place", ["step", "body"])
def test_the_error_of_a_daemon_that_has_used_up_its_descriptors_arrives(
    box: support.Sandbox, place: str
) -> None:
    done = box.run("""
        import resource, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Pool(Step):
            def apply(self, walk):
                self.files = []
                while True:
                    self.files.append(open("/dev/null"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        steps, pool = DEFAULT_STEPS, Pool()
        if sys.argv[1] == "step":
            steps = steps.insert_before("report-ready", pool)
        with DaemonContext(steps=steps, detach_process=True, readiness="explicit"):
            pool.apply(None)
    """, place)  # fmt: skip
    assert done.returncode == 1
    assert "Too many open files: '/dev/null'" in done.stderr
    assert "in apply" in done.stderr


# --- a launcher that is interrupted

WAITING = """
    import os, pathlib, signal, subprocess, sys, time
    from daemon_context import DaemonContext
    if "child" in sys.argv:
        subprocess.Popen(["sleep", "1000"], start_new_session=False)
    with DaemonContext(pidfile="d.pid", stdout="d.log", detach_process=True,
                       readiness="explicit") as daemon:
        if "deaf" in sys.argv:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "program" in sys.argv:
            subprocess.Popen(["sleep", "1000"])
        daemon_pid = os.getpid()
        pathlib.Path(sys.argv[1], "waiting").write_text(str(daemon_pid))
        time.sleep(1000)
"""


def assert_nothing_left(box: support.Sandbox) -> None:
    box.settled()
    assert not (box.path / "d.log").exists()
    pidfile = box.path / "d.pid"
    assert not pidfile.exists() or pidfile.read_text() == ""
    done = box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "extra"),
    [
        *(("SIGINT", ""), ("SIGTERM", ""), ("SIGHUP", ""), ("SIGKILL", "")),
        *(("SIGINT", "program"), ("SIGKILL", "program"), ("SIGINT", "deaf"), ("SIGKILL", "deaf")),
    ],
)
def test_a_launcher_that_is_ended_while_it_waits_cancels_the_start(
    box: support.Sandbox, number: str, extra: str
) -> None:
    launcher = box.popen(WAITING, box.path, extra)
    box.text("waiting")
    launcher.send_signal(getattr(support.signal, number))
    launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == -getattr(support.signal, number)
    assert_nothing_left(box)


def test_ctrl_c_while_the_launcher_waits_cancels_the_start(box: support.Sandbox) -> None:
    with support.Terminal() as terminal:
        launcher = box.popen(
            WAITING, box.path, "program", prefix=["setsid", "--ctty"], **terminal.streams
        )
        box.text("waiting")
        terminal.type("\x03")
        assert launcher.wait(support.DEADLINE) == -signal.SIGINT
        assert "KeyboardInterrupt" in terminal.output()
    assert_nothing_left(box)


def test_what_a_handler_raises_while_the_start_is_cancelled_ends_the_patience_only(
    box: support.Sandbox,
) -> None:
    """The second SIGTERM of a stop, say, to a program whose handler calls ``sys.exit``."""
    launcher = box.popen(
        """
        import os, pathlib, signal, subprocess, sys, time
        from daemon_context import DaemonContext

        home = pathlib.Path.cwd()
        launcher = os.getpid()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))

        def asked(*_):
            if os.getpid() == launcher:
                return
            (home / "asked").write_text("yes")

        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                           signal_map={}):
            signal.signal(signal.SIGTERM, asked)  # and goes on
            subprocess.Popen(["sleep", "1000"])
            (home / "waiting").write_text("yes")
            while True:
                time.sleep(1000)
        """
    )
    box.text("waiting")
    launcher.terminate()
    box.text("asked")
    launcher.terminate()
    _, text = launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == 1
    assert "terminated" in text
    assert_nothing_left(box)


def test_a_hangup_of_the_terminal_while_the_launcher_waits_cancels_the_start(
    box: support.Sandbox,
) -> None:
    with support.Terminal() as terminal:
        launcher = box.popen(
            WAITING, box.path, "program", prefix=["setsid", "--ctty"], **terminal.streams
        )
        box.text("waiting")
    assert launcher.wait(support.DEADLINE) == -signal.SIGHUP
    assert_nothing_left(box)


@pytest.mark.parametrize("style", ["with", "open", "spawn"])
def test_what_a_body_wrote_before_it_failed_is_not_lost(box: support.Sandbox, style: str) -> None:
    done = box.run("""
        import sys
        from daemon_context import DaemonContext, DaemonError

        kept = open("kept", "w")
        kept.write("once")
        if sys.argv[1] == "spawn":
            kept.flush()

        def body():
            global file
            file = open("log", "w")
            file.write("why it failed")
            raise RuntimeError("no")

        context = DaemonContext(detach_process=True, readiness="explicit", working_directory=".",
                                files_preserve=[kept])
        if sys.argv[1] == "spawn":
            context.spawn(body)
        if sys.argv[1] == "with":
            with context:
                body()
        context.open()
        body()
    """, style)  # fmt: skip
    assert done.returncode == 1
    assert (box.path / "log").read_text() == "why it failed"
    assert (box.path / "kept").read_text() == "once"


def test_a_start_may_take_a_month(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=True, start_timeout=31 * 86400):
            pass
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_session_leader_that_is_killed_is_told_and_nothing_is_left(box: support.Sandbox) -> None:
    launcher = box.popen(WAITING, box.path, "program")
    leader = int(support.stat(int(box.text("waiting")))[1])
    os.kill(leader, signal.SIGKILL)
    _, text = launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == 1
    assert f"the session leader (pid {leader}) was killed by SIGKILL" in text
    assert_nothing_left(box)


@pytest.mark.parametrize("how", ["timeout", "SIGTERM", "SIGKILL"])
def test_a_daemon_whose_start_is_cancelled_may_clean_up(box: support.Sandbox, how: str) -> None:
    launcher = box.popen("""
        import time
        from tests.launching import *
        timeout = 0.3 if sys.argv[1] == "timeout" else None
        if sys.argv[1] == "SIGTERM":
            signal.signal(signal.SIGTERM, lambda *signal: sys.exit(1))
        try:
            with DaemonContext(readiness="explicit", detach_process=True, start_timeout=timeout,
                               working_directory="."):
                try:
                    report("waiting", os.getpid())
                    time.sleep(600)
                finally:
                    report("cleaned up", os.getpid())
        finally:
            with open("unwound", "a") as file:
                print(os.getpid(), file=file)
    """, how)  # fmt: skip
    daemon = int(box.text("waiting"))
    if how != "timeout":
        launcher.send_signal(getattr(signal, how))
    launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == (-9 if how == "SIGKILL" else 1)
    assert int(box.text("cleaned up")) == daemon
    box.settled()
    if how != "SIGKILL":
        assert set(map(int, box.text("unwound").split())) - {daemon} == {launcher.pid}


def test_a_daemon_that_kills_its_session_leader_is_ended_and_named(box: support.Sandbox) -> None:
    done = box.run("""
        import time
        from tests.launching import *
        class Kill(Step):
            def apply(self, walk):
                report("daemon", os.getpid())
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(600)
        steps = DEFAULT_STEPS.insert_after("detach", Kill())
        print(attempt(DaemonContext(detach_process=True, steps=steps, pidfile="d.pid"))["pid"])
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == box.text("daemon").strip()
    box.settled()


def test_ready_after_the_launcher_is_gone_ends_the_daemon(box: support.Sandbox) -> None:
    launcher = box.popen("""
        import os, signal
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                           working_directory=".") as daemon:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.mkfifo("go")
            open("go").read()
            try:
                daemon.ready()
                open("went on", "w").close()
            except BaseException as error:
                with open("said", "w") as file:
                    print(repr(error), file=file)
                raise
            daemon.sleep()
    """)
    support.until((box.path / "go").exists)
    daemon = box.pid()
    leader = int(support.stat(daemon)[1])
    os.kill(leader, signal.SIGSTOP)
    launcher.kill()
    os.kill(leader, signal.SIGKILL)
    support.gone(leader)
    support.gone(launcher.pid)
    (box.path / "go").write_text("")
    launcher.communicate(timeout=support.DEADLINE)
    box.settled()
    assert not (box.path / "went on").exists()
    said = "StartError('the start was cancelled before the daemon was ready')\n"
    assert box.text("said") == said


# --- one process unwinds

UNWINDING = """
    import atexit, os, sys, tempfile
    from daemon_context import DEFAULT_STEPS, DaemonContext
    from tests.launching import Fail

    where = sys.argv[1]
    home = os.getcwd()
    launcher = os.getpid()

    def note(text):
        with open(f"{home}/notes", "a") as file:
            who = "launcher" if os.getpid() == launcher else "daemon"
            file.write(f"{text} in the {who}\\n")

    class Words(str):
        def encode(self, *args):
            os.kill(os.getpid(), 15)  # in the middle of ready()
            return b""

    atexit.register(note, "exit handler")
    directory = tempfile.TemporaryDirectory(dir=home)
    scratch = open(os.path.join(directory.name, "scratch"), "w")
    steps = DEFAULT_STEPS
    if where == "step":
        steps = steps.insert_after("write-pidfile", Fail("RuntimeError"))
    context = DaemonContext(detach_process=True, readiness="explicit", steps=steps,
                            pidfile="d.pid", files_preserve=[scratch])
    try:
        with context as daemon:
            if where == "body":
                note("directory is there" if os.path.exists(directory.name) else "gone")
                raise RuntimeError("no")
            if where == "exit":
                sys.exit(3)
            if where == "huge":
                sys.exit(2**31)
            if where == "words":
                daemon.ready(42)
            if where == "signal":
                daemon.ready(Words())
            daemon.ready()
            note("body")
    finally:
        note("finally")
        note("directory is there" if os.path.exists(directory.name) else "gone")
"""


@pytest.mark.parametrize("where", ["step", "body", "exit", "huge", "words"])
def test_after_a_failure_only_the_launcher_unwinds(box: support.Sandbox, where: str) -> None:
    done = box.run(UNWINDING, where)
    assert done.returncode == 1
    notes = box.text("notes").splitlines()
    if where == "body":
        assert notes.pop(0) == "directory is there in the daemon"
    assert notes == [
        "finally in the launcher",
        "directory is there in the launcher",
        "exit handler in the launcher",
    ]
    assert {p.name for p in box.path.iterdir()} == {"program.py", "notes"}


@pytest.mark.parametrize("how", ["success", "signal"])
def test_after_a_success_only_the_daemon_unwinds(box: support.Sandbox, how: str) -> None:
    done = box.run(UNWINDING, how)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert box.text("notes").splitlines() == [
        *(["body in the daemon"] if how == "success" else []),
        "finally in the daemon",
        "directory is there in the daemon",
        "exit handler in the daemon",
    ]
    assert {p.name for p in box.path.iterdir()} == {"program.py", "notes"}


def test_without_with_the_exit_handlers_run_in_the_launcher_alone(box: support.Sandbox) -> None:
    done = box.run("""
        import atexit, os, tempfile
        from daemon_context import DaemonContext
        home, launcher = os.getcwd(), os.getpid()
        def note():
            with open(f"{home}/notes", "a") as file:
                file.write("launcher" if os.getpid() == launcher else "daemon")
        atexit.register(note)
        directory = tempfile.TemporaryDirectory(dir=home)
        DaemonContext(detach_process=True, readiness="explicit").open()
        raise RuntimeError("no")
    """)
    assert done.returncode == 1
    assert box.text("notes") == "launcher"
    assert {p.name for p in box.path.iterdir()} == {"program.py", "notes"}


# --- limits


@pytest.mark.parametrize("closed", [(), (0,), (0, 1)])
def test_descriptors_that_run_out_anywhere_are_an_error(
    box: support.Sandbox, closed: tuple[int, ...]
) -> None:
    done = box.run("""
        import resource
        from tests.launching import *
        from tests.support import preload
        preload()   # an import that fails is Python's error, and not about a step
        for fd in sys.argv[1:]:
            os.close(int(fd))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(3, *open_files()) + 1
        outcomes = []
        for spare in range(40):
            report("outcomes", outcomes)
            context = DaemonContext(
                pidfile="d.pid", stdout="out.log", stderr="err.log", detach_process=True)
            before = surroundings()
            # Too low to succeed, but higher each time: so it fails at one place after the other.
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            try:
                context.open()
                break
            except BaseException as error:
                caught = error
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if sys.argv[1:] and os.path.exists("d.pid"):
                # Created under a number that it can't keep; unlocked, only the next start may
                # remove it.
                assert os.path.getsize("d.pid") == 0
                os.unlink("d.pid")
            after = surroundings()
            changed = {k: [before[k], after[k]] for k in before if before[k] != after[k]}
            outcomes.append({**describe(caught), "changed": changed})
            del caught
        context.sleep()
    """, *closed)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    outcomes = json.loads(box.text("outcomes"))
    assert 3 <= len(outcomes) < 39
    for outcome in outcomes:
        assert outcome["changed"] == {}, outcome
        assert "Too many open files" in outcome["message"] + str(outcome["notes"]), outcome
        assert outcome["errno"] == 24
        assert outcome["step"]
    assert support.alive(box.pid())


@pytest.mark.root
@pytest.mark.parametrize("how", ["open", "spawn"])
@pytest.mark.parametrize(("limit", "which"), [(1, "first"), (2, "second")])
def test_a_fork_that_fails_is_an_error(
    open_box: support.Sandbox, limit: int, which: str, how: str
) -> None:
    done = open_box.run(
        """
        import os, resource, sys
        from tests.launching import *
        from tests.support import preload
        preload()
        # A user of its own: the limit counts all processes of the user.
        uid = 1_000_000 + os.getpid()
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        limit = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        class Spawned(DaemonContext):
            def open(self):
                self.spawn(print)
        kind = {"open": DaemonContext, "spawn": Spawned}[sys.argv[2]]
        options = {"pidfile": "d.pid", "stdout": "out.log", "detach_process": True}
        print(json.dumps(attempt(kind(**options))))
        """,
        limit,
        how,
    )
    assert done.returncode == 0, done
    outcome = json.loads(done.stdout)
    assert outcome["class"] == "DaemonProcessDetachError"
    assert f"the {which} fork failed" in outcome["message"]
    assert (outcome["errno"], outcome["step"]) == (11, "detach")
    assert "OSError" in outcome["kinds"]
    assert outcome["changed"] == {}


# --- SIGCHLD, SIGPIPE, and children of the launcher's own

CHILDREN = """
    import os, signal, subprocess, sys, warnings
    from tests.launching import *

    warnings.filterwarnings("ignore", ".*child process")
    how, end = sys.argv[1:]
    reaped = []

    def reap_any(number, frame):
        try:
            while (pair := os.waitpid(-1, os.WNOHANG))[0]:
                reaped.append(pair)
        except ChildProcessError:
            pass

    handler = {"ignored": signal.SIG_IGN, "default": signal.SIG_DFL, "reaping": reap_any}[how]
    signal.signal(signal.SIGCHLD, handler)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    early = subprocess.Popen(["sh", "-c", "exit 7"])
    late = subprocess.Popen(["sh", "-c", "read x; exit 8"], stdin=subprocess.PIPE)
    os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT) if how == "default" else None
    if end == "success":
        DaemonContext(pidfile="d.pid", detach_process=True).open()
        os.kill(os.getpid(), signal.SIGSTOP)
    steps = DEFAULT_STEPS.insert_after("set-umask", Fail(end))
    outcome = {}
    try:
        DaemonContext(pidfile="d.pid", detach_process=True, steps=steps).open()
    except BaseException as error:
        outcome = describe(error)
    late.stdin.close()
    outcome["children"] = [early.wait(), late.wait()]
    outcome["handler"] = signal.getsignal(signal.SIGCHLD) == handler
    print(json.dumps(outcome))
"""


@pytest.mark.parametrize("how", ["default", "ignored", "reaping"])
def test_whatever_the_launcher_does_with_sigchld_the_error_arrives(
    box: support.Sandbox, how: str
) -> None:
    for end in ("RuntimeError", "exit-7", "subprocess"):
        done = box.run(CHILDREN, how, end)
        assert (done.returncode, done.stderr) == (0, "")
        outcome = json.loads(done.stdout)
        if end == "RuntimeError":
            assert "out of luck" in outcome["message"]
        elif end == "subprocess":
            assert "with a program running" in outcome["message"]
        else:
            assert "exited with status 7 before it was ready" in outcome["message"]
        assert outcome["handler"]
        assert outcome["step"] == "fail"
        if how == "default":
            assert outcome["children"] == [7, 8]
    box.settled()


@pytest.mark.parametrize("how", ["default", "ignored", "reaping"])
def test_whatever_the_launcher_does_with_sigchld_the_start_succeeds(
    box: support.Sandbox, how: str
) -> None:
    done = box.run(CHILDREN, how, "success")
    assert (done.returncode, done.stderr) == (0, "")
    assert support.alive(box.pid())


def test_a_launcher_with_sigpipe_at_its_default_survives_the_end_of_the_session_leader(
    box: support.Sandbox,
) -> None:
    launcher = box.popen(
        "import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n" + textwrap.dedent(WAITING),
        box.path,
    )
    leader = int(support.stat(int(box.text("waiting")))[1])
    os.kill(leader, signal.SIGKILL)
    _, text = launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == 1
    assert "was killed by SIGKILL before the daemon was ready" in text
    assert_nothing_left(box)
