"""Pid files with any content: it is never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_context import PidFile
from daemon_context.pidfile.record import Record
from tests.helpers import support
from tests.helpers.pidfiles import Innocent, Starter, end, starts


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"garbage",
        b"\0" * 64,
        b"\xff\xfe1\n",
        b"-1\n",
        b"0\n",
        b"1\n",
        b"999999999999999999999\n",
        b"{innocent}",
        b"{innocent}\n",
        b"  {innocent}\nand more\n",
        b"-{innocent}\n",
        b"{me}\n",
        b"9" * (1 << 20),
        b"\0" * (1 << 20),
    ],
    ids=lambda content: repr(content[:24])[2:-1],
)
def test_no_content_is_in_the_way(starter: Starter, innocent: Innocent, content: bytes) -> None:
    path = starter.box.path / "d.pid"
    content = content.replace(b"{innocent}", b"%d" % innocent.process.pid)
    path.write_bytes(content.replace(b"{me}", b"%d" % os.getpid()))
    starts(starter, path)


NUMBERS = b"pid 1\nstarted 1\ninode 1\nnamespace 1\nuid 0\nsession 0\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\npath /x\n",
        b"pid 1\npath /x\n",
        NUMBERS + b"path /x\n",
        NUMBERS + b"boot -\npath /x",
        NUMBERS.replace(b"pid 1", b"pid one") + b"boot -\npath /x\n",
        NUMBERS + b"boot \xff\npath /x\n",
        NUMBERS + b"boot\npath /x\n",
    ],
)
def test_what_is_no_record_is_none(tmp_path: Path, content: bytes) -> None:
    for data, wanted in ((content, None), (NUMBERS + b"boot -\npath /x\n", "/x")):
        (tmp_path / "lock").write_bytes(data)
        with (tmp_path / "lock").open("rb") as file:
            record = Record.read(file.fileno())
        assert (record and record.path) == wanted


VERBS = """
    import os, signal, sys
    from daemon_context import Daemon
    from tests.helpers.support import become_nobody

    class Idle(Daemon):
        def run(self):
            self.sleep()

    if "INNOCENT" in os.environ:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, lambda number, frame: print(number, flush=True))
        if os.environ["INNOCENT"] == "another":
            become_nobody()
        print("ready", flush=True)
        sys.stdin.read()
    else:
        Idle("d.pid").main()
"""


@pytest.mark.parametrize("user", ["same", pytest.param("another", marks=pytest.mark.root)])
def test_an_innocent_with_the_daemons_command_line(box: support.Sandbox, user: str) -> None:
    program = box.script(VERBS)
    innocent = box.popen(program, "start", env={"INNOCENT": user})
    assert innocent.stdout is not None
    assert innocent.stdout.readline() == "ready\n"
    path = box.path / "d.pid"
    path.write_text(f"{innocent.pid}\n")
    assert PidFile(path).owner() is None
    for verb, status in (("status", 4), ("stop", 1), ("reload", 1)):
        done = box.run(program, verb)
        said = done.stdout + done.stderr
        assert done.returncode == status, (verb, done)
        assert "nothing proves that it is the daemon" in said
    assert box.run(program, "start").returncode == 0
    daemon = box.pid()
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (daemon, innocent.pid)]
    assert lines[0] == lines[1]
    assert daemon != innocent.pid
    # Back to the state that a crash and a number used again leave.
    end(daemon, 9)
    path.write_text(f"{innocent.pid}\n")
    for verb in ("restart", "stop"):
        done = box.run(program, verb)
        assert done.returncode == 0, (verb, done)
    assert support.alive(innocent.pid)
    assert innocent.communicate() == ("", "")


@pytest.mark.root
def test_numbers_that_come_again_in_a_container(box: support.Sandbox) -> None:
    """Any process of the next start may have the dead daemon's number."""
    box.script(
        """
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
        """,
        "daemon.py",
    )
    done = box.run(
        """
        import os, pathlib, signal, subprocess, sys
        from daemon_context import PidFile

        def start(launcher=0):
            if launcher:
                pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(launcher - 1))
            return subprocess.run([sys.executable, "daemon.py"], capture_output=True, text=True)

        def end(daemon, number):
            os.kill(daemon, number)
            os.waitpid(daemon, 0)

        assert os.getpid() == 1
        assert start().returncode == 0
        last = int(pathlib.Path("d.pid").read_text())
        end(last, signal.SIGKILL)
        daemons = []
        for launcher in (last, last - 1, last - 2):  # behind it come session leader and daemon
            pathlib.Path("d.pid").write_text(f"{last}\\n")
            done = start(launcher)
            assert done.returncode == 0, done
            daemon = int(pathlib.Path("d.pid").read_text())
            assert PidFile("d.pid").owner() == daemon
            assert f"already running with pid {daemon} (" in start().stderr
            daemons.append(daemon - last)
            end(daemon, signal.SIGTERM)
            assert not os.path.exists("d.pid")
        print(daemons)
        """,
        prefix=["unshare", "-p", "-f", "--mount-proc", "--kill-child"],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[2, 1, 0]\n", "")


ANY = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")),
    st.integers().map(lambda number: b"%d\n" % number),
    st.integers(1, 1 << 22).map(lambda number: b" %05d \n" % number),
    st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 1 << 17)).map(
        lambda pair: pair[0] * pair[1]
    ),
    st.sampled_from([b"%d", b"%d\n", b"-%d\n", b"\t%d\r\n", b"%d %d", b"+%d\n", b"%d\0"]),
)


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=ANY)
def test_no_content_at_all(starter: Starter, innocent: Innocent, content: bytes) -> None:
    path = starter.box.path / "d.pid"
    path.write_bytes(content.replace(b"%d", b"%d" % innocent.process.pid))
    assert PidFile(path).owner() is None
    starts(starter, path)
