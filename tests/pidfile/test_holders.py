"""Who holds the lock of a pid file, whatever happens to the file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from daemon_context import AlreadyRunning, DaemonError, PidFile
from daemon_context.control import stop
from daemon_context.control.status import status_of
from daemon_context.control.statusfile import path_of
from daemon_context.pidfile.holder import Holder
from tests.helpers import support
from tests.helpers.pidfiles import READER, Starter, end, held, kernel_owner, started


def test_a_wait_for_a_held_lock_costs_next_to_nothing(box: support.Sandbox) -> None:
    mine = PidFile(box.path / "d.pid")
    with mine:
        done = box.run("""
            import resource
            from daemon_context import PidFile
            from daemon_context.errors import LockTimeout
            def used():
                found = resource.getrusage(resource.RUSAGE_SELF)
                return found.ru_utime + found.ru_stime
            before = used()
            try:
                PidFile("d.pid").acquire(timeout=2)
            except LockTimeout:
                print(used() - before)
        """)
        assert done.stderr == ""
        assert float(done.stdout) < 0.5


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
def test_a_daemon_of_roots_that_becomes_another_user_by_itself_is_proven(public: Path) -> None:
    box = support.Sandbox(public)
    path = public / "d.pid"
    try:
        done = box.run("""
            import os
            from daemon_context import DaemonContext
            from tests.helpers.support import become_nobody
            with DaemonContext(pidfile="d.pid", detach_process=True,
                               readiness="explicit") as daemon:
                become_nobody()
                daemon.ready()
                daemon.sleep()
        """)
        assert (done.returncode, done.stderr) == (0, "")
        assert PidFile(path).owner() == box.pid()
        assert PidFile(path).holder().why == ""
    finally:
        box.end()


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
        from tests.helpers import support
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
        from tests.helpers.pidfiles import kernel_owner
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
