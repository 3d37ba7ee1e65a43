"""The pid file: lockfile's interface, its content, and who holds its lock."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
from pathlib import Path
from typing import Any

import lockfile
import pytest
from lockfile import pidlockfile

import daemon_context.pidfile
from daemon_context import AlreadyRunning, DaemonError, PidFile
from daemon_context.control import stop
from daemon_context.control.status import status_of
from daemon_context.control.statusfile import path_of
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
from daemon_context.pidfile.holder import Holder

from . import support
from .pidfiles import HOLDER, NOBODY, READER, Starter, held, kernel_owner

CLASSES = (PidFile, TimeoutPIDLockFile, PIDLockFile)


def started(starter: Starter, path: Path, **job: Any) -> int:
    """Start a daemon, which must work; its pid."""
    result = starter.start(path, **job)
    assert result == {"status": 0}, result
    pid = int(path.read_text())
    assert support.alive(pid)
    return pid


def end(pid: int, number: int = signal.SIGTERM) -> None:
    os.kill(pid, number)
    support.gone(pid)


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
            from tests.pidfiles import kernel_owner
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


# --- what a start makes of it


@pytest.mark.parametrize("before", [None, 0o600, 0o666])
@pytest.mark.parametrize("umask", [0o077, 0])
def test_it_is_there_and_readable_before_the_launcher_exits(
    starter: Starter, tmp_path: Path, before: int | None, umask: int
) -> None:
    path = tmp_path / "d.pid"
    if before is not None:
        path.touch()
        path.chmod(before)
    pid = started(starter, path, umask=umask)
    assert path.read_bytes() == b"%d\n" % pid
    assert path.stat().st_mode == 0o100644
    assert starter.daemons == {pid}
    assert kernel_owner(path) == PidFile(path).owner() == pid
    end(pid)
    assert not path.exists()


@pytest.mark.parametrize("ending", ["pass", "daemon.close()", "raise SystemExit(3)", "1 / 0"])
def test_it_is_removed_when_the_body_ends(box: support.Sandbox, ending: str) -> None:
    done = box.run(f"""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            {ending}
    """)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert not (box.path / "d.pid").exists()


def test_it_is_removed_on_a_signal_that_comes_as_soon_as_the_daemon_is_ready(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os, signal
        from daemon_context import DaemonContext
        class Context(DaemonContext):
            def ready(self, status=""):
                super().ready(status)
                os.kill(os.getpid(), signal.SIGTERM)
        with Context(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert not (box.path / "d.pid").exists()


def test_a_relative_path_is_relative_to_the_launchers_directory(
    starter: Starter, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    result = starter.start("d.pid", cwd=str(tmp_path / "there"))
    assert result["status"] == 0
    pid = int((tmp_path / "there" / "d.pid").read_text())
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    end(pid)
    assert list((tmp_path / "there").iterdir()) == []


def test_no_descriptor_of_it_is_left_in_the_launcher_or_in_programs(box: support.Sandbox) -> None:
    done = box.run("""
        import subprocess
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            child = subprocess.Popen(["sleep", "1000"], close_fds=False)
            open("%s", "w").write(str(child.pid))
            daemon.sleep()
    """ % (box.path / "child"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    child = int(box.text("child"))
    names = support.descriptors(child).values()
    assert not [name for name in names if str(box.path) in name]
    end(box.pid(), signal.SIGKILL)
    with PidFile(box.path / "d.pid"):
        assert support.alive(child)


@pytest.mark.parametrize("kind", ["PidFile", "TimeoutPIDLockFile", "PIDLockFile"])
def test_an_object_that_was_entered_and_left_before(box: support.Sandbox, kind: str) -> None:
    done = box.run(f"""
        from daemon_context import DaemonContext
        from daemon_context.pidfile import {kind}
        lock = {kind}("d.pid")
        with lock:
            pass
        with DaemonContext(pidfile=lock, detach_process=True) as daemon:
            daemon.sleep()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid()
    assert kernel_owner(box.path / "d.pid") == pid
    end(pid)
    assert not (box.path / "d.pid").exists()


