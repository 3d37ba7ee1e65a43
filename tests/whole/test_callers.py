"""Whoever starts a daemon gets its prompt back, and can't take the daemon along when it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from tests.helpers import support

PROGRAM = """
    import os, sys
    from daemon_context import DaemonContext
    print("starting")
    with DaemonContext(pidfile="d.pid", detach_process=True, stdout="d.log", stderr="d.log",
                       working_directory=".") as daemon:
        print("started", flush=True)
        daemon.sleep()
"""


def stop(box: support.Sandbox, name: str = "d.pid") -> None:
    """The daemon is there; end it."""
    pid = box.pid(name)
    assert support.alive(pid)
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert not (box.path / name).exists()


# --- callers that wait for the end of their pipes

SHELL = {
    "command substitution": 'out=$({start}); echo "$? $out"',
    "errors too": 'out=$({start} 2>&1); echo "$? $out"',
    "backticks": 'out=`{start}`; echo "$? $out"',
    "pipe": '{start} | cat; echo 0 | cat >/dev/null; echo "${{PIPESTATUS[0]}} done"',
    "pipe of both": "{start} |& cat",
    "process substitution": "cat <({start})",
    "background": "{start} & wait $!",
    "timeout": "timeout 20 {start}",
    "setsid": "setsid --wait {start}",
    "nohup": "nohup {start}",
    "subshell": "({start})",
    "env -i": "env -i {mark}={value} PYTHONPATH={path} {start}",
    "nice": "nice -n 5 {start}",
    "extra descriptors": "exec 7> >(cat) 8>&7 9</dev/null; {start}",
    "coprocess": "coproc {{ {start}; }}; cat <&${{COPROC[0]}}",
    "parallel": "{start} & wait; true",
    "and list": "{start} && echo and",
}


SETSID = pytest.param("setsid", marks=pytest.mark.needs("setsid"))


@pytest.mark.parametrize("caller", [SETSID, *(name for name in SHELL if name != "setsid")])
def test_a_shell_goes_on_when_the_daemon_has_started(box: support.Sandbox, caller: str) -> None:
    start = shlex.join([sys.executable, "-B", str(box.script(PROGRAM))])
    command = SHELL[caller].format(
        start=start, mark=support.MARK, value=box.mark, path=support.ROOT
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=support.DEADLINE,
        cwd=box.path, env=box.environ, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert done.stdout.count("starting") == 1, done
    assert box.text("d.log") == "started\n"
    stop(box)


def test_a_program_that_captures_the_output_goes_on(box: support.Sandbox) -> None:
    done = box.run(
        """
        import subprocess, sys
        done = subprocess.run([sys.executable, sys.argv[1]], capture_output=True, text=True)
        print([done.returncode, done.stdout, done.stderr])
        """,
        box.script(PROGRAM, "daemon.py"),
    )
    assert (done.returncode, done.stdout) == (0, "[0, 'starting\\n', '']\n")
    stop(box)


def test_a_caller_that_waits_for_any_other_inherited_pipe_goes_on(box: support.Sandbox) -> None:
    reader, writer = os.pipe()
    try:
        done = box.run(PROGRAM, pass_fds=[writer])
        assert done.returncode == 0
        os.close(writer)
        os.set_blocking(reader, False)
        assert os.read(reader, 1) == b""  # at its end: nobody else has it
    finally:
        os.close(reader)
    stop(box)


@pytest.mark.parametrize("handler", ["StreamHandler()", "StreamHandler(sys.stdout)"])
def test_a_log_handler_on_a_pipe_does_not_keep_it_open(box: support.Sandbox, handler: str) -> None:
    done = box.run(f"""
        import logging, sys
        from daemon_context import DaemonContext
        logging.basicConfig(handlers=[logging.{handler}])
        logging.warning("before")
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    assert done.returncode == 0
    assert (done.stdout + done.stderr).count("before") == 1
    stop(box)


@pytest.mark.parametrize("how", ["capture", "pipe"])
def test_a_caller_of_a_start_that_fails_goes_on_too(box: support.Sandbox, how: str) -> None:
    program = box.script("""
        import subprocess
        from tests.helpers.launching import *
        class Start(Step):
            def apply(self, walk):
                subprocess.Popen(["sleep", "1000"])
        steps = DEFAULT_STEPS.insert_after("detach", Start(), Fail("RuntimeError"))
        DaemonContext(detach_process=True, steps=steps).open()
    """)
    if how == "capture":
        assert box.run(program, timeout=support.DEADLINE).returncode == 1
    else:
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} {program} |& cat; exit ${{PIPESTATUS[0]}}"],
            capture_output=True, text=True, timeout=support.DEADLINE, cwd=box.path,
            env=box.environ, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "out of luck" in done.stdout
    box.settled()


