"""The `Daemon` class, verb by verb, as a script is used."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon_context.control.lastend import record
from daemon_context.control.statusfile import StatusFile, read

from . import support
from .pidfiles import take_lock

HEARTBEAT = """
    import os, signal, subprocess, sys, time
    from daemon_context import Daemon

    class Heartbeat(Daemon):
        \"\"\"A heart that beats.\"\"\"
        def setup(self):
            print("setup", flush=True)
            if os.path.exists(CONF + "-fails"):
                raise RuntimeError("no blood")
        def run(self):
            for number in self.every(0.05):
                self.tell(f"beat {number}")
            print("loop ended", flush=True)
        def cleanup(self):
            print("cleanup", flush=True)
        def on_reload(self):
            with open(CONF) as file:
                if file.read() == "bad":
                    raise ValueError("bad configuration")
            print("reloaded", flush=True)

    CONF = os.path.abspath("conf")
    if __name__ == "__main__":
        Heartbeat("d.pid", stdout="d.log", stderr="d.log").main()
"""


@pytest.fixture
def heartbeat(box: support.Sandbox) -> Path:
    """A script with all the verbs."""
    (box.path / "conf").write_text("good")
    return box.script(HEARTBEAT, "heartbeat.py")


def log(box: support.Sandbox) -> list[str]:
    return (box.path / "d.log").read_text().splitlines()


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


def test_words_that_can_not_be_shown_here_leave_the_exit_status_as_it_is(
    box: support.Sandbox,
) -> None:
    script = box.script("""
        from daemon_context import Daemon

        class Zähler(Daemon):
            def run(self):
                self.tell("fünf → sechs")
                self.sleep()

        Zähler("d.pid").main()
    """)
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = box.run(script, "start", env=ascii_only)
    pid = box.pid()
    assert (done.returncode, done.stdout) == (0, f"Z\\xe4hler: started, pid {pid}\n")

    def status() -> str:
        done = box.run(script, "status", env=ascii_only)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    support.until(lambda: f"pid {pid}: f\\xfcnf \\u2192 sechs" in status(), what="its words")
    assert box.run(script, "stop", env=ascii_only).returncode == 0


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


STUBBORN = """
    import os, signal, subprocess, sys, time
    from daemon_context import Daemon
    class D(Daemon):
        def run(self):
            child = subprocess.Popen([sys.executable, "-c",
                "import signal, time; signal.signal(15, signal.SIG_IGN);"
                "print(1, flush=True); time.sleep(600)"],
                stdout=subprocess.PIPE)
            child.stdout.readline()
            print(child.pid, flush=True)
            while True:
                try: time.sleep(600)
                except BaseException: pass
    d = D("d.pid", stdout="d.log", signal_map={signal.SIGTERM: None})
    if sys.argv[1] == "stop":
        assert d.stop(schedule=(("TERM", 0.2), ("KILL", 5))) is None
        print(d.did)
    else:
        d.main()
"""


def test_daemon_and_child_that_ignore_sigterm_are_killed(box: support.Sandbox) -> None:
    script = box.script(STUBBORN)
    assert box.run(script, "start").returncode == 0
    child = int(box.text("d.log"))
    pid = box.pid()
    done = box.run(script, "stop")
    assert done.returncode == 0, done
    assert f"killed pid {pid}, " in done.stdout
    assert not support.alive(pid)
    support.gone(child)


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


def test_run_foreground_keeps_the_terminal_and_the_lock(
    box: support.Sandbox, heartbeat: Path
) -> None:
    script = box.script("""
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                print("in the foreground", flush=True)
                self.sleep()
                return 7
        D("d.pid").main()
    """)
    program = box.popen(script, "run")
    assert program.stdout is not None
    assert program.stdout.readline() == "in the foreground\n"
    assert box.pid() == program.pid
    assert box.run(heartbeat, "status", "--json").returncode == 0
    assert "runs already" in box.run(script, "start").stdout
    assert box.run(script, "stop").returncode == 0
    assert program.wait(20) == 7
    assert not (box.path / "d.pid").exists()


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


def test_foreign_pid_file_of_a_live_process_is_refused(
    box: support.Sandbox, heartbeat: Path
) -> None:
    innocent = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env=box.environ
    )
    (box.path / "d.pid").write_text(f"{innocent.pid}\n")
    done = box.run(heartbeat, "status")
    assert done.returncode == 4
    assert "nothing proves" in done.stdout
    done = box.run(heartbeat, "stop")
    assert done.returncode != 0
    assert "nothing proves" in done.stderr
    assert f"{str(box.path / 'd.pid')!r} names pid" in done.stderr
    assert done.stderr.endswith(
        "; end it by its pid if it is, or start: that takes the file over\n"
    )
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()


@pytest.mark.root
def test_reused_pid_is_never_signalled(box: support.Sandbox, heartbeat: Path) -> None:
    """In a pid namespace of its own the daemon's number is really given to an innocent."""
    script = box.script("""
        import os, signal, subprocess, sys
        run = lambda verb: subprocess.run([sys.executable, "heartbeat.py", verb],
                                          capture_output=True, text=True)
        assert run("start").returncode == 0
        pid = int(open("d.pid").read())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        innocent = subprocess.Popen(["sleep", "600"])
        assert innocent.pid == pid, (innocent.pid, pid)
        print(run("status"), run("stop"), innocent.poll())
        assert run("start").returncode == 0
        assert run("stop").returncode == 0
        assert innocent.poll() is None
        print("innocent lives")
        innocent.kill()
    """)
    done = box.run(script, prefix=["unshare", "-p", "-f", "--mount-proc", "--kill-child"])
    assert done.stdout.endswith("innocent lives\n"), done


