"""Pid file paths that can't be used, and files with any content: refused, or never in the way."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_context import PidFile

from . import support
from .pidfiles import HOLDER, NOBODY, Innocent, Starter, held

STRANGER = 12345


def end(pid: int, number: int = 15) -> None:
    os.kill(pid, number)
    support.gone(pid)


def picture(directory: Path) -> dict[str, Any]:
    """All that is in a directory, with content, owner, mode and links."""
    found = {}
    for path in sorted(directory.rglob("*")):
        facts = path.lstat()
        content: Any = path.read_bytes() if stat.S_ISREG(facts.st_mode) else None
        if stat.S_ISLNK(facts.st_mode):
            content = os.readlink(path)
        found[str(path)] = (facts.st_mode, facts.st_uid, facts.st_nlink, facts.st_ino, content)
    return found


def refused(starter: Starter, path: Path | str, words: str, **job: Any) -> dict[str, Any]:
    """A start that must fail in the launcher, with these words and nothing else; its error."""
    running = starter.daemons
    result = starter.start(path, **job)
    assert result["status"] == 1
    assert result["step"] == "lock-pidfile"
    assert result["path"] == os.path.abspath(path)
    assert {"lockfile.LockFailed", "builtins.OSError"} <= set(result["kinds"])
    text = result["text"]
    assert text.startswith(f"cannot lock the pid file {os.path.abspath(path)!r}: "), text
    assert words in text
    assert re.search(r"; [a-z ]+.* \(step 2 of 15, lock-pidfile\)$", text), "no remedy in: " + text
    assert "\n" not in text
    assert starter.daemons == running
    return result


# --- what is there already


def a_directory(path: Path) -> None:
    path.mkdir()


def a_full_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("content")


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def a_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def a_dangling_symlink(path: Path) -> None:
    path.symlink_to(path.parent / "target")


def a_looping_symlink(path: Path) -> None:
    path.symlink_to(path)


def a_symlink(path: Path) -> None:
    target = path.parent / "target"
    target.write_text("precious")
    path.symlink_to(target)


def a_symlink_to_a_stale_pid_file(path: Path) -> None:
    (path.parent / "target").write_text("1\n")
    path.symlink_to("target")


def a_hard_link(path: Path) -> None:
    target = path.parent / "target"
    target.write_text("precious")
    path.hardlink_to(target)


def a_strangers_file(path: Path) -> None:
    path.write_text("precious")
    path.chmod(0o666)
    os.chown(path, STRANGER, STRANGER)


def a_strangers_file_in_a_directory_of_its_own(path: Path) -> None:
    a_strangers_file(path)
    os.chown(path.parent, STRANGER, STRANGER)


def a_strangers_file_in_a_sticky_directory(path: Path) -> None:
    a_strangers_file(path)
    path.parent.chmod(0o1777)


SYMLINK = "it is a symlink, and none is followed"
STRANGERS = f"it belongs to uid {STRANGER}, who could change it"


@pytest.mark.parametrize(
    ("make", "words", "remedy"),
    [
        (a_directory, "it is a directory; ", "give the path of a file, such as "),
        (a_full_directory, "it is a directory; ", "give the path of a file, such as "),
        (a_fifo, "it is a FIFO, not a regular file", "give another path"),
        (a_socket, "it is a socket, not a regular file", "give another path"),
        (a_dangling_symlink, SYMLINK, "or remove the symlink"),
        (a_looping_symlink, SYMLINK, "or remove the symlink"),
        (a_symlink, SYMLINK, "give the path of the file itself"),
        (a_symlink_to_a_stale_pid_file, SYMLINK, "give the path of the file itself"),
        (a_hard_link, "the file has 2 names (hard links)", "remove this name"),
        pytest.param(a_device, "it is a character device", "another path", marks=pytest.mark.root),
        *(
            pytest.param(make, STRANGERS, "remove it, or give a path", marks=pytest.mark.root)
            for make in (
                a_strangers_file,
                a_strangers_file_in_a_directory_of_its_own,
                a_strangers_file_in_a_sticky_directory,
            )
        ),
    ],
)
def test_what_is_no_pid_file_is_refused_and_not_touched(
    starter: Starter, tmp_path: Path, make: Callable[[Path], None], words: str, remedy: str
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    path = directory / "d.pid"
    make(path)
    before = picture(directory)
    text = refused(starter, path, words)["text"]
    assert remedy in text
    assert picture(directory) == before
    with pytest.raises(OSError, match=re.escape(words)) as caught:
        PidFile(path).acquire()
    assert str(caught.value).count("cannot lock the pid file") == 1
    with pytest.raises(OSError, match=re.escape(words)):
        PidFile(path).break_lock()
    assert picture(directory) == before


@pytest.mark.root
@pytest.mark.parametrize("user", [0, NOBODY])
def test_files_of_root_and_of_the_daemons_user_are_taken(
    starter: Starter, public: Path, user: int
) -> None:
    path = public / "d.pid"
    path.write_text("1\n")
    os.chown(path, user, user)
    result = starter.start(path, options={"uid": NOBODY, "gid": NOBODY})
    assert result == {"status": 0}
    end(int(path.read_text()))


# --- where it can't be


@pytest.mark.parametrize(
    ("path", "number", "words", "remedy"),
    [
        ("no/d.pid", 2, "No such file or directory", "create that directory first"),
        ("file/d.pid", 20, "is not a directory", "give a path in a directory"),
        ("file/no/d.pid", 20, "Not a directory", "give a path in a directory"),
        ("loop/d.pid", 40, "Too many levels of symbolic links", "mend the links in that path"),
        ("n" * 256, 36, "File name too long", "give a shorter path"),
        ("n/" * 3000 + "d.pid", 36, "File name too long", "give a shorter path"),
        ("dangling/d.pid", 2, "No such file or directory", "create that directory first"),
    ],
)
def test_where_no_file_can_be(
    starter: Starter, tmp_path: Path, path: str, number: int, words: str, remedy: str
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "file").write_text("precious")
    (directory / "loop").symlink_to("loop")
    (directory / "dangling").symlink_to("nowhere")
    before = picture(directory)
    result = refused(starter, directory / path, words)
    assert result["errno"] == number
    assert remedy in result["text"]
    assert picture(directory) == before


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_as_a_user_who_may_not_write_there(starter: Starter, public: Path, there: bool) -> None:
    path = public / "d.pid"
    if there:
        path.write_text("1\n")
    before = picture(public)
    result = refused(starter, path, "; do it as a user who may", uid=NOBODY)
    assert "': Permission denied" in result["text"]
    assert result["errno"] == 13
    assert picture(public) == before


@pytest.mark.root
def test_as_a_user_who_may_not_look_there(starter: Starter, public: Path) -> None:
    (public / "closed").mkdir(mode=0o700)
    refused(starter, public / "closed" / "d.pid", "Permission denied", uid=NOBODY)
    assert list((public / "closed").iterdir()) == []


@pytest.mark.root
def test_a_user_may_keep_it_in_a_directory_of_its_own(starter: Starter, public: Path) -> None:
    os.chown(public, NOBODY, NOBODY)
    path = public / "d.pid"
    assert starter.start(path, uid=NOBODY) == {"status": 0}
    pid = int(path.read_text())
    assert path.stat().st_uid == NOBODY
    asked = PidFile(path).holder()  # by root, who must not believe what another user may write
    assert (asked.state, asked.pid, asked.proven, PidFile(path).owner()) == (
        "running",
        pid,
        False,
        None,
    )
    assert "ask as that user" in starter.ask(stop=os.fspath(path), schedule=[("TERM", 20)])["error"]
    assert support.alive(pid)
    assert "already running" in starter.start(path, uid=NOBODY)["text"]
    daemon = {"uid": NOBODY, "gid": NOBODY}
    assert "already running" in starter.start(path, options=daemon)["text"]
    end(pid)
    assert not path.exists()


# --- directories that strangers may write to

PLAYS = {
    "removes it": ("rm d.pid", ""),
    "moves it away": ("mv d.pid moved", ""),
    "puts a file there": (
        "rm d.pid && echo {innocent} > d.pid",
        "it belongs to user 'nobody', who could change it",
    ),
    "puts a symlink there": ("rm d.pid && ln -s precious d.pid", SYMLINK),
    "puts a directory there": ("rm d.pid && mkdir d.pid", "it is a directory"),
    "puts a FIFO there": ("rm d.pid && mkfifo d.pid", "it is a FIFO"),
}


def play(directory: Path, script: str) -> bool:
    """What a stranger does in the directory; whether it may."""
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    command = ["setpriv", *ids, "sh", "-c", script]
    return subprocess.run(command, cwd=directory, stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.root
@pytest.mark.parametrize("name", PLAYS)
def test_in_a_sticky_directory_a_stranger_gets_nowhere(
    starter: Starter, public: Path, innocent: Innocent, name: str
) -> None:
    public.chmod(0o1777)
    path = public / "d.pid"
    assert starter.start(path) == {"status": 0}
    daemon = int(path.read_text())
    before = picture(public)
    assert not play(public, PLAYS[name][0].format(innocent=innocent.process.pid))
    assert picture(public) == before
    assert PidFile(path).owner() == daemon
    assert f"already running with pid {daemon} (" in starter.start(path)["text"]
    end(daemon)
    assert list(public.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("name", PLAYS)
def test_in_an_open_directory_what_a_stranger_puts_there_is_not_touched(
    starter: Starter, public: Path, innocent: Innocent, name: str
) -> None:
    public.chmod(0o777)
    (public / "precious").write_text("precious")
    path = public / "d.pid"
    assert starter.start(path) == {"status": 0}
    (daemon,) = starter.daemons - {innocent.process.pid}
    script, words = PLAYS[name]
    assert play(public, script.format(innocent=innocent.process.pid))
    assert PidFile(path).owner() == daemon
    assert starter.start(path)["status"] == 1
    assert play(public, "rm d.pid.lock")
    before = picture(public)
    assert PidFile(path).owner() is None  # what is there is not the daemon's
    if words:
        refused(starter, path, words)
        assert picture(public) == before
    end(daemon)
    before.pop(str(public / "moved"), None)  # its own: it may do what it likes
    after = picture(public)
    after.pop(str(public / "moved"), None)
    assert after == before
    if not words:
        starts(starter, path)


SERVED = """
    import sys
    from daemon_context import Daemon

    class Idle(Daemon):
        def run(self):
            self.sleep()

    Idle(sys.argv.pop(1)).main()