def test_a_daemon_that_keeps_its_streams_keeps_its_caller_waiting(box: support.Sandbox) -> None:
    """Or the tests above would prove nothing."""
    caller = box.popen(
        """
        import subprocess, sys
        start = [sys.executable, sys.argv[1]]
        print(subprocess.run(start, capture_output=True, text=True).stdout, end="")
        """,
        box.script(support.NAIVE, "daemon.py"),
    )
    pid = box.pid()
    os.kill(pid, signal.SIGKILL)
    assert caller.communicate(timeout=support.DEADLINE) == ("the launcher is gone\n", "")


# --- terminals

IN_TERMINAL = """
    import os, sys
    from daemon_context import DaemonContext
    from tests.helpers.launching import report
    with DaemonContext(pidfile="d.pid", detach_process=True, working_directory=".") as daemon:
        # A terminal that nobody has: whoever leads a session would get it by opening it.
        opened = os.open(sys.argv[1], os.O_RDWR)
        try:
            os.open("/dev/tty", os.O_RDWR)
            report("tty", "there is one")
        except OSError as error:
            report("tty", error.strerror)
        daemon.sleep()
"""
CTTY = ["setsid", "--ctty"]


def test_a_daemon_has_no_terminal_and_can_get_none(box: support.Sandbox) -> None:
    with support.Terminal() as terminal, support.Terminal() as free:
        os.close(free.slave)
        free.slave = -1
        launcher = box.popen(IN_TERMINAL, free.name, prefix=CTTY, **terminal.streams)
        assert launcher.wait(support.DEADLINE) == 0, terminal.output()
        pid = box.pid()
        _, parent, group, session, tty, foreground, *_ = support.stat(pid)
        assert json.loads(box.text("tty")) == "No such device or address"
        assert support.stat(pid)[4] == "0"
        assert (tty, foreground) == ("0", "-1")
        assert int(session) == int(group) != pid  # no session leader, so it never will
        assert not support.state(int(session))  # and the session has no leader any more
        assert int(parent) != launcher.pid
        os.write(terminal.master, b"\x03\x1a\x1c")
        assert support.alive(pid)
    assert support.alive(pid)
    stop(box)


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_terminal_given_as_a_stream_does_not_become_the_controlling_one(
    box: support.Sandbox, name: str
) -> None:
    with support.Terminal() as terminal:
        done = box.run(f"""
            from daemon_context import DaemonContext
            with DaemonContext(pidfile="d.pid", detach_process=True, {name}={terminal.name!r}) as d:
                d.sleep()
        """)
        assert (done.returncode, done.stderr) == (0, "")
        assert support.stat(box.pid())[4] == "0"
        stop(box)