@pytest.mark.parametrize(("verb", "what"), [("start", "to be ready"), ("stop", "to end")])
def test_a_wait_is_shown_on_a_terminal_only(box: support.Sandbox, verb: str, what: str) -> None:
    script = box.script("""
        import time
        from daemon_context import Daemon
        class D(Daemon):
            def setup(self):
                time.sleep(2.2)
            def run(self):
                for _ in self.every(3600):
                    pass
            def cleanup(self):
                time.sleep(2.2)
        D("d.pid").main()
    """)
    if verb == "stop":
        done = box.run(script, "start")
        assert (done.returncode, done.stderr) == (0, "")
    program, said = on_a_terminal(box, script, verb)
    assert program.wait(20) == 0
    assert f"waiting for pid {box.pid() if verb == 'start' else ''}" in said
    assert f"{what}, 1 s" in said


def on_a_terminal(
    box: support.Sandbox, script: Path, verb: str
) -> tuple[subprocess.Popen[str], str]:
    """Run a verb on a terminal until its last user is gone; what it said."""
    parent, child = pty.openpty()
    program = box.popen(script, verb, stdin=child, stdout=child, stderr=child)
    os.close(child)
    said = b""
    try:
        while chunk := os.read(parent, 4096):
            said += chunk
    except OSError:  # nobody has it any more: the daemon does not keep it
        pass
    os.close(parent)
    return program, said.decode()


def test_many_daemons(box: support.Sandbox) -> None:
    """Started, listed and stopped by one program."""
    done = box.run(
        textwrap.dedent("""
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.sleep()
        daemons = [D(f"{n}.pid") for n in range(200)]
        assert {d.start() for d in daemons} == {None}
        pids = {d.status().pid for d in daemons}
        assert len(pids) == 200 and None not in pids
        assert all(d.status().state == "ready" for d in daemons)
        for d in daemons:
            d.stop()
        assert all(d.status().state == "stopped" for d in daemons)
        print("done")
    """),
        timeout=120,
    )
    assert done.stdout == "done\n", done
    assert support.only_its_end(box.path)


def test_stop_races_with_the_daemons_own_end_and_with_restart(box: support.Sandbox) -> None:
    done = box.run(
        textwrap.dedent("""
        import subprocess, sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.sleep(0.02)
        for _ in range(20):
            d = D("d.pid")
            d.start()
            racing = subprocess.Popen([sys.executable, "-c",
                "from daemon_context import Daemon\\n"
                "class D(Daemon):\\n"
                "    def run(self): self.sleep(0.02)\\n"
                "D('d.pid').restart()"], stderr=subprocess.DEVNULL)
            d.stop()
            racing.wait()
            d.stop()
            assert not d.status().is_running, d.status()
        print("done")
    """),
        timeout=120,
    )
    assert done.stdout == "done\n", done


