"""What was closed: callers go on, the daemon knows it, and nothing takes its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import support

# --- callers

CALLED = """
import os, sys
from daemon_context import DaemonContext
from tests.helpers.holders import double_fork
print("started")
if sys.argv[1] == "naive":  # as many do it: without a thought for what is inherited
    sys.stdout.flush()
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
else:
    DaemonContext(pidfile="d.pid", detach_process=True).open()
with open(sys.argv[2], "w") as file:
    file.write(str(os.getpid()))
import signal
signal.pause()
"""


@pytest.mark.parametrize("how", ["ours", "naive"])
def test_all_that_callers_wait_for_ends_with_the_launcher(box: support.Sandbox, how: str) -> None:
    """Standard streams in pipes, and more pipes that the caller has passed on."""
    ends = [os.pipe() for _ in range(3)]
    program = box.popen(box.script(CALLED), how, box.path / "pid", pass_fds=[w for _, w in ends])
    for _, writer in ends:
        os.close(writer)
    pid = box.pid("pid")
    assert program.wait(support.DEADLINE) == 0
    readers = [program.stdout.fileno(), program.stderr.fileno(), *(r for r, _ in ends)]
    at_end = []
    for reader in readers:
        os.set_blocking(reader, False)
        try:
            while data := os.read(reader, 100):
                assert data == b"started\n"
            at_end.append(True)
        except BlockingIOError:
            at_end.append(False)
    for reader, _ in ends:
        os.close(reader)
    assert support.alive(pid)
    # Python itself closes the passed pipes in neither of them.
    assert at_end == [how == "ours"] * 5


@pytest.mark.parametrize(
    "line", ["text=$({}); echo $text", "{} | cat", "{} 2>&1 9>&1 | cat", "exec 5>&1; {} | cat"]
)
def test_shells_go_on(box: support.Sandbox, line: str) -> None:
    """That the shell ends, with its output captured, is the test."""
    script = box.script(CALLED)
    command = f"{sys.executable} -B {script} ours {box.path}/pid"
    done = subprocess.run(
        ["sh", "-c", line.format(command)], env=box.environ, cwd=box.path, timeout=60,
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    assert support.alive(box.pid("pid"))


# --- 0, 1 and 2


@pytest.mark.parametrize("how", ["ours", "naive"])
def test_programs_that_the_daemon_runs_have_standard_streams(
    box: support.Sandbox, how: str
) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext
        from tests.helpers.holders import double_fork
        if sys.argv[1] == "naive":
            double_fork()
        else:
            DaemonContext(detach_process=True, working_directory=".").open()
        look = "for n in 0 1 2; do test -e /proc/$$/fd/$n || echo $n closed; done"
        os.posix_spawn("/bin/sh", ["sh", "-c", f"{{ {look}; echo end; }} >t; mv t found"], {})
        os.wait()
    """, how)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert box.text("found") == ("end\n" if how == "ours" else "0 closed\nend\n")


# --- what was closed


def test_the_daemon_knows_what_was_closed(box: support.Sandbox) -> None:
    done = box.run("""
        import os, select, socket, warnings
        from daemon_context import DaemonContext
        from tests.helpers.launching import report
        warnings.filterwarnings("ignore", "an event loop")
        file = open("file", "w")
        number = os.open("file", os.O_RDONLY)
        place = os.open(".", os.O_RDONLY)
        one, other = socket.socketpair()
        poller = select.epoll()
        reader, writer = os.pipe()
        kept = os.open("file", os.O_RDONLY)
        wanted = [file.fileno(), number, place, one.fileno(), other.fileno(), poller.fileno(),
                  reader, writer]
        context = DaemonContext(files_preserve=[kept], detach_process=True, working_directory=".")
        assert context.closed_descriptors == ()
        with context:
            closed = context.closed_descriptors
            report("closed", [[item.fd, item.what, item.owner] for item in closed])
            report("wanted", wanted)
            report("repr", repr(closed[1]))
    """)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = json.loads(box.text("wanted"))
    closed = json.loads(box.text("closed"))
    assert [fd for fd, _, _ in closed] == wanted
    assert [what for _, what, _ in closed] == [
        "regular file", "regular file", "directory", "socket", "socket", "anonymous inode", "pipe",
        "pipe",
    ]  # fmt: skip
    owners = [owner for _, _, owner in closed]
    assert owners[0] == "<_io.FileIO name='file' mode='wb' closefd=True>"
    assert owners[3].startswith("<socket.socket fd=")
    assert [owners[n] for n in (1, 2, 5, 6, 7)] == [None] * 5
    assert json.loads(box.text("repr")) == f"<closed {wanted[1]}: regular file, reserved>"


