"""What is said: by errors, by the verbs, by a setup() that ends, of what does nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.helpers import support

# --- setup() that calls sys.exit

EXITS = """
    import sys
    from daemon_context import Daemon
    class Poller(Daemon):
        def setup(self):
            sys.exit({code})
        def run(self):
            raise RuntimeError("not reached")
        def cleanup(self):
            open("cleanup", "w").close()
    poller = Poller("d.pid", working_directory=".", stderr="d.log")
    if sys.argv[1] == "call":
        assert poller.start() is None
        print("goes on")
    else:
        poller.main()
"""


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_the_text_of_an_exit_of_setup_is_told_and_no_more(box: support.Sandbox, verb: str) -> None:
    done = box.run(EXITS.format(code="'no config file'"), verb)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Poller: no config file\n"
    assert (box.path / "cleanup").exists()
    box.settled()
    assert {*os.listdir(box.path)} == {"program.py", "cleanup", "d.log"}


def test_the_text_of_an_exit_of_setup_is_the_errors(box: support.Sandbox) -> None:
    done = box.run(EXITS.format(code="'no config file'"), "call")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "daemon_context.errors.SetupExit: no config file"
    assert "In the daemon" not in done.stderr


@pytest.mark.parametrize("code", ["0", "", "None"])
def test_a_setup_that_has_nothing_to_do(box: support.Sandbox, code: str) -> None:
    script = box.script(EXITS.format(code=code))
    for verb in ("start", "restart"):
        done = box.run(script, verb)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "Poller: had nothing to do: setup() called sys.exit(0)\n"
    done = box.run(script, "call")
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")
    assert box.run(script, "status").returncode == 3
    box.settled()
    assert not (box.path / "d.pid").exists()


def test_another_status_of_setup_is_a_failed_start(box: support.Sandbox) -> None:
    done = box.run(EXITS.format(code="3"), "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert "called sys.exit(3) before it was ready" in done.stderr


@pytest.mark.parametrize(("code", "status", "said"), [("'text'", 1, "text\n"), ("0", 0, "")])
def test_in_the_foreground_it_is_as_in_any_program(
    box: support.Sandbox, code: str, status: int, said: str
) -> None:
    script = box.script(EXITS.format(code=code))
    script.write_text(script.read_text().replace(', stderr="d.log"', ""))
    done = box.run(script, "run")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


# --- what would do nothing

NOTHING = {
    "no run": ("pass", "D must have a run() method"),
    "async run": ("async def run(self): pass", "D.run() is a coroutine function"),
    "generator": ("def run(self): yield", "D.run() is a generator function"),
    "async setup": (
        "run = lambda self: None\n            async def setup(self): pass",
        "D.setup() is a coroutine function",
    ),
}


@pytest.mark.parametrize("verb", ["start", "restart", "run"])
@pytest.mark.parametrize("kind", NOTHING)
def test_a_class_that_would_do_nothing_is_refused_before_the_fork(
    box: support.Sandbox, kind: str, verb: str
) -> None:
    body, words = NOTHING[kind]
    done = box.run(
        f"""
        import os
        os.fork = None
        from daemon_context import Daemon
        class D(Daemon):
            {body}
        D("d.pid").main()
        """,
        verb,
    )
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith(f"D: {words}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in box.path.iterdir()] == ["program.py"]


def test_restart_of_a_class_that_would_do_nothing_leaves_the_old_daemon(
    box: support.Sandbox,
) -> None:
    script = box.script("""
        import sys
        from daemon_context import Daemon
        class D(Daemon):
            if sys.argv[1] == "start":
                def run(self): self.sleep()
        D("d.pid").main()
    """)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    assert box.run(script, "restart").returncode == 6
    assert support.alive(pid)
    assert box.run(script, "stop").returncode == 0


@pytest.mark.parametrize("target", ["work", "partial(work)", "Work()", "'work:work'"])
def test_a_coroutine_function_is_no_target_of_spawn(box: support.Sandbox, target: str) -> None:
    box.script("async def work(): pass", "work.py")
    done = box.run(f"""
        from functools import partial
        from daemon_context import DaemonContext, OptionError
        from work import work
        class Work:
            async def __call__(self): pass
        try:
            DaemonContext(pidfile="d.pid").spawn({target})
        except OptionError as error:
            print(error)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert "coroutine function, of which a call does nothing; let it be a plain function that " in (
        done.stdout
    )
    assert "asyncio.run()" in done.stdout
    box.settled()


# --- warnings point at the user's line


WARNED = """
    import sys, threading, warnings
    from daemon_context import Daemon, DaemonContext
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    class D(Daemon):
        def run(self): pass
    context = DaemonContext(detach_process=True)
    {call}  # here
"""


@pytest.mark.parametrize(
    "call",
    ["D('d.pid').start()", "D('d.pid').main(['start'])", "context.spawn(print)",
     "context.open()", "context.check()", "context.closed"],
)  # fmt: skip
def test_warnings_point_at_the_users_line(box: support.Sandbox, call: str) -> None:
    script = box.script(WARNED.format(call=call))
    done = box.run(script, prefix=["env", "PYTHONWARNINGS=always"])
    line = 1 + next(n for n, text in enumerate(script.read_text().splitlines()) if "# here" in text)
    found = re.search(r"^(.*):(\d+): (Runtime|Deprecation)Warning", done.stderr, re.M)
    assert found, done
    assert (found[1], int(found[2])) == (str(script), line)


# --- messages


