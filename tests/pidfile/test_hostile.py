"""Pid file paths that can't be used: refused, and nothing is touched."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon_context import PidFile
from tests.helpers import support
from tests.helpers.pidfiles import (
    HOLDER,
    NOBODY,
    SERVED,
    Innocent,
    Starter,
    end,
    held,
    picture,
    refused,
    starts,
)

STRANGER = 12345


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
