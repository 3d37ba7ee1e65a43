"""What a manager hears, on a real socket: sd_notify(3), the watchdog, reloads."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import support

FOREGROUND, DETACHED = "dict(detach_process=False)", "dict(detach_process=True)"
MODES = pytest.mark.parametrize("mode", [FOREGROUND, DETACHED], ids=["foreground", "detached"])


class Manager:
    """Listens as systemd does, and notes who said what."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)
        self.address = address
        self.heard: list[str] = []
        self.speakers: set[int] = set()
        self.times: list[float] = []

    def listen(self) -> list[str]:
        """All that was said up to now, of one datagram a string."""
        while True:
            try:
                data, ancillary, flags, _ = self.socket.recvmsg(4096, 256)
            except BlockingIOError:
                return self.heard
            assert not flags & socket.MSG_TRUNC
            assert b"\0" not in data
            self.heard.append(data.decode())
            self.times.append(time.monotonic())
            self.speakers.add(struct.unpack("3i", ancillary[0][2])[0])

    def hear(self, wanted: str, count: int = 1) -> list[str]:
        """Wait until it was said that often."""
        found = lambda: sum(map(wanted.__eq__, self.listen())) >= count  # noqa: E731
        support.until(found, what=f"{wanted!r} in {self.heard}")
        return self.heard


@pytest.fixture(params=["path", "abstract"])
def manager(request: Any, box: support.Sandbox) -> Iterator[Manager]:
    address = str(box.path / "notify") if request.param == "path" else f"@{box.mark}"
    manager = Manager(address)
    if request.param == "path":
        os.chmod(address, 0o777)
    box.environ["NOTIFY_SOCKET"] = address
    for name in ("INVOCATION_ID", "SYSTEMD_EXEC_PID", "LISTEN_PID"):
        box.environ.pop(name, None)
    yield manager
    manager.socket.close()


def work(box: support.Sandbox, body: str, *args: Any, **kwargs: Any) -> None:
    """Run a program, whose daemon prints into the file "log", to its end."""
    done = box.run(body, *args, **kwargs)
    assert (done.returncode, done.stderr) == (0, ""), done
    box.settled()


SPEAKER = """
    import os, subprocess, sys
    from daemon_context import DaemonContext
    given = os.environ["NOTIFY_SOCKET"]
    with DaemonContext(readiness="explicit", stdout="log", **eval(sys.argv[1])) as daemon:
        daemon.tell("warming up")
        daemon.ready("serving")
        daemon.tell("line\\nREADY=1\\0 \\udc80")
        if not os.fork():  # no child speaks for its daemon
            daemon.tell("child")
            daemon.request_stop()
            daemon.close()
            os._exit(0)
        os.wait()
        subprocess.run(["sh", "-c", "env | grep -E 'NOTIFY|WATCHDOG'"], stdout=1)
        print(os.getpid(), [name for name in os.environ if "NOTIFY" in name or "WATCH" in name])
"""


@MODES
def test_ready_words_and_the_end_are_told_by_the_daemon(
    box: support.Sandbox, manager: Manager, mode: str
) -> None:
    work(box, SPEAKER, mode, env={"WATCHDOG_USEC": "9000000"})
    assert manager.listen() == [
        "STATUS=warming up",
        "READY=1\nSTATUS=serving",
        "STATUS=line READY=1  ?",
        "STOPPING=1",
    ]
    pid, _, names = box.text("log").strip().partition(" ")
    assert (manager.speakers, names) == ({int(pid)}, "[]")


@MODES
def test_ready_at_open_and_a_stop_that_is_asked_for(
    box: support.Sandbox, manager: Manager, mode: str
) -> None:
    body = """
        import sys
        from daemon_context import DaemonContext
        options = dict(working_directory=".", signal_map={15: "request_stop"})
        with DaemonContext(pidfile="d.pid", **eval(sys.argv[1]), **options) as daemon:
            daemon.sleep()
            print("x", file=open("over", "w"), flush=True)
            open("go").read()
    """
    os.mkfifo(box.path / "go")
    program = box.popen(body, mode)
    manager.hear("READY=1")
    os.kill(box.pid(), signal.SIGTERM)
    box.text("over")
    assert manager.listen() == ["READY=1", "STOPPING=1"]  # before the end, and only once
    (box.path / "go").write_text("")
    assert program.wait(support.DEADLINE) == 0
    box.settled()
    assert manager.listen() == ["READY=1", "STOPPING=1"]


