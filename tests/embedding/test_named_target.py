"""A target by its name: run in a fresh interpreter, from anywhere."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.helpers import support
from tests.helpers.spawning import HEAD, program, run, told

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