def test_daemons_survive_the_end_of_the_session_that_started_them(box: support.Sandbox) -> None:
    # The launcher leads the terminal's session: its exit hangs up whoever is still in it.
    program = box.script("""
        import sys
        from daemon_context import DaemonContext
        with DaemonContext(pidfile=f"{sys.argv[1]}.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    for number in range(20):
        with support.Terminal() as terminal:
            launcher = box.popen(program, number, prefix=CTTY, **terminal.streams)
            assert launcher.wait(support.DEADLINE) == 0, terminal.output()
    pids = {box.pid(f"{number}.pid") for number in range(20)}
    assert len(pids) == 20
    assert all(map(support.alive, pids))


def test_a_daemon_is_alone_in_its_group_and_has_no_parent_of_ours(box: support.Sandbox) -> None:
    assert box.run(PROGRAM).returncode == 0
    pid = box.pid()
    assert box.processes() == {pid}
    assert int(support.stat(pid)[3]) not in (os.getsid(0), pid)
    stop(box)


# --- surroundings


def test_an_empty_environment(box: support.Sandbox) -> None:
    prefix = ["env", "-i", f"{support.MARK}={box.mark}", f"PYTHONPATH={support.ROOT}"]
    assert box.run(PROGRAM, prefix=prefix).returncode == 0
    stop(box)


@pytest.mark.parametrize("fails", [False, True])
def test_what_cron_gives_to_its_jobs(box: support.Sandbox, fails: bool) -> None:
    # Not Debian's alone: others wait for the end of the pipe, to mail what comes through it.
    environ = {
        support.MARK: box.mark, "PYTHONPATH": support.ROOT, "SHELL": "/bin/sh", "HOME": box.path,
        "LOGNAME": "somebody", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    settings = [f"{name}={value}" for name, value in environ.items()]
    done = box.run(
        """
        import os, sys
        from daemon_context import DaemonContext
        from tests.helpers.launching import report
        print("starting")
        context = DaemonContext(pidfile=sys.argv[1], working_directory=".")
        facts = [context.supervisor.name, context.detach_process]
        with context as daemon:
            report("facts", facts)
            daemon.sleep()
        """,
        "no/d.pid" if fails else "d.pid",
        prefix=["setsid", "--wait", "env", "-i", *settings, "sh", "-c", '"$@"; exit $?', "sh"],
        stdin=None, input="",
    )  # fmt: skip
    assert done.stdout == "starting\n"
    if fails:
        assert done.returncode == 1
        assert "cannot lock the pid file" in done.stderr
        box.settled()
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(box.text("facts")) == ["shell", True]
        stop(box)


@pytest.mark.root
def test_in_a_pid_namespace(box: support.Sandbox) -> None:
    program = box.script("""
        import os, pathlib, subprocess, sys
        from tests.helpers.launching import *
        if sys.argv[1:] == ["start"]:
            context = DaemonContext(pidfile="d.pid", detach_process=True, working_directory=".")
            with context as daemon:
                report("tree", [os.getpid(), os.getppid(), os.getsid(0)])
                daemon.sleep()
        # As process 1: without a decision of its own it stays in the foreground.
        assert os.getpid() == 1
        assert not DaemonContext().detach_process
        steps = DEFAULT_STEPS.insert_after("set-umask", Fail("exit-7"))
        try:
            DaemonContext(pidfile="d.pid", detach_process="force", steps=steps).open()
        except DaemonError as error:
            failed = describe(error)
        subprocess.run([sys.executable, __file__, "start"], check=True)
        pid = int(pathlib.Path("d.pid").read_text())
        while not pathlib.Path("tree").exists():  # the body goes on while the launcher ends
            os.sched_yield()
        os.kill(pid, 15)
        while pathlib.Path("d.pid").exists():
            os.sched_yield()
        os.waitpid(pid, 0)
        print(json.dumps([pid, failed["message"]]))
    """)
    done = box.run(program, prefix=["unshare", "-pf", "--mount-proc", "--kill-child"])
    assert (done.returncode, done.stderr) == (0, "")
    pid, failure = json.loads(done.stdout)
    assert "exited with status 7 before it was ready (step 8 of 16, fail)" in failure
    tree = json.loads(box.text("tree"))
    assert tree[0] == pid
    assert tree[2] != pid
    assert pid < 100


HIDDEN = """
    import os
    from tests.helpers.launching import *
    assert not os.path.exists("/proc/self")
    outcomes = []
    for way in ("RuntimeError", "exit-7", "SIGKILL", "loop", "fork"):
        steps = DEFAULT_STEPS.insert_after("set-umask", Fail(way))
        try:
            DaemonContext(pidfile="d.pid", stdout="out", detach_process=True, steps=steps,
                          start_timeout=0.2 if way == "loop" else None).open()
        except DaemonError as error:
            outcomes.append(describe(error)["message"])
    outcomes.append(sorted(os.listdir()))
    report("outcomes", outcomes)
    low, high = os.pipe()
    far = os.dup2(high, 200)
    report("pipe", f"pipe:[{os.fstat(far).st_ino}]")
    with DaemonContext(pidfile="d.pid", stdout="out", detach_process=True,
                       working_directory=".") as daemon:
        print("started", flush=True)
        daemon.sleep()
"""


@pytest.mark.root
def test_with_proc_hidden(box: support.Sandbox) -> None:
    mount = 'mount -t tmpfs none /proc && exec "$@"'
    done = box.run(HIDDEN, prefix=["unshare", "-m", "sh", "-c", mount, "sh"])
    assert (done.returncode, done.stderr) == (0, "")
    *messages, files = json.loads(box.text("outcomes"))
    for words, message in zip(
        ["out of luck", "exited with status 7", "was killed by SIGKILL", "start_timeout", "a fork"],
        messages,
        strict=True,
    ):
        assert words in message
    assert files == ["program.py"]
    assert box.text("out") == "started\n"
    pid = box.pid()
    assert json.loads(box.text("pipe")) not in support.descriptors(pid).values()
    assert box.processes() == {pid}
    stop(box)


@pytest.mark.root
def test_as_an_ordinary_user(open_box: support.Sandbox) -> None:
    done = open_box.run("""
        from tests.helpers.launching import *
        from tests.helpers.support import become_nobody
        become_nobody()
        outcomes = []
        for way in ("RuntimeError", "exit-7", "SIGKILL", "loop", "fork"):
            steps = DEFAULT_STEPS.insert_before("write-pidfile", Fail(way))
            try:
                DaemonContext(pidfile="d.pid", stdout="out", detach_process=True, steps=steps,
                              start_timeout=0.2 if way == "loop" else None).open()
            except DaemonError as error:
                outcomes.append(describe(error)["message"])
        outcomes.append(sorted(os.listdir()))
        report("outcomes", outcomes)
        with DaemonContext(pidfile="d.pid", stdout="out", detach_process=True) as daemon:
            print("started", flush=True)
            daemon.sleep()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    *messages, files = json.loads(open_box.text("outcomes"))
    for words, message in zip(
        ["out of luck", "exited with status 7", "was killed by SIGKILL", "start_timeout", "a fork"],
        messages,
        strict=True,
    ):
        assert words in message
    assert files == ["program.py"]
    pid = open_box.pid()
    assert support.status(pid)["Uid"].split() == ["65534"] * 4
    stop(open_box)