HANDED_OVER = """
    import os, sys
    from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
    from daemon_context.pidfile import PidFile
    class Fail(Step):
        def apply(self, walk):
            raise OSError("failed on request")
    lock = PidFile("d.pid")
    lock.acquire()
    options = {"chroot_directory": sys.argv[2]} if len(sys.argv) > 2 else {}
    if sys.argv[1] == "fail":
        options["steps"] = DEFAULT_STEPS.insert_after("write-pidfile", Fail())
    try:
        with DaemonContext(pidfile=lock, detach_process=True, **options) as daemon:
            daemon.sleep()
    except DaemonError as error:
        assert error.step == "fail", error
        import subprocess
        asked = "import sys; from daemon_context import PidFile; print(PidFile('d.pid').owner())"
        owner = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout
        print(int(owner) == os.getpid() == lock.read_pid(), lock.i_am_locking())
        lock.release()
        print(os.path.exists("d.pid"))
"""


def test_a_lock_that_the_launcher_holds_is_handed_over(box: support.Sandbox) -> None:
    done = box.run(HANDED_OVER, "work")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = box.pid()
    assert kernel_owner(box.path / "d.pid") == pid
    with pytest.raises(AlreadyRunning, match=f"pid {pid}"):
        PidFile(box.path / "d.pid").acquire()
    end(pid)
    assert not (box.path / "d.pid").exists()


def test_a_lock_that_the_launcher_holds_is_its_own_again_after_a_failure(
    box: support.Sandbox,
) -> None:
    done = box.run(HANDED_OVER, "fail")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\nFalse\n", "")
    box.settled()


@pytest.mark.root
def test_a_held_lock_is_its_own_again_after_a_failure_in_a_chroot(box: support.Sandbox) -> None:
    (box.path / "root").mkdir()
    done = box.run(HANDED_OVER, "fail", box.path / "root")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\nFalse\n", "")
    box.settled()


# --- other context managers


def test_lockfiles_own_pid_file(box: support.Sandbox) -> None:
    program = box.script("""
        import lockfile, os
        from lockfile.pidlockfile import PIDLockFile
        from daemon_context import DaemonContext, DaemonError
        lock = PIDLockFile(os.path.abspath("d.pid"), timeout=-1)
        try:
            with DaemonContext(pidfile=lock, detach_process=True) as daemon:
                daemon.sleep()
        except lockfile.AlreadyLocked as error:
            print(isinstance(error, DaemonError), error.step, error.path, error)
    """)
    done = box.run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = box.pid()
    done = box.run(program)
    path = str(box.path / "d.pid")
    assert done.stdout.startswith(f"True enter-pidfile {path} cannot enter the pid file"), done
    assert "is already locked" in done.stdout
    assert box.processes() == {pid}
    end(pid)
    assert not (box.path / "d.pid").exists()


def test_each_error_of_lockfile_keeps_its_class(box: support.Sandbox) -> None:
    done = box.run("""
        import lockfile
        from daemon_context import DaemonContext, DaemonError
        class Lock:
            def __init__(self, error): self.error = error
            def __enter__(self): raise self.error
            def __exit__(self, *error): pass
        for kind in (lockfile.AlreadyLocked, lockfile.LockTimeout, lockfile.LockFailed):
            try:
                DaemonContext(pidfile=Lock(kind("the words")), detach_process=True).open()
            except kind as error:
                print(isinstance(error, DaemonError), "the words" in str(error))
        try:
            DaemonContext(pidfile=Lock(RuntimeError("the words")), detach_process=True).open()
        except DaemonError as error:
            print(type(error).__name__, "RuntimeError: the words" in str(error))
    """)
    assert done.stdout.splitlines() == ["True True"] * 3 + ["StepError True"], done
    box.settled()


