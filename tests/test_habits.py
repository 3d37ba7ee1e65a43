"""What published callers do with python-daemon goes on working, through a module of its name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from . import support
from .test_docs import regenerate

# As the page has it: a few lines of names, and all that the programs here import of ours.
(MODULE,) = [
    program.code
    for program in regenerate.programs(support.ROOT / "docs/howto/from-python-daemon.md")
    if program.file == "daemon.py"
]


@pytest.fixture
def box(box: support.Sandbox) -> support.Sandbox:
    box.script(MODULE, "daemon.py")
    return box


def log(box: support.Sandbox, *lines: str) -> None:
    """Wait until the daemon has written exactly these lines."""
    expected = "".join(f"{line}\n" for line in lines)
    path = box.path / "log"
    found = support.until(
        lambda: path.exists() and path.read_text().count("\n") >= len(lines) and path.read_text(),
        what=f"{len(lines)} lines in {path}",
    )
    assert found == expected


def run(box: support.Sandbox, body: str, *args: object) -> None:
    """Run a launcher, which has nothing to say."""
    done = box.run(body, *args)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def stop(box: support.Sandbox, number: int = signal.SIGTERM) -> None:
    pid = box.pid()
    os.kill(pid, number)
    support.gone(pid)


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


# --- subclasses and attributes


def test_a_subclass_with_its_own_terminate_exit_and_positional_init(box: support.Sandbox) -> None:
    run(
        box,
        """
        import sys
        from daemon import DaemonContext

        class Feed(DaemonContext):
            def __init__(self, name, chroot_directory=None, working_directory="/", *args, **kw):
                self.name = name
                DaemonContext.__init__(self, chroot_directory, working_directory, *args, **kw)

            def terminate(self, signal_number, stack_frame):
                print("terminate", signal_number, flush=True)
                sys.exit(0)

            def __exit__(self, *exc_info):
                print("exit", exc_info[0].__name__, self.is_open, flush=True)
                super().__exit__(*exc_info)
                print("closed", self.is_open, flush=True)

        out = open("log", "w")
        with Feed("feed", None, ".", 0, None, None, False, True, True, None, "d.pid", None, out,
                  out) as feed:
            print(feed.name, feed.umask, flush=True)
            feed.sleep()
        """,
    )
    log(box, "feed 0")  # a signal that comes before the body leaves nothing to exit
    stop(box)
    log(box, "feed 0", "terminate 15", "exit SystemExit True", "closed False")


def test_a_subclass_that_sets_options_before_it_calls_init_or_never_does(
    box: support.Sandbox,
) -> None:
    run(
        box,
        """
        from daemon import DaemonContext
        class Feed(DaemonContext):
            uid = gid = None
            detach_process = True
            def __init__(self):
                self.stage = "early"
                super().__init__(detach_process=True, stdout="log")
        with Feed() as feed:
            print(feed.stage, feed.is_open, flush=True)
        """,
    )
    log(box, "early True")


def test_terminate_set_on_the_instance_is_the_handler(box: support.Sandbox) -> None:
    run(
        box,
        """
        import sys
        from daemon import DaemonContext
        def bye(number, frame):
            print("bye", number, flush=True)
            sys.exit(0)
        context = DaemonContext(pidfile="d.pid", detach_process=True, stdout="log")
        context.terminate = bye
        context.open()
        print("up", flush=True)
        context.sleep()
        """,
    )
    log(box, "up")
    stop(box)
    log(box, "up", "bye 15")


def test_a_subclass_may_have_the_methods_of_a_runner(box: support.Sandbox) -> None:
    """Under the names that python-daemon's own runner has them."""
    run(
        box,
        """
        import signal, time
        import daemon, daemon.pidfile
        class Feed(daemon.DaemonContext):
            _stop = False
            def _start(self):
                with self:
                    while not self._stop:
                        time.sleep(0.01)
                    with open("log", "a") as log:
                        print("stopped", file=log)
            def stop(self, *signal):
                self._stop = True
        Feed(working_directory=".", pidfile=daemon.pidfile.PIDLockFile("d.pid"),
             signal_map={signal.SIGTERM: "stop"})._start()
        """,
    )
    stop(box)
    log(box, "stopped")


def test_own_attributes_are_kept_and_read_from_with_as(box: support.Sandbox) -> None:
    run(
        box,
        """
        from daemon import DaemonContext
        context = DaemonContext(detach_process=True, stdout="log")
        context.settings = {"interval": 5}
        with context as same:
            same.rounds = 1
            print(same.settings["interval"], context.rounds, same is context, flush=True)
        """,
    )
    log(box, "5 1 True")


# --- files and signals


