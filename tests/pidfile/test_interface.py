"""The pid file as an object: lockfile's interface, its content, and its errors."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import lockfile
import pytest
from lockfile import pidlockfile

import daemon_context.pidfile
from daemon_context import AlreadyRunning, DaemonError, PidFile
from daemon_context.errors import (
    DaemonOSEnvironmentError,
    LockTimeout,
    NotLocked,
    NotMyLock,
    OptionError,
    PidFileError,
)
from daemon_context.pidfile import PIDLockFile, TimeoutPIDLockFile
from daemon_context.pidfile.files import wait_a_while
from tests.helpers import support
from tests.helpers.pidfiles import HOLDER, NOBODY, Starter, end, held, kernel_owner, started

CLASSES = (PidFile, TimeoutPIDLockFile, PIDLockFile)


# --- lockfile's interface


@pytest.mark.parametrize("kind", CLASSES)
def test_one_object_can_be_used_many_times(tmp_path: Path, kind: type[PidFile]) -> None:
    path = tmp_path / "d.pid"
    lock = kind(path)
    before = support.descriptors(os.getpid())
    for _ in range(5):
        assert not lock.is_locked()
        assert not lock.i_am_locking()
        assert lock.read_pid() is None
        lock.acquire()
        assert path.read_bytes() == b"%d\n" % os.getpid()
        assert lock.is_locked()
        assert lock.i_am_locking()
        assert lock.read_pid() == lock.owner() == os.getpid()
        lock.release()
        assert not path.exists()
        with lock as entered:
            assert entered is lock
            assert path.exists()
        assert not path.exists()
    assert support.descriptors(os.getpid()) == before


def test_to_acquire_twice_is_to_acquire_once(tmp_path: Path) -> None:
    with PidFile(tmp_path / "d.pid") as lock:
        lock.acquire()
        assert lock.read_pid() == os.getpid()
        lock.release()
        assert not lock.is_locked()


def test_constructing_touches_nothing_and_makes_the_path_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lock = PidFile("d.pid")
    assert lock.path == str(tmp_path / "d.pid")
    assert list(tmp_path.iterdir()) == []
    assert PidFile(os.fsencode(tmp_path)).path == str(tmp_path)


def test_the_parameters_of_python_daemon_and_lockfile(tmp_path: Path) -> None:
    assert PidFile(tmp_path, timeout=1).timeout == 1
    lock = TimeoutPIDLockFile(tmp_path, acquire_timeout=2)
    assert lock.timeout == lock.acquire_timeout == 2
    lock.acquire_timeout = 3
    assert lock.timeout == 3
    assert TimeoutPIDLockFile(tmp_path, 4).timeout == 4
    assert TimeoutPIDLockFile(tmp_path).acquire_timeout is None
    assert PIDLockFile(tmp_path, False, 5).timeout == 5
    assert PIDLockFile(tmp_path, threaded=True, timeout=None).timeout is None
    assert TimeoutPIDLockFile(tmp_path, timeout=6).timeout == 6
    assert TimeoutPIDLockFile(tmp_path, None, False, 7).timeout == 7
    assert TimeoutPIDLockFile(tmp_path, 8, threaded=False, timeout=9).timeout == 8
    with pytest.raises(TypeError):
        TimeoutPIDLockFile(tmp_path, timeuot=1)


@pytest.mark.parametrize("kind", [PIDLockFile, TimeoutPIDLockFile])
def test_the_attributes_of_lockfile(tmp_path: Path, kind: type[PIDLockFile]) -> None:
    path = str(tmp_path / "d.pid")
    theirs, ours = pidlockfile.PIDLockFile(path), kind(path)
    assert isinstance(ours, PIDLockFile)
    for name in ("path", "lock_file", "unique_name", "hostname", "pid", "tname", "timeout"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("number", ["soon", b"", [], object()])
def test_a_timeout_that_is_no_number_is_refused(tmp_path: Path, number: Any) -> None:
    with pytest.raises(OptionError, match=r"timeout.*number of seconds"):
        PidFile(tmp_path / "d.pid", timeout=number).acquire()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/a\0b", "\ud800", "", None, 5, b"\0"])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_path_that_can_not_be_one_is_refused(kind: type[PidFile], path: Any) -> None:
    with pytest.raises(OptionError) as caught:
        kind(path)
    assert f"pidfile={path!r} can't be used: expected a path" in str(caught.value)


@pytest.mark.parametrize("name", daemon_context.pidfile._LOCKFILES)
def test_the_other_names_of_lockfiles_module(name: str) -> None:
    assert getattr(daemon_context.pidfile, name) is getattr(pidlockfile, name)


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'x'"):
        daemon_context.pidfile.x  # noqa: B018


def test_release_without_the_lock(box: support.Sandbox) -> None:
    path = box.path / "d.pid"
    with pytest.raises(lockfile.NotLocked) as none:
        PidFile(path).release()
    assert isinstance(none.value, NotLocked)
    assert none.value.path == str(path)
    assert str(none.value).endswith(": nobody holds its lock; acquire it first")
    with held(box, HOLDER, path) as holder:
        with pytest.raises(lockfile.NotMyLock) as other:
            PidFile(path).release()
        assert isinstance(other.value, NotMyLock)
        assert other.value.pid == holder.pid
        assert kernel_owner(path) == holder.pid


def test_another_process_holds_it(box: support.Sandbox) -> None:
    path = box.path / "d.pid"
    with held(box, HOLDER, path) as holder:
        lock = PidFile(path)
        assert lock.is_locked()
        assert not lock.i_am_locking()
        assert lock.read_pid() == lock.owner() == holder.pid
        for call in (lock.acquire, lock.__enter__, lock.break_lock, lambda: lock.acquire(-1)):
            with pytest.raises(lockfile.AlreadyLocked) as caught:
                call()
            assert isinstance(caught.value, AlreadyRunning)
            assert (caught.value.path, caught.value.pid) == (str(path), holder.pid)
            assert f"already running with pid {holder.pid}" in str(caught.value)
        lock.__exit__(None, None, None)
        assert kernel_owner(path) == holder.pid
    assert not path.exists()
    with lock:
        assert lock.owner() == os.getpid()


def test_a_timeout_waits_and_then_says_so(box: support.Sandbox) -> None:
    path = box.path / "d.pid"
    with held(box, HOLDER, path) as holder:
        for acquire in (
            TimeoutPIDLockFile(path, acquire_timeout=0.05).acquire,
            lambda: PidFile(path).acquire(timeout=0.05),
            lambda: PidFile(path, timeout=20).acquire(timeout=0.05),
        ):
            with pytest.raises(lockfile.LockTimeout) as caught:
                acquire()
            assert isinstance(caught.value, LockTimeout)
            assert (caught.value.path, caught.value.pid) == (str(path), holder.pid)
            assert "0.05 seconds" in str(caught.value)
        with pytest.raises(AlreadyRunning):
            PidFile(path, timeout=20).acquire(timeout=0)


def test_waiting_keeps_no_descriptors(box: support.Sandbox) -> None:
    path = box.path / "d.pid"
    before = support.descriptors(os.getpid())
    with held(box, HOLDER, path):
        during = support.descriptors(os.getpid())
        with pytest.raises(LockTimeout):
            PidFile(path).acquire(timeout=0.6)
        assert support.descriptors(os.getpid()) == during
    assert support.descriptors(os.getpid()).keys() == before.keys()


def test_a_held_file_is_told_from_others(tmp_path: Path) -> None:
    held_file, other = PidFile(tmp_path / "d.pid"), PidFile(tmp_path / "e.pid")
    assert repr(other) == f"PidFile({str(tmp_path / 'e.pid')!r})"
    with held_file:
        assert other.holder().state == "free"
        (tmp_path / "e.pid").write_text("1\n")
        assert other.holder().state == "free"
        with other:
            assert held_file.owner() == other.owner() == os.getpid()
            assert PidFile(tmp_path / "e.pid").owner() == os.getpid()


def test_a_file_that_was_moved_is_left_alone_and_nothing_is_removed(tmp_path: Path) -> None:
    path, moved = tmp_path / "d.pid", tmp_path / "moved"
    with PidFile(path):
        path.rename(moved)
        path.symlink_to(moved)
    assert path.is_symlink()
    assert moved.read_text() == f"{os.getpid()}\n"
    assert not PidFile(path).is_locked()


def test_a_child_that_native_code_forked_has_to_acquire_it_too(box: support.Sandbox) -> None:
    done = box.run("""
        import ctypes, os
        from daemon_context import AlreadyRunning, PidFile
        before = len(os.listdir("/proc/self/fd"))
        lock = PidFile("d.pid")
        lock.acquire()
        child = ctypes.CDLL(None).fork()
        if not child:
            try:
                lock.acquire()
            except AlreadyRunning as error:
                print(error.pid == os.getppid(), len(os.listdir("/proc/self/fd")) == before,
                      flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(lock.i_am_locking(), lock.owner() == os.getpid())
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\nTrue True\n", "")


def test_nobody_waits_for_a_process_that_is_gone() -> None:
    program = subprocess.Popen(["true"])
    program.wait()
    wait_a_while(program.pid, 0)


def test_asking_keeps_no_descriptors(tmp_path: Path) -> None:
    file, fifo = tmp_path / "d.pid", tmp_path / "fifo"
    file.write_text("7\n")
    os.mkfifo(fifo)
    before = support.descriptors(os.getpid())
    for path in (file, fifo, tmp_path, tmp_path / "none"):
        lock = PidFile(path)
        assert lock.read_pid() == (7 if path == file else None)
        assert lock.owner() is None
        assert not lock.is_locked()
    assert support.descriptors(os.getpid()) == before


def test_to_break_a_held_lock_does_not_wait(box: support.Sandbox) -> None:
    path = box.path / "d.pid"
    with held(box, HOLDER, path) as holder:
        with pytest.raises(AlreadyRunning) as caught:
            PidFile(path, timeout=60).break_lock()
        assert caught.value.pid == holder.pid
        assert path.read_text() == f"{holder.pid}\n"


def test_nothing_is_left_where_the_pid_can_not_be_written(box: support.Sandbox) -> None:
    done = box.run("""
        import os, resource
        from daemon_context import DaemonError, PidFile
        lock = PidFile("d.pid")
        before = os.listdir("/proc/self/fd")
        for size in (0, 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            try:
                lock.acquire()
            except DaemonError as error:
                print(error)
            assert not lock.i_am_locking()
            assert not os.path.exists("d.pid")
            assert os.listdir("/proc/self/fd") == before
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        with lock:
            print(open("d.pid").read() == f"{os.getpid()}\\n")
    """)
    assert done.returncode == 0, done.stderr
    too_large, no_space, works = done.stdout.splitlines()
    assert too_large.startswith(f"cannot write the pid file '{box.path}/d.pid': File too large")
    assert no_space.startswith(f"cannot write the pid file '{box.path}/d.pid': No space left")
    assert works == "True"


@pytest.mark.parametrize("how", ["releases", "is killed"])
def test_a_waiting_object_gets_the_lock_when_the_holder(box: support.Sandbox, how: str) -> None:
    path = box.path / "d.pid"
    waiter = box.script("""
        import os, sys
        from daemon_context import PidFile
        with PidFile(sys.argv[1], timeout=60) as lock:
            print(os.getpid(), lock.read_pid(), flush=True)
    """)
    with held(box, HOLDER, path) as holder:
        waiting = box.popen(waiter, path, stderr=None)
        support.until(
            lambda: (
                waiting.poll() is not None
                or "anon_inode:[pidfd]" in support.descriptors(waiting.pid).values()
            )
        )
        assert kernel_owner(path) == holder.pid
        if how == "is killed":
            holder.kill()
        else:
            assert holder.stdin is not None
            holder.stdin.close()
            holder.stdin = None
        assert waiting.communicate(timeout=support.DEADLINE)[0] == f"{waiting.pid} {waiting.pid}\n"
    assert waiting.returncode == 0
    assert not path.exists()


def test_break_lock_removes_what_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "d.pid"
    path.write_text("1\n")
    PidFile(path).break_lock()
    assert not path.exists()
    PidFile(path).break_lock()
    assert not path.exists()


def test_who_holds_the_lock_may_break_it(tmp_path: Path) -> None:
    path = tmp_path / "d.pid"
    with PidFile(path) as lock:
        lock.break_lock()
        assert not lock.i_am_locking()
        assert not path.exists()
        lock.acquire()
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_second_object_for_the_same_file_neither_gets_nor_breaks_the_lock(
    tmp_path: Path, box: support.Sandbox, starter: Starter
) -> None:
    path = tmp_path / "d.pid"
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    with PidFile(path):
        for other in (PidFile(path), PidFile(tmp_path / "elsewhere" / "d.pid")):
            for timeout in (0, 0.02):
                with pytest.raises(lockfile.LockError, match="this process holds its lock already"):
                    other.acquire(timeout)
            with pytest.raises(AlreadyRunning, match="this process holds its lock already"):
                other.break_lock()
            assert other.is_locked()
            assert not other.i_am_locking()
            assert other.owner() == other.read_pid() == os.getpid()
            with pytest.raises(NotMyLock, match="only the process and the object that"):
                other.release()
        # Opening the file again, and closing it, would have dropped a record lock.
        assert starter.holder(path)[:2] == ["running", os.getpid()]
        asked = box.run("""
            import sys
            from pathlib import Path
            from tests.helpers.pidfiles import kernel_owner
            print(kernel_owner(Path(sys.argv[1])))
        """, path)  # fmt: skip
        assert int(asked.stdout) == os.getpid()
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "pid"),
    [
        (b"123\n", 123),
        (b"  0123", 123),
        (b"123\nhello\n", 123),
        (b"", None),
        (b"\n", None),
        (b"-1\n", None),
        (b"0\n", None),
        (b"12 13\n", None),
        (b"4294967297\n", None),
        (b"\0\0", None),
        ("٣\n".encode(), None),
        (b"1" * 1_000_000, None),
    ],
)
def test_the_content_is_a_hint(tmp_path: Path, content: bytes, pid: int | None) -> None:
    path = tmp_path / "d.pid"
    path.write_bytes(content)
    lock = PidFile(path)
    assert lock.read_pid() == pid
    assert lock.owner() is None
    assert not lock.is_locked()