@pytest.mark.root
def test_daemon_in_a_chroot_says_how_it_is(box: support.Sandbox) -> None:
    """Also where the chroot has the pid file's directory in it, under the same path."""
    inside = box.path / "jail" / str(box.path)[1:]
    inside.mkdir(parents=True)
    script = box.script(f"""
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.tell("in jail")
                for _ in self.every(0.1):
                    pass
        D("d.pid", chroot_directory={str(box.path / "jail")!r}).main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "in jail" in box.run(script, "status").stdout)
    assert box.run(script, "reload").returncode == 0
    assert box.run(script, "stop").returncode == 0
    assert not list(inside.iterdir())
    assert box.run(script, "status").returncode == 3


SUBREAPER = """
    import ctypes, json, os, signal, subprocess, sys
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: the daemon becomes our child
    def verb(name):
        return subprocess.run([sys.executable, "heartbeat.py", name], capture_output=True)
    assert verb("start").returncode == 0
    pid = int(open("d.pid").read())
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    print(verb("status").returncode, verb("stop").returncode, verb("start").returncode)
    print(verb("status").returncode, verb("stop").returncode)
"""


def test_a_zombie_is_not_running(box: support.Sandbox, heartbeat: Path) -> None:
    done = box.run(SUBREAPER)
    assert done.stdout == "1 0 0\n0 0\n", done


@pytest.mark.root
def test_a_daemon_in_another_pid_namespace_is_seen_and_left_alone(
    box: support.Sandbox, heartbeat: Path
) -> None:
    box.run(heartbeat, "start")
    pid = box.pid()
    inside = [
        "unshare",
        "-p",
        "-f",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
    ]
    done = box.run(heartbeat, "status", "--json", prefix=inside)
    status = json.loads(done.stdout)
    assert (done.returncode, status["pid"], status["visible"]) == (0, None, False)
    assert "another pid namespace" in status["reason"]
    for verb in ("stop", "reload", "restart"):
        done = box.run(heartbeat, verb, prefix=inside)
        assert done.returncode != 0, done
        assert "another pid namespace" in done.stderr
    assert "runs already" in box.run(heartbeat, "start", prefix=inside).stdout
    assert support.alive(pid)
    assert box.run(heartbeat, "stop").returncode == 0


@pytest.mark.root
def test_every_verb_works_without_proc(box: support.Sandbox, heartbeat: Path) -> None:
    prefix = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]

    def verb(name: str, status: int = 0) -> str:
        done = box.run(heartbeat, name, prefix=prefix)
        assert done.returncode == status, done
        return done.stdout

    verb("start")
    pid = box.pid()
    assert f"running with pid {pid}" in verb("status")
    assert f"runs already, pid {pid}" in verb("start")
    verb("reload")
    verb("restart")
    assert not support.alive(pid)
    pid = box.pid()
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)
    assert f"not running, but its pid file is there (it was pid {pid})" in verb("status", 1)
    verb("start")
    assert f"stopped (pid {box.pid()})" in verb("stop")
    assert "not running" in verb("status", 3)
    box.settled()


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


def test_a_dead_daemon_whose_child_holds_its_lock_does_not_run(box: support.Sandbox) -> None:
    script = box.script("""
        import ctypes, signal
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                if not ctypes.PyDLL(None).fork():  # as a library does it: no hook of Python's runs
                    while True:
                        signal.pause()
                self.tell("forked")
                self.sleep()
        D("d.pid").main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "forked" in box.run(script, "status").stdout)
    pid = box.pid()
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)
    (child,) = box.processes()
    done = box.run(script, "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the daemon is dead, but its child (pid {child}) still holds its lock" in done.stderr
    assert "end that process" in done.stderr
    os.kill(child, signal.SIGKILL)
    support.gone(child)
    assert "started" in box.run(script, "start").stdout


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


def test_a_child_of_a_daemon_that_does_not_end_restarts_it(box: support.Sandbox) -> None:
    """It is of the group that is killed with the daemon, and has to start the next one."""
    script = box.script("""
        import os, signal, subprocess, sys, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self.tell("deaf")
                while True:
                    time.sleep(0.05)
                    if os.path.exists(asked):
                        os.unlink(asked)
                        subprocess.Popen([sys.executable, "-B", script, "restart"])
        script = os.path.abspath(sys.argv[0])
        place = os.path.dirname(script)
        asked = os.path.join(place, "asked")
        D(os.path.join(place, "d.pid")).main()
    """)
    assert box.run(script, "start").returncode == 0
    old = box.pid()
    support.until(lambda: "deaf" in box.run(script, "status").stdout)
    (box.path / "asked").touch()
    support.gone(old)
    support.until(lambda: "deaf" in box.run(script, "status").stdout)
    assert box.pid() != old


def test_what_can_not_be_known_is_unknown(box: support.Sandbox, heartbeat: Path) -> None:
    reader = box.popen("""
        import fcntl, sys
        open("d.pid.lock", "a").close()
        file = open("d.pid.lock")
        fcntl.lockf(file, fcntl.LOCK_SH)
        print("locked", flush=True)
        sys.stdin.read()
    """)
    assert reader.stdout is not None
    reader.stdout.readline()
    for verb, code in (("status", 4), ("stop", 1), ("reload", 1), ("start", 1)):
        done = box.run(heartbeat, verb)
        assert done.returncode == code, (verb, done)
        assert "is locked, and has no record of a daemon" in done.stdout + done.stderr
    reader.communicate("")
    assert box.run(heartbeat, "start").returncode == 0


@pytest.mark.parametrize("verb", ["start", "status", "stop"])
def test_verbs_on_a_terminal(box: support.Sandbox, heartbeat: Path, verb: str) -> None:
    if verb != "start":
        box.run(heartbeat, "start")
    program, said = on_a_terminal(box, heartbeat, verb)
    assert program.wait(20) == 0
    assert said.startswith("Heartbeat: ")
    assert said.count("\n") == 1


def test_a_child_that_run_forks_does_not_end_the_daemon(box: support.Sandbox) -> None:
    """It may leave by sys.exit(), as forked children do: status and reload go on working."""
    script = box.script("""
        import os, sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                child = os.fork()
                if child == 0:
                    sys.exit(3)
                self.tell(f"child {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
                self.sleep()
            def cleanup(self):
                print("cleanup by", os.getpid(), flush=True)
        D("d.pid", stdout="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    support.until(lambda: "child 3" in box.run(script, "status").stdout)
    assert box.run(script, "reload").returncode == 0
    assert box.run(script, "stop").returncode == 0
    assert log(box) == [f"cleanup by {pid}"]


def test_words_of_a_child_that_run_forks_are_not_the_daemons(box: support.Sandbox) -> None:
    """It knows of no later reload, nor of the daemon's end."""
    script = box.script("""
        import os, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                if os.fork() == 0:
                    for number in 1, 2:
                        while not os.path.exists(f"tell {number}"):
                            time.sleep(0.01)
                        self.tell("words of a child")
                        open(f"told {number}", "w").close()
                    os._exit(0)
                while True:
                    time.sleep(0.01)
            def on_reload(self):
                if os.path.exists("conf"):
                    open("reloading", "w").close()
                    while not os.path.exists("go on"):
                        time.sleep(0.01)
                    raise ValueError("bad configuration")
        D("d.pid", working_directory=".").main()
    """)

    def told(number: int) -> None:
        (box.path / f"tell {number}").touch()
        support.until((box.path / f"told {number}").exists)

    assert box.run(script, "start").returncode == 0
    assert box.run(script, "reload").returncode == 0
    told(1)
    (box.path / "conf").touch()
    reload = box.popen(script, "reload")
    support.until((box.path / "reloading").exists)
    (box.path / "go on").touch()
    assert "bad configuration" in reload.communicate(timeout=20)[1]
    assert box.run(script, "stop").returncode == 0
    told(2)
    box.settled()
    assert support.only_its_end(box.path)


def test_descriptors_that_run_closes_are_nobody_elses_afterwards(box: support.Sandbox) -> None:
    """What the program opens under the status file's number stays its own."""
    script = box.script("""
        import os
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                os.closerange(3, 64)
                files = [open(f"data-{number}", "a+") for number in range(8)]
                self.tell("to nobody")
                for file in files:
                    print("precious", file=file, flush=True)
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log", stderr="d.log", working_directory=".").main()
    """)
    assert box.run(script, "start").returncode == 0
    box.settled()
    assert [(box.path / f"data-{n}").read_text() for n in range(8)] == ["precious\n"] * 8
    assert log(box) == ["cleanup"]


OWN_WAYS = {
    "daemonize": "daemonize = lambda self: None",
    "steps": "steps = DEFAULT_STEPS.remove('write-pidfile').remove('lock-pidfile')",
}


@pytest.mark.parametrize("way", OWN_WAYS)
def test_where_nobody_has_begun_the_status_file_there_is_none(
    box: support.Sandbox, way: str
) -> None:
    done = box.run(f"""
        import os
        from daemon_context import DEFAULT_STEPS, Daemon
        class D(Daemon):
            steps = None
            {OWN_WAYS[way]}
            def run(self):
                self.tell("hello")
                with open("files", "w") as file:
                    file.write("\\n".join(os.listdir()))
        D("d.pid", working_directory=".", steps=D.steps).start()
    """)
    assert done.returncode == 0, done
    box.settled()
    assert {*box.text("files").split()} == {"program.py", "files"}


INTERRUPTED = """
    import os, signal, sys, time
    from daemon_context import Daemon
    class D(Daemon):
        def run(self):
            rename = os.rename
            def interrupted(*args):
                os.rename = rename
                os.kill(os.getpid(), signal.{signal})
                rename(*args)
            os.rename = interrupted
            self.tell("before")
            while True:
                time.sleep(1)
        def on_reload(self):
            self.tell("after")
    D("d.pid", stdout="d.log", stderr="d.log").main()
"""


def test_a_reload_in_the_middle_of_tell(box: support.Sandbox) -> None:
    script = box.script(INTERRUPTED.format(signal="SIGHUP"))
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "after" in box.run(script, "status").stdout)
    said = json.loads(box.text("d.pid.status"))
    assert (said["reloads"], said["text"]) == (1, "after")
    assert box.run(script, "stop").returncode == 0
    assert log(box) == []
    assert support.only_its_end(box.path)
    assert {path.name for path in box.path.iterdir()} == {"program.py", "d.log", "d.pid.status"}


def test_a_daemon_that_is_ended_in_the_middle_of_tell_leaves_its_end(box: support.Sandbox) -> None:
    box.run(INTERRUPTED.format(signal="SIGTERM"), "start")
    box.settled()
    assert log(box) == []
    assert support.only_its_end(box.path)
    assert {path.name for path in box.path.iterdir()} == {"program.py", "d.log", "d.pid.status"}


def test_threads_that_tell_at_once(box: support.Sandbox) -> None:
    script = box.script("""
        import threading
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                def work(number):
                    for count in range(300):
                        self.tell(f"{number}: {count}")
                threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.tell("done")
                self.sleep()
        D("d.pid", stdout="d.log", stderr="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "done" in box.run(script, "status").stdout)
    assert log(box) == []
    assert box.run(script, "stop").returncode == 0


REFUSED = """
    import os, signal, sys
    from daemon_context import Daemon
    from tests.launching import surroundings
    def interrupted(*args):
        os.fchmod = fchmod
        os.kill(os.getpid(), signal.SIGINT)
        fchmod(*args)
    fchmod = os.fchmod
    class D(Daemon):
        def run(self):
            pass
    if sys.argv[1] == "interrupted":
        os.fchmod = interrupted
    before = surroundings()
    try:
        D("d.pid", uid=65534).start()
    except BaseException as error:
        print(type(error).__name__, getattr(error, "step", None))
    os.fchmod = fchmod
    after = surroundings()
    print({key: [before[key], after[key]] for key in before if before[key] != after[key]})
"""


@pytest.mark.root
def test_a_status_file_that_can_not_be_given_away_is_not_left(box: support.Sandbox) -> None:
    prefix = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown"]
    done = box.run(REFUSED, "refused", prefix=prefix)
    assert done.stdout.splitlines() == ["DaemonOSEnvironmentError open-status", "{}"], done


@pytest.mark.root
def test_an_interrupt_while_the_status_file_is_made_leaves_none(box: support.Sandbox) -> None:
    done = box.run(REFUSED, "interrupted")
    assert done.stdout.splitlines() == ["KeyboardInterrupt None", "{}"], done


def test_what_is_no_file_in_the_status_files_place(box: support.Sandbox) -> None:
    """It is not read, and a program that asks again and again does not run out of descriptors."""
    done = box.run("""
        import os
        from daemon_context import Daemon
        def numbers():
            return len(os.listdir("/proc/self/fd"))
        daemon = Daemon("d.pid")
        for make, remove in ((os.mkdir, os.rmdir), (os.mkfifo, os.unlink)):
            make("d.pid.status")
            writer = os.open("d.pid.status", os.O_RDWR) if make is os.mkfifo else -1
            before = numbers()
            print({daemon.status().state for _ in range(10)}, numbers() - before)
            remove("d.pid.status")
    """)
    assert done.stdout.splitlines() == ["{'stopped'} 0"] * 2, done


WORDY = """
    import os
    from daemon_context import Daemon
    class Silent(Exception):
        def __str__(self):
            raise ValueError("no text")
    ERRORS = {
        "huge": ValueError("x" * 200_000),
        "silent": Silent(),
        "rude": ValueError("\\x1b[2J"),
    }
    class D(Daemon):
        def on_reload(self):
            with open("error") as file:
                raise ERRORS[file.read()]
        def run(self):
            self.tell("\\x1b[2J \\udcff" + "y" * 200_000)
            self.sleep()
    D("d.pid", working_directory=".", stdout="d.log", stderr="d.log").main()
"""


def test_words_of_any_size_and_kind_reach_those_who_ask(box: support.Sandbox) -> None:
    """None that a terminal would obey."""
    script = box.script(WORDY)
    assert box.run(script, "start").returncode == 0
    box.text("d.pid.status")

    def told() -> str:
        done = box.run(script, "status", env={"PYTHONIOENCODING": "utf-8:strict"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = support.until(lambda: found if "yyy" in (found := told()) else "")
    assert r": \x1b[2J \udcffyyy" in said
    for error, words in (
        ("huge", "ValueError: xxx"),
        ("silent", "Silent: (its text can't be made)"),
        ("rude", r"ValueError: \x1b[2J"),
    ):
        (box.path / "error").write_text(error)
        done = box.run(script, "reload")
        assert f"on_reload() raised {words}" in done.stderr
        assert "\x1b" not in done.stderr
        assert "characters left out" in done.stderr or error != "huge"
    assert box.run(script, "stop").returncode == 0
    refused = [line for line in log(box) if line.startswith("D: reload failed")]
    assert len(refused) == 3
    assert "\x1b" not in box.text("d.log")


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


def test_a_daemon_in_the_foreground_keeps_its_neighbours_when_it_is_killed(
    box: support.Sandbox,
) -> None:
    """Also where the shell that started them, and led their session, has ended: as under ssh."""
    script = box.script("""
        import time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                while True:
                    time.sleep(1)
        daemon = D("d.pid", signal_map={15: None})
        if __import__("sys").argv[1] == "stop":
            assert daemon.stop((("TERM", 0.1), ("KILL", 20))) is None
            print(daemon.did)
        daemon.main()
    """)
    shell = '"$0" -B "$1" run </dev/null >/dev/null 2>&1 & sleep 1000 & echo $! > neighbour'
    command = ["sh", "-c", shell, sys.executable, str(script)]
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.run(
        command, cwd=box.path, env=box.environ, start_new_session=True, check=True, **streams
    )
    pid, neighbour = box.pid(), box.pid("neighbour")
    assert f"killed pid {pid}, " in box.run(script, "stop").stdout
    support.gone(pid)
    assert support.alive(neighbour)


def test_a_stop_that_runs_out_of_descriptors_leaves_none(
    box: support.Sandbox, heartbeat: Path
) -> None:
    assert box.run(heartbeat, "start").returncode == 0
    done = box.run("""
        import os, resource
        from daemon_context import Daemon, DaemonError
        from daemon_context.pidfile import refusals
        daemon = Daemon("d.pid")
        free = os.dup(0)
        os.close(free)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        for _ in range(2):
            try:
                daemon.stop()
            except DaemonError as error:
                print(error)
        print(os.dup(0) == free)
    """)
    assert done.stdout.count("Too many open files; close some files") == 2, done
    assert done.stdout.endswith("True\n")
    assert box.run(heartbeat, "stop").returncode == 0


@pytest.mark.root
def test_the_last_kill_spares_who_has_got_the_groups_number_since(box: support.Sandbox) -> None:
    """The daemon has ended, and a child that native code forked into another session keeps the
    lock: with the daemon its group has gone, and the number may be anybody's.
    """
    script = box.script(
        """
        import ctypes, os, signal, sys, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                if ctypes.CDLL(None).fork() == 0:
                    os.setsid()
                    open("apart", "w").close()
                    time.sleep(1000)
                while True:
                    time.sleep(1)
        daemon = D("d.pid", stdout="d.log", stderr="d.log", signal_map={15: signal.SIG_DFL},
                   working_directory=".")
        if sys.argv[1] == "stop":
            daemon.stop((("TERM", 5), ("KILL", 0.2)))
        daemon.main()
    """,
        "daemon.py",
    )
    done = box.run(
        f"""
        import os, subprocess, sys, time
        def verb(word):
            return subprocess.Popen([sys.executable, "-B", {str(script)!r}, word],
                                    stderr=subprocess.PIPE, text=True)
        assert verb("start").wait() == 0
        while not os.path.exists("apart"):
            time.sleep(0.01)
        pid = int(open("d.pid").read())
        group = os.getpgid(pid)
        stop = verb("stop")
        os.waitpid(pid, 0)  # it has become our child
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(group - 1))
        stranger = os.fork()
        if stranger == 0:
            os.setsid()
            time.sleep(1000)
        assert stranger == group
        said = stop.communicate()[1]
        print("but its child" in said or said)
        print(os.waitpid(stranger, os.WNOHANG))
        """,
        prefix=OWN_PIDS,
    )
    assert done.stdout.splitlines()[-2:] == ["True", "(0, 0)"], done


OWN_PIDS = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def test_a_status_file_that_is_overwritten_in_place_is_never_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shorter words leave no moment with the end of longer ones behind them."""
    path = str(tmp_path / "d.pid.status")
    file = StatusFile(path)
    options: Any = SimpleNamespace(chroot_directory="/", owner_changes=False)
    file.begin(options)
    told = []
    pwrite = os.pwrite

    def writing(*args: Any) -> int:
        written = pwrite(*args)
        told.append(read(path))
        return written

    monkeypatch.setattr(os, "pwrite", writing)
    for text in ("long" * 100, "short"):
        file.tell(text=text)
    file.end(record("exit", 1))
    texts = ["long" * 100, "short", "short"]
    assert [said and said["text"] for said in told] == texts
    assert told[-1]["ended"]["how"] == "exit"


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


@pytest.mark.root
@pytest.mark.parametrize("what", ["tell", "reload"])
def test_a_daemon_goes_on_where_its_status_file_has_no_room(
    box: support.Sandbox, what: str
) -> None:
    place = box.path / "full"
    place.mkdir()
    done = box.run("""
        import os, signal, sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                with open("full/rest", "wb", buffering=0) as rest:
                    try:
                        while rest.write(bytes(4096)):
                            pass
                    except OSError as error:
                        print(error.strerror)
                if sys.argv[2] == "tell":
                    self.tell("x" * 16384)
                else:
                    os.kill(os.getpid(), signal.SIGHUP)
                    self.sleep(0.01)
                os.unlink("full/rest")
                self.tell("goes on")
                print(self.status())
            def on_reload(self):
                print("reloads")
                raise ValueError("x" * 16384)
        D("full/d.pid", working_directory=".").main(sys.argv[1:2])
    """, "run", what, prefix=[
        "unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o size=64k none full; exec "$@"', "sh",
    ])  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("D: reload failed" if what == "reload" else "")
    assert what == "reload" or not done.stderr
    first, *reload, last = done.stdout.splitlines()
    assert first == "No space left on device"
    assert reload == ["reloads"] * (what == "reload")
    assert last.endswith(": goes on")


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


def test_a_reload_of_a_daemon_without_a_status_file_says_so(
    box: support.Sandbox, heartbeat: Path
) -> None:
    box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    done = box.run(heartbeat, "reload")
    assert done.returncode == 1
    assert "there is no" in done.stderr
    assert "d.pid.status" in done.stderr
    assert "only root" not in done.stderr


def test_ctrl_c_ends_a_daemon_in_the_foreground_quietly(box: support.Sandbox) -> None:
    program = box.popen("""
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                print("runs", flush=True)
                self.sleep()
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid").main()
    """, "run")  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "runs\n"
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=20) == ("cleanup\n", "")
    assert program.returncode == 130
    assert support.only_its_end(box.path)