def test_the_verbs_lead_with_the_fact_and_name_the_pid_file(box: support.Sandbox) -> None:
    script = box.script("""
        from daemon_context import Daemon, DaemonContext
        import sys
        class D(Daemon):
            def run(self):
                self.sleep()
        if sys.argv[1] == "context":
            DaemonContext(pidfile="d.pid", detach_process=True).open()
        D("d.pid").main()
    """)
    path = str(box.path / "d.pid")
    done = box.run(script, "reload")
    assert done.stderr == (
        f"D: the daemon is not running, so it can't reload (pid file {path!r})\n"
    )
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    done = box.run(script, "context")
    assert done.stderr.splitlines()[-1].partition("AlreadyRunning: ")[2] == (
        f"already running with pid {pid} (pid file {path!r}); stop that one first, or give this "
        "one a pid file of its own (step 2 of 15, lock-pidfile)"
    )
    assert box.run(script, "stop").returncode == 0


UNABLE = {
    "directory": ('D("d.pid", working_directory="/nope")', 1, "change the working directory to"),
    "pid file": ('D("/nope/d.pid")', 1, "lock the pid file '/nope/d.pid'"),
    "log": ('D("d.pid", stdout="/nope/log")', 1, "open '/nope/log' as stdout"),
    "umask": ('D("d.pid", umask="022")', 6, "umask='022' can't be used: expected None or a number "
              "from 0 to 0o777, such as 0o022"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNABLE)
def test_no_step_numbers_in_a_verbs_output(box: support.Sandbox, kind: str) -> None:
    made, status, words = UNABLE[kind]
    done = box.run(
        f"""
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                pass
        {made}.main()
        """,
        "start",
    )
    assert done.returncode == status
    assert words in done.stderr
    assert "(step" not in done.stderr
    assert done.stderr.count("\n") == 1
    # The first colon is behind the name of the class, the second one before the reason.
    assert done.stderr.count(": ") <= 2


UNPROVEN = """
    from daemon_context import Daemon
    class D(Daemon):
        def run(self):
            self.sleep()
    D("d.pid").main()
"""


def test_a_status_has_no_remedy_of_a_start(box: support.Sandbox) -> None:
    script = box.script(UNPROVEN)
    (box.path / "d.pid").write_text(f"{os.getpid()}\n")
    done = box.run(script, "status")
    assert done.returncode == 4
    assert f"names pid {os.getpid()}, which runs, but nothing proves" in done.stdout
    assert "start" not in done.stdout
    done = box.run(script, "stop")
    assert done.returncode == 1
    assert str(box.path / "d.pid") in done.stderr


# --- a note from what was closed

CLOSED = {
    "EBADF": ("fd = os.dup(0)", "os.write(fd, b'x')"),
    "sqlite": (
        "db = sqlite3.connect('d.db'); db.execute('create table t (a)'); db.commit()",
        "db.execute('insert into t values (1)'); db.commit()",
    ),
    "negative": ("s = socket.socketpair()", "select.select([s[0]], [], [])"),
    "wrapped": ("fd = os.dup(0)", "wrapped(fd)"),
}
NOTED = """
    import os, select, socket, sqlite3, sys, time
    from daemon_context import Daemon, DaemonContext
    def wrapped(fd):
        try:
            os.fstat(fd)
            os.write(fd, b"x")
        except OSError as error:
            raise RuntimeError("no luck") from error
    {before}
    def work():
        {after}
    class D(Daemon):
        def run(self):
            work()
    options = dict(pidfile="d.pid", stderr="d.log", working_directory=".")
    if sys.argv[1] == "with":
        with DaemonContext(detach_process=True, **options):
            work()
    elif sys.argv[1] == "open":
        DaemonContext(detach_process=True, **options).open()
        work()
    elif sys.argv[1] == "spawn":
        DaemonContext(**options).spawn(work)
    elif sys.argv[1] == "unready":
        with DaemonContext(detach_process=True, readiness="explicit", **options):
            work()
    else:
        D(**options, settle=0).start()
"""


@pytest.mark.parametrize("how", ["with", "open", "spawn", "class", "unready"])
@pytest.mark.parametrize("kind", CLOSED)
def test_an_end_by_what_was_closed_has_a_note(box: support.Sandbox, kind: str, how: str) -> None:
    before, after = CLOSED[kind]
    done = box.run(NOTED.format(before=before, after=after), how)
    box.settled()
    said = done.stderr if how == "unready" else Path(box.path / "d.log").read_text()
    assert "closed when the process became a daemon: " in said
    assert "files_preserve" in said
    assert "after open()" in said
    assert said.count("became a daemon") == 1


@pytest.mark.parametrize("after", ["os.stat('/nope')", "int('x')"])
def test_other_ends_have_none(box: support.Sandbox, after: str) -> None:
    box.run(NOTED.format(before="fd = os.dup(0)", after=after), "with")
    box.settled()
    assert "became a daemon" not in box.text("d.log")


def test_where_nothing_was_closed_there_is_no_note(box: support.Sandbox) -> None:
    box.run(NOTED.format(before="", after="os.write(99, b'x')"), "with")
    box.settled()
    assert "Bad file descriptor" in box.text("d.log")
    assert "became a daemon" not in box.text("d.log")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["stranger's", "two names"])
def test_no_advice_to_remove_a_file_whose_daemon_runs(box: support.Sandbox, kind: str) -> None:
    script = box.script(UNPROVEN)
    path = box.path / "d.pid"
    assert box.run(script, "start").returncode == 0
    if kind == "two names":
        os.link(path, box.path / "other")
    else:
        os.chown(path, 4711, -1)
    done = box.run(script, "restart")
    assert done.returncode in (1, 4)
    assert "; give " in done.stderr
    assert not re.search("remove (it|this)", done.stderr)
    os.kill(box.pid(), 9)
    box.settled()
    done = box.run(script, "start")
    assert re.search("remove (it|this)", done.stderr)