def test_a_context_manager_is_left_in_the_daemon_where_a_later_step_fails(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
        class Lock:
            def __enter__(self): self.note("entered")
            def __exit__(self, *error): self.note(f"left {error}")
            def note(self, text):
                with open(os.environ["NOTES"], "a") as file:
                    print(text, os.getpid() == launcher, file=file)
        class Fail(Step):
            def apply(self, walk):
                raise OSError("on purpose")
        launcher = os.getpid()
        steps = DEFAULT_STEPS.insert_after("enter-pidfile", Fail())
        try:
            DaemonContext(pidfile=Lock(), steps=steps, detach_process=True).open()
        except DaemonError as error:
            print(error.step)
    """, env={"NOTES": str(box.path / "notes")})  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "fail\n", "")
    assert box.text("notes") == "entered False\nleft (None, None, None) False\n"
    box.settled()


def test_a_context_manager_is_entered_in_the_daemon_and_left_by_close(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        class Lock:
            def __enter__(self): self.note("entered")
            def __exit__(self, *error): self.note(f"left {error}")
            def note(self, text):
                with open(os.environ["NOTES"], "a") as file:
                    print(text, os.getpid(), file=file)
        context = DaemonContext(pidfile=Lock(), detach_process=True)
        context.open()
        context._note = context.pidfile.note("body")
    """, env={"NOTES": str(box.path / "notes")})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    lines = box.text("notes").splitlines()
    pid = lines[0].split()[-1]
    assert lines == [f"entered {pid}", f"body {pid}", f"left (None, None, None) {pid}"]


# --- where it can't be removed


@pytest.mark.root
def test_it_stays_unlocked_where_the_daemons_user_may_not_remove_it(
    starter: Starter, public: Path
) -> None:
    path = public / "d.pid"
    for _ in range(2):
        pid = started(starter, path, options={"uid": NOBODY, "gid": NOBODY})
        assert path.stat().st_uid == 0
        assert path.stat().st_mode == 0o100644
        end(pid)
        assert path.read_text() == f"{pid}\n"
        assert not PidFile(path).is_locked()
        assert status_of(PidFile(path)).state == "dead"
    assert stop(PidFile(path)).pid is None
    assert list(public.iterdir()) == []


@pytest.mark.root
def test_in_a_chroot_it_stays_unlocked(starter: Starter, public: Path, tmp_path: Path) -> None:
    path = public / "d.pid"
    root = tmp_path / "root"
    (root / public.relative_to("/")).mkdir(parents=True)
    (root / path.relative_to("/")).write_text("another file")
    for _ in range(2):
        pid = started(starter, path, options={"chroot_directory": str(root)})
        opened = support.descriptors(pid).values()
        assert str(public) not in opened, "a way out"
        end(pid)
        assert path.read_text() == f"{pid}\n"
        assert not PidFile(path).is_locked()
    assert (root / path.relative_to("/")).read_text() == "another file"


@pytest.mark.root
@pytest.mark.parametrize("step", ["open-streams", "change-root", "write-pidfile"])
def test_nothing_is_left_of_a_failed_start_with_a_chroot(
    starter: Starter, tmp_path: Path, step: str
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "run").mkdir()
    result = starter.start(
        tmp_path / "run" / "d.pid",
        options={"chroot_directory": str(tmp_path / "root")},
        fail_after=step,
    )
    assert (result["status"], result["step"]) == (1, "fail")
    assert list((tmp_path / "run").iterdir()) == []
    assert starter.daemons == set()


# --- who holds it


def test_while_it_starts_nobody_owns_it(box: support.Sandbox, starter: Starter) -> None:
    path = box.path / "d.pid"
    path.write_text(f"{os.getpid()}\n")
    os.mkfifo(box.path / "fifo")
    program = box.popen("""
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Wait(Step):
            def apply(self, walk):
                open("fifo", "rb").read()
        steps = DEFAULT_STEPS.insert_before("change-directory", Wait())
        with DaemonContext(pidfile="d.pid", steps=steps, detach_process=True) as daemon:
            daemon.sleep()
    """, stdout=None, stderr=None)  # fmt: skip
    with (box.path / "fifo").open("wb"):
        assert starter.holder(path)[:2] == ["starting", None]
        assert PidFile(path).owner() is None
        assert PidFile(path).read_pid() is None
        result = starter.start(path)
        assert result["status"] == 1
        assert "daemon_context.errors.AlreadyRunning" in result["kinds"]
        about = (
            f"the daemon is being started by another process (pid file {str(path)!r}); try again"
        )
        assert about in result["text"]
    assert program.wait(support.DEADLINE) == 0
    assert PidFile(path).owner() == box.pid()


