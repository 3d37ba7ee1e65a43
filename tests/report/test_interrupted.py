"""A launcher that is interrupted cancels the start."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers import support
from tests.helpers.failing import WAITING, assert_nothing_left


@pytest.mark.parametrize(
    ("number", "extra"),
    [
        *(("SIGINT", ""), ("SIGTERM", ""), ("SIGHUP", ""), ("SIGKILL", "")),
        *(("SIGINT", "program"), ("SIGKILL", "program"), ("SIGINT", "deaf"), ("SIGKILL", "deaf")),
    ],
)
def test_a_launcher_that_is_ended_while_it_waits_cancels_the_start(
    box: support.Sandbox, number: str, extra: str
) -> None:
    launcher = box.popen(WAITING, box.path, extra)
    box.text("waiting")
    launcher.send_signal(getattr(support.signal, number))
    launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == -getattr(support.signal, number)
    assert_nothing_left(box)


def test_ctrl_c_while_the_launcher_waits_cancels_the_start(box: support.Sandbox) -> None:
    with support.Terminal() as terminal:
        launcher = box.popen(
            WAITING, box.path, "program", prefix=["setsid", "--ctty"], **terminal.streams
        )
        box.text("waiting")
        terminal.type("\x03")
        assert launcher.wait(support.DEADLINE) == -signal.SIGINT
        assert "KeyboardInterrupt" in terminal.output()
    assert_nothing_left(box)


def test_what_a_handler_raises_while_the_start_is_cancelled_ends_the_patience_only(
    box: support.Sandbox,
) -> None:
    """The second SIGTERM of a stop, say, to a program whose handler calls ``sys.exit``."""
    launcher = box.popen(
        """
        import os, pathlib, signal, subprocess, sys, time
        from daemon_context import DaemonContext

        home = pathlib.Path.cwd()
        launcher = os.getpid()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))

        def asked(*_):
            if os.getpid() == launcher:
                return
            (home / "asked").write_text("yes")

        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                           signal_map={}):
            signal.signal(signal.SIGTERM, asked)  # and goes on
            subprocess.Popen(["sleep", "1000"])
            (home / "waiting").write_text("yes")
            while True:
                time.sleep(1000)
        """
    )
    box.text("waiting")
    launcher.terminate()
    box.text("asked")
    launcher.terminate()
    _, text = launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == 1
    assert "terminated" in text
    assert_nothing_left(box)


def test_a_hangup_of_the_terminal_while_the_launcher_waits_cancels_the_start(
    box: support.Sandbox,
) -> None:
    with support.Terminal() as terminal:
        launcher = box.popen(
            WAITING, box.path, "program", prefix=["setsid", "--ctty"], **terminal.streams
        )
        box.text("waiting")
    assert launcher.wait(support.DEADLINE) == -signal.SIGHUP
    assert_nothing_left(box)


@pytest.mark.parametrize("style", ["with", "open", "spawn"])
def test_what_a_body_wrote_before_it_failed_is_not_lost(box: support.Sandbox, style: str) -> None:
    done = box.run("""
        import sys
        from daemon_context import DaemonContext, DaemonError

        kept = open("kept", "w")
        kept.write("once")
        if sys.argv[1] == "spawn":
            kept.flush()

        def body():
            global file
            file = open("log", "w")
            file.write("why it failed")
            raise RuntimeError("no")

        context = DaemonContext(detach_process=True, readiness="explicit", working_directory=".",
                                files_preserve=[kept])
        if sys.argv[1] == "spawn":
            context.spawn(body)
        if sys.argv[1] == "with":
            with context:
                body()
        context.open()
        body()
    """, style)  # fmt: skip
    assert done.returncode == 1
    assert (box.path / "log").read_text() == "why it failed"
    assert (box.path / "kept").read_text() == "once"


def test_a_start_may_take_a_month(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=True, start_timeout=31 * 86400):
            pass
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_session_leader_that_is_killed_is_told_and_nothing_is_left(box: support.Sandbox) -> None:
    launcher = box.popen(WAITING, box.path, "program")
    leader = int(support.stat(int(box.text("waiting")))[1])
    os.kill(leader, signal.SIGKILL)
    _, text = launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == 1
    assert f"the session leader (pid {leader}) was killed by SIGKILL" in text
    assert_nothing_left(box)


@pytest.mark.parametrize("how", ["timeout", "SIGTERM", "SIGKILL"])
def test_a_daemon_whose_start_is_cancelled_may_clean_up(box: support.Sandbox, how: str) -> None:
    launcher = box.popen("""
        import time
        from tests.helpers.launching import *
        timeout = 0.3 if sys.argv[1] == "timeout" else None
        if sys.argv[1] == "SIGTERM":
            signal.signal(signal.SIGTERM, lambda *signal: sys.exit(1))
        try:
            with DaemonContext(readiness="explicit", detach_process=True, start_timeout=timeout,
                               working_directory="."):
                try:
                    report("waiting", os.getpid())
                    time.sleep(600)
                finally:
                    report("cleaned up", os.getpid())
        finally:
            with open("unwound", "a") as file:
                print(os.getpid(), file=file)
    """, how)  # fmt: skip
    daemon = int(box.text("waiting"))
    if how != "timeout":
        launcher.send_signal(getattr(signal, how))
    launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == (-9 if how == "SIGKILL" else 1)
    assert int(box.text("cleaned up")) == daemon
    box.settled()
    if how != "SIGKILL":
        assert set(map(int, box.text("unwound").split())) - {daemon} == {launcher.pid}


@pytest.mark.parametrize("group", ["leader's", "own"])
def test_a_daemon_that_kills_its_session_leader_is_ended_and_named(
    box: support.Sandbox, group: str
) -> None:
    done = box.run("""
        import time
        from tests.helpers.launching import *
        class Kill(Step):
            def apply(self, walk):
                if sys.argv[1] == "own":  # in which the launcher would not find it
                    os.setpgid(0, 0)
                report("daemon", os.getpid())
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(600)
        steps = DEFAULT_STEPS.insert_after("detach", Kill())
        print(attempt(DaemonContext(detach_process=True, steps=steps, pidfile="d.pid"))["pid"])
    """, group)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == box.text("daemon").strip()
    box.settled()


def test_ready_after_the_launcher_is_gone_ends_the_daemon(box: support.Sandbox) -> None:
    launcher = box.popen("""
        import os, signal
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                           working_directory=".") as daemon:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.mkfifo("go")
            open("go").read()
            try:
                daemon.ready()
                open("went on", "w").close()
            except BaseException as error:
                with open("said", "w") as file:
                    print(repr(error), file=file)
                raise
            daemon.sleep()
    """)
    support.until((box.path / "go").exists)
    daemon = box.pid()
    leader = int(support.stat(daemon)[1])
    os.kill(leader, signal.SIGSTOP)
    launcher.kill()
    os.kill(leader, signal.SIGKILL)
    support.gone(leader)
    support.gone(launcher.pid)
    (box.path / "go").write_text("")
    launcher.communicate(timeout=support.DEADLINE)
    box.settled()
    assert not (box.path / "went on").exists()
    said = "StartError('the start was cancelled before the daemon was ready')\n"
    assert box.text("said") == said


def test_a_session_leader_that_is_killed_while_the_launcher_hears_ready_costs_nothing(
    box: support.Sandbox,
) -> None:
    """The launcher's answer is what counts: either both know that it is ready, or neither."""
    launcher = box.popen("""
        import os
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                           working_directory=".") as daemon:
            os.mkfifo("go")
            open("go").read()
            daemon.ready()
            open("went on", "w").close()
            daemon.sleep()
    """)
    support.until((box.path / "go").exists)
    daemon = box.pid()
    leader = int(support.stat(daemon)[1])
    os.kill(leader, signal.SIGSTOP)
    os.kill(launcher.pid, signal.SIGSTOP)
    os.kill(leader, signal.SIGKILL)
    support.until(lambda: support.stat(leader)[0] in "ZX")
    (box.path / "go").write_text("")
    support.until((box.path / "went on").exists)
    os.kill(launcher.pid, signal.SIGCONT)
    launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == 0
    assert support.alive(daemon)
