"""Exactly the preserved descriptors are open in the daemon, whatever the limits and the kernel."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import support

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

PROGRAM = """
import ctypes, os, resource, select, socket, sys
from daemon_context import DaemonContext
from tests.launching import report
from tests.holders import double_fork

how, what, count, highest, lowered, seccomp = sys.argv[1:]
count, highest, lowered, seccomp = map(int, (count, highest, lowered, seccomp))
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
except (OSError, ValueError):  # the limit that a preloaded library reports
    pass
with open("data", "w") as data:
    data.write("x")

owners, numbers = [], []
for n in range(count):
    if what == "files" or (what == "both" and n % 3):
        owners.append(open("data", "rb", 0))
        numbers.append(owners[-1].fileno())
    else:
        numbers.append(os.open("data", os.O_RDONLY))
if highest:
    numbers.append(os.dup2(numbers[0], highest))
path = os.open("data", os.O_PATH), os.open("data", os.O_PATH)
preserved = [*numbers[::2], path[0], 77777]  # one is not open: that is no error
closed = set(numbers) - set(preserved)

if seccomp:
    # BPF: load the number of the system call; if it is close_range, return that error.
    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]
    instructions = [(0x20, 0, 0, 0), (0x15, 0, 1, 436), (0x06, 0, 0, 0x50000 | seccomp),
                    (0x06, 0, 0, 0x7FFF0000)]
    import struct
    program = b"".join(struct.pack("HBBI", *each) for each in instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(Filter(4, program)), 0, 0) == 0, ctypes.get_errno()
    assert libc.syscall(436, 1 << 30, 1 << 30, 0) == -1 and ctypes.get_errno() == seccomp
if lowered:
    # The hard limit only where it can be raised again: what is above stays open in any case.
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))

def closes():
    try:
        return ctypes.CDLL(None).closes_counted()
    except AttributeError:
        return 0

before = closes()
context = DaemonContext(files_preserve=preserved, detach_process=True, working_directory=".")
if how == "naive":
    double_fork()
else:
    context.open()
calls = closes() - before

def works(fd):
    try:
        return os.pread(fd, 1, 0) == b"x"
    except OSError:
        return False

def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False

if lowered:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
if how == "naive":
    report("daemon", {"pid": os.getpid(), "closes": calls, "preserved": numbers[::2]})
else:
    files_closed = [not works(file.fileno()) if not file.closed else True for file in owners
                    if not file.closed and file.fileno() in closed]
    report("daemon", {
        "pid": os.getpid(),
        "closes": calls,
        "preserved": sorted(numbers[::2]),
        "unusable": [fd for fd in numbers[::2] if not works(fd)],
        "usable": [fd for fd in closed if works(fd)],
        "path": [works(path[0]), is_open(path[0])],
        "path only": path,
        "reserved": [item.fd for item in context.closed_descriptors if item.owner is None],
        "owned": [item.fd for item in context.closed_descriptors if item.owner is not None],
        "open files": [file.fileno() for file in owners if not file.closed],
    })
import signal
signal.pause()
"""

#: Reports a limit of its own, because raising the hard one needs CAP_SYS_RESOURCE; counts `close`.
PRELOADED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static long limit(void) { return atol(getenv("REPORTED_LIMIT")); }
static int closes;

int closes_counted(void) { return closes; }
int close(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "close");
    closes++;
    return real(fd);
}
int getrlimit(__rlimit_resource_t what, struct rlimit *found) {
    static int (*real)(__rlimit_resource_t, struct rlimit *);
    if (!real) real = dlsym(RTLD_NEXT, "getrlimit");
    int status = real(what, found);
    if (what == RLIMIT_NOFILE) found->rlim_cur = found->rlim_max = limit();
    return status;
}
int getrlimit64(__rlimit_resource_t what, struct rlimit64 *found) {
    return getrlimit(what, (struct rlimit *) found);
}
long sysconf(int name) {
    static long (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_OPEN_MAX ? limit() : real(name);
}
"""