@pytest.mark.parametrize("preserve", ["range(1024)", "list(range(3, 300))", "{700, 800, None}"])
def test_numbers_that_are_not_open_are_tolerated(box: support.Sandbox, preserve: str) -> None:
    run(
        box,
        f"""
        from daemon import DaemonContext
        data = open("data", "w")
        with DaemonContext(detach_process=True, stdout="log", files_preserve={preserve}):
            try:
                data.write("x")
                data.flush()
                print("kept", flush=True)
            except (OSError, ValueError):
                print("closed", flush=True)
        """,
    )
    log(box, "closed" if "700" in preserve else "kept")


def test_streams_that_are_files_are_kept_and_duplicated(box: support.Sandbox) -> None:
    run(
        box,
        """
        import os, sys
        from daemon import DaemonContext
        log = open("log", "a")
        with open("in", "w") as file:
            file.write("typed")
        with DaemonContext(detach_process=True, stdin=open("in"), stdout=log, stderr=log):
            print(sys.stdin.read(), flush=True)
            print("to stderr", file=sys.stderr, flush=True)
            print("to the file", file=log, flush=True)
            os.system("echo from a child")
            print([os.get_inheritable(n) for n in range(3)], flush=True)
        """,
    )
    log(box, "typed", "to stderr", "to the file", "from a child", "[True, True, True]")


def test_a_stream_without_a_descriptor_takes_over_the_name_in_sys(box: support.Sandbox) -> None:
    run(
        box,
        """
        import io, os, sys
        from daemon import DaemonContext

        class Collect:
            def __init__(self):
                self.text = []
            def write(self, text):
                self.text.append(text)
            def flush(self):
                pass

        out, err, data = Collect(), io.StringIO(), open("log", "w")
        with DaemonContext(detach_process=True, stdout=out, stderr=err, files_preserve=[data]):
            print("hello")
            print("oops", file=sys.stderr)
            data.write(f"{sys.stdout is out} {''.join(out.text)!r} {err.getvalue()!r} "
                       f"{os.readlink('/proc/self/fd/1')}\\n")
            data.flush()
        """,
    )
    log(box, "True 'hello\\n' 'oops\\n' /dev/null")


def test_an_empty_signal_map_sets_nothing(box: support.Sandbox) -> None:
    run(
        box,
        """
        import signal
        from daemon import DaemonContext
        numbers = (signal.SIGTERM, signal.SIGTSTP, signal.SIGTTIN, signal.SIGINT)
        before = [signal.getsignal(number) for number in numbers]
        with DaemonContext(detach_process=True, signal_map={}, stdout="log", pidfile="d.pid") as d:
            print([signal.getsignal(number) for number in numbers] == before, flush=True)
            d.sleep()
        """,
    )
    log(box, "True")
    pid = box.pid()
    assert int(support.status(pid)["SigIgn"], 16) >> (signal.SIGTSTP - 1) & 1 == 0
    stop(box)


def test_a_given_map_replaces_the_default_one(box: support.Sandbox) -> None:
    run(
        box,
        """
        import signal
        from daemon import DaemonContext
        context = DaemonContext(
            detach_process=True, pidfile="d.pid", stdout="log",
            signal_map={signal.SIGHUP: None, signal.SIGUSR1: "terminate"},
        )
        with context:
            print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
            context.sleep()
        """,
    )
    log(box, "True")
    os.kill(box.pid(), signal.SIGHUP)
    stop(box, signal.SIGUSR1)
    assert not (box.path / "d.pid").exists()


def test_the_default_map_ignores_the_terminals_signals_and_terminates(
    box: support.Sandbox,
) -> None:
    run(
        box,
        """
        from daemon import DaemonContext
        with DaemonContext(detach_process=True, pidfile="d.pid", stdout="log") as context:
            try:
                context.sleep()
            except SystemExit as error:
                print(error.code, error, flush=True)
                raise
        """,
    )
    pid = box.pid()
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(pid, number)
    stop(box)
    log(box, "0 terminated by SIGTERM")


def test_terminate_leaves_with_status_0(box: support.Sandbox) -> None:
    done = box.run("""
        import os, signal
        from daemon import DaemonContext
        with DaemonContext(detach_process=False, stdout="log"):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_request_stop_ends_the_loop(box: support.Sandbox) -> None:
    run(
        box,
        """
        import signal
        from daemon import DaemonContext
        context = DaemonContext(
            pidfile="d.pid", detach_process=True, stdout="log",
            signal_map={signal.SIGTERM: "request_stop"},
        )
        with context as daemon:
            for count in daemon.every(3600):
                print("round", count, flush=True)
            print("over", daemon.stop_requested, flush=True)
        """,
    )
    log(box, "round 0")
    stop(box)
    log(box, "round 0", "over True")
    assert not (box.path / "d.pid").exists()


# --- the foreground, and any context manager


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