@pytest.mark.root
@pytest.mark.parametrize("opens", [False, True])
def test_other_users_and_pid_namespaces(box: support.Sandbox, public: Path, opens: bool) -> None:
    """What the daemon opens and closes drops no lock."""
    path = public / "d.pid"
    body = "open(sys.argv[1]).close(), open(sys.argv[1] + '.lock').close()" if opens else "pass"
    done = box.run(f"""
        import sys
        from daemon_context import DaemonContext
        options = {{"detach_process": True, "readiness": "explicit"}}
        with DaemonContext(pidfile=sys.argv[1], **options) as daemon:
            {body}
            daemon.ready()
            daemon.sleep()
    """, path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    pid = int(path.read_text())
    ask = box.script("""
        import os, sys
        import daemon_context.errors
        from daemon_context import PidFile
        if sys.argv[2] != "root":
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        lock = PidFile(sys.argv[1])
        print(lock.owner(), lock.is_locked(), lock.holder())
    """)
    answers = [
        box.run(ask, path, "root").stdout,
        box.run(ask, path, "nobody").stdout,
        box.run(ask, path, "root", prefix=["unshare", "-p", "-f", "--mount-proc"]).stdout,
    ]
    hint = f"says its pid file; who may read '{path}.lock', can prove it\n"
    assert kernel_owner(path) == pid
    assert answers == [
        f"{pid} True the daemon is already running with pid {pid}\n",
        f"None True the daemon is already running with pid {pid}, {hint}",
        "None True the daemon is already running in another pid namespace\n",
    ]
    with pytest.raises(AlreadyRunning) as caught:
        PidFile(path).acquire()
    assert caught.value.pid == pid


def test_a_zombie_holds_nothing(box: support.Sandbox) -> None:
    done = box.run("""
        import ctypes, os, signal, sys
        from daemon_context import DaemonContext, PidFile
        from tests import support
        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
        def start():
            launcher = os.fork()
            if not launcher:
                with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
                    daemon.sleep()
            assert os.waitpid(launcher, 0)[1] == 0
            return PidFile("d.pid").owner()
        first = start()
        os.kill(first, signal.SIGKILL)
        support.until(lambda: support.state(first) == "Z")
        print(PidFile("d.pid").owner(), PidFile("d.pid").read_pid() == first, flush=True)
        second = start()
        print(support.state(first), second != first)
    """)
    assert done.stdout == "None True\nZ True\n", done.stderr


FORKING = """
    import ctypes, os, sys, time
    from daemon_context import DaemonContext
    fork = os.fork if sys.argv[1] == "python" else ctypes.CDLL(None).fork
    with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit") as daemon:
        child = fork()
        if not child:
            if sys.argv[2] == "exits":
                sys.exit(0)
            while True:
                time.sleep(1000)
        with open(f"/proc/{os.getpid()}/cwd/" + sys.argv[3], "w") as file:
            file.write(str(child))
        if sys.argv[2] == "exits":
            os.waitpid(child, 0)
        daemon.ready()
        daemon.sleep()
"""


@pytest.mark.parametrize("fork", ["python", "native"])
def test_a_child_that_exits_leaves_it_alone(box: support.Sandbox, fork: str) -> None:
    done = box.run(FORKING, fork, "exits", box.path / "child")
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid()
    assert kernel_owner(box.path / "d.pid") == pid
    assert int(box.text("child")) != pid
    end(pid)
    assert not (box.path / "d.pid").exists()


def test_a_forked_child_does_not_hold_it_after_the_daemon(box: support.Sandbox) -> None:
    done = box.run(FORKING, "python", "stays", box.path / "child")
    assert (done.returncode, done.stderr) == (0, "")
    end(box.pid(), signal.SIGKILL)
    assert support.alive(int(box.text("child")))
    with PidFile(box.path / "d.pid") as lock:
        assert lock.owner() == os.getpid()


def test_the_orphan_of_a_native_fork_is_named(box: support.Sandbox) -> None:
    path = box.path / "d.pid"
    done = box.run(FORKING, "native", "stays", box.path / "child")
    assert (done.returncode, done.stderr) == (0, "")
    child = int(box.text("child"))
    assert PidFile(path).owner() == box.pid()
    end(box.pid(), signal.SIGKILL)
    assert PidFile(path).owner() is None
    with pytest.raises(AlreadyRunning) as caught:
        PidFile(path).acquire()
    assert caught.value.pid == child
    about = f"the daemon is dead, but its child (pid {child}) still holds its lock (pid file "
    assert about in str(caught.value)
    assert "; end that" in str(caught.value)
    end(child, signal.SIGKILL)
    with PidFile(path) as lock:
        assert lock.owner() == os.getpid()


def test_a_stop_during_which_the_daemon_ends_names_its_orphan(box: support.Sandbox) -> None:
    class Late(PidFile):
        """Whose first answer is out of date at once."""

        def holder(self) -> Holder:
            found = super().holder()
            if found.pid == pid:
                os.kill(pid, signal.SIGKILL)
                support.until(lambda: not support.state(pid))
            return found

    done = box.run(FORKING, "native", "stays", box.path / "child")
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid()
    with pytest.raises(DaemonError, match=r"the daemon is dead, but its child"):
        stop(Late(box.path / "d.pid"))
    end(int(box.text("child")), signal.SIGKILL)


def test_of_a_daemon_that_is_started_meanwhile_nothing_older_is_told(box: support.Sandbox) -> None:
    class Late(PidFile):
        """In whose first answer there is a new daemon."""

        def holder(self) -> Holder:
            Path(path_of(self.path)).write_text("")
            return super().holder()

    path = box.path / "d.pid"
    Path(path_of(str(path))).write_text('{"ready": true, "text": "what a dead one has said"}')
    with PidFile(path):
        status = status_of(Late(path))
    assert (status.state, status.text) == ("starting", None)


def test_threads_that_want_it_at_once_leave_the_winner_its_lock(box: support.Sandbox) -> None:
    """Each opens and closes the file."""
    done = box.run("""
        import os, sys, threading
        from pathlib import Path
        from daemon_context import AlreadyRunning, PidFile
        from tests.pidfiles import kernel_owner
        sys.setswitchinterval(1e-6)

        def acquire(lock):
            begin.wait()
            try:
                lock.acquire()
            except AlreadyRunning:
                PidFile(lock.path).is_locked()
                lock.read_pid()

        for _ in range(30):
            locks = [PidFile("d.pid") for _ in range(3)]
            begin = threading.Barrier(len(locks))
            threads = [threading.Thread(target=acquire, args=(lock,)) for lock in locks]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            (winner,) = (lock for lock in locks if lock.i_am_locking())
            print(kernel_owner(Path(winner.path)) == os.getpid())
            winner.release()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True"] * 30


@pytest.mark.root
def test_a_daemon_that_ends_unlocks_it_for_its_native_children_too(
    starter: Starter, public: Path
) -> None:
    """Also where the files stay."""
    path = public / "d.pid"
    done = starter.box.run(
        FORKING.replace('pidfile="d.pid"', f'pidfile="{path}", uid=65534, gid=65534'),
        "native",
        "stays",
        "../../dev/null",
    )
    assert (done.returncode, done.stderr) == (0, "")
    end(int(path.read_text()))
    assert path.exists()
    assert len(starter.daemons) == 1, "the native child"
    assert starter.holder(path)[0] == "free"


@pytest.mark.parametrize(
    ("kind", "start", "length", "exclusive"),
    [
        ("record", 0, 0, ""),
        ("record", 0, 1, ""),
        ("record", 1, 1, ""),
        ("record", 0, 0, "exclusive"),
        ("record", 0, 1, "exclusive"),
        ("record", 1, 1, "exclusive"),
        ("ofd", 0, 0, ""),
        ("ofd", 1, 1, ""),
        ("flock", 0, 0, ""),
    ],
)
def test_a_lock_that_anybody_may_take_on_the_pid_file_is_not_in_the_way(
    starter: Starter, kind: str, start: int, length: int, exclusive: str
) -> None:
    path = starter.box.path / "d.pid"
    path.write_text("1\n")
    how = [exclusive] * bool(exclusive)
    with held(starter.box, READER, path, kind, start, length, *how) as reader:
        assert starter.holder(path)[:2] == ["free", None]
        pid = started(starter, path)
        assert kernel_owner(path) == pid
        assert starter.daemons == {reader.pid, pid}
        end(pid)


@pytest.mark.parametrize("kind", ["record", "ofd", "flock"])
def test_a_lock_that_comes_during_the_start_is_not_in_the_way(
    box: support.Sandbox, kind: str
) -> None:
    box.script(READER, "reader.py")
    done = box.run("""
        import subprocess, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Interfere(Step):
            def apply(self, walk):
                path = walk.options.pidfile.path
                args = [sys.executable, "reader.py", path, sys.argv[1], "0", "0"]
                self.reader = subprocess.Popen(
                    args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**environ}
                )
                self.reader.stdout.readline()
        from os import environ
        steps = DEFAULT_STEPS.insert_after("lock-pidfile", Interfere())
        with DaemonContext(pidfile="d.pid", steps=steps, detach_process=True) as daemon:
            daemon.sleep()
    """, kind)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    end(box.pid())


def test_a_daemon_that_closes_every_descriptor_harms_nothing(box: support.Sandbox) -> None:
    """The numbers of the lock's descriptors may be other files' by then."""
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit") as daemon:
            daemon.ready()
            os.closerange(3, 1000)
            for number in range(3):
                file = os.open(f"{sys.argv[1]}/data{number}", os.O_RDWR | os.O_CREAT)
                os.write(file, b"precious")
            if not os.fork():
                sys.exit()
            os.wait()
            os.fsync(file)
            for fd in range(3, 6):
                assert os.pread(fd, 8, 0) == b"precious"
            os.write(3, b"!")
    """, box.path)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert [box.text(f"data{n}") for n in range(3)] == ["precious!", "precious", "precious"]
    with PidFile(box.path / "d.pid") as lock:
        assert lock.i_am_locking()


