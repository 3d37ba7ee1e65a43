"""The handle of a daemon: of one's own, and of one that runs already."""

from __future__ import annotations

import json

import pytest

from tests.helpers import support
from tests.helpers.spawning import program, run, told

# --- the handle


def test_the_handle_waits_and_tells(box: support.Sandbox) -> None:
    run(
        box,
        """
        from tests.helpers.launching import open_files
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
        from tests.helpers.launching import open_files
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
        from tests.helpers.support import become_nobody
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