def test_what_is_no_file_is_not_locked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "link", tmp_path / "fifo" / "d.pid"):
        assert PidFile(path).read_pid() is None
        assert not PidFile(path).is_locked()


@pytest.mark.root
def test_who_may_not_read_it_is_told_so(public: Path, starter: Starter) -> None:
    """That nobody holds it would be a guess."""
    (public / "closed").mkdir(mode=0o700)
    reader = """
        import os, sys
        from daemon_context import PidFile
        from daemon_context.errors import PidFileError
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        assert PidFile(sys.argv[1]).read_pid() is None  # as lockfile has it
        try:
            PidFile(sys.argv[1]).is_locked()
        except PidFileError as error:
            print(error.errno, error)
    """
    done = starter.box.run(reader, public / "closed" / "d.pid")
    assert done.stdout.startswith("13 cannot read the pid file"), done


@pytest.mark.root
def test_a_file_of_roots_that_anybody_may_write(public: Path, starter: Starter) -> None:
    """A new one takes its place, which its user alone may write."""
    path = public / "d.pid"
    path.write_text("1\n")
    path.chmod(0o666)
    public.chmod(0o777)
    pid = started(starter, path, uid=NOBODY)
    assert (path.stat().st_uid, path.stat().st_mode) == (NOBODY, 0o100644)
    end(pid)
    support.until(lambda: not path.exists())