def test_closed_during_the_start(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
        class TakeItsNumber(Step):
            def apply(self, walk):
                lock, _ = sorted(walk.options.pidfile.descriptors)
                file = os.open("data", os.O_RDWR | os.O_CREAT)
                os.write(file, b"precious")
                os.dup2(file, lock)
        steps = DEFAULT_STEPS.insert_before("write-pidfile", TakeItsNumber())
        try:
            DaemonContext(pidfile="d.pid", steps=steps, detach_process=True,
                          working_directory=".").open()
        except DaemonError as error:
            print(error)
    """)
    assert "cannot write the pid file" in done.stdout, done.stderr
    assert "somebody closed its descriptor during the start" in done.stdout
    assert box.text("data") == "precious"
    assert not (box.path / "d.pid").exists()
    box.settled()


def test_removed_during_the_start(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
        class Remove(Step):
            def apply(self, walk):
                os.unlink(walk.options.pidfile.path)
        steps = DEFAULT_STEPS.insert_after("detach", Remove())
        try:
            DaemonContext(pidfile="d.pid", steps=steps, detach_process=True).open()
        except DaemonError as error:
            print(error)
    """)
    assert "cannot write the pid file" in done.stdout, done.stderr
    assert "somebody removed or replaced it during the start" in done.stdout
    assert not (box.path / "d.pid").exists()
    box.settled()


@pytest.mark.parametrize("detach", [True, False])
def test_a_file_that_a_start_has_created_goes_where_it_cannot_be_looked_at(
    box: support.Sandbox, detach: bool
) -> None:
    """One look at the new file is refused, as network file systems do now and then."""
    done = box.run(
        """
        import os, sys
        from daemon_context import DaemonContext

        real, path = os.lstat, os.path.abspath("d.pid")
        refused = []

        def lstat(name, **kwargs):
            if name == path and os.path.exists(path) and not refused:
                refused.append(name)
                raise PermissionError(13, os.strerror(13), name)
            return real(name, **kwargs)

        os.lstat = lstat
        try:
            DaemonContext(pidfile="d.pid", detach_process=eval(sys.argv[1])).open()
        except BaseException as error:
            print(type(error).__name__, error, len(refused), os.listdir())
        """,
        detach,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PidFileError cannot write the pid file")
    assert "Permission denied" in done.stdout
    assert done.stdout.endswith(" 1 ['program.py']\n")
    box.settled()
