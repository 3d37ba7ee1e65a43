"""Numbers that come again: in a pid namespace of its own, where it can be told which is next, an
innocent gets the number of a process that has ended; and nothing of ours may happen to it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers import support

pytestmark = pytest.mark.root

OWN_PIDS = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
#: Process 1 of the namespace, which gets the orphans and says who has which number.
DRIVER = """
    import json, os, signal, sys, time
    from pathlib import Path
    from tests.helpers.support import alive, until

    def fork(work, *args):
        pid = os.fork()
        if pid == 0:
            try:
                work(*args)
            finally:
                os._exit(99)
        return pid

    def read(name):
        return until(lambda: Path(name).exists() and Path(name).read_text())

    def write(name, text):
        Path(f"{name}.tmp").write_text(str(text))
        os.rename(f"{name}.tmp", name)

    def reaped(pid):
        # Ours, or somebody else's who reaps it.
        def is_reaped():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
        until(is_reaped)

    def innocent(pid):
        '''A process with that number, and in another clock tick than the one that had it.'''
        time.sleep(3 / os.sysconf("SC_CLK_TCK"))
        next_is(pid)
        assert fork(time.sleep, 1000) == pid

    def next_is(pid):
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))

    if os.environ.get("WITHOUT_PIDFS"):  # as Linux before 6.9
        from daemon_context.system import child
        child._inode = lambda pidfd: 0

    def spared(pid):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)

    assert os.getpid() == 1
"""
#: A launcher that is stopped as soon as it has forked, and looks around only when it goes on.
LAUNCHER = """
    from daemon_context import DEFAULT_STEPS, DaemonContext, Step

    class Tell(Step):
        def apply(self, walk):
            write("leader", os.getpgrp())
            write("daemon", os.getpid())
            if sys.argv[1] == "fails":
                raise RuntimeError("out of luck")

    def launch(handler=signal.SIG_DFL):
        signal.signal(signal.SIGCHLD, handler)
        me = os.getpid()
        os.register_at_fork(after_in_parent=lambda: me == os.getpid() and os.kill(me, 19))
        steps = DEFAULT_STEPS.insert_after("detach", Tell())
        said = []
        try:
            handle = DaemonContext(steps=steps).spawn(lambda: None)
            ended = repr(handle) == f"<daemon {handle.pid}, ended>"
            said = [handle.is_alive(), handle.wait(0), ended]
            handle.stop()
        except BaseException as error:
            said = [type(error).__name__, str(error)]
        write("said", json.dumps(said))
        os._exit(0)

    def stopped(pid):
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        return int(read("daemon")), int(read("leader"))

    def go_on(pid):
        os.kill(pid, signal.SIGCONT)
        until(lambda: os.waitpid(pid, os.WNOHANG)[0])
        return json.loads(read("said"))
"""


WITHOUT_PIDFS = {"WITHOUT_PIDFS": "1"}


def told(box: support.Sandbox, body: str, *args: Any, env: dict[str, str] | None = None) -> Any:
    """What the driver prints, of a program that must not fail."""
    done = box.run(DRIVER + body, *args, prefix=OWN_PIDS, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


@pytest.mark.parametrize("env", [{}, WITHOUT_PIDFS], ids=["inode", "start time"])
@pytest.mark.parametrize("end", ["fails", "works"])
def test_a_launcher_that_was_stopped_spares_who_has_the_daemons_number(
    box: support.Sandbox, end: str, env: dict[str, str]
) -> None:
    """A failed start ends what it takes for the daemon; and a handle is given out of a good one."""
    said, lives = told(
        box,
        LAUNCHER
        + """
    launcher = fork(launch)
    daemon, leader = stopped(launcher)
    until(lambda: not alive(leader))
    reaped(daemon)
    innocent(daemon)
    said = go_on(launcher)
    print(json.dumps([said, spared(daemon)]))
    """,
        end,
        env=env,
    )
    assert lives
    if end == "works":
        assert said == [False, True, True]
    else:
        assert said[0] == "StepError"
        assert "out of luck" in said[1]


@pytest.mark.parametrize("end", ["fails", "works"])
def test_a_launcher_that_was_stopped_spares_who_has_the_session_leaders_number(
    box: support.Sandbox, end: str
) -> None:
    """Where SIGCHLD is ignored, the number of the session leader is free as soon as it ends."""
    said, lives = told(
        box,
        LAUNCHER
        + """
    launcher = fork(launch, signal.SIG_IGN)
    daemon, leader = stopped(launcher)
    reaped(daemon)
    reaped(leader)
    innocent(leader)
    said = go_on(launcher)
    print(json.dumps([said, spared(leader)]))
    """,
        end,
    )
    assert lives
    assert said[0] is False if end == "works" else said[0] == "StepError"


BY_NAME = """
    # The answer of the fresh interpreter waits for us in a pipe.
    from daemon_context import DaemonContext
    from daemon_context.embedding import fresh
    answered = fresh._answered

    def late(*answer):
        daemon = json.loads(answer[0])["pid"]
        reaped(daemon)
        innocent(daemon)
        return answered(*answer)

    fresh._answered = late
    handle = DaemonContext().spawn("time:time")
    handle.stop()
    print(json.dumps([handle.is_alive(), spared(handle.pid)]))
