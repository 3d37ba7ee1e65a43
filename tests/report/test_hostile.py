"""What a daemon that is torn off, slow or hostile can do to the launcher: nothing."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_context.errors import DaemonError, StartError, StepError
from daemon_context.report.failures import decode
from daemon_context.report.frames import (
    ERROR,
    HELLO,
    LARGEST,
    READY,
    TEXT_LARGEST,
    Frames,
    encoded,
    send,
)
from tests.helpers import support

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
ERROR_FIELDS = (
    "class",
    "text",
    "ours",
    "facts",
    "os",
    "exit",
    "notes",
    "frames",
    "cause",
    "members",
)
ANY = JSON | st.sampled_from(["StepError", "SystemExit", "os"])
ERRORS = st.fixed_dictionaries({}, optional=dict.fromkeys(ERROR_FIELDS, ANY))
REPORTS = st.fixed_dictionaries(
    {},
    optional={"error": ANY | ERRORS, **dict.fromkeys(("step", "pid", "process", "died"), ANY)},
)

# A busy machine is no failure.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CALM
@given(st.binary(max_size=300) | REPORTS.map(lambda fields: json.dumps(fields).encode()))
def test_any_report_is_an_error_of_ours(payload: bytes) -> None:
    assert isinstance(decode(None, payload, 7), DaemonError)


@CALM
@given(st.text(max_size=200), st.sampled_from([DaemonError, OSError, ValueError, SystemExit]))
def test_a_report_of_ours_arrives(message: str, kind: type[BaseException]) -> None:
    error = decode(None, encode(kind(message)), None)
    assert isinstance(error, DaemonError)
    shown = str(error)
    assert not any(c < " " and c != "\n" for c in shown)
    if message.isprintable():
        assert message in shown or repr(message)[1:-1] in shown  # what sys.exit() was given


def test_a_text_arrives_as_it_is_but_for_control_characters() -> None:
    error = DaemonError("a 'b'\n\\ \xa0ü \x1b[31m \x7f\x9f\x00")
    error.add_note("c\td")
    arrived = decode(None, encode(error), None)
    assert str(arrived) == "a 'b'\n\\ \xa0ü \\x1b[31m \\x7f\\x9f\\x00"
    assert arrived.__notes__[-1] == "c\\td"


def test_a_text_that_is_too_long_loses_its_middle_and_says_how_much() -> None:
    text = "".join(chr(ord("a") + n % 26) for n in range(TEXT_LARGEST + 1))
    assert str(decode(None, encode(DaemonError(text[1:])), None)) == text[1:]
    shown = str(decode(None, encode(DaemonError(text)), None))
    first, number, last = re.split(r"\n… (\d+) characters left out …\n", shown)
    assert TEXT_LARGEST - 80 < len(shown) <= TEXT_LARGEST
    assert text.startswith(first)
    assert text.endswith(last)
    assert len(first) + int(number) + len(last) == len(text)


def test_the_longest_report_fits_into_a_frame() -> None:
    wide = "\U0001f600" * (1 << 17)
    error = DaemonError(wide, step=wide, path=wide)
    error.__cause__ = ValueError(wide)
    for _ in range(20):
        error.add_note(wide)
    assert len(encode(error)) <= LARGEST


FACTS = {
    "class": "daemon_context.errors.StepError", "text": "m", "ours": "StepError", "facts": {},
    "notes": ["n"], "frames": [["f.py", 3, "f"]],
}  # fmt: skip
REPORT = {"step": 0, "process": "daemon", "error": FACTS}


def as_report(**facts: Any) -> bytes:
    return json.dumps({**REPORT, "error": {**FACTS, **facts}}).encode()


def encode(error: BaseException) -> bytes:
    return encoded(error, 0, "daemon")


def test_facts_that_are_none_are_left_out() -> None:
    odd = {"step": 3, "path": 4, "errno": "5", "evil": 6, "pid": "7", "signal_number": 9}
    error = decode(None, as_report(facts=odd), 1)
    assert isinstance(error, StepError)
    assert (str(error), error.pid, error.signal_number) == ("m", 1, 9)
    assert (error.step, error.path, error.errno) == (None, None, None)
    assert error.__notes__ == ['In the daemon (pid 1):\n  File "f.py", line 3, in f', "n"]


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"3", b"{}", b"[]", b"[" * 200_000,
     *(json.dumps({**REPORT, **part}).encode()
       for part in ({"error": 3}, {"step": {}})),
     *(as_report(**part) for part in ({"facts": 3}, {"notes": 4}, {"notes": {}}, {"frames": [1]}))],
)  # fmt: skip
def test_a_report_that_can_not_be_read_is_an_error_too(payload: bytes) -> None:
    error = decode(None, payload, 7)
    assert type(error) is StartError
    assert "its report can't be read" in str(error)
    assert error.pid == 7


@CALM
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=12), st.data())
def test_frames_come_through_whatever_the_pieces(pieces: list[bytes], data: st.DataObject) -> None:
    """Torn into pieces, a frame is complete with its last byte and not before."""
    payload = b"".join(pieces)
    kind = data.draw(st.sampled_from([HELLO, READY, ERROR]))
    whole = kind + len(payload).to_bytes(4, "big") + payload
    reader, writer = os.pipe()
    frames = Frames()
    try:
        at = 0
        while at < len(whole):
            step = data.draw(st.integers(1, len(whole) - at))
            os.write(writer, whole[at : at + step])
            at += step
            assert frames.read(reader)
            assert frames.complete == (at == len(whole))
            assert not frames.hostile
        assert frames.first() == (kind, payload)
        os.close(writer)
        writer = -1
        assert not frames.read(reader)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


@CALM
@given(st.binary(min_size=1, max_size=80))
def test_bytes_that_are_no_frame_are_no_success(noise: bytes) -> None:
    frames = Frames()
    frames.data = noise
    kind, payload = frames.first()
    whole = len(noise) >= 5 and int.from_bytes(noise[1:5], "big") <= len(noise) - 5
    assert (kind == READY) == (noise[:1] == READY and whole)
    assert len(payload) <= len(noise)


def test_a_frame_that_claims_too_much_is_hostile() -> None:
    frames = Frames()
    for size in (LARGEST + 1, 1 << 24, (1 << 32) - 1):
        frames.data = ERROR + size.to_bytes(4, "big")
        assert frames.hostile
    frames.data = ERROR + LARGEST.to_bytes(4, "big")
    assert not frames.hostile
    assert not frames.complete
    frames.data += bytes(LARGEST)
    assert frames.first() == (ERROR, bytes(LARGEST))


def test_frames_come_one_after_the_other() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    frames = Frames()
    assert not frames.read(reader)  # nothing yet
    assert frames.first() == (ERROR, b"")
    assert send(writer, HELLO, b"12")
    assert send(writer, READY)
    assert frames.read(reader)
    assert frames.first() == (HELLO, b"12")
    frames.drop()
    assert frames.first() == (READY, b"")
    frames.drop()
    assert not frames.complete
    os.close(reader)
    os.close(writer)


def test_what_follows_a_hostile_byte_is_not_kept() -> None:
    reader, writer = os.pipe()
    frames = Frames()
    for _ in range(2):
        os.write(writer, b"?" * 100)
        assert frames.read(reader)
    assert len(frames.data) == 100
    os.close(reader)
    os.close(writer)


def test_the_end_of_a_pipe_does_not_kill_a_program_that_has_sigpipe_at_its_default(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os, signal
        from daemon_context.report.frames import READY, send
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        reader, writer = os.pipe()
        os.close(reader)
        assert not send(writer, READY)
        assert signal.sigpending() == signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_reads_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert not send(writer, READY)
    os.close(writer)


HOSTILE = """
    import json, os, sys, time
    from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step

    class Say(Step):
        def __init__(self, data, then):
            self.data, self.then = data, then
        def apply(self, walk):
            os.write(walk.report.report_w, self.data)
            if self.then == "exit":
                os._exit(0)
            if self.then == "hang":
                time.sleep(600)

    for line in sys.stdin:
        data, then = json.loads(line)
        steps = DEFAULT_STEPS.insert_after("change-owner", Say(bytes.fromhex(data), then))
        context = DaemonContext(steps=steps, start_timeout=2, threads="ignore")
        try:
            handle = context.spawn(time.sleep, 600)
            print("ready", flush=True)
            handle.stop()
        except DaemonError as error:
            print(type(error).__name__, flush=True)
