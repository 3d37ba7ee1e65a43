"""spawn: the program goes on as it was, and has a handle of its daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from . import support

#: The start of every program: what tests.launching tells about a process, and a few words.
HEAD = """
import json, os, signal, sys, threading, time
from pathlib import Path
from daemon_context import AlreadyRunning, DaemonContext, DaemonError
from tests.launching import describe, report, surroundings

PLACE = Path.cwd()

def wait_for(name):
    while not (PLACE / name).exists():
        time.sleep(0.005)

def write(name, *words):
    with open(PLACE / name, "a") as file:
        print(*words, file=file)

def caught(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except BaseException as error:
        return describe(error)
    return {"class": None}

"""
REAPING = """
import ctypes
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
"""


def program(box: support.Sandbox, body: str, *, reaping: bool = False) -> Path:
    """A program that spawns."""
    import textwrap

    head = HEAD + (REAPING if reaping else "")
    return box.script(head + textwrap.dedent(body))


def run(
    box: support.Sandbox, body: str, *args: str, reaping: bool = False, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run it; it must succeed, and say nothing on stderr."""
    done = box.run(program(box, body, reaping=reaping), *args, **kwargs)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done


def told(box: support.Sandbox, body: str, *args: str, reaping: bool = False, **kwargs: Any) -> Any:
    """Run it, and return what it reports as ``told``."""
    run(box, body, *args, reaping=reaping, **kwargs)
    return json.loads(box.text("told"))


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


# --- the handle


def test_the_handle_waits_and_tells(box: support.Sandbox) -> None:
    run(
        box,
        """
        from tests.launching import open_files
        before = open_files()
        handle = DaemonContext().spawn(wait_for, "go-on")
        assert os.path.exists(f"/proc/{handle.pid}")
        assert handle.is_alive() and str(handle.pid) in repr(handle) and "running" in repr(handle)
        assert handle.wait(0) is False and handle.wait(0.05) is False
        write("go-on")
        assert handle.wait() is True and handle.wait(20) is True
        assert not handle.is_alive() and "ended" in repr(handle)
        assert handle.stop() is None
        assert open_files() == before
    """,
    )


def test_stop_follows_its_schedule(box: support.Sandbox) -> None:
    error = told(
        box,
        """
        def deaf():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGUSR1, lambda *args: write("signals", "SIGUSR1"))
            context.ready()
            while True:
                context.sleep(100)
        from tests.launching import open_files
        before = open_files()
        context = DaemonContext(readiness="explicit", pidfile="d.pid")
        handle = context.spawn(deaf)
        error = caught(handle.stop, [("TERM", 0.05), (signal.SIGUSR1, 0.05)])
        assert handle.is_alive()
        wait_for("signals")
        for schedule in [("NONE", 1)], [(999, 1)], [(0, 1)]:
            assert caught(handle.stop, schedule)["class"] == "OptionError"
        handle.stop([("SIGTERM", 0.05), ("KILL", 20)])
        assert not os.path.exists(f"/proc/{handle.pid}") or not handle.is_alive()
        assert open_files() == before
        report("told", {**error, "expected": handle.pid})
    """,
    )
    assert error["class"] == "DaemonError"
    assert error["pid"] == error["expected"]
    assert "still runs" in error["message"]
    assert box.text("signals") == "SIGUSR1\n"
    box.settled()


def test_stop_lets_a_daemon_end_by_itself(box: support.Sandbox) -> None:
    run(
        box,
        """
        def target():
            for _ in context.every(0.01):
                pass
            write("left", context.stop_requested)
        context = DaemonContext(pidfile="d.pid", signal_map={signal.SIGTERM: "request_stop"})
        context.spawn(target).stop()
        assert (PLACE / "left").read_text() == "True\\n"
        assert not (PLACE / "d.pid").exists()
    """,
    )


@pytest.mark.root
def test_stop_says_when_it_is_not_permitted(open_box: support.Sandbox) -> None:
    error = told(
        open_box,
        """
        from tests.support import become_nobody
        handle = DaemonContext().spawn(wait_for, "go-on")
        become_nobody()
        report("told", caught(handle.stop))
        assert handle.is_alive()
        write("go-on")
        assert handle.wait(20)
    """,
    )
    assert (error["class"], error["errno"]) == ("DaemonOSEnvironmentError", 1)
    assert "SIGTERM" in error["message"]


def test_a_zombie_is_known_as_dead(box: support.Sandbox) -> None:
    run(
        box,
        """
        handle = DaemonContext().spawn(os.kill, os.getpid(), 0)
        while open(f"/proc/{handle.pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.005)
        os.kill(handle.pid, 0)  # what a naive check does: it is there
        assert not handle.is_alive()
        assert handle.wait(0)
        handle.stop([])
        os.waitpid(handle.pid, 0)
        assert not handle.is_alive()
    """,
        reaping=True,
    )


REUSED = """
    def start():
        context = DaemonContext(pidfile="d.pid")
        handle = context.spawn(context.sleep)
        ticks = os.sysconf("SC_CLK_TCK")
        started = time.monotonic()
        while time.monotonic() - started < 3 / ticks:  # start times are counted in ticks
            time.sleep(0.005)
        return handle

    def innocent(pid):
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        child = os.fork()
        if child == 0:
            time.sleep(1000)
            os._exit(0)
        assert child == pid
        os.kill(pid, 0)  # what a naive check does

    assert os.getpid() == 1
    handle = start()
    os.kill(handle.pid, signal.SIGKILL)
    os.waitpid(handle.pid, 0)  # orphans are ours here
    innocent(handle.pid)
    assert not handle.is_alive()
    assert handle.wait(0)
    handle.stop()
    assert os.waitpid(handle.pid, os.WNOHANG) == (0, 0)  # it lives
"""
OWN_PIDS = ["unshare", "--pid", "--fork", "--mount-proc"]


@pytest.mark.root
def test_who_has_the_number_today_is_spared(box: support.Sandbox) -> None:
    run(box, REUSED, prefix=OWN_PIDS)


# --- the handle of a daemon that runs already


ENSURE = """
    def ensure():
        try:
            return DaemonContext(pidfile="d.pid").spawn(wait_for, "go-on")
        except AlreadyRunning as error:
            return error.handle
"""


def test_start_it_unless_it_runs_and_give_me_the_handle(box: support.Sandbox) -> None:
    first, second = told(
        box,
        ENSURE
        + """
    first, second = ensure(), ensure()
    assert first.is_alive() and second.is_alive()
    write("go-on")
    assert second.wait(20)
    report("told", [first.pid, second.pid])
    """,
    )
    assert first == second


STARTING = """
    from daemon_context import DEFAULT_STEPS, Step
    class Wait(Step):
        def apply(self, walk):
            write("starting")
            wait_for("go-on")
            if sys.argv[1] == "fails":
                raise RuntimeError("out of luck")
    steps = DEFAULT_STEPS.insert_before("write-pidfile", Wait())
    write("done", caught(DaemonContext(pidfile="d.pid", steps=steps).spawn, wait_for, "end"))
"""
ASKING = """
    error = None
    try:
        DaemonContext(pidfile="d.pid").spawn(wait_for, "end")
    except AlreadyRunning as raised:
        error = raised
    write("asked")
    try:
        report("told", error.handle.pid)
    except DaemonError as raised:
        report("told", describe(raised))
"""


def test_the_handle_of_a_daemon_that_is_starting_is_waited_for(box: support.Sandbox) -> None:
    box.popen(program(box, STARTING).rename(box.path / "first.py"), "works")
    box.text("starting")
    asking = box.popen(program(box, ASKING))
    box.text("asked")
    (box.path / "go-on").touch()
    assert asking.wait(support.DEADLINE) == 0
    pid = box.pid()
    assert json.loads(box.text("told")) == pid
    (box.path / "end").touch()
    box.settled()


def test_there_is_no_handle_of_a_daemon_that_fails_to_start(box: support.Sandbox) -> None:
    box.popen(program(box, STARTING).rename(box.path / "first.py"), "fails")
    box.text("starting")
    asking = box.popen(program(box, ASKING))
    box.text("asked")
    (box.path / "go-on").touch()
    assert asking.wait(support.DEADLINE) == 0
    error = json.loads(box.text("told"))
    assert error["class"] == "DaemonError"
    assert "d.pid" in error["message"]
    box.settled()


def test_there_is_no_handle_of_a_daemon_that_is_gone(box: support.Sandbox) -> None:
    error = told(
        box,
        """
        context = DaemonContext(pidfile="d.pid")
        handle = context.spawn(context.sleep)
        try:
            DaemonContext(pidfile="d.pid").spawn(print)
        except AlreadyRunning as raised:
            handle.stop()
            report("told", caught(lambda: raised.handle))
    """,
    )
    assert error["class"] == "DaemonError"
    assert error["path"] == str(box.path / "d.pid")
    assert "nobody holds its lock" in error["message"]


@pytest.mark.root
def test_there_is_no_handle_of_a_daemon_in_another_pid_namespace(box: support.Sandbox) -> None:
    run(box, ENSURE + "\n    ensure()\n")
    error = told(
        box,
        """
        try:
            DaemonContext(pidfile="d.pid").spawn(print)
        except AlreadyRunning as raised:
            assert raised.pid is None
            report("told", caught(lambda: raised.handle))
    """,
        prefix=OWN_PIDS,
    )
    assert error["class"] == "DaemonError"
    assert "another pid namespace" in error["message"]
    (box.path / "go-on").touch()
    box.settled()


# --- a fresh interpreter


HELPERS = """
    import json, os, socket, sys, threading, time
    from pathlib import Path
    from daemon_context import embedding

    print("noise while it is imported")
    PLACE = Path(__file__).parent

    def facts(*args, **kwargs):
        print("in the daemon")
        (PLACE / "facts.tmp").write_text(json.dumps({
            "args": args, "kwargs": kwargs, "cwd": os.getcwd(), "path": sys.path,
            "threads": threading.active_count(), "asyncio": "asyncio" in sys.modules,
            "environ": dict(os.environ), "argv": sys.argv[1:], "pid": os.getpid(),
        }))
        (PLACE / "facts.tmp").rename(PLACE / "facts")

    class Here:
        @staticmethod
        def write(fd, sock):
            os.write(fd, b"by number")
            socket.socket(fileno=sock).sendall(os.get_inheritable(fd).__repr__().encode())

    def stay():
        while not (PLACE / "go-on").exists():
            time.sleep(0.005)

    def say_ready(word):
        if word == "raise":
            raise RuntimeError("out of luck")
        (PLACE / "worked").touch()
        embedding.current.ready()
        embedding.current.sleep()

    def hang():
        (PLACE / "hanging").touch()
        time.sleep(1000)

    def reload(number, frame):
        (PLACE / "reloaded").touch()

    not_callable = 42
"""
ASYNCIO = """
import asyncio

def within(function):
    async def main():
        function()
    asyncio.run(main())
"""
THREAD = """
def within(function):
    raised = []
    def body():
        try:
            function()
        except BaseException as error:
            raised.append(error)
    other = threading.Thread(target=wait_for, args=["never"], daemon=True)
    other.start()
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
"""
PLAIN = """
def within(function):
    function()
"""
PLACES = {"plain": PLAIN, "thread": THREAD, "asyncio": ASYNCIO}


def fresh(
    box: support.Sandbox, body: str, place: str = "plain", **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program beside the module `helpers`; what it wants is done in `work`."""
    import textwrap

    box.script(HELPERS, "helpers.py")
    work = textwrap.indent(textwrap.dedent(body), "    ")
    script = box.script(f"{HEAD}{PLACES[place]}\ndef work():\n{work}\nwithin(work)\n")
    done = box.run(script, **kwargs)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("place", PLACES)
def test_a_named_target_runs_in_a_fresh_interpreter(box: support.Sandbox, place: str) -> None:
    done = fresh(
        box,
        """
        print("before")
        handle = DaemonContext(stdout="d.log", pidfile="d.pid").spawn(
            "helpers:facts", 1, "two", three=[3])
        print("after")
        assert handle.wait(20)
        facts = json.loads((PLACE / "facts").read_text())
        assert facts["pid"] == handle.pid
        assert facts["path"] == sys.path
        assert facts["environ"] == dict(os.environ)
    """,
        place,
    )
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "noise while it is imported\n"
    facts = json.loads(box.text("facts"))
    expected = {"args": [1, "two"], "kwargs": {"three": [3]}, "cwd": "/", "threads": 1,
                "asyncio": False, "argv": ["helpers:facts"]}  # fmt: skip
    assert expected.items() <= facts.items()
    assert box.text("d.log") == "in the daemon\n"
    assert not (box.path / "d.pid").exists()
    box.settled()


@pytest.mark.parametrize("place", ["thread", "asyncio"])
def test_a_function_is_not_forked_out_of_a_thread_or_a_loop(
    box: support.Sandbox, place: str
) -> None:
    fresh(
        box,
        """
        error = caught(DaemonContext(pidfile="d.pid", threads="ignore").spawn, print)
        assert error["class"] == "OptionError", error
        assert "package.module:function" in error["message"]
    """,
        place,
    )
    assert not (box.path / "d.pid").exists()
    box.settled()


def test_a_threaded_program_is_warned_about_its_threads(box: support.Sandbox) -> None:
    done = box.run(
        program(
            box,
            """
        threading.Thread(target=wait_for, args=["go-on"], name="worker").start()
        DaemonContext(stderr=sys.stderr).spawn(write, "ran").wait()
        write("go-on")
    """,
        )
    )
    assert (done.returncode, box.text("ran")) == (0, "\n")
    assert "RuntimeWarning" in done.stderr
    assert "worker" in done.stderr


@pytest.mark.parametrize("place", ["asyncio"])
def test_what_fails_there_reaches_the_caller_as_the_same_class(
    box: support.Sandbox, place: str
) -> None:
    fresh(
        box,
        """
        import io
        context = DaemonContext(pidfile="d.pid")
        handle = context.spawn("helpers:stay")
        try:
            DaemonContext(pidfile="d.pid").spawn("helpers:facts")
        except AlreadyRunning as error:
            assert error.pid == error.handle.pid == handle.pid
        write("go-on")
        assert handle.wait(20)
        context.pidfile = None

        def of(target="helpers:facts", *args, **options):
            return caught(DaemonContext(pidfile="d.pid", **options).spawn, target, *args)

        expected = [
            (of("no_such_module:facts"), "DaemonError", "no_such_module"),
            (of("helpers:none"), "DaemonError", "none"),
            (of("helpers:not_callable"), "OptionError", "42"),
            (of("helpers"), "OptionError", "package.module:function"),
            (of("__main__:main"), "OptionError", "__main__"),
            (of(umask=-1), "OptionError", "umask"),
            (of(uid="no-such-user"), "OptionError", "no-such-user"),
            (of(working_directory="/none"), "DaemonOSEnvironmentError", "/none"),
            (of(stdout="/none/log"), "DaemonOSEnvironmentError", "/none/log"),
            (of(stdout=io.StringIO()), "DaemonError", "stdout"),
            (of("helpers:facts", lambda: 0), "DaemonError", "pickle"),
            (of("helpers:facts", wait_for), "DaemonError", "__main__"),
            (of(signal_map={signal.SIGHUP: lambda *args: 0}), "DaemonError", "pickle"),
            (of("helpers:say_ready", "raise", readiness="explicit"), "DaemonError", "out of luck"),
            (of("helpers:hang", readiness="explicit", start_timeout=0.05), "StartError", "0.05"),
        ]
        for error, kind, words in expected:
            assert (error["class"], words in error["message"]) == (kind, True), error
    """,
        place,
    )
    assert not (box.path / "d.pid").exists()
    box.settled()


def test_descriptors_are_preserved_by_number(box: support.Sandbox) -> None:
    fresh(
        box,
        """
        import socket
        file = open("data", "wb", buffering=0)
        left, right = socket.socketpair()
        context = DaemonContext(files_preserve=[file, right, 200], signal_map={})
        context.spawn("helpers:Here.write", file.fileno(), right.fileno()).wait()
        right.close()
        assert left.recv(99) == b"False", "it stays close-on-exec"
        file.write(b", and still here")
    """,
        "asyncio",
    )
    assert box.text("data") == "by number, and still here"


def test_the_callers_own_streams_can_be_the_daemons(box: support.Sandbox) -> None:
    done = fresh(
        box,
        """
        options = dict(stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
        DaemonContext(**options).spawn("helpers:facts").wait()
    """,
    )
    assert done.stdout == "in the daemon\n"


def test_signal_handlers_and_subclasses_go_with_it(box: support.Sandbox) -> None:
    fresh(
        box,
        """
        import helpers, subclass
        context = subclass.Mine("word", pidfile="d.pid")
        context.signal_map = {signal.SIGHUP: helpers.reload, signal.SIGTERM: "terminate"}
        handle = context.spawn("helpers:stay")
        os.kill(handle.pid, signal.SIGHUP)
        wait_for("reloaded")
        handle.stop()
        assert (PLACE / "terminated").exists()
    """,
    ) if box.script(
        """
        from pathlib import Path
        from daemon_context import DaemonContext
        class Mine(DaemonContext):
            def __init__(self, word, **options):
                super().__init__(**options)
            def terminate(self, number, frame):
                (Path(__file__).parent / "terminated").touch()
                super().terminate(number, frame)
    """,
        "subclass.py",
    ) else None


def test_a_named_target_says_itself_that_it_is_ready(box: support.Sandbox) -> None:
    fresh(
        box,
        """
        context = DaemonContext(readiness="explicit", pidfile="d.pid")
        handle = context.spawn("helpers:say_ready", "ready")
        assert (PLACE / "worked").exists()
        handle.stop()
    """,
        "asyncio",
    )


def test_with_standard_streams_closed_it_works_too(box: support.Sandbox) -> None:
    box.script(HELPERS, "helpers.py")
    script = program(box, 'DaemonContext(pidfile="d.pid").spawn("helpers:facts").wait(20)')
    shell = 'exec <&- >&- 2>&-; exec "$0" "$@"'
    done = box.run(script, prefix=["sh", "-c", shell])
    assert done.returncode == 0
    assert json.loads(box.text("facts"))["args"] == []


def test_an_interrupted_launcher_cancels_the_start(box: support.Sandbox) -> None:
    box.script(HELPERS, "helpers.py")
    launcher = box.popen(
        program(
            box,
            """
        context = DaemonContext(pidfile="d.pid", readiness="explicit")
        write("class", caught(context.spawn, "helpers:hang")["class"])
    """,
        )
    )
    support.until((box.path / "hanging").exists)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(support.DEADLINE) == 0
    assert box.text("class") == "KeyboardInterrupt\n"
    box.settled()
    assert not (box.path / "d.pid").exists()


@pytest.mark.parametrize("target", ["work", "'program:work'"])
def test_the_handle_has_the_words_of_readiness(box: support.Sandbox, target: str) -> None:
    done = box.run(f"""
        from daemon_context import DaemonContext
        from daemon_context import embedding
        context = DaemonContext(readiness="explicit")
        def work():
            (embedding.current if __name__ != "__main__" else context).ready("listening on 80")
        if __name__ == "__main__":
            print(context.spawn({target}).status)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "listening on 80\n", "")


def test_who_started_the_program_is_not_asked(box: support.Sandbox) -> None:
    """It would not change anything, and systemd may take its time to answer."""
    done = box.run("""
        import sys
        from daemon_context import DaemonContext
        from daemon_context.manager import supervisor
        def target():
            pass
        supervisor.detect = None
        context = DaemonContext()
        context.spawn(target)
        try:
            context.open()
        except TypeError:
            print("open() asks")
    """)
    assert (done.stdout, done.stderr) == ("open() asks\n", "")


def test_a_target_that_fails_before_it_is_ready_does_not_wait_for_its_threads(
    box: support.Sandbox,
) -> None:
    error = told(
        box,
        """
        def target():
            threading.Thread(target=wait_for, args=["go-on"]).start()
            raise RuntimeError("out of luck")
        context = DaemonContext(readiness="explicit", start_timeout=30)
        report("told", caught(context.spawn, target))
        write("go-on")
    """,
    )
    assert "out of luck" in error["message"]


@pytest.mark.parametrize("end", ["raise RuntimeError('out of luck')", "sys.exit('out of luck')"])
def test_the_error_of_a_target_is_in_its_log_while_its_threads_go_on(
    box: support.Sandbox, end: str
) -> None:
    run(
        box,
        f"""
        def target():
            threading.Thread(target=wait_for, args=["go-on"]).start()
            {end}
        DaemonContext(stderr="d.log").spawn(target)
    """,
    )
    support.until(lambda: box.text("d.log").endswith("out of luck\n"))
    (box.path / "go-on").touch()
    box.settled()
    assert box.text("d.log").count("out of luck\n") == 1


def test_what_is_preserved_by_any_number_does_not_keep_the_launcher(box: support.Sandbox) -> None:
    fresh(
        box,
        """
        handle = DaemonContext(files_preserve=range(1024)).spawn("helpers:stay")
        assert handle.is_alive()
        write("go-on")
        assert handle.wait(20)
    """,
    )


def test_descriptors_that_run_out_leave_none_behind(box: support.Sandbox) -> None:
    fresh(
        box,
        """
        import resource
        from daemon_context.embedding import fresh
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        DaemonContext(pidfile="d.pid").spawn("helpers:facts").wait()  # all is imported
        for room in range(6):
            before = os.listdir("/proc/self/fd")
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + room, hard))
            error = caught(DaemonContext().spawn, "helpers:facts")
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            assert os.listdir("/proc/self/fd") == before
            assert error["class"] == "DaemonError", error
            assert "Too many open files" in error["message"], error
    """,
    )


@pytest.mark.parametrize("message", ["'disk gone'", "OSError('disk gone')"])
def test_an_exit_with_a_message_says_it_on_stderr(box: support.Sandbox, message: str) -> None:
    run(
        box,
        f"""
        def target():
            sys.exit({message})
        DaemonContext(stderr="d.log").spawn(target).wait()
    """,
    )
    assert box.text("d.log") == "disk gone\n"


def test_a_wait_may_be_longer_than_a_poll_can_be(box: support.Sandbox) -> None:
    run(
        box,
        """
        for seconds in (1e8, float("inf")):
            assert DaemonContext(start_timeout=1e8).spawn(wait_for, "go-on").wait(0.01) is False
            handle = DaemonContext().spawn(time.sleep, 0.1)
            assert handle.wait(seconds)
        write("go-on")
    """,
    )
    box.settled()