@pytest.mark.parametrize(("count", "traced"), [(256, False), (257, False), (257, True)])
def test_what_many_were_is_looked_at_for_a_trace(
    box: support.Sandbox, count: int, traced: bool
) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext
        from tests.helpers.launching import report
        count, traced = int(sys.argv[1]), sys.argv[2] == "True"
        file = open("program.py")
        numbers = [file.fileno(), *(os.dup(file.fileno()) for _ in range(count - 1))]
        with DaemonContext(detach_process=True, working_directory=".", record_trace=traced,
                           stderr="d.log") as daemon:
            closed = daemon.closed_descriptors
            report("closed", [[item.fd for item in closed] == numbers,
                              *sorted({item.what for item in closed}),
                              repr(closed[0]), repr(closed[1])])
            os.read(numbers[1], 1)
    """, count, traced)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    same, what, owned, reserved = json.loads(box.text("closed"))
    assert same
    box.settled()
    kind = "" if count > 256 and not traced else "regular file, "
    assert what == (kind.removesuffix(", ") or "unknown")
    number = owned.partition(":")[0].split()[1]
    assert owned == (
        f"<closed {number}: {kind}<_io.FileIO name='program.py' mode='rb' closefd=True>>"
    )
    assert reserved == f"<closed {int(number) + 1}: {kind}reserved>"
    assert f" ({kind}reserved), " in box.text("d.log")
    assert f"{count - 8} more; open files" in box.text("d.log")


IS_OPEN = """
        import fcntl, os, resource, sys
        from daemon_context.system.descriptors import open_numbers

        def is_open(fd):
            try:
                return fcntl.fcntl(fd, fcntl.F_GETFD) >= 0
            except OSError:
                return False
"""


@pytest.mark.parametrize("count", [1, 250, 300, 600])
@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("flag", ["O_RDONLY", "O_PATH"])
def test_what_is_open_is_seen(box: support.Sandbox, count: int, limit: int, flag: str) -> None:
    done = box.run(IS_OPEN + """
        count, limit, flag = int(sys.argv[1]), int(sys.argv[2]), getattr(os, sys.argv[3])
        opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
        os.close(opened[count // 2])
        os.dup2(os.open(".", flag), count + 20)
        before = {fd for fd in range(1024) if is_open(fd)}
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        assert open_numbers() == before, sorted(open_numbers() ^ before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        assert {fd for fd in range(1024) if is_open(fd)} == before
    """, count, limit, flag)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("flag", ["O_RDONLY", "O_PATH"])
@pytest.mark.parametrize("shape", ["no gap", "gap", "far", "two gaps"])
def test_what_is_open_is_seen_with_gaps_and_without(
    box: support.Sandbox, count: int, flag: str, shape: str
) -> None:
    done = box.run(IS_OPEN + """
        count, flag, shape = int(sys.argv[1]), getattr(os, sys.argv[2]), sys.argv[3]
        os.closerange(3, 1024)
        for _ in range(count):
            os.open("/", flag)
        if shape != "no gap":
            os.dup2(os.open(".", flag), count + (900 if shape == "far" else 7))
        if shape == "two gaps":
            os.close(0)
        before = {fd for fd in range(2048) if is_open(fd)}
        assert len(before) == max(before) + 1 or shape != "no gap"
        for _ in range(2):  # and nothing stays open
            assert open_numbers() == before, sorted(open_numbers() ^ before)
    """, count, flag, shape)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("place", ["flush-streams", "detach"])
@pytest.mark.parametrize("removed", [False, True])
def test_what_a_step_of_yours_has_opened_is_closed(
    box: support.Sandbox, place: str, removed: bool
) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        from tests.helpers.launching import report

        class Open(Step):
            def apply(self, walk):
                self.fd = os.open("program.py", os.O_RDONLY)

        def works():
            try:
                return os.read(mine.fd, 1) != b""
            except OSError:
                return False

        mine = Open()
        steps = DEFAULT_STEPS.insert_after(sys.argv[1], mine)
        if sys.argv[2] == "True":
            steps = steps.remove("flush-streams")
        with DaemonContext(detach_process=True, steps=steps, working_directory=".") as daemon:
            report("closed", [mine.fd in [item.fd for item in daemon.closed_descriptors], works()])
    """, place, removed)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(box.text("closed")) == [True, False]


@pytest.mark.parametrize("kept", [False, True])
def test_a_wake_up_descriptor_that_is_closed_is_none_any_more(
    box: support.Sandbox, kept: bool
) -> None:
    done = box.run("""
        import os, signal, sys
        from daemon_context import DaemonContext
        from tests.helpers.launching import report
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        preserve = [writer] if sys.argv[1] == "True" else []
        with DaemonContext(detach_process=True, files_preserve=preserve, working_directory="."):
            report("found", [signal.set_wakeup_fd(-1), writer])
    """, kept)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found, writer = json.loads(box.text("found"))
    assert found == (writer if kept else -1)


@pytest.mark.parametrize("traced", [False, True])
def test_a_wake_up_descriptor_that_the_program_has_closed_stops_no_start(
    box: support.Sandbox, traced: bool
) -> None:
    done = box.run("""
        import os, signal, sys
        from daemon_context import DaemonContext
        from tests.helpers.launching import report
        for number in os.pipe():
            os.set_blocking(number, False)
            signal.set_wakeup_fd(number)
            os.close(number)  # the start's own descriptors get these numbers
        with DaemonContext(detach_process=True, working_directory=".",
                           record_trace=sys.argv[1] == "True"):
            report("found", signal.set_wakeup_fd(-1))
    """, traced)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(box.text("found")) == -1


@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        ({"LISTEN_PID": "own", "LISTEN_FDS": "2"}, [3, 4]),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "0"}, []),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "two"}, []),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "²"}, []),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "9" * 5000}, []),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "-2"}, []),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "9" * 30}, [3, 4, 5]),
        ({"LISTEN_PID": "own"}, []),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, []),
        ({"LISTEN_FDS": "2"}, []),
    ],
)
def test_what_a_supervisor_has_handed_over_stays_open(
    box: support.Sandbox, environ: dict[str, str], kept: list[int]
) -> None:
    done = box.run("""
        import json, os, sys
        from daemon_context import DaemonContext
        from tests.helpers.launching import report
        for fd in (3, 4, 5):
            os.dup2(os.open("/dev/null", os.O_RDONLY), fd)
        environ = json.loads(sys.argv[1])
        if environ.get("LISTEN_PID") == "own":
            environ["LISTEN_PID"] = str(os.getpid())
        os.environ.update(environ)

        def works(fd):
            try:
                return os.read(fd, 1) == b""
            except OSError:
                return False

        with DaemonContext(detach_process=True, working_directory="."):
            report("kept", [fd for fd in (3, 4, 5) if works(fd)])
    """, json.dumps(environ))  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(box.text("kept")) == kept