"""


def test_a_hostile_daemon_is_an_error_or_what_it_says(box: support.Sandbox) -> None:
    """Real starts: whatever the daemon writes as its report, the launcher gets an answer."""
    cases: list[tuple[bytes, str]] = [
        (READY + bytes(3), "exit"),
        (ERROR + b"\0\0\0\x09{}", "exit"),
        (ERROR + b"\xff\xff\xff\xff", "hang"),
        (HELLO + b"\0\0\0\x011", "exit"),
        (b"cos\nsystem\n(S'touch owned'\ntR.", "exit"),
        (ERROR + (60).to_bytes(4, "big") + b"x" * 60, "hang"),
        (b"\0", "hang"),
    ]
    lines = "\n".join(json.dumps([data.hex(), then]) for data, then in cases)
    program = box.popen(HOSTILE)
    said, errors = program.communicate(lines, timeout=120)
    assert (program.returncode, errors) == (0, "")
    assert said.split() == ["StartError"] * len(cases)
    assert not (box.path / "owned").exists()
    box.settled()


def test_a_daemon_can_not_have_another_process_killed_for_it(box: support.Sandbox) -> None:
    """Only the first frame names a pid, and it is sent before anybody else's code has run."""
    innocent = box.popen(box.script("import sys; sys.stdin.read()", "innocent.py"))
    done = box.run(
        """
        import fcntl, sys, termios
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        from daemon_context.report.frames import HELLO, send

        def wait_until_read(pipe):
            while fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)) != bytes(4):
                pass

        class Slander(Step):
            def apply(self, walk):
                pipe = walk.report.outcome_w
                wait_until_read(pipe)
                send(pipe, HELLO, sys.argv[1].encode())
                wait_until_read(pipe)
                raise RuntimeError("so the launcher ends what is left")

        steps = DEFAULT_STEPS.insert_after("change-owner", Slander())
        DaemonContext(steps=steps, detach_process=True).open()
        """,
        innocent.pid,
    )
    assert done.returncode == 1
    assert "daemon_context.errors." in done.stderr
    assert innocent.poll() is None
    assert innocent.communicate("")[0] == ""
    assert innocent.returncode == 0


