"""SIGCHLD, SIGPIPE, and children of the launcher's own."""

from __future__ import annotations

import json
import os
import signal
import textwrap

import pytest

from tests.helpers import support
from tests.helpers.failing import WAITING, assert_nothing_left

CHILDREN = """
    import os, signal, subprocess, sys, warnings
    from tests.helpers.launching import *

    warnings.filterwarnings("ignore", ".*child process")
    how, end = sys.argv[1:]
    reaped = []

    def reap_any(number, frame):
        try:
            while (pair := os.waitpid(-1, os.WNOHANG))[0]:
                reaped.append(pair)
        except ChildProcessError:
            pass

    handler = {"ignored": signal.SIG_IGN, "default": signal.SIG_DFL, "reaping": reap_any}[how]
    signal.signal(signal.SIGCHLD, handler)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    early = subprocess.Popen(["sh", "-c", "exit 7"])
    late = subprocess.Popen(["sh", "-c", "read x; exit 8"], stdin=subprocess.PIPE)
    os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT) if how == "default" else None
    if end == "success":
        DaemonContext(pidfile="d.pid", detach_process=True).open()
        os.kill(os.getpid(), signal.SIGSTOP)
    steps = DEFAULT_STEPS.insert_after("set-umask", Fail(end))
    outcome = {}
    try:
        DaemonContext(pidfile="d.pid", detach_process=True, steps=steps).open()
    except BaseException as error:
        outcome = describe(error)
    late.stdin.close()
    outcome["children"] = [early.wait(), late.wait()]
    outcome["handler"] = signal.getsignal(signal.SIGCHLD) == handler
    print(json.dumps(outcome))
"""


@pytest.mark.parametrize("how", ["default", "ignored", "reaping"])
def test_whatever_the_launcher_does_with_sigchld_the_error_arrives(
    box: support.Sandbox, how: str
) -> None:
    for end in ("RuntimeError", "exit-7", "subprocess"):
        done = box.run(CHILDREN, how, end)
        assert (done.returncode, done.stderr) == (0, "")
        outcome = json.loads(done.stdout)
        if end == "RuntimeError":
            assert "out of luck" in outcome["message"]
        elif end == "subprocess":
            assert "with a program running" in outcome["message"]
        else:
            assert "exited with status 7 before it was ready" in outcome["message"]
        assert outcome["handler"]
        assert outcome["step"] == "fail"
        if how == "default":
            assert outcome["children"] == [7, 8]
    box.settled()


@pytest.mark.parametrize("how", ["default", "ignored", "reaping"])
def test_whatever_the_launcher_does_with_sigchld_the_start_succeeds(
    box: support.Sandbox, how: str
) -> None:
    done = box.run(CHILDREN, how, "success")
    assert (done.returncode, done.stderr) == (0, "")
    assert support.alive(box.pid())


def test_a_launcher_with_sigpipe_at_its_default_survives_the_end_of_the_session_leader(
    box: support.Sandbox,
) -> None:
    launcher = box.popen(
        "import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n" + textwrap.dedent(WAITING),
        box.path,
    )
    leader = int(support.stat(int(box.text("waiting")))[1])
    os.kill(leader, signal.SIGKILL)
    _, text = launcher.communicate(timeout=support.DEADLINE)
    assert launcher.returncode == 1
    assert "was killed by SIGKILL before the daemon was ready" in text
    assert_nothing_left(box)
