"""A start, seen from outside."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers import support


def test_first_daemon(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", stdout="d.log", detach_process=True) as daemon:
            print("hello")
            daemon.sleep()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int((box.path / "d.pid").read_text())
    assert support.alive(pid)
    assert box.text("d.log") == "hello\n"
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert not (box.path / "d.pid").exists()


def test_exit_0_means_that_the_pid_file_is_there_and_the_daemon_works(box: support.Sandbox) -> None:
    program = box.script("""
        import sys
        from daemon_context import DaemonContext
        with DaemonContext(pidfile=sys.argv[1], detach_process=True) as daemon:
            daemon.sleep()
    """)
    for number in range(20):
        assert box.run(program, f"{number}.pid").returncode == 0
        pid = int((box.path / f"{number}.pid").read_text())  # now, and not some time later
        assert support.stat(pid)[1] != "0"
        # A stop that comes at once finds the handler installed.
        os.kill(pid, signal.SIGTERM)
        support.gone(pid)
        assert not (box.path / f"{number}.pid").exists()


def test_open_without_with_is_left_at_exit(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import DaemonContext
        context = DaemonContext(pidfile="d.pid", stdout="d.log", detach_process=True)
        context.open()
        assert context.is_open
        context.open()
        print("hello")
        context.sleep()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert box.text("d.log") == "hello\n"
    os.kill(box.pid(), signal.SIGTERM)
    box.settled()
    assert not (box.path / "d.pid").exists()


def test_a_waitpid_that_a_library_has_put_into_os_is_not_asked(box: support.Sandbox) -> None:
    """As gevent's, which waits for a signal that is blocked."""
    done = box.run("""
        import os, time
        os.waitpid = lambda *args: time.sleep(1000)
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=True):
            pass
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_garbage_collector_works_in_what_a_step_starts(box: support.Sandbox) -> None:
    done = box.run("""
        import gc, multiprocessing
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step

        def say(who):
            with open("said", "a") as said:
                print(who, gc.get_threshold(), file=said)

        class Start(Step):
            name = "start"
            def apply(self, walk):
                context = DaemonContext(working_directory=".", threads="ignore")
                context.spawn(say, "another daemon").wait(60)

        class Fork(Step):
            name = "fork"
            def apply(self, walk):
                worker = multiprocessing.get_context("fork").Process(target=say, args=["worker"])
                worker.start()
                worker.join()

        gc.set_threshold(500, 6, 7)
        steps = DEFAULT_STEPS.insert_before("flush-streams", Start())
        for where in "flush-streams", "write-pidfile":
            steps = steps.insert_after(where, Fork())
            DaemonContext(working_directory=".", steps=steps).spawn(say, "daemon").wait(60)
            steps = steps.remove("fork").remove("start") if "start" in steps.names else steps
        say("launcher")
    """)
    assert done.stderr == ""
    said = "another daemon", "worker", "daemon", "worker", "daemon", "launcher"
    assert box.text("said").splitlines() == [f"{who} (500, 6, 7)" for who in said]


def test_a_second_fork_that_fails_is_told_by_the_launcher_alone(box: support.Sandbox) -> None:
    done = box.run("""
        import errno, os
        from daemon_context import DaemonContext, DaemonError
        from daemon_context.steps import detach

        launcher, fork = os.getpid(), detach.fork

        def fails_in_the_leader():
            if os.getpid() != launcher:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return fork()

        detach.fork = fails_in_the_leader
        try:
            DaemonContext(detach_process=True).open()
        except BaseException as error:
            with open("unwound", "a") as file:
                print(type(error).__name__, file=file)
            raise
    """)
    assert done.returncode == 1
    assert "cannot detach: the second fork failed: Resource temporarily unavailable" in done.stderr
    box.settled()
    assert box.text("unwound") == "DaemonProcessDetachError\n"


# --- settings that are left as they are

SETTINGS = """
    import os, resource, sys
    def settings():
        os.umask(umask := os.umask(0))
        return f"{umask:03o} {os.getcwd()} {resource.getrlimit(resource.RLIMIT_CORE)}"
    def tell():
        with open("/proc/self/fd/1" if sys.argv[1] == "run" else LOG, "a") as file:
            print(settings(), file=file)
    LOG = os.path.abspath("log")
"""
GIVEN = ["prlimit", "--core=4096:8192", "sh", "-c", 'umask 027; exec "$@"', "sh"]


@pytest.mark.parametrize("detach", [True, False])
def test_none_leaves_umask_and_directory_as_they_are(box: support.Sandbox, detach: bool) -> None:
    body = (
        SETTINGS
        + """
    from daemon_context import DaemonContext
    options = dict(umask=None, working_directory=None, prevent_core=False)
    context = DaemonContext(detach_process=eval(sys.argv[1]), **options)
    explained = context.explain()
    assert not explained["set-umask"].needed and not explained["change-directory"].needed
    assert "umask=None leaves it" in str(explained), explained
    with context:
        tell()
    """
    )
    done = box.run(body, detach, prefix=GIVEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert box.text("log") == f"027 {box.path} (4096, 8192)\n"


@pytest.mark.root
def test_none_is_the_new_root_in_a_chroot(box: support.Sandbox) -> None:
    (box.path / "root").mkdir()
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        options = dict(umask=0o022, chroot_directory="root", working_directory=None)
        with DaemonContext(detach_process=False, stdout=1, **options):
            print(os.getcwd(), os.listdir("."))
    """)
    assert (done.stdout, done.stderr) == ("/ []\n", "")


SERVICE = (
    SETTINGS
    + """
    from daemon_context import Daemon
    class Feed(Daemon):
        def run(self):
            tell()
    Feed("d.pid", **eval(sys.argv[2])).main(sys.argv[1:2])
"""
)


@pytest.mark.parametrize(("options", "found"), [
    ({}, "027 {here} (4096, 8192)"),
    ({"umask": 0o007}, "007 {here} (4096, 8192)"),
    ({"working_directory": "/"}, "027 / (4096, 8192)"),
    ({"prevent_core": True}, "027 {here} (0, 0)"),
])  # fmt: skip
def test_in_the_foreground_the_class_leaves_what_was_not_chosen(
    box: support.Sandbox, options: dict[str, object], found: str
) -> None:
    done = box.run(SERVICE, "run", options, prefix=GIVEN)
    assert (done.stdout, done.stderr) == (found.format(here=box.path) + "\n", "")
    done = box.run(SERVICE, "start", {}, prefix=GIVEN)
    assert done.returncode == 0, done
    assert box.text("log") == "022 / (0, 0)\n"


def test_check_says_what_the_start_would_and_changes_nothing(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step

        class Read(Step):
            def check(self, walk):
                if missing:
                    open("missing")
            def apply(self, walk):
                pass

        missing = False
        steps = DEFAULT_STEPS.insert_before("detach", Read())
        with DaemonContext(detach_process=True, steps=steps, record_trace=True,
                           stdout=os.path.abspath("log")) as daemon:
            daemon.request_stop()
            trace = daemon.trace
            daemon.check()
            missing = True
            for ask in (daemon.check, DaemonContext(detach_process=True, steps=steps).open):
                try:
                    ask()
                except DaemonError as error:
                    print(type(error).__name__, error)
            print(daemon.is_open, daemon.stop_requested, daemon.trace is trace)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    first, second, state = box.text("log").splitlines()
    assert first == second
    assert first.startswith("DaemonOSEnvironmentError cannot read: ")
    assert state == "True True True"