"""


def test_a_handle_from_a_fresh_interpreter_is_of_its_daemon(box: support.Sandbox) -> None:
    assert told(box, BY_NAME) == [False, True]


WITHOUT_PROC = """
    import subprocess
    from daemon_context import DaemonContext, DaemonError

    def asked(call, *args):
        try:
            return call(*args)
        except DaemonError as error:
            return str(error)

    last = open("/proc/sys/kernel/ns_last_pid", "w")
    subprocess.run(["mount", "-t", "tmpfs", "none", "/proc"], check=True)
    context = DaemonContext()
    handle = context.spawn(context.sleep)
    alive = asked(handle.is_alive)
    os.kill(handle.pid, 9)
    reaped(handle.pid)
    last.write(str(handle.pid - 1))
    last.flush()
    assert fork(time.sleep, 1000) == handle.pid
    said = [alive, *map(asked, (handle.is_alive, handle.wait, handle.stop)), repr(handle)]
    spared = spared(handle.pid)
    os.kill(handle.pid, 9)
    os.waitpid(handle.pid, 0)
    print(json.dumps([said, spared, handle.is_alive()]))
"""


def test_without_proc_a_handle_knows_its_daemon_by_pidfs(box: support.Sandbox) -> None:
    said, lives, alive = told(box, WITHOUT_PROC)
    assert (lives, alive) == (True, False)
    assert said[:4] == [True, False, True, None]
    assert said[4].endswith(", ended>")


def test_without_proc_and_pidfs_a_handle_signals_nobody(box: support.Sandbox) -> None:
    said, lives, alive = told(box, WITHOUT_PROC, env=WITHOUT_PIDFS)
    assert (lives, alive) == (True, False)  # that there is no such process can be told
    assert all("can't be proven to be the daemon" in words for words in said[:4])
    assert "mount /proc" in said[0]
    assert said[4].startswith("<daemon ")


# --- the group's number

LEAVES = """
    import ctypes, os, signal, sys, time
    from daemon_context import Daemon

    def leave(name):
        # Native code knows nothing of the lock: the child keeps it.
        if ctypes.CDLL(None).fork() == 0:
            if name == "apart":
                os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open(name + ".tmp", "w") as file:
                file.write(str(os.getpid()))
            os.rename(name + ".tmp", name)
            time.sleep(1000)

    class D(Daemon):
        def run(self):
            for name in sys.argv[2:]:
                leave(name)
            while True:
                time.sleep(1)

    daemon = D("d.pid", stdout="d.log", stderr="d.log", signal_map={15: signal.SIG_DFL},
               working_directory=".")
    if sys.argv[1] == "stop":
        daemon.stop((("TERM", 3), ("KILL", 0.3)))
    daemon.start()
"""
STOPS = """
    import subprocess

    def verb(*words):
        return subprocess.Popen([sys.executable, "-B", "daemon.py", *words], stderr=-1, text=True)

    assert verb("start", *sys.argv[1:]).wait() == 0
    left = {name: int(read(name)) for name in sys.argv[1:]}
    daemon = int(read("d.pid"))
    group = os.getpgid(daemon)
    stop = verb("stop")
    reaped(daemon)
"""


def test_the_last_kill_ends_whom_the_daemon_left_in_its_group(box: support.Sandbox) -> None:
    box.script(LEAVES, "daemon.py")
    alive = told(
        box,
        STOPS
        + """
    assert stop.wait() == 0, stop.stderr.read()
    print(json.dumps([alive(left["beside"])]))
    """,
        "beside",
    )
    assert alive == [False]


def test_the_last_kill_spares_a_group_that_has_got_the_number_since(box: support.Sandbox) -> None:
    """The stranger that has made it has ended as well: so there is no process of that number."""
    box.script(LEAVES, "daemon.py")
    said = told(
        box,
        STOPS
        + """
    def stranger():
        os.setsid()
        if os.fork() == 0:
            write("member", os.getpid())
            time.sleep(1000)
        os._exit(0)

    next_is(group)
    assert fork(stranger) == group
    reaped(group)
    member = int(read("member"))
    assert os.getpgid(member) == group
    stop.wait()
    print(json.dumps([alive(left["apart"]), alive(member)]))
    """,
        "apart",
    )
    assert said == [True, True]
