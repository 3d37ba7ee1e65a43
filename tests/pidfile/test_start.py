"""What a start makes of its pid file, and of other context managers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from daemon_context import AlreadyRunning, PidFile
from daemon_context.control import stop
from daemon_context.control.status import status_of
from tests.helpers import support
from tests.helpers.pidfiles import NOBODY, Starter, end, kernel_owner, started

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
@pytest.mark.parametrize("redirects", ["<&-", "<&- >&- 2>&-"])
def test_it_stays_locked_where_standard_streams_were_closed_and_the_owner_changes(
    open_box: support.Sandbox, redirects: str
) -> None:
    done = open_box.run(f"""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", uid={NOBODY}, gid={NOBODY},
                           detach_process=True) as daemon:
            daemon.sleep()
    """, prefix=["sh", "-c", f'exec "$@" {redirects}', "sh"])  # fmt: skip
    assert done.returncode == 0
    pid = open_box.pid()
    assert support.descriptors(pid).keys() >= {0, 1, 2}
    assert PidFile(open_box.path / "d.pid").owner() == pid


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