@pytest.mark.parametrize("verb", ["run", "start"])
def test_sigterm_ends_what_run_has_left_behind(box: support.Sandbox, verb: str) -> None:
    """A thread that goes on for ever, after the loop of run() has ended by itself."""
    program = box.popen("""
        import os, threading, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.sleep(0.01)
                threading.Thread(target=time.sleep, args=[1000]).start()
            def cleanup(self):
                with open("left", "w") as file:
                    print(os.getpid(), file=file)
        D("d.pid", working_directory=".").main()
    """, verb)  # fmt: skip
    pid = box.pid("left")

    def ended() -> bool:  # by the first one, unless that came before the end of the end
        if support.alive(pid):
            os.kill(pid, signal.SIGTERM)
        return not support.alive(pid)

    support.until(ended)
    program.wait(20)


@pytest.mark.parametrize("end", ["pass", "raise RuntimeError('no luck')"])
def test_who_works_in_threads_behind_run_is_the_daemon(box: support.Sandbox, end: str) -> None:
    """As recipes whose run() starts threads, and returns: there would be a second one soon."""
    script = box.script(f"""
        import threading, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.tell("well")
                self.sleep(0)
                threading.Thread(target=time.sleep, args=[1000]).start()
                {end}
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log", stderr="d.log", settle=0).main()
    """)
    assert box.run(script, "start").returncode == 0
    box.text("d.log")
    support.until(lambda: "raise" not in end or log(box)[-1] == "RuntimeError: no luck")
    pid = box.pid()
    assert box.run(script, "start").stdout == f"D: runs already, pid {pid}\n"
    assert f"running with pid {pid}: well" in box.run(script, "status").stdout
    assert "stopped" in box.run(script, "stop").stdout
    assert not support.alive(pid)
    assert support.only_its_end(box.path)


