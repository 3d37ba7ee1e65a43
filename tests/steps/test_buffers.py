"""What files have buffered is written once: by the launcher, or, preserved, by the daemon."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from tests.helpers import support

HEAD = """
import io, os, signal, socket, subprocess, sys, warnings
from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
from tests.helpers.launching import describe, report
from tests.helpers.holders import double_fork
settings = dict(detach_process=True, working_directory=".")
"""


def run(box: support.Sandbox, body: str, *args: object, **kwargs: Any) -> Any:
    """Run a program to its end."""
    path = box.script(body)
    path.write_text(HEAD + path.read_text())
    return box.run(path, *args, **kwargs)


def succeeded(done: Any) -> str:
    """What the program, which had to succeed, has printed."""
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


# --- standard streams


@pytest.mark.parametrize("how", ["open", "spawn"])
def test_what_was_printed_goes_to_the_launchers_stdout(box: support.Sandbox, how: str) -> None:
    done = run(box, """
        print("early")
        print("early too", file=sys.stderr, end="")
        def late():
            print("late")
        context = DaemonContext(stdout="log", **settings)
        if sys.argv[1] == "spawn":
            context.spawn(late)
            print("later")
        else:
            context.open()
            late()
    """, how)  # fmt: skip
    assert done.stdout == "early\n" + ("later\n" if how == "spawn" else "")
    assert (done.returncode, done.stderr) == (0, "early too")
    box.settled()
    assert box.text("log") == "late\n"


def test_what_was_printed_moves_into_the_log_of_a_double_fork_by_hand(box: support.Sandbox) -> None:
    """The reason for the test above."""
    done = run(box, """
        print("early")
        double_fork()
        os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT), 1)
        print("late")
    """)  # fmt: skip
    assert succeeded(done) == ""
    box.settled()
    assert box.text("log") == "early\nlate\n"


def test_other_files_on_stderr_are_written_out(box: support.Sandbox) -> None:
    done = run(box, """
        other = os.open(".", os.O_RDONLY)
        mine = open(2, "w", closefd=False)
        mine.write("early")
        with DaemonContext(**settings):
            pass
    """)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "early")


def test_other_files_on_stdout_are_written_out(box: support.Sandbox) -> None:
    """`sys.stdout` was replaced, and somebody made a file of descriptor 1."""
    done = run(box, """
        other = os.open(".", os.O_RDONLY)
        print("first")
        sys.stdout = io.StringIO()
        print("only in memory")
        mine = open(1, "w", closefd=False)
        mine.write("second\\n")
        with DaemonContext(stdout="log", **settings):
            mine.write("late\\n")
            mine.flush()
    """)  # fmt: skip
    assert succeeded(done) == "first\nsecond\n"
    box.settled()
    assert box.text("log") == "late\n"


def test_a_stdout_that_is_no_file_is_flushed(box: support.Sandbox) -> None:
    done = run(box, """
        class Late:
            text = ""
            def write(self, text):
                self.text += text
            def flush(self):
                os.write(1, self.text.encode())
                self.text = ""
        sys.stdout = Late()
        print("early")
        with DaemonContext(**settings):
            pass
    """)  # fmt: skip
    assert succeeded(done) == "early\n"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_goes_on_as_before_in_a_program_that_froze_its_objects(
    box: support.Sandbox, enabled: bool
) -> None:
    done = run(box, """
        import gc

        class Stop(Step):
            def apply(self, walk):
                raise OSError("on purpose")

        objects = [[] for _ in range(2000)]
        mine = open("mine", "w")
        mine.write("early")
        gc.freeze()
        if sys.argv[1] == "False":
            gc.disable()
        try:
            DaemonContext(steps=DEFAULT_STEPS.insert_after("flush-streams", Stop()),
                          **settings).open()
        except DaemonError:
            print(open("mine").read(), gc.isenabled(), gc.get_freeze_count() > 2000)
    """, enabled)  # fmt: skip
    assert succeeded(done) == f"early {enabled} True\n"


def test_two_owners_of_one_number_are_both_told(box: support.Sandbox) -> None:
    done = run(box, """
        one = open("file", "wb", 0)
        two = open(one.fileno(), "wb", 0)
        with DaemonContext(**settings) as daemon:
            report("closed", [one.closed, two.closed, len(daemon.closed_descriptors)])
    """)  # fmt: skip
    assert succeeded(done) == ""
    assert json.loads(box.text("closed")) == [True, True, 1]


def test_odd_files_are_no_obstacle_and_owners_all_the_same(box: support.Sandbox) -> None:
    done = run(box, """
        class Raw(io.FileIO):
            def __repr__(self):
                raise ValueError("no words")
        class Text(io.TextIOWrapper):
            def writable(self):
                raise ValueError("who knows")
        class Elsewhere(io.StringIO):
            def fileno(self):
                return "seven"
        raw, text, elsewhere = Raw("one", "w"), Text(open("two", "wb")), Elsewhere()
        with DaemonContext(**settings) as daemon:
            report("owners", [item.owner for item in daemon.closed_descriptors])
            report("closed", [raw.closed, text.buffer.raw.closed, elsewhere.closed])
    """)  # fmt: skip
    assert succeeded(done) == ""
    assert json.loads(box.text("owners")) == [
        "<Raw>",
        "<_io.FileIO name='two' mode='wb' closefd=True>",
    ]
    assert json.loads(box.text("closed")) == [True, True, False]


def test_a_stdout_that_can_only_write_is_no_obstacle(box: support.Sandbox) -> None:
    done = run(box, """
        class Loud:
            def write(self, text):
                sys.__stdout__.write(text.upper())
        sys.stdout = Loud()
        print("early")
        with DaemonContext(**settings):
            pass
    """)  # fmt: skip
    assert succeeded(done) == "EARLY\n"


# --- files that are closed in the daemon

FILES = """
    text = open("text", "w"); text.write("early\\n")
    half = open("half", "w", buffering=1); half.write("early, no line")
    binary = open("binary", "wb"); binary.write(b"early\\n")
    random = open("random", "w+b"); random.write(b"early\\n"); random.seek(2); random.write(b"RLY")
    layers = io.TextIOWrapper(io.BufferedWriter(io.FileIO("layers", "w"), 1 << 16))
    layers.write("early\\n" * 5000); layers.write("x" * 100)
    warnings.filterwarnings("ignore", ".*child process")
    kitten = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=open("kitten", "w"), text=True)
    kitten.stdin.write("early\\n")
    connection = socket.socket(fileno=int(sys.argv[2]))
    sent = connection.makefile("w"); sent.write("early\\n")
    both = connection.makefile("rw"); both.write("both\\n")
