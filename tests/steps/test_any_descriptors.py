"""Any set of objects that hold descriptors: exactly the preserved ones stay open."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import support

KINDS = ["none", "text", "binary", "socket", "number", "path", "pipe", "epoll", "borrowed", "two"]

BATCH = """
import io, json, os, select, socket, sys, warnings
from daemon_context import DaemonContext
from tests.helpers.launching import report
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
