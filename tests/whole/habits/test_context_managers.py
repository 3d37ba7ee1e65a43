"""What published callers do with python-daemon goes on working: the foreground, and any
context manager in the place of a pid file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers import support
from tests.helpers.habits import log, run, stop


def test_detach_process_false_with_everything_set_afterwards(box: support.Sandbox) -> None:
    done = box.run("""
        import os, signal, sys
        from daemon import DaemonContext
        launcher = os.getpid()
        context = DaemonContext(detach_process=False)
        context.working_directory = "."
        context.umask = 0o077
        context.stdout = sys.stdout
        context.stderr = sys.stderr
        context.stdin = sys.stdin
        context.pidfile = "d.pid"
        context.signal_map = {signal.SIGTERM: "terminate"}
        context.files_preserve = [sys.stdout, sys.stderr]
        context.prevent_core = False
        with context:
            print(os.getpid() == launcher, open("d.pid").read() == f"{launcher}\\n", flush=True)
            print("to stderr", file=sys.stderr)
        print(context.is_open, os.path.exists("d.pid"))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (
        0, "True True\nFalse False\n", "to stderr\n",
    )  # fmt: skip


@pytest.mark.parametrize("detach", [True, False])
def test_any_context_manager_is_entered_in_the_daemon_and_exited_by_close(
    box: support.Sandbox, detach: bool
) -> None:
    run(
        box,
        """
        import os, sys
        from daemon import DaemonContext
        launcher = os.getpid()
        data = open("log", "w")
        def say(*words):
            print(*words, file=data, flush=True)
        class Manager:
            def __enter__(self):
                say("enter", (os.getpid() == launcher) is not eval(sys.argv[1]))
            def __exit__(self, *error):
                say("exit", error)
        context = DaemonContext(
            pidfile=Manager(), detach_process=eval(sys.argv[1]), files_preserve=[data]
        )
        with context:
            say("body")
        say("after")
        context.close()
        """,
        detach,
    )
    log(box, "enter True", "body", "exit (None, None, None)", "after")


@pytest.mark.parametrize("method", ["acquire", "__enter__"])
def test_what_a_subclass_does_to_acquire_its_pid_file_is_done(
    box: support.Sandbox, method: str
) -> None:
    """In the daemon, as python-daemon does it; and what it raises reaches the launcher."""
    program = box.script(f"""
        import os
        import daemon, daemon.pidfile, lockfile
        class Own(daemon.pidfile.TimeoutPIDLockFile):
            def {method}(self, *args):
                with open("log", "a") as log:
                    print("{method}", os.getpid() == launcher, self.is_locked(), file=log)
                super().{method}(*args)
        launcher = os.getpid()
        try:
            with daemon.DaemonContext(working_directory=".", pidfile=Own("d.pid")) as context:
                context.sleep()
        except lockfile.AlreadyLocked as error:
            print(error)
    """)
    run(box, program)
    log(box, f"{method} False False")
    assert "already running with pid" in box.run(program).stdout
    log(box, f"{method} False False", f"{method} False True")
    stop(box)
    assert not (box.path / "d.pid").exists()


def test_a_subclass_with_a_lock_of_its_own_releases_it(box: support.Sandbox) -> None:
    run(
        box,
        """
        import os
        import daemon, daemon.pidfile
        class Own(daemon.pidfile.PIDLockFile):
            def acquire(self, timeout=None):
                with open(self.path, "x") as file:
                    print(os.getpid(), file=file)
            def release(self):
                os.remove(self.path)
        with daemon.DaemonContext(pidfile=Own("d.pid")) as context:
            context.sleep()
        """,
    )
    stop(box)
    assert not (box.path / "d.pid").exists()


@pytest.mark.parametrize("own", ["release", "acquire release"])
def test_a_release_that_calls_ours_is_not_called_where_the_lock_is_not_held(
    box: support.Sandbox, own: str
) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext, PidFile
        def acquire(self, timeout=None):
            PidFile.acquire(self, timeout)
        def release(self):
            PidFile.release(self)
        Own = type("Own", (PidFile,), {name: globals()[name] for name in sys.argv[1].split()})
        with Own("forked.pid"):
            if os.fork() == 0:
                sys.exit()
            print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        options = {"detach_process": False, "working_directory": ".", "stdout": sys.stdout}
        with DaemonContext(pidfile=Own("released.pid"), stderr=sys.stderr, **options) as context:
            context.pidfile.release()
    """, own)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert not list(box.path.glob("*.pid"))


def test_a_program_in_the_daemons_place_keeps_the_lock_that_it_inherits(
    box: support.Sandbox,
) -> None:
    program = box.script("""
        import os
        import daemon, daemon.pidfile
        pidfile = daemon.pidfile.PIDLockFile("d.pid")
        with daemon.DaemonContext(pidfile=pidfile):
            for fd in pidfile.descriptors:
                os.set_inheritable(fd, True)
            os.execvp("sleep", ["sleep", "1000"])
    """)
    run(box, program)
    support.until(lambda: os.readlink(f"/proc/{box.pid()}/exe").endswith(("sleep", "coreutils")))
    assert f"already running with pid {box.pid()}" in box.run(program).stderr
    stop(box)


def test_what_the_classic_scripts_pass_in(box: support.Sandbox) -> None:
    run(
        box,
        """
        import grp, logging, os, pwd, signal, sys
        import daemon
        logger = logging.getLogger("feed")
        handler = logging.FileHandler("log")
        logger.addHandler(handler)
        logger.setLevel("INFO")
        context = daemon.DaemonContext(
            working_directory=os.getcwd(),
            umask=0o002,
            uid=os.getuid(),
            gid=os.getgid(),
            pidfile=daemon.pidfile.PidFile("d.pid"),
            files_preserve=[handler.stream],
            detach_process=True,
        )
        context.signal_map = {
            signal.SIGTERM: lambda number, frame: sys.exit(0),
            signal.SIGHUP: "terminate",
            signal.SIGINT: signal.SIG_DFL,
        }
        with context:
            logger.info("in %s", os.path.basename(os.getcwd()) == sys.argv[1])
            try:
                signal.pause()
            finally:
                logger.info("done")
        """,
        Path(box.path).name,
    )
    log(box, "in True")
    stop(box)
    log(box, "in True", "done")