@pytest.mark.parametrize("reader", ["session leader", "launcher"])
def test_a_flood_from_a_descendant_of_a_dead_daemon_keeps_nobody(
    box: support.Sandbox, reader: str
) -> None:
    """It begins while the reader is stopped, and never lets the pipe run dry."""
    done = box.run(
        """
        import fcntl, os, signal, sys
        from daemon_context import DaemonContext, StartError
        from tests.helpers.support import alive, until

        def flood(pipe, reader, daemon, leader):
            os.setsid()
            until(lambda: not alive(daemon) and (reader == leader or not alive(leader)))
            os.write(pipe, b"E\\0\\x10\\0\\0" + b"x" * 900_000)
            for _ in range(2):
                os.fork()
            os.kill(reader, signal.SIGCONT)
            while True:
                os.write(pipe, b"x" * (1 << 20))

        launcher = os.getpid()
        try:
            with DaemonContext(readiness="explicit", detach_process=True) as daemon:
                report = daemon._walk.report
                me, leader, by_leader = os.getpid(), os.getppid(), sys.argv[1] == "session leader"
                pipe = report.report_w if by_leader else report.outcome_w
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
                until(lambda: fcntl.ioctl(pipe, 0x541B, bytes(4)) == bytes(4))  # FIONREAD
                reader = leader if by_leader else launcher
                os.kill(reader, signal.SIGSTOP)
                if os.fork() == 0:
                    flood(pipe, reader, me, leader)
                if not by_leader:
                    os.kill(leader, signal.SIGKILL)
                os._exit(3)
        except StartError as error:
            print(error)
        """,
        reader,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


FORGING = """
    import json, os, sys
    from daemon_context import DEFAULT_STEPS, AlreadyRunning, DaemonContext, DaemonError, Step
    from daemon_context.report.frames import ERROR, send

    class Lie(Step):
        def apply(self, walk):
            facts = {"path": sys.argv[1], "pid": int(sys.argv[2]), "step": sys.argv[3], "errno": 13}
            error = {"class": sys.argv[4], "ours": sys.argv[4], "text": "m", "facts": facts,
                     "notes": [], "frames": [["t.py", 1, "t"]]}
            said = {"error": error, "step": walk.number, "process": "session leader"}
            pipe = walk.report.report_w if sys.argv[5] == "leader" else walk.report.outcome_w
            send(pipe, ERROR, json.dumps(said).encode())
            os._exit(0)

    steps = DEFAULT_STEPS.insert_after("change-owner", Lie())
    pidfile = os.path.abspath("own.pid") if sys.argv[6] == "own" else None
    context = DaemonContext(steps=steps, uid="nobody", pidfile=pidfile, stdout="own.log")
    try:
        context.spawn(print)
    except DaemonError as error:
        told = {"class": type(error).__name__, "path": error.path, "pid": error.pid,
                "step": error.step, "handle": None}
        if isinstance(error, AlreadyRunning):
            try:
                told["handle"] = error.handle.pid
            except DaemonError as refused:
                told["handle"] = str(refused)
        print(json.dumps(told))
"""


@pytest.mark.root
@pytest.mark.parametrize("to", ["leader", "launcher"])
@pytest.mark.parametrize("kind", ["AlreadyRunning", "LockTimeout", "PidFileError", "StepError"])
@pytest.mark.parametrize("pidfile", ["own", "none"])
def test_a_hostile_daemon_names_no_path_pid_or_step(
    open_box: support.Sandbox, to: str, kind: str, pidfile: str
) -> None:
    """Another daemon has the file that it names: root would stop that one."""
    box = open_box
    box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="victim.pid", detach_process=True, working_directory="."):
            import time; time.sleep(600)
    """)
    victim = box.pid("victim.pid")
    done = box.run(FORGING, box.path / "victim.pid", victim, "../evil", kind, to, pidfile)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["class"] == kind
    assert told["step"] is None
    if kind == "StepError":
        assert told["pid"] not in (victim, None)
    else:
        assert told["pid"] is None, "it would be the holder's"
    own = str(box.path / "own.pid") if pidfile == "own" and kind != "StepError" else None
    assert told["path"] == own
    if kind == "AlreadyRunning":
        words = "no daemon can be found" if own else "nobody knows which"
        assert words in told["handle"]
    assert support.alive(victim)


def test_a_path_and_a_step_that_the_launcher_knows_arrive(box: support.Sandbox) -> None:
    done = box.run("""
        import json
        from daemon_context import DaemonContext, DaemonError
        try:
            DaemonContext(working_directory="/nope").spawn(print)
        except DaemonError as error:
            print(json.dumps([error.path, error.step, error.errno]))
    """)
    assert json.loads(done.stdout) == ["/nope", "change-directory", 2]


def test_of_one_that_dies_before_it_has_told_its_pid_none_is_named() -> None:
    error = decode(None, b'{"died": 9, "step": 0}', None)
    assert str(error) == "the daemon was killed by SIGKILL before it was ready"