NO_PROC = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /proc; exec "$@"', "sh"]


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that reports a limit, compiled."""
    place = tmp_path_factory.mktemp("preloaded")
    source, library = place / "limit.c", place / "limit.so"
    source.write_text(PRELOADED)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def reporting(library: Path, limit: int) -> dict[str, str]:
    """The environment in which the limit on descriptors seems to be that one."""
    return {"LD_PRELOAD": str(library), "REPORTED_LIMIT": str(limit)}


def start(
    box: support.Sandbox,
    *,
    how: str = "ours",
    what: str = "both",
    count: int = 100,
    highest: int = 0,
    lowered: int = 0,
    seccomp: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Start the program with so many descriptors open; what its daemon says."""
    done = box.run(PROGRAM, how, what, count, highest, lowered, seccomp, **kwargs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    facts: dict[str, Any] = json.loads(box.text("daemon"))
    return facts


def data_descriptors(box: support.Sandbox, pid: int) -> list[int]:
    """The numbers under which a process has the data file open, as the kernel sees it."""
    wanted = str(box.path / "data")
    return sorted(fd for fd, target in support.descriptors(pid).items() if target == wanted)


def is_exact(box: support.Sandbox, facts: dict[str, Any], lowered: int = 0) -> None:
    """Check that what is preserved is open and works, and nothing else; and what became of that."""
    table = support.descriptors(facts["pid"])
    kept, dropped = facts["path only"]
    assert data_descriptors(box, facts["pid"]) == sorted([*facts["preserved"], kept])
    assert (facts["unusable"], facts["usable"], facts["path"]) == ([], [], [False, True])
    assert set(facts["open files"]) <= set(facts["preserved"])
    # Nothing but the standard streams, what is preserved, and reserved numbers.
    rest = {fd: target for fd, target in table.items() if target != str(box.path / "data")}
    assert set(rest.values()) == {"/dev/null"}
    # Above the limit a number can't be reserved, and nobody gets it either.
    assert set(rest) == {0, 1, 2, *(fd for fd in facts["reserved"] if fd < (lowered or fd + 1))}
    assert dropped in facts["reserved"] or "no proc" in facts


# --- how many, and under which limits


@pytest.mark.parametrize("what", ["files", "numbers"])
def test_ten_thousand_descriptors(box: support.Sandbox, what: str) -> None:
    facts = start(box, what=what, count=10_000)
    is_exact(box, facts)
    assert len(facts["preserved"]) == 5_000
    assert len(facts["owned"]) == (5_000 if what == "files" else 0)
    assert len(facts["reserved"]) == (1 if what == "files" else 5_001)


@pytest.mark.parametrize("count", [10, 100, 300, 1500])
def test_any_number_of_descriptors(box: support.Sandbox, count: int) -> None:
    is_exact(box, start(box, count=count))


@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
@pytest.mark.parametrize("seccomp", [0, 1, 38])
def test_huge_limits_cost_nothing(
    box: support.Sandbox, preloaded: Path, limit: int, seccomp: int
) -> None:
    """With a limit as reported by a preloaded library; `close_range` works, or is refused."""
    facts = start(box, seccomp=seccomp, env=reporting(preloaded, limit))
    is_exact(box, facts)
    assert facts["closes"] < 2_000


def test_a_double_fork_by_hand_closes_up_to_the_limit(
    box: support.Sandbox, preloaded: Path
) -> None:
    """The reason for the test above, at an eighth of the smaller limit."""
    facts = start(box, how="naive", env=reporting(preloaded, 1 << 17))
    assert facts["closes"] >= 1 << 17


@pytest.mark.parametrize("seccomp", [1, 38])
def test_close_range_refused(box: support.Sandbox, seccomp: int) -> None:
    is_exact(box, start(box, count=1_000, seccomp=seccomp))


@pytest.mark.root
@pytest.mark.parametrize("seccomp", [0, 38])
@pytest.mark.parametrize(("count", "lowered"), [(100, 0), (10_000, 0), (20, 64)])
def test_proc_hidden(box: support.Sandbox, seccomp: int, count: int, lowered: int) -> None:
    facts = start(box, count=count, seccomp=seccomp, lowered=lowered, highest=5000 * bool(lowered),
                  prefix=NO_PROC)  # fmt: skip
    facts["no proc"] = "an O_PATH descriptor can't be seen, and is closed without being reserved"
    is_exact(box, facts)


@pytest.mark.root
@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
def test_proc_hidden_and_a_huge_limit(box: support.Sandbox, preloaded: Path, limit: int) -> None:
    facts = start(box, prefix=NO_PROC, env=reporting(preloaded, limit))
    facts["no proc"] = "as above"
    is_exact(box, facts)


@pytest.mark.parametrize("preserve_it", [True, False])
@pytest.mark.parametrize("highest", [5000, 70_001])
def test_a_descriptor_above_a_lowered_limit(
    box: support.Sandbox, highest: int, preserve_it: bool
) -> None:
    """Where the hard limit is below 70 001, the highest number that it allows."""
    highest = min(highest, HARD - 1)
    # Every second one is preserved, beginning with the first.
    facts = start(box, count=20 if preserve_it else 21, highest=highest, lowered=64)
    is_exact(box, facts, lowered=64)
    assert (highest in facts["preserved"]) == preserve_it


def test_a_double_fork_by_hand_misses_what_is_above_a_lowered_limit(box: support.Sandbox) -> None:
    facts = start(box, how="naive", count=20, highest=5000, lowered=64)
    assert 5000 in data_descriptors(box, facts["pid"])


# --- callers


CALLED = """
import os, sys
from daemon_context import DaemonContext
from tests.holders import double_fork
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
        from tests.holders import double_fork
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
        from tests.launching import report
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


@pytest.mark.parametrize("count", [1, 250, 300, 600])
@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("flag", ["O_RDONLY", "O_PATH"])
def test_what_is_open_is_seen(box: support.Sandbox, count: int, limit: int, flag: str) -> None:
    done = box.run("""
        import fcntl, os, resource, sys
        from daemon_context.system.descriptors import open_numbers

        def is_open(fd):
            try:
                return fcntl.fcntl(fd, fcntl.F_GETFD) >= 0
            except OSError:
                return False

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


@pytest.mark.parametrize("place", ["flush-streams", "detach"])
@pytest.mark.parametrize("removed", [False, True])
def test_what_a_step_of_yours_has_opened_is_closed(
    box: support.Sandbox, place: str, removed: bool
) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        from tests.launching import report

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
        from tests.launching import report
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
        from tests.launching import report
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
        from tests.launching import report
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
from tests.launching import report
from tests.holders import double_fork

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


# --- any set

KINDS = ["none", "text", "binary", "socket", "number", "path", "pipe", "epoll", "borrowed", "two"]

BATCH = """
import io, json, os, select, socket, sys, warnings
from daemon_context import DaemonContext
from tests.launching import report
warnings.filterwarnings("ignore", "an event loop")

class Thing:
    \"\"\"Something at a number, that can be used late.\"\"\"
    def __init__(self, number, kind, kept, dirty):
        self.number, self.kind, self.kept = number, kind, kept
        self.path = f"thing-{number}"
        made = getattr(self, "make_" + kind)()
        source = made if isinstance(made, int) else made.fileno()
        os.dup2(source, number)
        os.close(made) if isinstance(made, int) else made.close()
        self.objects = getattr(self, "own_" + kind, lambda: [])()
        self.dirty = dirty and kind in ("text", "binary", "borrowed", "two")
        if self.dirty:
            self.objects[0].write("early" if kind in ("text", "borrowed") else b"early")

    def make_text(self):
        return os.open(self.path, os.O_RDWR | os.O_CREAT)
    make_binary = make_number = make_borrowed = make_two = make_text
    def make_socket(self):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    def make_path(self):
        return os.open(".", os.O_PATH)
    def make_pipe(self):
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    def make_epoll(self):
        return select.epoll()

    def own_text(self):
        return [open(self.number, "w")]
    def own_binary(self):
        return [open(self.number, "wb")]
    def own_borrowed(self):
        return [open(self.number, "w", closefd=False)]
    def own_two(self):
        return [open(self.number, "wb"), io.FileIO(self.number, "w")]
    def own_socket(self):
        return [socket.socket(fileno=self.number)]

    def use(self):
        \"\"\"Raises unless the thing still works.\"\"\"
        if self.kind in ("text", "binary", "borrowed", "two"):
            for each in self.objects:
                each.write("late" if isinstance(each, io.TextIOBase) else b"late")
                each.flush()
        elif self.kind == "socket":
            self.objects[0].getsockname()
        elif self.kind == "path":
            os.stat("batch.py", dir_fd=self.number)
        elif self.kind == "epoll":
            select.epoll.fromfd(os.dup(self.number)).poll(0)
        elif self.kind == "pipe":
            try:
                os.write(self.number, b"")
            except BrokenPipeError:
                pass
        else:
            os.write(self.number, b"late")

def daemon(things, context):
    fresh = {os.open(f"fresh-{n}", os.O_RDWR | os.O_CREAT): f"fresh-{n}" for n in range(60)}
    faults = [f"{n} is reused" for n in fresh if n in taken(things)]
    for thing in things:
        try:
            thing.use()
            works = True
        except (OSError, ValueError):
            works = False
        if works != thing.kept:
            faults.append(f"{thing.kind} at {thing.number} works: {works}")
    for fd, path in fresh.items():
        found = os.fstat(fd)
        if (found.st_ino, found.st_size) != (os.stat(path).st_ino, 0):
            faults.append(f"{path} is spoilt")
    for thing in things:
        if thing.kind in ("text", "binary", "borrowed", "two"):
            with open(thing.path) as file:
                text = file.read()
            late = ("late" * len(thing.objects)) * thing.kept
            if sorted(text.replace("early", "e")) != sorted("e" * thing.dirty + late):
                faults.append(f"{thing.path} contains {text!r}")
    closed = {item.fd for item in context.closed_descriptors}
    wanted = {thing.number for thing in things if not thing.kept}
    if closed != wanted:
        faults.append(f"closed {closed}, not {wanted}")
    return faults

def taken(things):
    \"\"\"Numbers that somebody still believes to have: raw ones, and what is kept.\"\"\"
    raw = ("number", "path", "pipe", "epoll", "borrowed")
    return {thing.number for thing in things if thing.kept or thing.kind in raw}

def launcher(scenario):
    things = [Thing(*each) for each in scenario]
    kept = [thing.number for thing in things if thing.kept]
    context = DaemonContext(files_preserve=kept, detach_process=True, working_directory=".")
    context.open()
    report("faults", daemon(things, context))
    os._exit(0)

statuses = []
for index, scenario in enumerate(json.loads(sys.argv[1])):
    os.mkdir(str(index))
    pid = os.fork()
    if not pid:
        os.chdir(str(index))
        open("batch.py", "w").close()
        try:
            launcher(scenario)
        finally:
            os._exit(1)
    statuses.append(os.waitpid(pid, 0)[1])
print(statuses)
"""


@st.composite
def scenarios(draw: st.DrawFn) -> list[tuple[int, str, bool, bool]]:
    """What is at which number, whether it is preserved, whether it has something in its buffer."""
    numbers = draw(st.sets(st.integers(10, 60) | st.integers(250, 300), max_size=12))
    kinds = st.sampled_from(KINDS[1:])
    return [(n, draw(kinds), draw(st.booleans()), draw(st.booleans())) for n in sorted(numbers)]


@settings(
    max_examples=8, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(batch=st.lists(scenarios(), min_size=4, max_size=10))
def test_any_set_ends_with_exactly_the_preserved_ones(
    box: support.Sandbox, batch: list[list[tuple[int, str, bool, bool]]]
) -> None:
    """And a number that somebody may still use is not given to another file."""
    with tempfile.TemporaryDirectory(dir=box.path) as place:
        program = Path(place) / "batch.py"
        program.write_text(BATCH)
        done = subprocess.run(
            [sys.executable, "-B", program, json.dumps(batch)], env=box.environ, cwd=place,
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == (f"{[0] * len(batch)}\n", "")
        for index in range(len(batch)):
            path = Path(place) / str(index) / "faults"
            support.until(path.exists)
            assert json.loads(path.read_text()) == []
        box.settled()


def test_what_a_thread_opens_during_the_start_is_closed(box: support.Sandbox) -> None:
    done = box.run("""
        import os, threading, time
        from daemon_context import DaemonContext

        def work():
            forking.wait()
            pipes.extend(os.pipe())
            opened.set()

        def wait():
            forking.set()
            opened.wait()

        pipes, forking, opened = [], threading.Event(), threading.Event()
        threading.Thread(target=work).start()
        os.register_at_fork(before=wait)
        handle = DaemonContext(threads="ignore").spawn(time.sleep, 1000)
        os.close(pipes[1])
        os.set_blocking(pipes[0], False)
        try:
            print(os.read(pipes[0], 1))
        except BlockingIOError:
            print("the daemon has it, too")
        handle.stop()
    """)
    assert (done.stdout, done.stderr) == ("b''\n", "")


def test_a_wake_up_descriptor_that_was_closed_before_is_not_taken_for_the_pid_files(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os, signal, sys
        from daemon_context import DaemonContext
        ends = os.pipe()
        for fd in ends:
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(max(ends))
        for fd in ends:
            os.close(fd)
        with DaemonContext(detach_process=False, pidfile="d.pid", working_directory=".",
                           stdout=sys.stdout, files_preserve=range(100)):
            print(signal.set_wakeup_fd(-1))
    """)
    assert (done.stdout, done.stderr) == ("-1\n", "")


@pytest.mark.parametrize("pidfile", [None, "d.pid"])
def test_in_the_foreground_another_pid_file_of_the_program_stays_locked(
    box: support.Sandbox, pidfile: str | None
) -> None:
    done = box.run("""
        import subprocess, sys
        from daemon_context import DaemonContext, PidFile
        path = sys.argv[1] or None
        ask = "import daemon_context as d; print(d.PidFile('other.pid').owner() is not None)"
        with PidFile("other.pid") as lock:
            with DaemonContext(detach_process=False, pidfile=path, working_directory=".",
                               stdout=sys.stdout, stderr=sys.stderr):
                print(lock.i_am_locking(), flush=True)
                subprocess.run([sys.executable, "-c", ask], check=True)
    """, pidfile or "")  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue\n", "")
    assert sorted(path.name for path in box.path.iterdir()) == ["program.py"]


@pytest.mark.parametrize("readiness", ["open", "explicit"])
def test_a_context_in_another_ones_body_leaves_it_its_descriptors(
    box: support.Sandbox, readiness: str
) -> None:
    done = box.run("""
        import os, signal, sys, threading
        from daemon_context import DaemonContext
        options = {"working_directory": ".", "stdout": "log", "stderr": "log"}
        with DaemonContext(detach_process=True, readiness=sys.argv[1], pidfile="d.pid",
                           **options) as outer:
            outer.sleep(0)
            with DaemonContext(detach_process=False, signal_map={}, **options):
                threading.Timer(0.01, outer.request_stop).start()
                print(outer.sleep(20), flush=True)
                if sys.argv[1] == "explicit":
                    outer.ready()
    """, readiness)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    box.settled()
    assert box.text("log") == "False\n"


def test_a_daemon_that_one_spawns_has_none_of_its_descriptors(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        def look():
            with open("ends", "w") as file:
                file.write(" ".join(n for n in os.listdir("/proc/self/fd") if 2 < int(n)
                           and "pipe" in os.readlink(f"/proc/self/fd/{n}")))
        options = {"working_directory": ".", "stdout": "log", "stderr": "log"}
        with DaemonContext(detach_process=True, readiness="explicit", **options) as outer:
            outer.sleep(0)
            DaemonContext(**options).spawn(look).wait()
            outer.ready()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    box.settled()
    assert (box.path / "ends").read_text() == ""