@pytest.mark.parametrize("verb", ["run", "start"])
@pytest.mark.parametrize("end", ["pass", "raise RuntimeError('no luck')", "sys.exit(3)"])
def test_a_daemon_ends_as_a_program_does(box: support.Sandbox, verb: str, end: str) -> None:
    """Threads are waited for, then exit handlers run, however run() ends: those of the daemon."""
    program = box.popen(f"""
        import atexit, os, sys, threading, time
        from daemon_context import Daemon
        def note(text, name="notes"):
            with open(name, "a") as file:
                file.write(text + "\\n")
        class D(Daemon):
            def setup(self):
                atexit.register(note, "exit handler")
            def run(self):
                threading.Thread(target=self.work).start()
                {end}
            def work(self):
                while not os.path.exists("go-on"):
                    time.sleep(0.01)
                note("work is done")
            def cleanup(self):
                note("cleanup")
        if sys.argv[1] == "start":
            atexit.register(note, "exit handler", "notes of the launcher")
        D("d.pid", working_directory=".", stderr="d.log", settle=0).main()
    """, verb)  # fmt: skip
    support.until(lambda: box.text("notes") == "cleanup\n")
    if verb == "start":
        assert program.wait(20) == 0
    (box.path / "go-on").touch()
    box.settled()
    assert box.text("notes") == "cleanup\nwork is done\nexit handler\n"
    if verb == "start":
        assert box.text("notes of the launcher") == "exit handler\n"