@pytest.mark.root
def test_a_directory_that_may_not_be_written_is_named(public: Path, starter: Starter) -> None:
    result = starter.start(public / "d.pid", uid=NOBODY)
    assert f"Permission denied (its directory '{public}')" in result["text"]
    assert (result["errno"], result["step"]) == (13, "lock-pidfile")


# --- its errors


@pytest.mark.parametrize(
    ("kind", "theirs", "ours"),
    [
        (AlreadyRunning, lockfile.AlreadyLocked, DaemonError),
        (LockTimeout, lockfile.LockTimeout, DaemonError),
        (PidFileError, lockfile.LockFailed, DaemonOSEnvironmentError),
        (NotLocked, lockfile.NotLocked, DaemonError),
        (NotMyLock, lockfile.NotMyLock, DaemonError),
    ],
)
def test_errors_are_lockfiles_and_ours_and_survive_pickling(
    kind: type[DaemonError], theirs: type[Exception], ours: type[Exception]
) -> None:
    error = kind("cannot", path="/x", pid=5, errno=13, step="lock-pidfile")
    error.add_note("a note")
    assert isinstance(error, theirs)
    assert isinstance(error, ours)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert str(copy) == "cannot"
        assert copy.facts() == error.facts()
        assert copy.__notes__ == ["a note"]
