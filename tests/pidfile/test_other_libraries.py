"""Pid files that other libraries lock, and those of the older form."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from daemon_context import AlreadyRunning, PidFile
from daemon_context.errors import PidFileError
from tests.helpers import support
from tests.helpers.pidfiles import (
    IDLE,
    NOBODY,
    READER,
    Starter,
    end,
    held,
    lock_of,
)

# As daemonize, pep3143daemon and pid do: an exclusive flock, the pid written behind it; the fork
# may come after both, before the pid is written, or not at all.
OTHERS = """
    import fcntl, os, sys
    file = open(sys.argv[1], "a+")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if sys.argv[2] == "forks":
        reader, writer = os.pipe()
        if os.fork():
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\\n")
    file.flush()
    os.chmod(sys.argv[1], 0o644)
    if len(sys.argv) > 3:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    print(os.getpid(), flush=True)
    if sys.argv[2] == "forks":
        os.close(writer)
        os.close(1)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["stays", "forks"])
def test_a_start_beside_a_daemon_of_another_library(box: support.Sandbox, how: str) -> None:
    path = box.path / "d.pid"
    other = box.popen(box.script(OTHERS, "other.py"), path, how, stderr=None)
    assert other.stdout is not None
    pid = int(other.stdout.readline())
    if how == "forks":
        assert other.pid != pid
        support.gone(other.pid) if other.wait() == 0 else None
    content = path.read_bytes()
    with pytest.raises(AlreadyRunning) as caught:
        PidFile(path).acquire()
    assert caught.value.pid == pid
    text = f"a daemon of another library (pid {pid}) holds it; stop it by its own means"
    assert text in str(caught.value)
    assert PidFile(path).holder().state == "foreign"
    assert verb_status(box, path).returncode == 4
    assert path.read_bytes() == content
    assert not lock_of(path).exists()
    assert other.stdin is not None
    other.stdin.close()
    other.stdin = None
    support.gone(pid)
    with PidFile(path) as lock:
        assert lock.read_pid() == os.getpid()


def verb_status(box: support.Sandbox, path: Path) -> subprocess.CompletedProcess[str]:
    return box.run(box.script(IDLE, "served.py"), path, "status", env={"OPTIONS": "{}"})


@pytest.mark.root
@pytest.mark.parametrize("how", ["stays", "forks"])
def test_a_lock_of_a_user_who_has_nothing_to_do_with_it_is_not_in_the_way(
    starter: Starter, public: Path, how: str
) -> None:
    path = public / "d.pid"
    path.write_text("1\n")
    path.chmod(0o666)
    program = starter.box.script(OTHERS, "other.py")
    other = starter.box.popen(program, path, how, "nobody", stderr=None)
    assert other.stdout is not None
    stranger = int(other.stdout.readline())
    assert starter.start(path) == {"status": 0}
    pid = int(path.read_text())
    assert pid != stranger
    end(pid)
    # It counts where the daemon becomes that user: then it may be an older daemon.
    path.write_text(f"{stranger}\n")
    assert other.stdin is not None
    other.stdin.close()
    other.stdin = None


@pytest.mark.parametrize("how", ["flock", "of a child"])
def test_others_refuse_beside_a_daemon_of_ours(starter: Starter, how: str) -> None:
    path = starter.box.path / "d.pid"
    assert starter.start(path) == {"status": 0}
    pid = int(path.read_text())
    done = starter.box.run(OTHERS, path, "stays")
    assert done.returncode == 1
    assert "BlockingIOError" in done.stderr
    assert path.read_text() == f"{pid}\n"
    end(pid)
    assert not path.exists()


@pytest.mark.root
def test_others_refuse_beside_a_daemon_of_ours_that_has_become_another_user(
    starter: Starter, public: Path
) -> None:
    path = public / "d.pid"
    assert starter.start(path, options={"uid": NOBODY, "gid": NOBODY}) == {"status": 0}
    pid = int(path.read_text())
    done = starter.box.run(OTHERS, path, "stays")
    assert (done.returncode, "BlockingIOError" in done.stderr) == (1, True)
    end(pid)


OLDER = """
    import fcntl, os, struct, sys
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1)
    os.write(fd, b"%d\\n" % os.getpid())
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_a_pid_file_that_a_daemon_of_the_older_form_holds(box: support.Sandbox) -> None:
    path = box.path / "d.pid"
    with held(box, OLDER, path) as older:
        with pytest.raises(AlreadyRunning) as caught:
            PidFile(path).acquire()
        text = f"a daemon of an older form of this library (pid {older.pid}) holds it; stop it by"
        assert text in str(caught.value)
        for name, status in (("start", 1), ("stop", 1), ("status", 4)):
            done = box.run(box.script(IDLE, "served.py"), path, name, env={"OPTIONS": "{}"})
            assert done.returncode == status, (name, done)
        assert path.read_text() == f"{older.pid}\n"
    with PidFile(path) as lock:
        assert lock.owner() == os.getpid()


@pytest.mark.parametrize("content", ["", "another library's\n", "pid 1\npath /nowhere\n"])
def test_a_lock_file_that_is_not_of_this_form(box: support.Sandbox, content: str) -> None:
    """As filelock or lockfile leave one."""
    path = box.path / "d.pid"
    lock_of(path).write_text(content)
    with held(box, READER, lock_of(path), "ofd", 0, 0) as reader:
        with pytest.raises(PidFileError) as caught:
            PidFile(path).acquire()
        assert f"'{lock_of(path)}' is locked, and has no record of a daemon" in str(caught.value)
        assert "end what holds it (fuser, lslocks)" in str(caught.value)
        assert reader.poll() is None
        assert lock_of(path).read_text() == content
    with PidFile(path) as lock:
        assert lock.owner() == os.getpid()
    assert not lock_of(path).exists()


def test_a_directory_in_the_place_of_the_lock_file(tmp_path: Path) -> None:
    path = tmp_path / "d.pid"
    lock_of(path).mkdir()  # lockfile's MkdirLockFile makes one
    with pytest.raises(OSError, match=rf"its lock file '{lock_of(path)}': it is a directory"):
        PidFile(path).acquire()
    assert lock_of(path).is_dir()