@pytest.mark.parametrize("way", ["start", "spawn"])
def test_logging_and_multiprocessing_end_what_the_daemon_has_and_nothing_of_the_launcher(
    box: support.Sandbox, way: str
) -> None:
    """Their exit handlers are registered when they are imported: before the start."""
    program = box.popen("""
        import logging.handlers, multiprocessing, os, sys, time, warnings
        from daemon_context import Daemon, DaemonContext
        from tests.launching import report
        warnings.filterwarnings("ignore", ".*child process")
        fork = multiprocessing.get_context("fork")
        def live(name):
            report(name, os.getpid())
            time.sleep(1000)
        def child(name):
            process = fork.Process(target=live, args=[name], daemon=True)
            process.start()
            while not os.path.exists(name):  # a signal during the fork would be lost
                time.sleep(0.01)
            return process
        def work():
            memory = logging.handlers.MemoryHandler(100, target=logging.FileHandler("records"))
            logging.getLogger().addHandler(memory)
            logging.warning("one record")
            child("child")
        class D(Daemon):
            def run(self):
                work()
        launchers = child("child of the launcher")
        options = dict(pidfile="d.pid", working_directory=".", threads="ignore")
        if sys.argv[1] == "start":
            D(**options).start()
        else:
            DaemonContext(**options).spawn(work)
        while not os.path.exists("go-on"):
            time.sleep(0.01)
        print(launchers.is_alive())
    """, way)  # fmt: skip
    support.gone(int(box.text("child")))
    support.until(lambda: len(box.processes()) == 2)
    (box.path / "go-on").touch()
    assert program.communicate(timeout=20) == ("True\n", "")
    assert box.text("records") == "one record\n"


