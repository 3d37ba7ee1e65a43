"""The `Daemon` class, verb by verb, as a script is used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from daemon_context.control.statusfile import read
from tests.helpers import support
from tests.helpers.daemons import STUBBORN, log
from tests.helpers.pidfiles import take_lock


def test_verbs_and_exit_statuses(box: support.Sandbox, heartbeat: Path) -> None:
    def verb(*words: str) -> tuple[int, str]:
        done = box.run(heartbeat, *words)
        assert not done.stderr
        return done.returncode, done.stdout.strip()

    assert verb("status") == (3, "Heartbeat: not running")
    assert verb("stop") == (0, "Heartbeat: was not running")
    code, said = verb("start")
    pid = box.pid()
    assert (code, said) == (0, f"Heartbeat: started, pid {pid}")
    assert verb("start") == (0, f"Heartbeat: runs already, pid {pid}")
    support.until(lambda: "beat" in verb("status")[1], what="its words in the status")
    code, said = verb("status", "--json")
    status = json.loads(said)
    assert (code, status["state"], status["pid"]) == (0, "ready", pid)
    assert status["visible"] is True
    assert abs(status["since"] - (box.path / "d.pid").stat().st_mtime) < 60
    assert verb("reload") == (0, f"Heartbeat: reloaded, pid {pid}")
    code, said = verb("restart")
    new = box.pid()
    assert code == 0
    assert said == f"Heartbeat: restarted, pid {new}"
    assert new != pid
    assert not support.alive(pid)
    code, said = verb("stop")
    assert code == 0
    assert said.startswith(f"Heartbeat: stopped (pid {new}")
    assert not support.alive(new)
    assert sorted(p.name for p in box.path.glob("d.*")) == ["d.log", "d.pid.status"]
    assert log(box) == [
        "setup",
        "reloaded",
        "loop ended",
        "cleanup",
        "setup",
        "loop ended",
        "cleanup",
    ]


def test_setup_that_fails_fails_the_start(box: support.Sandbox, heartbeat: Path) -> None:
    (box.path / "conf-fails").touch()
    done = box.run(heartbeat, "start")
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "no blood" in done.stderr
    box.settled()
    assert not (box.path / "d.pid").exists()
    assert not (box.path / "d.pid.status").exists()


def test_restart_whose_checks_fail_keeps_the_old_daemon(box: support.Sandbox) -> None:
    script = box.script("""
        import sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.sleep()
        D("d.pid", working_directory=sys.argv.pop(1)).main()
    """)
    assert box.run(script, "/", "start").returncode == 0
    pid = box.pid()
    done = box.run(script, "/nope", "restart")
    assert done.returncode != 0
    assert "'/nope'" in done.stderr
    assert support.alive(pid)
    assert box.pid() == pid


@pytest.mark.parametrize(
    ("verb", "status"), [("", 2), ("dance", 2)], ids=["no verb", "unknown verb"]
)
def test_usage(box: support.Sandbox, heartbeat: Path, verb: str, status: int) -> None:
    done = box.run(heartbeat, *([verb] if verb else []))
    assert done.returncode == status
    assert "usage" in done.stderr


def test_not_configured(box: support.Sandbox) -> None:
    done = box.run(
        """
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                pass
        D("d.pid", umask="rw").main()
        """,
        "start",
    )
    assert done.returncode == 6
    assert "umask='rw'" in done.stderr


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "reload", "status", "run"])
def test_a_pid_file_that_is_no_path_is_not_configured(box: support.Sandbox, verb: str) -> None:
    done = box.run(
        r"""
        import sys
        from daemon_context import Daemon
        class D(Daemon):
            run = lambda self: None
        for pidfile in (None, 5, "m\0.pid", "\ud800", ""):
            try:
                D(pidfile).main()
            except SystemExit as ended:
                assert ended.code == 6, ended
        """,
        verb,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert len(done.stderr.splitlines()) == 5
    assert done.stderr.count("can't be used: expected a path") == 5


@pytest.mark.root
def test_no_permission(box: support.Sandbox, heartbeat: Path) -> None:
    box.path.chmod(0o755)
    box.run(heartbeat, "start")
    pid = box.pid()
    script = box.script(
        """
        import os, resource, sys
        from daemon_context import Daemon
        class D(Daemon):
            run = lambda self: None
        try:  # what is imported late may be out of reach for this user
            D("other.pid").main(["stop"])
        except SystemExit:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        D("d.pid").main()
    """,
        "stranger.py",
    )
    for parent in (box.path, *box.path.parents[:-2]):
        parent.chmod(0o755)
    for verb in ("stop", "reload", "start"):
        done = box.run(script, verb)
        assert done.returncode == (0 if verb == "start" and "already" in done.stdout else 4), (
            verb,
            done,
        )
    done = box.run(script, "status", "--json")
    assert done.returncode == 0, done
    status = json.loads(done.stdout.splitlines()[-1])
    assert (status["state"], status["pid"], status["text"]) == ("running", pid, None)
    assert support.alive(pid)


def test_dead_daemon_is_reported_and_started_anew(box: support.Sandbox, heartbeat: Path) -> None:
    box.run(heartbeat, "start")
    pid = box.pid()
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)
    done = box.run(heartbeat, "status")
    assert done.returncode == 1
    assert f"it was pid {pid}" in done.stdout
    assert box.run(heartbeat, "stop").returncode == 0
    assert box.run(heartbeat, "start").returncode == 0
    assert support.alive(box.pid())


def test_stopped_process_is_stopped(box: support.Sandbox) -> None:
    script = box.script(STUBBORN)
    box.run(script, "start")
    pid = box.pid()
    box.text("d.log")
    os.kill(pid, signal.SIGSTOP)
    support.until(lambda: support.state(pid) == "T")
    done = box.run(script, "stop")
    assert done.returncode == 0
    assert not support.alive(pid)


def test_outcome_of_run_is_the_exit_status(box: support.Sandbox) -> None:
    for outcome, status in [
        ("return 3", 3),
        ("return None", 0),
        ("raise OSError(5)", 1),
        ("raise SystemExit(4)", 4),
        ("raise SystemExit(OSError('enough'))", 1),
        ("raise SystemExit(True)", 1),
    ]:
        done = box.run(f"""
            import ctypes, os, sys
            from daemon_context import Daemon
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
            class D(Daemon):
                def run(self):
                    self.sleep(0.01)
                    {outcome}
            assert D("d.pid", settle=0).start() is None
            print(os.waitstatus_to_exitcode(os.wait()[1]))
        """)
        assert done.stdout.strip() == str(status), (outcome, done)


@pytest.mark.parametrize("verb", ["run", "start"])
def test_an_exit_with_an_error_as_its_message_is_shown_and_is_a_failure(
    box: support.Sandbox, verb: str
) -> None:
    done = box.run("""
        import sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                sys.exit(OSError("no work"))
        D("d.pid", stderr="d.log", foreground_streams=True, settle=0).main()
    """, verb)  # fmt: skip
    assert (done.returncode, done.stderr) == (int(verb == "run"), "")
    assert box.text("d.log") == "no work\n"
    box.settled()


RECIPE = """
    import atexit, sys, time
    from daemon_context import Daemon

    class MyDaemon(Daemon):
        def daemonize(self):
            print("about to start", flush=True)
            super().daemonize()
            print("in the daemon", flush=True)
        def delpid(self):
            print("delpid", flush=True)
            super().delpid()
        def run(self):
            while True:
                time.sleep(1)

    if __name__ == "__main__":
        daemon = MyDaemon('d.pid', '/dev/null', 'd.log', 'd.log')
        if len(sys.argv) == 2:
            if 'start' == sys.argv[1]:
                daemon.start()
            elif 'stop' == sys.argv[1]:
                daemon.stop()
            elif 'restart' == sys.argv[1]:
                daemon.restart()
            else:
                print("Unknown command")
                sys.exit(2)
            sys.exit(0)
