"""As process 1 of a container: orphans are reaped, and no child of the program's own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers import support
from tests.helpers.managers import NEW_PIDS

pytestmark = pytest.mark.root

HEAD = """
    import glob, os, signal, subprocess, sys, time
    from daemon_context import DEFAULT_STEPS, DaemonContext, ReapChildren
    steps = DEFAULT_STEPS.insert_after("install-signals", ReapChildren())
    def zombies():
        found = []
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                fields = open(path).read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z":
                found.append(path)
        return found
    def wait(probe):
        deadline = time.monotonic() + 20
        while not probe():
            assert time.monotonic() < deadline
            time.sleep(0.01)
"""


def test_orphans_are_reaped_and_children_keep_their_statuses(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    with DaemonContext(steps=steps, pidfile="d.pid", umask=0o022) as daemon:
        own = subprocess.Popen(["sh", "-c", "exit 7"])
        forked = os.fork() or os._exit(9)
        for session in ("", "setsid "):
            for _ in range(5):
                subprocess.run(["sh", "-c", f"{session}sh -c 'echo >> $PLACE/o' &"])
        orphans = os.environ["PLACE"] + "/o"
        wait(lambda: os.path.exists(orphans) and len(open(orphans).readlines()) == 10)
        wait(lambda: len(zombies()) == 2)  # our own, until we ask
        assert own.wait() == 7
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 9
        assert zombies() == []
        print(os.getpid(), os.getppid(), open(os.environ["PLACE"] + "/d.pid").read().strip())
        sys.exit(5)
    """,
        prefix=NEW_PIDS,
        env={"PLACE": str(box.path)},
    )
    assert (done.returncode, done.stderr) == (5, "")
    pid, parent, named = done.stdout.split()
    assert (parent, named) == ("1", pid)
    assert not (box.path / "d.pid").exists()


def test_beside_gevent_which_replaces_fork_and_wait(box: support.Sandbox) -> None:
    pytest.importorskip("gevent")
    done = box.run(
        "    from gevent import monkey; monkey.patch_all()"
        + HEAD
        + """
    with DaemonContext(steps=steps, umask=0o022) as daemon:
        subprocess.run(["sh", "-c", "sh -c 'echo >> $PLACE/o' &"])
        wait(lambda: os.path.exists(os.environ["PLACE"] + "/o"))
        assert subprocess.run(["sh", "-c", "exit 7"]).returncode == 7
        wait(lambda: zombies() == [])
        print(os.getppid())
        sys.exit(5)
    """,
        prefix=NEW_PIDS,
        env={"PLACE": str(box.path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "1\n", "")


def test_without_the_step_they_stay_and_a_remark_says_so(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    context = DaemonContext(umask=0o022)
    print(context.explain().remarks)
    context.steps = steps
    print(context.explain().remarks, context.explain()["reap-children"].needed)
    """,
        prefix=NEW_PIDS,
    )
    first, second = done.stdout.splitlines()
    assert "adopted children stay zombies: put ReapChildren() after install-signals" in first
    assert second == "() True"
    done = box.run(HEAD + "    print(DaemonContext(steps=steps).explain()['reap-children'].text)")
    assert done.stdout == "this is not process 1 of a container, or it detaches\n"


@pytest.mark.parametrize("ignored", [False, True])
def test_signals_go_to_the_daemon_and_its_end_is_process_1s(
    box: support.Sandbox, ignored: bool
) -> None:
    program = box.popen(
        HEAD
        + f"""
    if {ignored}:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    def reload(*ignored):
        os.write(1, b"reloads\\n")
    signals = {{signal.SIGHUP: reload, signal.SIGTERM: "terminate"}}
    with DaemonContext(steps=steps, umask=0o022, signal_map=signals) as daemon:
        print("up", flush=True)
        while True:
            daemon.sleep(0.05)
    """,
        prefix=NEW_PIDS,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
    init = int(children)
    daemon = int(Path(f"/proc/{init}/task/{init}/children").read_text())
    # It may come to that after the daemon's first word.
    support.until(lambda: not [fd for fd in support.descriptors(init) if fd > 2], what="it closes")
    os.kill(init, signal.SIGHUP)
    assert program.stdout.readline() == "reloads\n"
    os.kill(init, signal.SIGTERM)
    assert program.wait(support.DEADLINE) == 0
    support.gone(daemon)
    box.settled()


def test_a_killed_daemon_is_told_as_a_shell_does(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    with DaemonContext(steps=steps, umask=0o022):
        os.kill(os.getpid(), signal.SIGKILL)
    """,
        prefix=NEW_PIDS,
    )
    assert done.returncode == 128 + 9


def test_the_pid_file_names_the_daemon(box: support.Sandbox) -> None:
    """Which is no more process 1, that has written it before."""
    done = box.run(
        HEAD
        + """
    with DaemonContext(steps=steps, umask=0o022, pidfile="d.pid", working_directory="."):
        print(os.getpid(), open("d.pid").read().strip(), d.PidFile("d.pid").owner(), flush=True)
    """.replace("d.PidFile", "__import__('daemon_context').PidFile"),
        prefix=NEW_PIDS,
    )
    assert done.returncode == 0, done.stderr
    pid, written, owner = done.stdout.split()
    assert pid == written == owner != "1"
    assert not (box.path / "d.pid").exists()


@pytest.mark.root
def test_what_it_could_not_keep_is_refused(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    own = subprocess.Popen(["sleep", "60"])
    for options in ({}, {"pidfile": "d.pid", "uid": 65534, "gid": 65534}):
        try:
            DaemonContext(steps=steps, **options).open()
        except ValueError as error:
            print(error)
    own.kill()
    assert own.wait() == -9
    """,
        prefix=NEW_PIDS,
    )
    first, second = done.stdout.splitlines()
    assert "process 1 has children already (pid " in first
    assert "start them after open()" in first
    assert "put it before 'write-pidfile'" in second


@pytest.mark.root
def test_as_another_user_with_a_pid_file(box: support.Sandbox) -> None:
    """By the remedy that the refusal names, word for word."""
    box.path.chmod(0o755)
    done = box.run(
        HEAD
        + """
    options = {"pidfile": "d.pid", "uid": 65534, "gid": 65534, "stdout": 1}
    try:
        DaemonContext(steps=steps, **options).open()
    except ValueError as error:
        remedy = str(error).partition("before it: ")[2].partition(" (step ")[0]
    steps = DEFAULT_STEPS
    with DaemonContext(steps=eval(remedy), **options) as daemon:
        with open("/proc/self/status") as file:
            uid = file.read().partition("Uid:")[2].split()[0]
        print(os.getpid(), uid)
    """,
        prefix=NEW_PIDS,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["2", "65534"]), done


def test_not_as_process_1_it_does_nothing(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    before = os.getpid()
    with DaemonContext(steps=steps, umask=0o022, detach_process=False, stdout=1):
        print(os.getpid() == before)
    """
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