@pytest.mark.parametrize("way", ["start", "spawn"])
def test_finalizers_run_at_the_end_of_whose_they_are(box: support.Sandbox, way: str) -> None:
    """They are registered at exit once, with the first of all: in the launcher."""
    done = box.run("""
        import os, sys, tempfile, weakref
        from daemon_context import Daemon, DaemonContext
        class Thing:
            pass
        def note():
            with open(PLACE, "a") as file:
                print(os.getpid(), file=file)
        def work():
            global directory
            directory = tempfile.TemporaryDirectory(dir=".", prefix="temporary-")
        class D(Daemon):
            def run(self):
                work()
        PLACE = os.path.abspath("notes")
        thing = Thing()
        weakref.finalize(thing, note)
        if sys.argv[1] == "start":
            D("d.pid", working_directory=".").start()
        else:
            DaemonContext(working_directory=".").spawn(work)
        print(os.getpid())
    """, way)  # fmt: skip
    box.settled()
    assert box.text("notes") == done.stdout
    assert not list(box.path.glob("temporary-*"))


def test_a_child_that_run_forks_ends_nothing_of_the_daemons(box: support.Sandbox) -> None:
    box.run("""
        import atexit, multiprocessing, os, sys, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                atexit.register(lambda: print("exit handler of", os.getpid(), flush=True))
                context = multiprocessing.get_context("fork")
                worker = context.Process(target=time.sleep, args=[1000], daemon=True)
                worker.start()
                child = os.fork()
                if child == 0:
                    sys.exit()
                os.waitpid(child, 0)
                worker.join(0.1)
                print("worker lives:", worker.is_alive(), os.getpid(), flush=True)
        D("d.pid", stdout="d.log", stderr="d.log").main()
    """, "start")  # fmt: skip
    box.settled()
    lives, handler = log(box)
    assert lives.startswith("worker lives: True ")
    assert handler == f"exit handler of {lives.split()[-1]}"


