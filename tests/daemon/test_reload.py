"""Reloads, sleeps and loops of a daemon, whoever asks and whenever."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers import support
from tests.helpers.daemons import log


def test_reload_that_fails_keeps_the_old_configuration(
    box: support.Sandbox, heartbeat: Path
) -> None:
    assert box.run(heartbeat, "reload").returncode == 7
    box.run(heartbeat, "start")
    pid = box.pid()
    (box.path / "conf").write_text("bad")
    done = box.run(heartbeat, "reload")
    assert done.returncode == 1
    assert "old configuration" in done.stderr
    assert "ValueError: bad configuration" in done.stderr
    assert "on_reload" in done.stderr
    assert support.alive(pid)
    (box.path / "conf").write_text("good")
    assert box.run(heartbeat, "reload").returncode == 0
    assert "reloaded" in log(box)


def test_plain_loop_ends_on_sigterm(box: support.Sandbox) -> None:
    script = box.script("""
        import time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                while True:
                    time.sleep(1)
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log").main()
    """)
    box.run(script, "start")
    pid = box.pid()
    assert box.run(script, "stop").returncode == 0
    assert not support.alive(pid)
    assert log(box) == ["cleanup"]


def test_reload_in_a_plain_loop(box: support.Sandbox) -> None:
    script = box.script("""
        import time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                while True:
                    time.sleep(1)
            def on_reload(self):
                print("reloaded", flush=True)
        D("d.pid", stdout="d.log").main()
    """)
    box.run(script, "start")
    assert box.run(script, "reload").returncode == 0
    assert log(box) == ["reloaded"]


@pytest.mark.parametrize("loop", ["self.sleep()", "list(self.every(3600))"])
def test_a_reload_that_comes_just_before_a_long_sleep(box: support.Sandbox, loop: str) -> None:
    """It is not left for the end of the sleep."""
    script = box.script(f"""
        import _signal, os
        from daemon_context import Daemon
        def late(*args, **options):
            _signal.set_wakeup_fd = set_wakeup_fd
            os.kill(os.getpid(), _signal.SIGHUP)
            return set_wakeup_fd(*args, **options)
        set_wakeup_fd = _signal.set_wakeup_fd
        class D(Daemon):
            def run(self):
                _signal.set_wakeup_fd = late
                {loop}
            def on_reload(self):
                print("reloaded", flush=True)
        D("d.pid", stdout="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    assert box.text("d.log") == "reloaded\n"
    assert box.run(script, "stop").returncode == 0


@pytest.mark.parametrize("loop", ["self.sleep()", "while True: time.sleep(0.01)"])
def test_a_reload_in_the_middle_of_another_is_one_of_its_own(
    box: support.Sandbox, loop: str
) -> None:
    """It is not told the outcome of the other, whose older configuration is not the last one."""
    script = box.script(f"""
        import os, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                {loop}
            def _on_hangup(self, *args):
                with open("signals", "a") as file:
                    file.write("x")
                super()._on_hangup(*args)
            def on_reload(self):
                with open("conf") as file:
                    name = file.read()
                open(f"{{name}} is read", "w").close()
                while not os.path.exists(f"{{name}} may be taken"):
                    time.sleep(0.01)
                print("took", name, flush=True)
                if name == "bad":
                    raise ValueError("bad configuration")
        D("d.pid", stdout="d.log", stderr="e.log", working_directory=".").main()
    """)
    assert box.run(script, "start").returncode == 0
    reloads = {}
    for name in ("good", "bad"):
        (box.path / "conf").write_text(name)
        reloads[name] = box.popen(script, "reload")
        support.until(lambda: len(box.text("signals")) == len(reloads))
        support.until((box.path / "good is read").exists)
    for name, status in (("good", 0), ("bad", 1)):
        (box.path / f"{name} may be taken").touch()
        assert reloads[name].wait(20) == status
    assert log(box) == ["took good", "took bad"]


def test_a_sleep_in_on_reload_says_nothing_about_the_loop_of_run(box: support.Sandbox) -> None:
    script = box.script("""
        import os, signal, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                while True:
                    time.sleep(0.01)
            def on_reload(self):
                self.sleep(0.01)
                if os.path.exists("stop"):
                    os.kill(os.getpid(), signal.SIGTERM)
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log", working_directory=".").main()
    """)
    for when in ("later", "in it"):
        assert box.run(script, "start").returncode == 0
        pid = box.pid()
        if when == "in it":
            (box.path / "stop").touch()
            os.kill(pid, signal.SIGHUP)
        else:
            assert box.run(script, "reload").returncode == 0
            os.kill(pid, signal.SIGTERM)
        support.gone(pid)
    assert log(box) == ["cleanup"] * 2


def test_a_stop_in_a_reload_that_fails_is_not_lost(box: support.Sandbox) -> None:
    script = box.script("""
        import time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                while True:
                    time.sleep(0.01)
            def on_reload(self):
                print("reloading", flush=True)
                if not self.sleep(1000):
                    raise RuntimeError("interrupted")
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log", stderr="e.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    os.kill(pid, signal.SIGHUP)
    box.text("d.log")
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert log(box) == ["reloading", "cleanup"]


@pytest.mark.parametrize("loop", ["self.every(0.01)", "iter(lambda: time.sleep(0.01), 1)"])
@pytest.mark.parametrize("where", ["run()", "a thread"])
def test_a_daemon_reloads_itself(box: support.Sandbox, loop: str, where: str) -> None:
    """In run() it can't wait for the loop of run()."""
    script = box.script(f"""
        import os, threading, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                thread = threading.Thread(target=self.ask)
                for round in {loop}:
                    if "{where}" == "a thread" and thread.ident is None:
                        thread.start()
                    elif "{where}" == "run()":
                        self.ask()
                    if os.path.exists("asked") and os.path.exists("reloaded"):
                        break
            def ask(self):
                assert self.reload(timeout=1000) is None
                open("asked", "w").close()
            def on_reload(self):
                open("reloaded", "w").close()
        D("d.pid", stderr="d.log", working_directory=".").main()
    """)
    assert box.run(script, "start").returncode == 0
    box.settled()
    assert not log(box)


def test_a_sleep_in_setup_says_nothing_about_the_loop_of_run(box: support.Sandbox) -> None:
    script = box.script("""
        import time
        from daemon_context import Daemon
        class D(Daemon):
            def setup(self):
                self.sleep(0.01)
            def run(self):
                while True:
                    time.sleep(1)
            def on_reload(self):
                print("reloaded", flush=True)
        D("d.pid", stdout="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    assert box.run(script, "reload").returncode == 0
    assert box.run(script, "stop").returncode == 0
    assert log(box) == ["reloaded"]
    done = box.run(script, "status")
    assert (done.returncode, done.stdout[:15]) == (3, "D: not running;")
    assert support.only_its_end(box.path)  # and it was not killed


@pytest.mark.parametrize("wait", ["self.sleep(1000)", "list(self.every(1000))"])
def test_a_stop_reaches_a_thread_that_sleeps_and_a_run_that_does_not(
    box: support.Sandbox, wait: str
) -> None:
    script = box.script(f"""
        import threading, time
        from daemon_context import Daemon
        class D(Daemon):
            def setup(self):
                threading.Thread(target=self.beside).start()
            def beside(self):
                print("began", flush=True)
                {wait}
                print("thread ended", flush=True)
            def run(self):
                while True:
                    time.sleep(0.01)
            def on_reload(self):
                print("reloaded", flush=True)
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    box.text("d.log")
    assert box.run(script, "reload").returncode == 0
    assert box.run(script, "stop").returncode == 0
    assert log(box)[:2] == ["began", "reloaded"]
    assert sorted(log(box)[2:]) == ["cleanup", "thread ended"]
    assert support.only_its_end(box.path)


def test_a_reload_after_a_sleep_of_setup_is_not_left_for_a_loop_that_never_sleeps(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os, signal
        from daemon_context import Daemon
        class D(Daemon):
            def setup(self):
                self.sleep(0.01)
                os.kill(os.getpid(), signal.SIGHUP)
            def run(self):
                print("runs", flush=True)
            def on_reload(self):
                print("reloaded", flush=True)
        D("d.pid").main()
    """, "run")  # fmt: skip
    assert (done.stdout, done.stderr) == ("reloaded\nruns\n", "")


def test_a_reload_that_runs_out_of_descriptors_keeps_the_old_configuration(
    box: support.Sandbox,
) -> None:
    script = box.script("""
        import os, resource
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.sleep()
            def on_reload(self):
                hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
                kept = []
                while True:
                    kept.append(os.open("/dev/null", os.O_RDONLY))
        D("d.pid", stderr="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    for _ in range(2):
        done = box.run(script, "reload")
        assert done.returncode == 1
        assert "old configuration, on_reload() raised OSError: [Errno 24]" in done.stderr
    assert support.alive(box.pid())


@pytest.mark.parametrize("loop", ["for _ in self.every(0.01)", "while time.sleep(0.01) is None"])
@pytest.mark.parametrize("where", ["run()", "a thread"])
def test_a_daemon_asks_for_its_status_and_stops_itself(
    box: support.Sandbox, loop: str, where: str
) -> None:
    """By a relative path of the pid file, which elsewhere would be another file."""
    done = box.run(f"""
        import threading, time
        from daemon_context import Daemon, DaemonError
        class D(Daemon):
            def run(self):
                for verb in self.start, self.restart, self.run_foreground, self.daemonize:
                    try:
                        verb()
                    except DaemonError as error:
                        print(str(error).partition(";")[0], flush=True)
                self.tell("well")
                print(self.status().state, self.status().text, flush=True)
                thread = threading.Thread(target=self.stop)
                {loop}:
                    if "{where}" == "run()":
                        self.stop()
                    elif thread.ident is None:
                        thread.start()
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log", settle=0).main()
    """, "start")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert log(box) == [
        *["this process is the daemon already"] * 4,
        "ready well",
        "cleanup",
    ]
    assert support.only_its_end(box.path)  # it was not killed


def test_a_stop_in_a_sleep_of_setup_cancels_the_start(box: support.Sandbox) -> None:
    script = box.script("""
        from daemon_context import Daemon
        class D(Daemon):
            def setup(self):
                print("in setup", flush=True)
                self.sleep()
            def run(self):
                while True:
                    pass
        D("d.pid", stdout="d.log").main()
    """)
    launcher = box.popen(script, "start")
    box.text("d.log")
    assert box.run(script, "stop").returncode == 0
    assert launcher.stderr is not None
    assert "terminated by SIGTERM before it was ready" in launcher.stderr.read()
    assert launcher.wait(20) == 1


def test_a_worker_that_a_reload_has_forked_reloads_by_itself(box: support.Sandbox) -> None:
    script = box.script("""
        import os, signal
        from daemon_context import Daemon
        class D(Daemon):
            worker = 0
            def run(self):
                while True:
                    signal.pause()
            def on_reload(self):
                print("worker" if self.worker else "daemon", flush=True)
                if self.worker:
                    os._exit(0)
                if os.fork() == 0:
                    self.worker = os.getpid()
                    os.kill(self.worker, signal.SIGHUP)
                    signal.alarm(10)  # ends it if nothing comes
                    signal.pause()
                os.wait()
        D("d.pid", stdout="d.log", stderr="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    assert box.run(script, "reload").returncode == 0
    assert log(box) == ["daemon", "worker"]
    assert box.run(script, "reload").returncode == 0
    assert box.run(script, "stop").returncode == 0