"""
CONTENT = {
    "text": "early\n",
    "half": "early, no line",
    "binary": "early\n",
    "random": "eaRLY\n",
    "layers": "early\n" * 5000 + "x" * 100,
    "kitten": "early\n",
}


@pytest.mark.parametrize("how", ["open", "spawn", "naive"])
def test_buffers_are_written_once_and_before_the_fork(box: support.Sandbox, how: str) -> None:
    here, there = socket.socketpair()
    with here, there:
        done = run(box, FILES + """
    def late():
        report("daemon", os.getpid())
        signal.pause()
    if sys.argv[1] == "naive":
        double_fork()
        late()
    context = DaemonContext(**settings)
    if sys.argv[1] == "spawn":
        context.spawn(late)
    else:
        context.open()
        late()
        """, how, there.fileno(), pass_fds=[there.fileno()])  # fmt: skip
        assert succeeded(done) == ""
        there.close()
        pid = int(box.text("daemon"))
        # While the daemon runs: nobody else has what the buffers held.
        support.until(lambda: how == "naive" or (box.path / "kitten").read_text())
        found = {name: (box.path / name).read_text() for name in CONTENT}
        here.settimeout(support.DEADLINE)
        sent = here.makefile().read()  # to its end: the daemon has no copy of the socket
        os.kill(pid, 15)
        box.settled()
        after = {name: (box.path / name).read_text() for name in CONTENT}
    if how == "naive":
        assert (found["text"], sent) == ("", "")  # lost: the reason for this test
    else:
        assert sorted(sent.split()) == ["both", "early"]
        assert (found, after) == (CONTENT, CONTENT)


def test_a_program_at_a_pipe_ends_with_the_launcher(box: support.Sandbox) -> None:
    """The daemon keeps neither end of the pipe of a `subprocess` that was started before."""
    done = run(box, """
        warnings.filterwarnings("ignore", ".*child process")
        kitten = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        report("kitten", kitten.pid)
        with DaemonContext(pidfile="d.pid", **settings) as daemon:
            daemon.sleep()
    """)  # fmt: skip
    assert succeeded(done) == ""
    support.gone(json.loads(box.text("kitten")))
    assert support.alive(box.pid())


# --- a flush that fails

#: Where `file` can't be written: in each case more than one write was made.
FULL = {
    "full-device": ("No space left on device", 'file = open("/dev/full", "w")'),
    "broken-pipe": ("Broken pipe", """