@pytest.mark.parametrize("forks", [True, False])
def test_exit_handlers_where_daemonize_is_of_the_programs_own_making(
    box: support.Sandbox, forks: bool
) -> None:
    """They are all its own, as those of the recipe are."""
    box.run(f"""
        import atexit, os
        from daemon_context import Daemon
        class D(Daemon):
            def daemonize(self):
                if {forks} and os.fork():
                    os._exit(0)
                atexit.register(print, "of daemonize")
            def run(self):
                atexit.register(print, "of run")
        os.dup2(os.open("d.log", os.O_CREAT | os.O_WRONLY), 1)
        atexit.register(print, "of the program")
        D("d.pid").start()
    """)
    box.settled()
    assert log(box) == ["of run", "of daemonize", "of the program"]


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


@pytest.mark.parametrize("verb", ["start", "run"])
def test_a_daemon_replaces_itself(box: support.Sandbox, verb: str) -> None:
    script = box.script("""
        import os, sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.tell("anew" if os.path.exists("d.old") else "")
                if not os.path.exists("d.old"):
                    with open("d.old", "w") as file:
                        file.write(str(os.getpid()))
                    os.execv(sys.executable, [sys.executable, __file__, sys.argv[1]])
                self.sleep()
        D("d.pid", working_directory=".").main()
    """)
    box.popen(script, verb)
    support.until(lambda: "anew" in box.run(script, "status").stdout)
    assert (box.text("d.old") == str(box.pid())) == (verb == "run")
    assert box.run(script, "stop").returncode == 0
    box.settled()
    assert support.only_its_end(box.path)


def test_a_child_of_the_daemon_starts_it_anew(box: support.Sandbox) -> None:
    script = box.script("""
        import os
        from daemon_context import AlreadyRunning, Daemon
        class D(Daemon):
            def run(self):
                if not os.path.exists("d.old"):
                    with open("d.old", "w") as file:
                        file.write(str(os.getpid()))
                    if os.fork() == 0:
                        os.setsid()
                        try:
                            self.start()
                        except AlreadyRunning as error:
                            print("refused", flush=True)
                        self.restart()
                        print("anew", self.status().pid, flush=True)
                        os._exit(0)
                self.sleep()
        D("d.pid", stdout="d.log", working_directory=".").main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "anew" in box.text("d.log"))
    assert log(box) == ["refused", f"anew {box.pid()}"]
    assert box.text("d.old") != str(box.pid())
    assert box.run(script, "stop").returncode == 0
    assert support.only_its_end(box.path)


@pytest.mark.parametrize("kind", ["fork", "forkserver", "spawn"])
def test_workers_run_a_method_of_the_daemon(box: support.Sandbox, kind: str) -> None:
    script = box.script(f"""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from daemon_context import Daemon
        class D(Daemon):
            def setup(self):
                self.base = 10
            def run(self):
                context = multiprocessing.get_context("{kind}")
                with ProcessPoolExecutor(2, context) as pool:
                    print(list(pool.map(self.work, range(3))), flush=True)
            def work(self, number):
                self.tell("at work")
                return self.base + number
        if __name__ == "__main__":
            D("d.pid", stdout="d.log", stderr="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    box.settled()
    assert log(box) == ["[10, 11, 12]"]


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


def test_words_of_a_step_leave_the_status_file_in_place(box: support.Sandbox) -> None:
    """Whatever closes descriptors afterwards."""
    script = box.script("""
        import threading, time
        from daemon_context import DEFAULT_STEPS, Daemon, Step
        class Tell(Step):
            def apply(self, walk):
                daemon.tell("in a step")
        class D(Daemon):
            def run(self):
                self.tell("in run()")
                self.sleep()
        # Beside a thread, what is open is looked up in the daemon.
        threading.Thread(target=time.sleep, args=[1000], daemon=True).start()
        steps = DEFAULT_STEPS.insert_after("detach", Tell())
        daemon = D("d.pid", steps=steps, threads="ignore")
        daemon.main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "in run()" in box.run(script, "status").stdout)
    assert box.run(script, "stop").returncode == 0
    assert support.only_its_end(box.path)


@pytest.mark.parametrize("ready", [False, True])
def test_an_override_of_daemonize_that_fails_in_the_daemon_unwinds_no_frame_of_the_launcher(
    box: support.Sandbox, ready: bool
) -> None:
    done = box.run(
        """
        import os, sys, time
        from daemon_context import Daemon
        class D(Daemon):
            run = lambda self: None
            def daemonize(self):
                super().daemonize()
                if sys.argv[1] == "True":
                    self.ready()
                raise RuntimeError("no luck")
        try:
            D("d.pid", working_directory=".", stderr="d.log").start()
        finally:
            with open("unwound", "a") as file:
                print(os.getpid(), file=file)
        """,
        ready,
    )
    assert done.returncode == (0 if ready else 1)
    assert ("RuntimeError before it was ready: no luck" in done.stderr) == (not ready)
    box.settled()
    assert not ready or "RuntimeError: no luck" in box.text("d.log")
    assert box.text("unwound").count("\n") == 1
    assert support.only_its_end(box.path)


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
