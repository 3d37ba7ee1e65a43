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
