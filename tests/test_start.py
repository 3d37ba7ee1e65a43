"""A start, seen from outside."""

from __future__ import annotations

import os
import signal

from . import support


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