"""


def test_class_written_against_the_recipe(box: support.Sandbox) -> None:
    script = box.script(RECIPE)
    done = box.run(script, "start")
    assert (done.returncode, done.stdout) == (0, "about to start\n")
    pid = box.pid()
    assert box.run(script, "restart").returncode == 0
    new = box.pid()
    assert new != pid
    assert box.run(script, "stop").returncode == 0
    support.gone(new)
    assert log(box) == ["in the daemon", "delpid"] * 2


def test_daemonize_by_itself_returns_in_the_daemon_only(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import Daemon
        class D(Daemon):
            pass
        d = D("d.pid", stdout="d.log")
        d.daemonize()
        print("daemon", flush=True)
        d.sleep(30)
    """)
    assert done.returncode == 0, done
    assert box.text("d.log") == "daemon\n"


def test_a_start_under_way_is_starting_and_can_be_stopped(box: support.Sandbox) -> None:
    script = box.script("""
        import os, time
        from daemon_context import Daemon
        gate = os.path.abspath("gate")
        class D(Daemon):
            def setup(self):
                while not os.path.exists(gate):
                    time.sleep(0.01)
            def run(self):
                self.sleep()
        D("d.pid").main()
    """)
    launcher = box.popen(script, "start")
    pid = box.pid()
    done = box.run(script, "status", "--json")
    status = json.loads(done.stdout)
    assert (done.returncode, status["state"], status["pid"]) == (0, "starting", pid)
    assert "is being started" in box.run(script, "start").stdout
    assert "not ready yet" in box.run(script, "reload").stderr
    assert box.run(script, "stop").returncode == 0
    assert launcher.wait(20) == 1
    assert launcher.stderr is not None
    assert "terminated by SIGTERM before it was ready" in launcher.stderr.read()
    assert not (box.path / "d.pid").exists()
    box.settled()