# --- multiprocessing

SHARED = """
import os, signal, sys
from multiprocessing import Pool, shared_memory
from daemon_context import DaemonContext
from tests.helpers.launching import report
from tests.helpers.holders import double_fork

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    memory = shared_memory.SharedMemory(create=True, size=100)
    memory.buf[:5] = b"early"
    pool = Pool(1, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    worker = pool.apply(os.getpid)
    tracker = __import__("multiprocessing.resource_tracker").resource_tracker._resource_tracker._pid
    if sys.argv[1] == "naive":
        double_fork()
    else:
        DaemonContext(detach_process=True, working_directory=".", threads="ignore").open()
    report("pids", {"tracker": tracker, "worker": worker, "daemon": os.getpid(),
                    "memory": memory._name})
    signal.sigwait([signal.SIGUSR1])
    try:
        again = shared_memory.SharedMemory(memory.name)
        report("found", bytes(again.buf[:5]).decode())
    except FileNotFoundError:
        report("found", "nothing")
    os._exit(0)
"""


@pytest.mark.parametrize("how", ["ours", "naive"])
def test_shared_memory_outlives_the_launcher(box: support.Sandbox, how: str) -> None:
    # In a file: the tracker has the launcher's stderr, and lives as long as the daemon does.
    with open(box.path / "stderr", "w") as stderr:
        program = box.popen(SHARED, how, stderr=stderr)
    assert program.wait(support.DEADLINE) == 0, box.text("stderr")
    pids = json.loads(box.text("pids"))
    # Nobody has an end of the worker's pipes any more. By hand, the tracker sees its end as well.
    support.gone(pids["worker"])
    if how == "naive":
        support.gone(pids["tracker"])
    os.kill(pids["daemon"], signal.SIGUSR1)
    assert json.loads(box.text("found")) == ("early" if how == "ours" else "nothing")
    # With the daemon ends the tracker, which removes the memory.
    box.settled(20)
    assert not os.path.exists(f"/dev/shm{pids['memory']}")
