"""What published callers do with python-daemon goes on working: imports and pid files."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers import support
from tests.helpers.habits import log, run, stop

# --- imports

IMPORTS = {
    "import daemon": "daemon.DaemonContext, daemon.pidfile.TimeoutPIDLockFile",
    "import daemon.pidfile": "daemon.DaemonContext, daemon.pidfile.TimeoutPIDLockFile",
    "import daemon.pidlockfile": "daemon.DaemonContext, daemon.pidlockfile.TimeoutPIDLockFile",
    "import daemon as d, daemon.pidfile as p": "d.DaemonContext, p.TimeoutPIDLockFile",
    "from daemon import DaemonContext, pidfile": "DaemonContext, pidfile.TimeoutPIDLockFile",
    "from daemon import daemon, pidlockfile": "daemon.DaemonContext, pidlockfile.PIDLockFile",
    "from daemon.daemon import DaemonContext as D; from daemon.pidfile import *": "D, PIDLockFile",
}


@pytest.mark.parametrize("imports", IMPORTS)
def test_every_way_of_importing_it(box: support.Sandbox, imports: str) -> None:
    program = box.script(f"""
        {imports}
        import os, time
        Context, PIDFile = {IMPORTS[imports]}
        with Context(None, os.getcwd(), 0o022, pidfile=PIDFile("d.pid", 0)):
            while True:
                time.sleep(60)
    """)
    # Without detach_process, as nearly all have it; so by somebody who is no supervisor.
    done = box.run(program, prefix=["setsid", "--wait", "env", "-u", "INVOCATION_ID"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (box.path / "d.pid").read_text() == f"{box.pid()}\n"
    stop(box)
    support.until(lambda: not (box.path / "d.pid").exists())


# --- pid files

PID_FILES = {
    "a path": "os.path.abspath('d.pid')",
    "a relative path": "'d.pid'",
    "pathlib": "pathlib.Path('d.pid')",
    "PidFile": "PidFile('d.pid')",
    "TimeoutPIDLockFile": "TimeoutPIDLockFile('d.pid')",
    "TimeoutPIDLockFile with -1": "TimeoutPIDLockFile('d.pid', -1)",
    "TimeoutPIDLockFile with a timeout": "TimeoutPIDLockFile('d.pid', acquire_timeout=3)",
    "PIDLockFile": "PIDLockFile('d.pid')",
    "PIDLockFile, not threaded": "PIDLockFile('d.pid', threaded=False)",
    "lockfile's own": "lockfile.pidlockfile.PIDLockFile(os.path.abspath('d.pid'))",
    "python-daemon's kind": "Foreign('d.pid')",
}


@pytest.mark.parametrize("pidfile", PID_FILES)
def test_a_pid_file_of_any_kind(box: support.Sandbox, pidfile: str) -> None:
    body = f"""
        import os, pathlib, warnings
        import daemon
        from daemon.pidfile import PidFile, PIDLockFile, TimeoutPIDLockFile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lockfile.pidlockfile

        class Foreign(lockfile.pidlockfile.PIDLockFile):
            # As python-daemon's: a timeout of its own, and paths taken at once.
            def __init__(self, path, acquire_timeout=None):
                self.acquire_timeout = acquire_timeout
                super().__init__(os.path.abspath(path))
            def acquire(self, timeout=None):
                super().acquire(self.acquire_timeout if timeout is None else timeout)

        pidfile = {PID_FILES[pidfile]}
        with daemon.DaemonContext(pidfile=pidfile, detach_process=True) as context:
            assert context.pidfile is pidfile
            context.sleep()
    """
    run(box, body)
    pid = box.pid()
    assert support.alive(pid)
    again = box.run(body)
    assert again.returncode == 1
    assert "lock" in again.stderr.lower() or "running" in again.stderr
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    support.until(lambda: not (box.path / "d.pid").exists())
    box.settled()


def test_the_pid_file_object_may_have_been_used_before(box: support.Sandbox) -> None:
    run(
        box,
        """
        import os
        from daemon import DaemonContext
        from daemon.pidfile import TimeoutPIDLockFile
        pidfile = TimeoutPIDLockFile("d.pid", 1)
        with pidfile:
            assert pidfile.is_locked() and pidfile.i_am_locking()
            assert pidfile.read_pid() == os.getpid()
        assert not pidfile.is_locked()
        with DaemonContext(pidfile=pidfile, detach_process=True, stdout="log") as daemon:
            print(pidfile.is_locked(), pidfile.read_pid() == os.getpid(), flush=True)
            daemon.sleep()
        """,
    )
    log(box, "True True")
    stop(box)


def test_the_exceptions_of_lockfile_are_caught(box: support.Sandbox) -> None:
    body = """
        import sys
        import lockfile
        from daemon import DaemonContext
        from daemon.pidfile import TimeoutPIDLockFile
        path, timeout = sys.argv[1], float(sys.argv[2])
        context = DaemonContext(pidfile=TimeoutPIDLockFile(path, timeout), detach_process=True)
        try:
            context.open()
        except lockfile.AlreadyLocked as error:
            sys.exit(f"locked by {error.pid}")
        except lockfile.LockTimeout as error:
            sys.exit(f"timed out on {error.pid}")
        except lockfile.LockFailed as error:
            sys.exit("failed")
        context.sleep()
    """
    run(box, body, "d.pid", 0)
    pid = box.pid()
    for path, timeout, words in [
        ("d.pid", 0, f"locked by {pid}"),
        ("d.pid", 0.05, f"timed out on {pid}"),
        ("nope/d.pid", 0, "failed"),
    ]:
        done = box.run(body, path, timeout)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{words}\n")
    stop(box)


def test_a_pid_file_and_everything_else_is_assigned_after_construction(
    box: support.Sandbox,
) -> None:
    run(
        box,
        """
        import signal, sys
        import daemon
        from daemon import pidfile

        data = open("data", "w")

        def reload(number, frame):
            data.write("reloaded")
            data.flush()

        context = daemon.DaemonContext()
        context.detach_process = True
        context.working_directory = "."
        context.umask = 0o027
        context.pidfile = pidfile.TimeoutPIDLockFile("d.pid")
        context.signal_map = {signal.SIGTERM: "terminate", signal.SIGHUP: reload}
        context.signal_map[signal.SIGUSR1] = None
        context.files_preserve = [data]
        context.stdout = context.stderr = open("log", "w+")
        with context:
            open("made", "w").close()
            print("out", flush=True)
            print("err", file=sys.stderr, flush=True)
            while True:
                signal.pause()
        """,
    )
    log(box, "out", "err")
    pid = box.pid()
    assert os.readlink(f"/proc/{pid}/cwd") == str(box.path)
    assert (box.path / "made").stat().st_mode & 0o777 == 0o640
    os.kill(pid, signal.SIGUSR1)
    os.kill(pid, signal.SIGHUP)
    assert box.text("data") == "reloaded"
    stop(box)
    assert not (box.path / "d.pid").exists()


def test_open_without_with_and_close_at_exit(box: support.Sandbox) -> None:
    run(
        box,
        """
        import atexit, os
        from daemon import DaemonContext
        context = DaemonContext(pidfile="d.pid", detach_process=True, stdout="log")
        assert not context.is_open
        atexit.register(lambda: print(context.is_open, os.path.exists(pid_file), flush=True))
        pid_file = os.path.abspath("d.pid")
        context.open()
        context.open()
        print(context.is_open, os.path.exists(pid_file), flush=True)
        """,
    )
    # Exit handlers run last in, first out: ours has closed the context before the program's.
    log(box, "True True", "False False")
    box.settled()


def test_close_twice_and_five_cycles_leave_one_exit_handler(box: support.Sandbox) -> None:
    run(
        box,
        """
        import atexit, sys
        from daemon import DaemonContext
        before = atexit._ncallbacks()
        out = open("log", "w")
        context = DaemonContext(pidfile="d.pid", working_directory=".", detach_process=False,
                                files_preserve=[out])
        context.close()
        for _ in range(5):
            context.open()
            assert context.is_open
            context.close()
            context.close()
            assert not context.is_open
        with context as same:
            assert same is context
        print(atexit._ncallbacks() - before, file=out)
        """,
    )
    assert (box.path / "log").read_text() == "1\n"