def test_from_a_chroot_and_as_another_user(box: support.Sandbox, manager: Manager) -> None:
    if os.geteuid():
        pytest.skip("only root can")
    (box.path / "root").mkdir()
    body = """
        import os, sys
        from daemon_context import DaemonContext
        options = dict(chroot_directory="root", uid="nobody", detach_process=eval(sys.argv[1]))
        with DaemonContext(umask=0o022, **options) as daemon:
            before = {*sys.modules}
            daemon.tell(f"uid {os.getuid()}, {os.listdir('/')}")
            daemon.request_stop()
            assert {*sys.modules} == before
    """
    for detach in (True, False):
        work(box, body, detach)
        assert manager.listen()[:3] == ["READY=1", "STATUS=uid 65534, []", "STOPPING=1"]
        manager.heard.clear()


def test_a_status_is_cut_to_what_systemd_takes(box: support.Sandbox, manager: Manager) -> None:
    work(box, """
        from daemon_context import DaemonContext
        with DaemonContext(readiness="explicit", detach_process=False) as daemon:
            daemon.ready("ä" * 5000)
            daemon.tell("x" * 5000)
    """)  # fmt: skip
    ready, told, stopping = manager.listen()
    assert ready.startswith("READY=1\nSTATUS=ää")
    assert 4090 < len(ready.encode()) <= 4096
    assert (len(told), stopping) == (4096, "STOPPING=1")


@MODES
@pytest.mark.parametrize("address", ["dead", "missing", "relative", "vsock:2:1", "@", "/" * 300])
def test_nobody_behind_the_address_is_no_error(
    box: support.Sandbox, mode: str, address: str
) -> None:
    if address == "dead":
        address = str(box.path / "dead")
        Manager(address).socket.close()
    elif address == "missing":
        address = str(box.path / "missing")
    work(box, SPEAKER, mode, env={"NOTIFY_SOCKET": address})
    assert box.text("log")


def test_used_up_descriptors_are_told_as_such(box: support.Sandbox, manager: Manager) -> None:
    done = box.run("""
        import _socket, os, resource
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        from daemon_context.manager import notify  # as the socket: no file is opened for them
        class Greedy(Step):
            def check(self, walk):
                resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
                try:
                    while True:
                        os.open("/dev/null", os.O_RDONLY)
                except OSError:
                    pass
        steps = DEFAULT_STEPS.insert_before("report-ready", Greedy())
        DaemonContext(detach_process=True, steps=steps).open()
    """)
    last = done.stderr.splitlines()[-1]
    assert ": Too many open files: " in last
    assert " (step 1 of 16, flush-streams)" in last


def test_who_stops_to_listen_is_no_error(box: support.Sandbox, manager: Manager) -> None:
    program = box.popen("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=False) as daemon:
            daemon.sleep()
            daemon.tell("nobody")
    """)
    manager.hear("READY=1")
    manager.socket.close()
    os.kill(box.pid(), signal.SIGTERM)
    assert program.wait(support.DEADLINE) == 0


def test_words_never_wait_for_a_manager_that_does_not_read(
    box: support.Sandbox, manager: Manager
) -> None:
    begun = time.monotonic()
    work(box, """
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False) as daemon:
            for number in range(3000):
                daemon.tell(str(number))
    """)  # fmt: skip
    assert manager.listen()[0] == "READY=1"
    assert time.monotonic() - begun < 15  # the end may wait a little


@pytest.mark.parametrize("by", ["function", "name"])
def test_of_a_helper_the_manager_hears_nothing(
    box: support.Sandbox, manager: Manager, by: str
) -> None:
    box.script(
        """
        import os
        def target():
            from daemon_context import embedding
            embedding.current.tell("helper")
            embedding.current.beat()
            print("NOTIFY_SOCKET" in os.environ, file=open("log", "w"))
        """,
        "helping.py",
    )
    done = box.run(
        """
        import os, sys
        from daemon_context import DaemonContext
        from helping import target
        handle = DaemonContext(working_directory=".").spawn(
            target if sys.argv[1] == "function" else "helping:target")
        handle.wait()
        print(os.environ["NOTIFY_SOCKET"])
        """,
        by,
    )
    assert (done.stdout.strip(), done.stderr) == (manager.address, "")
    assert box.text("log") == "False\n"
    assert manager.listen() == []


def test_a_start_that_fails_leaves_the_variable(box: support.Sandbox, manager: Manager) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext, DaemonError, DEFAULT_STEPS, Step
        class Fail(Step):
            def apply(self, walk):
                raise ValueError("no")
        for detach in (True, False):
            context = DaemonContext(steps=[*DEFAULT_STEPS, Fail()], detach_process=detach)
            try:
                context.open()
            except DaemonError:
                print(os.environ["NOTIFY_SOCKET"], len(os.listdir("/proc/self/fd")))
    """)
    assert done.stdout.split() == [manager.address, "4"] * 2
    assert manager.listen() == []


