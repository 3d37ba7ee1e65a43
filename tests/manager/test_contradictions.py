"""Detaching where who started us would take the daemon for ended: refused, with the remedy."""

from __future__ import annotations

import sys

import pytest

from tests.helpers import support
from tests.helpers.managers import NAMED, NEW_PIDS, as_main_process

pytestmark = pytest.mark.root

CONTEXT = """
    import sys
    from daemon_context import DaemonContext, OptionError
    try:
        DaemonContext(detach_process=eval(sys.argv[1]), pidfile="d.pid").open()
    except OptionError as error:
        print(error)
        sys.exit(6)
"""
CLASS = """
    import os, time
    from daemon_context import Daemon
    class Feed(Daemon):
        def run(self):
            with open("ran", "w") as file:
                file.write(str(os.getpid()))
    Feed("d.pid", working_directory=".").main()
"""
SPAWN = """
    from daemon_context import DaemonContext
    print(DaemonContext().spawn(print).wait())
"""
WRAPPER = ["sh", "-c", '"$@"; exit $?', "sh"]
REFUSED = {
    "process 1": (NEW_PIDS, "this is process 1"),
    **{
        f"child of {init}, {session}": (
            [*NEW_PIDS, sys.executable, "-c", NAMED, init, session],
            f"{init}, as process 1, ends the container with its child",
        )
        for init in ("tini", "dumb-init", "catatonit", "docker-init")
        for session in ("shared", "own")
    },
    **{
        f"main process, {kind}": (
            f"echo Type={kind}; echo MainPID=$PPID",
            f"the main process of feed.service, which has Type={kind}",
        )
        for kind in ("simple", "exec", "notify", "notify-reload", "idle", "dbus")
    },
}
ALLOWED = {
    "child of a shell that is process 1": [*NEW_PIDS, *WRAPPER],
    "child of another process 1": [*NEW_PIDS, sys.executable, "-c", NAMED, "x", "shared"],
    "grandchild of tini": [*NEW_PIDS, sys.executable, "-c", NAMED, "tini", "shared", *WRAPPER],
    "forking": "echo Type=forking; echo MainPID=0",
    "oneshot": "echo Type=oneshot; echo MainPID=$PPID",
    "ExecStartPre": "echo Type=simple; echo MainPID=0",
    "ExecStartPost": "echo Type=simple; echo MainPID=1",
    "no answer": "exit 1",
}


def prefix(box: support.Sandbox, start: str | list[str]) -> list[str]:
    return start if isinstance(start, list) else as_main_process(box, start)


@pytest.mark.parametrize("where", REFUSED)
def test_a_context_is_told_to_stay(clean: support.Sandbox, where: str) -> None:
    start, words = REFUSED[where]
    done = clean.run(CONTEXT, True, prefix=prefix(clean, start))
    assert done.returncode == 6, done
    assert words in done.stdout
    assert "set detach_process=False, or None" in done.stdout
    assert "'force'" in done.stdout
    assert not (clean.path / "d.pid").exists()
    clean.settled()


@pytest.mark.parametrize("where", REFUSED)
def test_the_class_is_told_to_run(clean: support.Sandbox, where: str) -> None:
    start, words = REFUSED[where]
    done = clean.run(CLASS, "start", prefix=prefix(clean, start))
    assert (done.returncode, done.stdout) == (6, ""), done
    assert words in done.stderr
    assert "use the verb run, or run_foreground(), in place of start" in done.stderr
    assert not (clean.path / "ran").exists()
    done = clean.run(CLASS, "run", prefix=prefix(clean, start))
    assert done.returncode == 0, done
    assert clean.text("ran")
    clean.settled()


@pytest.mark.parametrize("where", ALLOWED)
def test_elsewhere_it_may(clean: support.Sandbox, where: str) -> None:
    start = prefix(clean, ALLOWED[where])
    done = clean.run(CONTEXT, True, prefix=start)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = clean.run(CLASS, "start", prefix=start)
    assert done.returncode == 0, done
    assert done.stdout.startswith("Feed: started, pid ")


@pytest.mark.parametrize("where", ["process 1", "main process, simple"])
def test_force_detaches_and_a_helper_is_no_contradiction(
    clean: support.Sandbox, where: str
) -> None:
    start = prefix(clean, REFUSED[where][0])
    done = clean.run(CONTEXT, "'force'", prefix=start)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    forced = CLASS.replace('working_directory="."', 'working_directory=".", detach_process="force"')
    done = clean.run(forced, "start", prefix=start)
    assert done.stdout.startswith("Feed: started, pid "), done
    done = clean.run(SPAWN, prefix=start)
    assert (done.stdout, done.stderr) == ("True\n", "")
    clean.settled()


def test_force_is_explained_as_it_was_given(clean: support.Sandbox) -> None:
    done = clean.run("""
        from daemon_context import DaemonContext
        context = DaemonContext(detach_process="force")
        print(context.detach_process, context.explain().supervisor)
        try:
            DaemonContext(detach_process="yes").explain()
        except ValueError as error:
            print(error)
    """)
    first, second = done.stdout.splitlines()
    assert first == "force not asked: detach_process=force was given"
    assert "detach_process='yes'" in second
