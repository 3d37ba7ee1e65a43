"""A daemon that lives and has no lock any more: it has closed what it did not open."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon_context import AlreadyRunning, DaemonError, PidFile
from daemon_context.control import stop
from daemon_context.control.status import status_of
from daemon_context.pidfile import TimeoutPIDLockFile
from tests.helpers import support
from tests.helpers.pidfiles import NOBODY, kernel_owner, lock_of

# The daemon and the program that stops it, as most are; the second argument is what it does first.
PROGRAM = """
    import os, sys
    from daemon_context import Daemon
    class Work(Daemon):
        def run(self):
            exec(sys.argv[2])
            while self.sleep(60):
                pass
    Work("d.pid", umask=0o022).main(sys.argv[1:2])
"""
CLOSES = "os.closerange(3, 100)"
BECOMES_ANOTHER = "os.execv('/bin/sleep', ['sleep', '1000'])"
CLOSED = (
    "closed the lock's descriptor (os.closerange closes also what is not the program's own) or "
    "runs another program"
)


@contextmanager
def unlocked(box: support.Sandbox, body: str) -> Iterator[int]:
    """A daemon of the program that has done that."""
    done = box.run(box.script(PROGRAM), "start", body)
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid()
    support.until(lambda: kernel_owner(box.path / "d.pid") is None)
    yield pid
    if support.alive(pid):
        os.kill(pid, signal.SIGKILL)
    support.gone(pid)


def verb(box: support.Sandbox, name: str) -> subprocess.CompletedProcess[str]:
    return box.run(box.path / "program.py", name, "pass")


def fact(pid: int, why: str = CLOSED) -> str:
    runs = f"pid {pid}, which was started as the daemon, runs, but has let go of the lock"
    return f"{runs}: it has {why}"


def remedy(pid: int) -> str:
    return f"end it by its pid (kill {pid})"


@pytest.mark.parametrize("body", [CLOSES, BECOMES_ANOTHER])
def test_no_second_one_starts_beside_it_and_the_words_are_true(
    box: support.Sandbox, body: str
) -> None:
    path = box.path / "d.pid"
    with unlocked(box, body) as pid:
        files = path.read_bytes(), lock_of(path).read_bytes()
        words = f"{fact(pid)}; {remedy(pid)}"
        started = verb(box, "start")
        text = f"cannot lock the pid file {str(path)!r}: {words}, or give this one a pid file of"
        assert (started.returncode, started.stderr.count(text)) == (1, 1)
        for name in ("stop", "restart", "reload"):
            done = verb(box, name)
            assert done.returncode == 1
            text = f"cannot signal the daemon: {words}: no start goes beside it\n"
            assert done.stderr.endswith(text)
        told = verb(box, "status")
        assert (told.returncode, told.stdout.count(words)) == (4, 1)
        assert support.alive(pid)
        assert files == (path.read_bytes(), lock_of(path).read_bytes())
        with pytest.raises(AlreadyRunning, match=re.escape(words)) as caught:
            PidFile(path).acquire()
        assert (caught.value.pid, caught.value.path) == (pid, str(path))
        with pytest.raises(AlreadyRunning):
            PidFile(path).break_lock()
        with pytest.raises(DaemonError, match="no daemon can be found"):
            caught.value.handle  # noqa: B018
    # After its end, however it came to it, what it leaves is in nobody's way.
    assert verb(box, "start").returncode == 0
    assert verb(box, "stop").returncode == 0


def test_its_end_can_be_waited_for(box: support.Sandbox) -> None:
    with unlocked(box, CLOSES) as pid:
        ends = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -9 {pid}"])
        with TimeoutPIDLockFile(box.path / "d.pid", 30):
            assert not support.alive(pid)
        ends.wait()


def test_a_closed_context_whose_process_lives_on_is_no_daemon(box: support.Sandbox) -> None:
    done = box.run("""
        import os, time
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True, working_directory=None):
            pass
        with open("pid", "w") as note:
            print(os.getpid(), file=note)
        time.sleep(1000)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid("pid")
    assert not (box.path / "d.pid").exists()
    with PidFile(box.path / "d.pid"):
        assert support.alive(pid)


LEAVES = """
    import os, sys, time
    from daemon_context import DaemonContext
    path, root = sys.argv[1], sys.argv[3]
    options = eval(sys.argv[2])
    with DaemonContext(pidfile=path, detach_process=True, **options) as daemon:
        exec(sys.argv[4])
        while True:
            time.sleep(1)
"""
OTHERS = {
    "another user": (f"dict(uid={NOBODY}, gid={NOBODY})", "pass"),
    "in a chroot": ("dict(chroot_directory=root)", "pass"),
    "another user by itself": ("{}", f"os.setgid({NOBODY}); os.setuid({NOBODY})"),
    "in a chroot by itself": ("{}", "os.chroot(root)"),
}