def test_five_cycles_leave_no_descriptor(box: support.Sandbox, manager: Manager) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        context = DaemonContext(detach_process=False, stdout=1)
        for _ in range(5):
            with context:
                pass
        print(len(os.listdir("/proc/self/fd")))
    """)
    assert (done.stdout, done.stderr) == ("4\n", "")
    assert manager.listen() == ["READY=1", "STOPPING=1"]


def test_a_context_that_is_closed_keeps_nothing_open_for_itself(
    box: support.Sandbox, manager: Manager
) -> None:
    work(box, """
        import os, sys
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False) as first:
            number = first.manager.fd
        os.dup2(0, number)
        with DaemonContext(detach_process=False) as second:
            sys.exit(number not in [item.fd for item in second.closed_descriptors])
    """)  # fmt: skip


def test_who_has_nobody_to_speak_to_loads_nothing_for_it(box: support.Sandbox) -> None:
    done = box.run("""
        import sys
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False, stdout=1) as daemon:
            daemon.tell("x")
            daemon.beat()
            print([name for name in sys.modules if name.endswith(("notify", "socket"))])
    """)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- the watchdog


def beats(manager: Manager) -> list[float]:
    """The seconds between two signs of life, from ready on."""
    times = [
        when
        for said, when in zip(manager.heard, manager.times, strict=True)
        if said.startswith(("READY=1", "WATCHDOG=1"))
    ]
    return [after - before for before, after in itertools.pairwise(times)]


@MODES
@pytest.mark.parametrize(
    "loop",
    [
        "daemon.sleep(2)",
        "next(iter(daemon.every(0.001))); daemon.sleep(2)",
        "[time.sleep(0.3) for _ in range(7) if not daemon.stop_requested]",
        "[(daemon.beat(), time.sleep(0.3)) for _ in range(7)]",
        "threading.Thread(target=lambda: [(daemon.beat(), time.sleep(0.3)) for _ in range(7)])"
        ".start()",
    ],
    ids=["sleep", "every", "stop_requested", "beat", "beat-in-a-thread"],
)
def test_the_loop_gives_signs_of_life(
    box: support.Sandbox, manager: Manager, mode: str, loop: str
) -> None:
    body = f"""
        import sys, threading, time
        from daemon_context import DaemonContext
        with DaemonContext(**eval(sys.argv[1]), threads="ignore") as daemon:
            {loop}
            [thread.join() for thread in threading.enumerate() if thread.daemon is False
             and thread is not threading.main_thread()]
    """
    program = box.popen(
        "import os, sys\nos.environ['WATCHDOG_PID'] = str(os.getpid())\n"
        "os.environ['WATCHDOG_USEC'] = '1000000'\n" + __import__("textwrap").dedent(body),
        mode,
    )
    support.until(lambda: "STOPPING=1" in manager.listen())
    assert program.wait(support.DEADLINE) == 0
    assert manager.heard.count("WATCHDOG=1") >= 4
    assert max(beats(manager)) < 0.9, (beats(manager), manager.heard)
    assert manager.heard.count("WATCHDOG=1") < 30  # and no flood
    box.settled()


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(1)",
        "thread(lambda: daemon.sleep(1))",
        "thread(lambda: [0 for _ in range(1000) if daemon.stop_requested or time.sleep(0.001)])",
        "daemon.beat(); daemon.sleep(1)",
        "[daemon.sleep(1)] if not os.fork() else os.wait()",
    ],
    ids=["stuck", "sleep-in-a-thread", "look-in-a-thread", "after-beat", "forked"],
)
def test_nobody_speaks_for_a_stuck_main_thread(
    box: support.Sandbox, manager: Manager, body: str
) -> None:
    work(
        box,
        f"""
        import os, threading, time
        def thread(run):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False) as daemon:
            {body}
        """,
        env={"WATCHDOG_USEC": "400000"},
    )
    assert manager.listen().count("WATCHDOG=1") == body.count("beat()")


@pytest.mark.parametrize("environ", [
    {"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"},
    {"WATCHDOG_USEC": "0"}, {},
])  # fmt: skip
def test_a_watchdog_that_is_not_ours_gets_nothing(
    box: support.Sandbox, manager: Manager, environ: dict[str, str]
) -> None:
    work(
        box,
        """
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False) as daemon:
            daemon.beat()
            daemon.sleep(0.6)
        """,
        env=environ,
    )
    assert manager.listen() == ["READY=1", "STOPPING=1"]


def test_a_sleep_without_a_limit_wakes_for_the_watchdog_only(
    box: support.Sandbox, manager: Manager
) -> None:
    program = box.popen("""
        import os, time
        if os.environ.get("WATCHDOG_USEC"):
            os.environ["WATCHDOG_PID"] = str(os.getpid())
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False, pidfile="d.pid") as daemon:
            daemon.sleep()
    """)
    manager.hear("READY=1")
    pid = box.pid()
    support.until(lambda: support.state(pid) == "S")
    time.sleep(0.2)

    def switches() -> str:
        return support.status(pid)["voluntary_ctxt_switches"]

    before = switches()
    time.sleep(0.7)
    assert switches() == before
    os.kill(pid, signal.SIGTERM)
    assert program.wait(support.DEADLINE) == 0


# --- reload

RELOADING = re.compile(r"RELOADING=1\nMONOTONIC_USEC=(\d+)\Z")


@MODES
@pytest.mark.parametrize("fails", [False, True], ids=["good", "bad"])
def test_a_handler_of_a_context_is_a_reload(
    box: support.Sandbox, manager: Manager, mode: str, fails: bool
) -> None:
    program = box.popen(
        """
        import os, signal, sys
        from daemon_context import DaemonContext
        def reload(number, frame):
            daemon.tell("reading")
            if sys.argv[2] == "True":
                raise ValueError("bad")
        map = {signal.SIGHUP: reload, signal.SIGTERM: "terminate"}
        context = DaemonContext(**eval(sys.argv[1]), pidfile="d.pid", signal_map=map)
        looping = os.path.abspath("looping")
        with context as daemon:
            while True:
                try:
                    open(looping, "w").close()
                    daemon.sleep()
                except ValueError:
                    pass
        """,
        mode,
        fails,
    )
    manager.hear("READY=1")
    pid = box.pid()
    support.until((box.path / "looping").exists)
    before = time.monotonic_ns() // 1000
    os.kill(pid, signal.SIGHUP)
    manager.hear("READY=1", 2)
    after = time.monotonic_ns() // 1000
    _, reloading, *rest = manager.heard
    said = RELOADING.match(reloading)
    assert said
    assert before <= int(said[1]) <= after
    assert rest == ["STATUS=reading", "READY=1"]
    os.kill(pid, signal.SIGTERM)
    manager.hear("STOPPING=1")
    assert program.wait(support.DEADLINE) == 0
    box.settled()


CLASS = """
    import os, sys
    from daemon_context import Daemon
    class Feed(Daemon):
        def setup(self):
            self.tell("warming up")
        def run(self):
            self.tell("serving")
            for _ in self.every(1000):
                pass
        def on_reload(self):
            if os.path.exists("bad"):
                raise ValueError("port 0 is none")
            self.tell("reloaded")
    Feed("d.pid", stderr="log", working_directory=".", foreground_streams=True).main()