reader, writer = os.pipe(); os.close(reader); file = open(writer, "w")"""),
    "full-pipe": ("could not complete without blocking", """
reader, writer = os.pipe(); os.set_blocking(writer, False); os.write(writer, b"x" * (1 << 16))
file = open(writer, "w")"""),
    "stdout": ("No space left on device", """
os.dup2(os.open("/dev/full", os.O_WRONLY), 1); file = sys.stdout"""),
    "stderr": ("No space left on device", """
os.dup2(os.open("/dev/full", os.O_WRONLY), 2); file = sys.stderr"""),
    "full-disk": ("No space left on device", """
subprocess.run("mkdir disk && mount -t tmpfs -o size=4k none disk", shell=True, check=True)
file = open("disk/file", "wb", 1 << 16); file.write(b"x" * 5000)
file = io.TextIOWrapper(file)"""),
}  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("how", ["open", "spawn"])
@pytest.mark.parametrize("case", FULL)
def test_a_failing_flush_aborts_the_start_and_loses_nothing(
    box: support.Sandbox, case: str, how: str
) -> None:
    words, setup = FULL[case]
    body = (
        setup
        + """
fine = open("fine", "w"); fine.write("early\\n")
kept = open("kept", "w"); kept.write("early\\n")
file.write("early")
context = DaemonContext(files_preserve=[kept], pidfile="d.pid", **settings)
launcher = os.getpid()
try:
    context.spawn(print) if sys.argv[1] == "spawn" else context.open()
except DaemonError as error:
    outcome = describe(error)
if os.getpid() == launcher:
    # The cause is mended: what the buffer held arrives, and all files go on working.
    os.dup2(os.open("good", os.O_WRONLY | os.O_CREAT), file.fileno())
    for each in (file, fine, kept):
        each.write(" and late")
        each.flush()
    disk = open("disk/file").read() if os.path.isdir("disk") else ""
    report("outcome", {**outcome, "disk": disk, "pidfile": os.path.exists("d.pid")})