"""


@pytest.mark.root
def test_nothing_is_written_to_a_strangers_status_file(box: support.Sandbox, public: Path) -> None:
    public.chmod(0o777)
    files = "d.pid.status d.pid.status.new"
    assert play(public, f"for file in {files}; do echo mine > $file; ln $file $file.kept; done")
    program = box.script(SERVED)
    path = public / "d.pid"
    assert box.run(program, path, "start").returncode == 0
    assert [(public / f"{name}.kept").read_text() for name in files.split()] == ["mine\n"] * 2
    status = json.loads(box.run(program, path, "status", "--json").stdout)
    assert status["state"] == "ready"
    assert box.run(program, path, "stop").returncode == 0
    assert {path.suffix for path in public.iterdir()} == {".kept", ".status"}
    assert "ended" in json.loads((public / "d.pid.status").read_text())


# --- file systems, mounted where nobody else sees them


@pytest.fixture
def mounting(box: support.Sandbox) -> Iterator[Starter]:
    """Starts daemons in a mount namespace of its own."""
    (box.path / "mnt").mkdir()
    with Starter(box, prefix=["unshare", "--mount", "--propagation", "private"]) as starter:
        yield starter


def mounted(starter: Starter, options: str) -> tuple[str, Path]:
    """Mount a tmpfs: its path in there, and the way to it from here."""
    place = starter.box.path / "mnt"
    starter.ask(run=["mount", "-t", "tmpfs", "-o", options, "none", str(place)])
    return str(place / "d.pid"), Path(f"/proc/{starter.program.pid}/root{place}")


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_on_a_read_only_file_system(mounting: Starter, there: bool) -> None:
    path, seen = mounted(mounting, "size=1m")
    if there:
        (seen / "d.pid").write_text("1\n")
    mounting.ask(run=["mount", "-o", "remount,ro", str(mounting.box.path / "mnt")])
    before = picture(seen)
    result = refused(mounting, path, "; give a path on a file system that")
    assert "': Read-only file system" in result["text"]
    assert result["errno"] == 30
    assert picture(seen) == before


@pytest.mark.root
def test_where_inodes_are_used_up(mounting: Starter) -> None:
    path, seen = mounted(mounting, "nr_inodes=2")
    (seen / "file").touch()
    result = refused(mounting, path, "No space left on device; make room there: blocks or inodes")
    assert result["errno"] == 28
    assert [entry.name for entry in seen.iterdir()] == ["file"]


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_where_blocks_are_used_up(mounting: Starter, there: bool) -> None:
    path, seen = mounted(mounting, f"size={2 * resource.getpagesize()}")
    if there:
        (seen / "d.pid").touch()
    (seen / "file").write_bytes(b"x" * 2 * resource.getpagesize())
    result = mounting.start(path)
    assert (result["status"], result["errno"], result["step"]) == (1, 28, "write-pidfile")
    assert "No space left on device; make room there" in result["text"]
    assert [entry.name for entry in seen.iterdir()] == ["file"]
    assert mounting.daemons == set()
    (seen / "file").unlink()
    assert mounting.start(path) == {"status": 0}
    end(int((seen / "d.pid").read_text()))


@pytest.mark.root
def test_where_blocks_are_used_up_in_a_chroot(mounting: Starter) -> None:
    """What the error needs must have been loaded before."""
    path, seen = mounted(mounting, f"size={resource.getpagesize()}")
    (seen / "file").write_text("x")
    (mounting.box.path / "root").mkdir()
    options = {"chroot_directory": str(mounting.box.path / "root")}
    result = mounting.start(path, options=options)
    assert (result["status"], result["errno"], result["step"]) == (1, 28, "write-pidfile")
    assert [entry.name for entry in seen.iterdir()] == ["file"]
    assert mounting.daemons == set()


def test_a_name_that_is_too_long_for_the_status_file_beside_it(box: support.Sandbox) -> None:
    name = "n" * 250
    done = box.run(SERVED, name, "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"create the status file '{box.path / name}.status': File name too long" in done.stderr
    assert "; give the pid file a path beside which" in done.stderr
    assert {path.name for path in box.path.iterdir()} == {"program.py"}
    box.settled()


@pytest.mark.root
def test_where_there_is_room_for_the_pid_file_but_not_for_the_status_file_beside_it(
    box: support.Sandbox,
) -> None:
    (box.path / "mnt").mkdir()
    script = f"""
        mount -t tmpfs -o size={2 * resource.getpagesize()} none mnt
        "$@" start && exit 99
        ls mnt
        mount -o remount,size={3 * resource.getpagesize()} mnt
        "$@" start && "$@" stop && ls mnt
    """
    done = box.run(SERVED, "mnt/d.pid", prefix=["unshare", "--mount", "sh", "-c", script, "sh"])
    assert done.returncode == 0, done
    assert done.stderr.splitlines()[0].endswith(
        f"No space left on device: '{box.path}/mnt/d.pid.status'"
    )
    assert re.fullmatch(
        r"Idle: started, pid \d+\nIdle: stopped \(pid \d+\)\nd.pid.status\n", done.stdout
    )
    box.settled()


# --- a running daemon


def test_a_running_daemon_is_named(box: support.Sandbox) -> None:
    program = box.script("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    assert box.run(program).returncode == 0
    pid = box.pid()
    done = box.run(program)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        f"daemon_context.errors.AlreadyRunning: already running with pid {pid} "
        f"(pid file '{box.path / 'd.pid'}'); stop that one first, or "
        "give this one a pid file of its own (step 2 of 15, lock-pidfile)"
    )
    assert box.processes() == {pid}
    assert (box.path / "d.pid").read_text() == f"{pid}\n"
    end(pid)
    assert not (box.path / "d.pid").exists()


def test_what_holds_the_lock_without_being_a_daemon(starter: Starter) -> None:
    path = starter.box.path / "d.pid"
    with held(starter.box, HOLDER, path) as holder:
        result = starter.start(path)
        assert (result["status"], result["pid"]) == (1, holder.pid)
        assert "daemon_context.errors.AlreadyRunning" in result["kinds"]


# --- any content


@pytest.fixture
def innocent(box: support.Sandbox) -> Iterator[Innocent]:
    process = Innocent(box)
    yield process
    assert process.end() == ""


def starts(starter: Starter, path: Path) -> None:
    """Started, refused a second time, and stopped: all as if the file had not been there."""
    known = starter.daemons
    assert starter.start(path) == {"status": 0}
    daemon = int(path.read_text())
    assert path.read_text() == f"{daemon}\n"
    assert starter.daemons == known | {daemon}
    assert f"already running with pid {daemon} (" in starter.start(path)["text"]
    end(daemon)
    assert not path.exists()


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


VERBS = """
    import os, signal, sys
    from daemon_context import Daemon
    from tests.support import become_nobody

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