@pytest.mark.root
@pytest.mark.parametrize("who", OTHERS)
@pytest.mark.parametrize("ends", ["daemon.close()", CLOSES])
def test_who_could_not_have_removed_the_files_is_in_nobodys_way(
    box: support.Sandbox, public: Path, who: str, ends: str
) -> None:
    """Whether it has ended its context, or has lost its lock, nobody can tell."""
    path, root = public / "d.pid", public / "root"
    root.mkdir()
    options, becomes = OTHERS[who]
    script = box.script(LEAVES)
    assert box.run(script, path, options, root, f"{becomes}; {ends}").returncode == 0
    pid = int(path.read_text())
    support.until(lambda: kernel_owner(path) is None)
    status = status_of(PidFile(path))
    why = fact(pid, f"ended its context, {CLOSED}")
    assert (status.state, str(status)) == ("unknown", f"{why}; {remedy(pid)}")
    with pytest.raises(DaemonError) as caught:
        stop(PidFile(path))
    told = f"cannot signal the daemon: {status}, or start: that takes the file over"
    assert str(caught.value) == told
    done = box.run(script, path, "{}", root, "daemon.sleep()")
    assert done.returncode == 0
    assert f"{why} (pid file {str(path)!r}), and there may be two now; {remedy(pid)}" in done.stderr
    assert "another library" not in done.stderr
    for number in (pid, int(path.read_text())):
        os.kill(number, signal.SIGKILL)
        support.gone(number)


@pytest.mark.root
def test_a_link_in_the_chroot_does_not_lead_out_of_it(box: support.Sandbox, public: Path) -> None:
    """As /var/run is one in most: below the root of another process it would lead into ours."""
    root = public / "root"
    for place in (public / "run", root / public.relative_to("/")):
        place.mkdir(parents=True)
        (place / "link").symlink_to(public / "run")
    (public / "link").symlink_to(public / "run")
    path = public / "link" / "d.pid"
    script, pids = box.script(LEAVES), []
    for ends in ("daemon.close()", "daemon.sleep()"):
        done = box.run(script, path, "dict(chroot_directory=root)", root, ends)
        assert done.returncode == 0, done
        pids.append(int(path.read_text()))
    assert "ended its context" in done.stderr
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        support.gone(pid)


def test_whose_lock_it_was_takes_it_again(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext, PidFile
        lock = PidFile("d.pid")
        for again in (lock, PidFile("d.pid")):
            lock.acquire()
            os.closerange(3, 100)
            assert not lock.i_am_locking()
            again.acquire()
            assert again.owner() == os.getpid()
            again.release()
        lock.acquire()
        os.closerange(3, 100)
        out = os.dup(1)
        context = DaemonContext(pidfile="d.pid", detach_process=False, working_directory=None,
                                files_preserve=[out])
        with context:
            os.write(out, open("d.pid", "rb").read())
            os.write(out, b"%d\\n" % os.getpid())
    """)
    assert (done.returncode, done.stderr) == (0, "")
    one, two = done.stdout.split()
    assert one == two


def test_a_child_does_not_start_beside_it(box: support.Sandbox) -> None:
    """As where the parent still has it: the program runs once more inside its own daemon."""
    done = box.run("""
        import os
        from daemon_context import DaemonContext, DaemonError, PidFile
        PidFile("d.pid").acquire()
        os.closerange(3, 100)
        if not os.fork():
            try:
                DaemonContext(pidfile="d.pid", detach_process=True).open()
            except DaemonError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
    """)
    assert "runs once more inside its own daemon" in done.stdout, done.stderr


def test_one_that_is_ending_is_in_nobodys_way(box: support.Sandbox) -> None:
    """What is killed loses its lock before it is gone, all the more as it closes many others."""
    box.script("""
        import os, resource, sys
        from daemon_context import PidFile
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        number = min(most // 4, 4000)
        others = [os.pipe() for _ in range(number)]
        PidFile("d.pid").acquire()
        others += [os.pipe() for _ in range(number // 2)]
        print(flush=True)
        sys.stdin.read()
    """, "holder.py")  # fmt: skip
    done = box.run("""
        import subprocess, sys
        from daemon_context import PidFile
        from daemon_context.pidfile.holder import let_go
        for _ in range(10):
            with subprocess.Popen([sys.executable, "holder.py"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE) as process:
                process.stdout.readline()
                process.kill()
                lock = PidFile("d.pid")
                while lock.is_locked():
                    pass
                assert let_go(lock.path) is None
                with lock:
                    pass
    """)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.root
def test_nobody_is_named_by_a_record_that_another_user_can_write(
    box: support.Sandbox, public: Path
) -> None:
    path = public / "d.pid"
    innocent = box.popen(box.script("""
        import sys
        from daemon_context import PidFile
        PidFile(sys.argv[1]).acquire()
        print(flush=True)
        sys.stdin.read()
    """), path)  # fmt: skip
    assert innocent.stdout is not None
    innocent.stdout.readline()
    record = lock_of(path).read_bytes()
    for file, content in ((path, b"%d\n" % innocent.pid), (lock_of(path), record)):
        file.unlink()
        file.write_bytes(content)
        os.chown(file, NOBODY, NOBODY)
    os.chown(public, NOBODY, NOBODY)
    assert "started as the daemon" not in str(status_of(PidFile(path)))
    with pytest.raises(DaemonError, match="belongs to"):
        PidFile(path).acquire()
    assert innocent.poll() is None
    innocent.kill()
