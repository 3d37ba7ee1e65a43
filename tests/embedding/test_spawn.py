"""spawn: the program goes on as it was, and has a handle of its daemon."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.helpers import support
from tests.helpers.spawning import run, told

# --- the launcher


def test_the_launcher_goes_on_with_nothing_changed(box: support.Sandbox) -> None:
    changed = told(
        box,
        """
        import atexit, logging
        signal.signal(signal.SIGUSR1, lambda *a: None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        logging.basicConfig(filename="records.log")
        kept, left = open("kept", "w"), open("left", "w")
        os.umask(0o013)
        os.environ["HOME"] = str(PLACE)

        def target():
            os.umask(0o077)
            os.environ["HOME"] = "/nowhere"
            wait_for("go-on")

        options = dict(stdout="d.log", umask=0o022, prevent_core=True, files_preserve=[kept],
                       pidfile="d.pid")
        if os.geteuid() == 0:
            options.update(uid=0, gid=0)
        DaemonContext(stdout="d.log", pidfile="d.pid").spawn(print, "once").wait()  # its files
        (PLACE / "d.pid").touch(), (PLACE / "d.pid.lock").touch()
        before = surroundings()
        context = DaemonContext(**options)
        handle = context.spawn(target)
        after = surroundings()
        assert not context.is_open
        report("told", {k: [before[k], after[k]] for k in before if before[k] != after[k]})
        for file in kept, left:
            file.write("still works")
            file.close()
        write("go-on")
        handle.wait()
    """,
    )
    assert changed == {}
    assert box.text("left") == box.text("kept") == "still works"


ENDS = {
    "returns": "pass",
    "raises": "raise RuntimeError('out of luck')",
    "sys.exit(0)": "sys.exit(0)",
    "sys.exit(3)": "sys.exit(3)",
    "sys.exit(text)": "sys.exit('enough')",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "os._exit": "os._exit(5)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "recursion": "target()",
}
STATUS = {
    "returns": 0, "raises": 1, "sys.exit(0)": 0, "sys.exit(3)": 3, "sys.exit(text)": 1,
    "KeyboardInterrupt": 1, "os._exit": 5, "killed": -9, "recursion": 1,
}  # fmt: skip
SAID = {
    "raises": "RuntimeError: out of luck\n", "sys.exit(text)": "enough\n",
    "KeyboardInterrupt": "KeyboardInterrupt\n", "recursion": "maximum recursion depth exceeded",
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_only_the_launcher_unwinds_however_the_target_ends(box: support.Sandbox, end: str) -> None:
    status = told(
        box,
        f"""
        import atexit, tempfile, weakref
        def target():
            {ENDS[end]}
        class Thing:
            pass
        atexit.register(lambda: write("exited", os.getpid()))
        thing = Thing()
        weakref.finalize(thing, lambda: write("finalized", os.getpid()))
        place = tempfile.TemporaryDirectory(dir=PLACE)
        write("launcher", os.getpid())
        try:
            handle = DaemonContext(stderr="d.log", pidfile="d.pid").spawn(target)
            handle.wait()
            assert os.path.isdir(place.name)
            report("told", os.waitstatus_to_exitcode(os.waitpid(handle.pid, 0)[1]))
        finally:
            write("left", os.getpid())
    """,
        reaping=True,
    )
    assert status == STATUS[end]
    launcher = box.text("launcher")
    for name in ("exited", "left", "finalized"):
        assert box.text(name) == launcher, name
    log = (box.path / "d.log").read_text() if (box.path / "d.log").exists() else ""
    assert SAID[end] in log if end in SAID else log == ""
    if end not in ("os._exit", "killed"):
        assert not (box.path / "d.pid").exists()
    box.settled()


def test_a_daemon_that_is_ended_before_its_target_begins_unwinds_nothing_either(
    box: support.Sandbox,
) -> None:
    status = told(
        box,
        """
        import atexit
        class Ended(DaemonContext):
            def ready(self, status=""):
                super().ready(status)
                os.kill(os.getpid(), signal.SIGTERM)  # as from a launcher that stops it at once
        atexit.register(lambda: write("exited", os.getpid()))
        write("launcher", os.getpid())
        try:
            handle = Ended(pidfile="d.pid").spawn(write, "began")
            handle.wait()
            report("told", os.waitstatus_to_exitcode(os.waitpid(handle.pid, 0)[1]))
        finally:
            write("left", os.getpid())
    """,
        reaping=True,
    )
    assert status == 0
    assert box.text("exited") == box.text("left") == box.text("launcher")
    assert not (box.path / "began").exists()
    assert not (box.path / "d.pid").exists()
    box.settled()


def test_output_is_not_disturbed_and_nothing_is_written_twice(box: support.Sandbox) -> None:
    done = run(
        box,
        """
        print("before", end=" ")
        sys.stdout.write("buffered ")
        def target():
            print("in the daemon")
        handle = DaemonContext(stdout="d.log").spawn(target)
        print("after")
        handle.wait()
    """,
    )
    assert done.stdout == "before buffered after\n"
    assert box.text("d.log") == "in the daemon\n"


def test_what_an_unpreserved_file_has_buffered_is_written_once(box: support.Sandbox) -> None:
    run(
        box,
        """
        file = open("data", "w")
        file.write("launcher ")
        def target():
            try:
                file.write("daemon ")
                file.flush()
            except (OSError, ValueError) as error:
                write("raised", type(error).__name__)
        DaemonContext().spawn(target).wait()
        file.write("again")
        file.close()
    """,
    )
    assert box.text("data") == "launcher again"
    assert box.text("raised") == "ValueError\n"


def test_what_a_preserved_file_has_buffered_is_written_once(box: support.Sandbox) -> None:
    run(
        box,
        """
        file = open("data", "w")
        file.write("launcher ")
        def target():
            file.write("daemon ")
            file.flush()
        DaemonContext(files_preserve=[file]).spawn(target).wait()
        file.write("again")
        file.close()
    """,
    )
    assert box.text("data") == "launcher daemon again"


def test_many_spawns_leave_nothing(box: support.Sandbox) -> None:
    changed = told(
        box,
        """
        def target(number):
            write("ran", number)
        DaemonContext(pidfile="d.pid").spawn(target, -1).wait()
        before = surroundings()
        for number in range(100):
            handle = DaemonContext(pidfile="d.pid").spawn(target, number)
            assert handle.wait(20)
        after = surroundings()
        report("told", {k: [before[k], after[k]] for k in before if before[k] != after[k]})
    """,
    )
    assert changed == {}
    assert box.text("ran").split() == [str(number) for number in range(-1, 100)]
    assert not (box.path / "d.pid").exists()


def test_one_context_spawns_many_daemons_at_once(box: support.Sandbox) -> None:
    run(
        box,
        """
        context = DaemonContext()
        handles = [context.spawn(wait_for, "go-on") for _ in range(5)]
        assert len({handle.pid for handle in handles}) == 5
        assert all(handle.is_alive() for handle in handles)
        write("go-on")
        assert all(handle.wait(20) for handle in handles)
    """,
    )


# --- the target


def test_it_gets_its_arguments_and_is_any_function(box: support.Sandbox) -> None:
    run(
        box,
        """
        def outer(word):
            return lambda *args, **kwargs: write("out", word, args, kwargs, __name__)
        class Callable:
            def __call__(self): write("out", "called")
            def method(self): write("out", "method")
        DaemonContext().spawn(outer("closure"), 1, "two", three=[3]).wait()
        DaemonContext().spawn(Callable()).wait()
        DaemonContext().spawn(Callable().method).wait()
    """,
    )
    said = "closure (1, 'two') {'three': [3]} __main__\ncalled\nmethod\n"
    assert box.text("out") == said


def test_it_runs_in_a_daemon(box: support.Sandbox) -> None:
    pid, launcher = told(
        box,
        """
        def target():
            assert context.is_open
            context.sleep()
        context = DaemonContext(pidfile="d.pid", detach_process=False)  # spawn detaches always
        report("told", [context.spawn(target).pid, os.getpid()])
        assert (PLACE / "d.pid").read_text() == f"{json.loads((PLACE / 'told').read_text())[0]}\\n"
    """,
    )
    _, parent, _, session, terminal, *_ = support.stat(pid)
    assert int(session) != pid
    assert int(parent) != launcher
    assert terminal == "0"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    os.kill(pid, signal.SIGTERM)
    box.settled()
    assert not (box.path / "d.pid").exists()


@pytest.mark.parametrize("end", ["pass", "raise RuntimeError('out of luck')", "sys.exit(3)"])
def test_its_threads_are_waited_for(box: support.Sandbox, end: str) -> None:
    run(
        box,
        f"""
        def late():
            wait_for("go-on")
            write("thread", (PLACE / "d.pid").exists())
        def target():
            threading.Thread(target=late).start()
            threading.Thread(target=wait_for, args=["never"], daemon=True).start()
            {end}
        handle = DaemonContext(pidfile="d.pid", stderr="d.log").spawn(target)
        assert not handle.wait(0.1)
        write("go-on")
        assert handle.wait(20)
    """,
    )
    assert box.text("thread") == "True\n"


def test_its_own_exit_handlers_run_and_its_files_are_written_out(box: support.Sandbox) -> None:
    run(
        box,
        """
        import atexit
        def target():
            global file
            atexit.register(lambda: write("exited", "daemon", not context.is_open))
            file = open(PLACE / "data", "w")
            file.write("never closed")
            file.cycle = file
        context = DaemonContext(pidfile="d.pid")
        atexit.register(lambda: write("exited", "launcher"))
        context.spawn(target).wait()
    """,
    )
    assert box.text("exited") == "daemon True\nlauncher\n"
    assert box.text("data") == "never closed"


# --- readiness


def test_explicit_readiness_is_waited_for(box: support.Sandbox) -> None:
    run(
        box,
        """
        def target():
            write("worked")
            context.ready("works")
            wait_for("go-on")
        context = DaemonContext(readiness="explicit")
        handle = context.spawn(target)
        assert (PLACE / "worked").exists() and handle.is_alive()
        write("go-on")
        assert handle.wait(20)
    """,
    )


def test_without_detach_it_is_refused_and_the_target_is_not_run_in_the_caller(
    box: support.Sandbox,
) -> None:
    run(
        box,
        """
        from daemon_context import DEFAULT_STEPS
        context = DaemonContext(steps=DEFAULT_STEPS.remove("detach"))
        error = caught(context.spawn, write, "ran")
        assert error["class"] == "OptionError", error
        assert "no 'detach'" in error["message"]
        assert not (PLACE / "ran").exists() and not context.is_open
        write("went-on")
    """,
    )
    assert (box.path / "went-on").exists()


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("pass", {"class": "StartError"}),
        ("raise RuntimeError('out of luck')", {"class": "DaemonError"}),
        ("open('/proc/none')", {"class": "DaemonOSEnvironmentError", "errno": 2}),
        ("sys.exit(3)", {"class": "StartError", "exit_status": 3}),
        ("os._exit(7)", {"class": "StartError", "exit_status": 7}),
        ("os.kill(os.getpid(), signal.SIGKILL)", {"class": "StartError", "signal_number": 9}),
    ],
)
def test_a_target_that_fails_before_it_is_ready_raises_in_the_launcher(
    box: support.Sandbox, end: str, expected: dict[str, Any]
) -> None:
    error = told(
        box,
        f"""
        def target():
            {end}
        context = DaemonContext(readiness="explicit", pidfile="d.pid")
        report("told", caught(context.spawn, target))
        write("go-on")
    """,
    )
    assert expected.items() <= error.items()
    if error["class"].startswith("Daemon"):
        assert "in target" in "".join(error["notes"])  # the traceback
    assert (box.path / "go-on").exists()
    assert not (box.path / "d.pid").exists()
    box.settled()


def test_a_start_that_fails_raises_in_the_launcher(box: support.Sandbox) -> None:
    errors = told(
        box,
        """
        from daemon_context import DEFAULT_STEPS, Step
        class Fail(Step):
            def apply(self, walk): raise RuntimeError("out of luck")
        failing = DEFAULT_STEPS.insert_after("set-umask", Fail())
        def target(): write("ran")
        before = surroundings()
        errors = [
            caught(DaemonContext(working_directory="/none").spawn, target),
            caught(DaemonContext(umask=-1).spawn, target),
            caught(DaemonContext(steps=failing, pidfile="d.pid").spawn, target),
            caught(DaemonContext().spawn, 42),
        ]
        after = surroundings()
        assert before == after
        report("told", [[error["class"], error["step"]] for error in errors])
    """,
    )
    assert errors == [
        ["DaemonOSEnvironmentError", "change-directory"], ["OptionError", None],
        ["StepError", "fail"], ["OptionError", None],
    ]  # fmt: skip
    assert not (box.path / "ran").exists()
    box.settled()


def test_an_open_context_spawns_nothing(box: support.Sandbox) -> None:
    done = run(
        box,
        """
        with DaemonContext(detach_process=False, stdout=sys.stdout) as context:
            print(caught(context.spawn, print)["message"])
    """,
    )
    assert "open context" in done.stdout