def test_a_start_that_meets_another_ones_start_says_what_has_come_of_it(
    box: support.Sandbox, heartbeat: Path
) -> None:
    lock = box.path / "d.pid.lock"
    lock.touch(0o600)
    fd = take_lock(os.fspath(lock), "ofd", exclusive=True)  # as who starts, or clears away
    program = box.popen(heartbeat, "start")
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(1)
    os.close(fd)  # it has failed
    assert program.stdout is not None
    assert program.stdout.read() == f"Heartbeat: started, pid {box.pid()}\n"
    assert program.wait() == 0


def test_a_start_that_is_refused_by_one_that_has_failed_since_starts(
    box: support.Sandbox,
) -> None:
    script = box.script("""
        import os, time
        from daemon_context import AlreadyRunning, Daemon
        fail, pidfile = map(os.path.abspath, ("fail", "d.pid"))
        class D(Daemon):
            def start(self):
                try:
                    super().start()
                except AlreadyRunning:
                    open(fail, "w").close()
                    while os.path.exists(pidfile):
                        time.sleep(0.01)
                    raise
            def setup(self):
                if not os.path.exists(fail):
                    while not os.path.exists(fail):
                        time.sleep(0.01)
                    raise OSError("no blood")
            def run(self):
                self.sleep()
        D(pidfile).main()
    """)
    first = box.popen(script, "start")
    old = box.pid()
    done = box.run(script, "start")
    assert (done.returncode, done.stdout) == (0, f"D: started, pid {box.pid()}\n")
    assert (first.wait(20), box.pid() != old) == (1, True)


def test_options_that_can_be_read_once_are_there_for_every_start(box: support.Sandbox) -> None:
    done = box.run("""
        import os, signal
        from daemon_context import DEFAULT_STEPS, Daemon
        kept = open("kept", "w")
        class D(Daemon):
            def setup(self):
                assert not kept.closed
                assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
                assert os.getsid(0) != os.getpid() == int(open(d.pidfile).read())
            def run(self):
                self.sleep()
        d = D(os.path.abspath("d.pid"), files_preserve=iter([kept]), steps=iter(DEFAULT_STEPS),
              signal_map=iter([(signal.SIGUSR1, None)]))
        d.start()
        d.restart()
        d.stop()
        print("done")
    """)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_signal_map_that_is_none_is_refused(box: support.Sandbox) -> None:
    done = box.run(
        """
        from daemon_context import Daemon
        class D(Daemon):
            run = lambda self: None
        D("d.pid", signal_map=5).main()
        """,
        "start",
    )
    assert done.returncode == 6, done
    assert "signal_map=5 can't be used: expected a mapping" in done.stderr


def test_start_of_ones_own_around_daemonize_leaves_its_end(box: support.Sandbox) -> None:
    script = box.script("""
        import os, sys
        from daemon_context import Daemon
        class D(Daemon):
            def start(self):
                self.daemonize()
                if os.fork() == 0:
                    sys.exit(0)
                os.wait()
                self.run()
            def run(self):
                self.tell("the child has ended")
                self.sleep()
        D("d.pid").main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "has ended" in box.run(script, "status").stdout)
    assert box.run(script, "stop").returncode == 0
    assert support.only_its_end(box.path)


def test_a_start_that_is_refused_leaves_the_status_alone_whatever_the_pid_file(
    box: support.Sandbox,
) -> None:
    """A context would enter this one in the daemon only, long after the status file."""
    script = box.script("""
        from daemon_context import Daemon, PidFile
        class Own(PidFile):
            def acquire(self, timeout=None):
                super().acquire(timeout)
        class Sleeper(Daemon):
            def run(self):
                self.sleep()
        Sleeper(Own("d.pid")).main()
    """)
    assert box.run(script, "start").returncode == 0
    said = read(str(box.path / "d.pid.status"))
    assert said
    assert "runs already" in box.run(script, "start").stdout
    assert read(str(box.path / "d.pid.status")) == said
    assert box.run(script, "stop").returncode == 0