"""
    )
    done = run(box, body, how, prefix=["unshare", "--mount"])
    assert (done.returncode, done.stdout) == (0, "")
    box.settled()
    outcome = json.loads(box.text("outcome"))
    assert words in outcome["message"]
    assert outcome["message"].startswith("cannot write what ")
    assert outcome["step"] == "flush-streams"
    assert (outcome["class"], outcome["pidfile"]) == ("DaemonOSEnvironmentError", False)
    whole = outcome["disk"] + box.text("good")
    assert whole == ("x" * 5000 if case == "full-disk" else "") + "early and late"
    assert box.text("fine") == "early\n and late"
    assert box.text("kept") == "early\n and late"


@pytest.mark.parametrize("step", ["lock-pidfile", "detach", "close-descriptors", "report-ready"])
def test_after_a_failed_start_the_launcher_has_everything(box: support.Sandbox, step: str) -> None:
    """Whichever process it failed in: files, their buffers, sockets and plain numbers work."""
    done = run(box, """
        class Fail(Step):
            def apply(self, walk):
                raise RuntimeError("out of luck")
        file = open("file", "w"); file.write("early\\n")
        kept = open("kept", "w"); kept.write("early\\n")
        number = os.open("number", os.O_WRONLY | os.O_CREAT)
        one, other = socket.socketpair()
        half = other.makefile("w"); half.write("early\\n")
        steps = DEFAULT_STEPS.insert_after(sys.argv[1], Fail())
        context = DaemonContext(files_preserve=[kept, number], steps=steps, **settings)
        try:
            context.open()
        except DaemonError as error:
            assert "out of luck" in str(error)
            print("late", file=file)
            print("late", file=kept)
            print("late", file=half, flush=True)
            os.write(number, b"late")
            assert one.recv(100) == b"early\\nlate\\n"
            assert context.closed_descriptors == ()
            sys.exit(4)
    """, step)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "")
    box.settled()
    found = [box.text(name) for name in ("file", "kept", "number")]
    assert found == ["early\nlate\n", "early\nlate\n", "late"]


# --- preserved files


@pytest.mark.parametrize("given", ["file", "number", "handler"])
def test_a_preserved_file_keeps_its_buffer_in_the_daemon_alone(
    box: support.Sandbox, given: str
) -> None:
    done = run(box, """
        import logging
        file = open("file", "w"); file.write("early\\n")
        kept = {"file": [file], "number": [file.fileno()], "handler": []}[sys.argv[1]]
        handler = logging.StreamHandler(file) if sys.argv[1] == "handler" else None
        with DaemonContext(files_preserve=kept, **settings) as daemon:
            size = os.path.getsize("file")
            file.write("late\\n")
            file.flush()
            report("sizes", [size, os.path.getsize("file")])
    """, given)  # fmt: skip
    assert succeeded(done) == ""
    box.settled()
    assert json.loads(box.text("sizes")) == [0, 11]
    assert box.text("file") == "early\nlate\n"


@pytest.mark.parametrize("given", ["file", "number", "handler", "stdout"])
def test_a_preserved_file_that_goes_on_in_both_is_written_once(
    box: support.Sandbox, given: str
) -> None:
    """`spawn`: launcher and daemon both have the file, and only one of them the buffer."""
    done = run(box, """
        import logging
        file = open("file", "a"); file.write("early\\n")
        kept = {"file": [file], "number": [file.fileno()]}.get(sys.argv[1], [])
        handler = logging.StreamHandler(file) if sys.argv[1] == "handler" else None
        settings["stdout"] = file if sys.argv[1] == "stdout" else None
        handle = DaemonContext(files_preserve=kept, **settings).spawn(file.flush)
        handle.wait()
    """, given)  # fmt: skip
    assert succeeded(done) == ""
    assert box.text("file") == "early\n"


def test_a_preserved_file_that_is_full_does_not_abort_the_start(box: support.Sandbox) -> None:
    done = run(box, """
        file = open("/dev/full", "w"); file.write("early\\n")
        with DaemonContext(files_preserve=[file], **settings):
            try:
                file.flush()
            except OSError as error:
                report("daemon", error.errno)
    """)  # fmt: skip
    assert succeeded(done) == ""
    assert box.text("daemon") == "28"


def test_without_forks_buffers_are_written_once_too(box: support.Sandbox) -> None:
    settings = "detach_process=False, stdout=sys.stdout, stderr=sys.stderr, working_directory='.'"
    done = run(box, f"""
        file = open("file", "w"); file.write("early\\n")
        kept = open("kept", "w"); kept.write("early\\n")
        print("early")
        with DaemonContext(files_preserve=[kept], {settings}):
            print(os.path.getsize("kept"), file.closed)
            kept.write("late\\n")
    """)  # fmt: skip
    assert succeeded(done) == "early\n0 True\n"
    assert (box.text("file"), box.text("kept")) == ("early\n", "early\nlate\n")