"""


@pytest.mark.parametrize("verb", ["run", "start"])
def test_the_class_tells_all_of_it(box: support.Sandbox, manager: Manager, verb: str) -> None:
    box.script(CLASS)
    program = box.popen(box.path / "program.py", verb)
    manager.hear("STATUS=serving")
    assert manager.heard == ["STATUS=warming up", "READY=1", "STATUS=serving"]
    pid = box.pid()
    os.kill(pid, signal.SIGHUP)
    manager.hear("READY=1", 2)
    assert RELOADING.match(manager.heard[3])
    assert manager.heard[4:] == ["STATUS=reloaded", "READY=1"]
    manager.heard.clear()
    (box.path / "bad").touch()
    done = box.run(box.path / "program.py", "reload", env={"NOTIFY_SOCKET": ""})
    assert done.returncode == 1
    assert "port 0 is none" in done.stderr
    failed = "READY=1\nSTATUS=reload failed: ValueError: port 0 is none"
    manager.hear(failed)
    assert RELOADING.match(manager.heard[0])
    assert len(manager.heard) == 2
    log = box.text("log")
    assert log.startswith("Feed: reload failed, the old configuration stays: Traceback")
    assert log.endswith("ValueError: port 0 is none\n")
    assert "reload failed" in box.run(box.path / "program.py", "status").stdout
    os.kill(pid, signal.SIGTERM)
    manager.hear("STOPPING=1")
    program.wait(support.DEADLINE)
    box.settled()
    assert manager.speakers == {pid}
