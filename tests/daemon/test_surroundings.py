"""`Daemon` in a chroot, in a namespace, on a terminal, without /proc, beside others."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support


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


def test_a_start_that_runs_out_of_descriptors_says_which_limit_to_raise(
    box: support.Sandbox, heartbeat: Path
) -> None:
    """Wherever that is; and leaves nothing."""
    failed = set()
    for limit in range(5, 40):
        prefix = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"]
        done = box.run(heartbeat, "start", prefix=prefix)
        if done.returncode == 0:
            break
        said = done.stderr.strip()
        assert re.fullmatch(
            r"Heartbeat: cannot [^;]*: Too many open files[^;]*; "
            r"close some files, or raise the limit on open ones \(ulimit -n[^;]*\)",
            said,
        ), (limit, said)
        failed.add(said.partition(": Too")[0])
        assert not list(box.path.glob("d.pid*"))
    assert {
        f"Heartbeat: cannot create the status file {str(box.path / 'd.pid.status')!r}",
        "Heartbeat: cannot detach from the caller: fork, setsid, fork",
    } <= failed
    assert box.run(heartbeat, "stop").returncode == 0


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
        "; end it by its pid if it is the daemon, or start: that takes the file over\n"
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
