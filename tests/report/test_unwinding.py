"""One process unwinds: the launcher after a failure, or the daemon."""

from __future__ import annotations

import pytest

from tests.helpers import support

UNWINDING = """
    import atexit, os, sys, tempfile
    from daemon_context import DEFAULT_STEPS, DaemonContext
    from tests.helpers.launching import Fail

    where = sys.argv[1]
    home = os.getcwd()
    launcher = os.getpid()

    def note(text):
        with open(f"{home}/notes", "a") as file:
            who = "launcher" if os.getpid() == launcher else "daemon"
            file.write(f"{text} in the {who}\\n")

    class Words(str):
        def encode(self, *args):
            os.kill(os.getpid(), 15)  # in the middle of ready()
            return b""

    atexit.register(note, "exit handler")
    directory = tempfile.TemporaryDirectory(dir=home)
    scratch = open(os.path.join(directory.name, "scratch"), "w")
    steps = DEFAULT_STEPS
    if where == "step":
        steps = steps.insert_after("write-pidfile", Fail("RuntimeError"))
    context = DaemonContext(detach_process=True, readiness="explicit", steps=steps,
                            pidfile="d.pid", files_preserve=[scratch])
    try:
        with context as daemon:
            if where == "body":
                note("directory is there" if os.path.exists(directory.name) else "gone")
                raise RuntimeError("no")
            if where == "exit":
                sys.exit(3)
            if where == "huge":
                sys.exit(2**31)
            if where == "words":
                daemon.ready(42)
            if where == "signal":
                daemon.ready(Words())
            daemon.ready()
            note("body")
    finally:
        note("finally")
        note("directory is there" if os.path.exists(directory.name) else "gone")
"""


@pytest.mark.parametrize("where", ["step", "body", "exit", "huge", "words"])
def test_after_a_failure_only_the_launcher_unwinds(box: support.Sandbox, where: str) -> None:
    done = box.run(UNWINDING, where)
    assert done.returncode == 1
    notes = box.text("notes").splitlines()
    if where == "body":
        assert notes.pop(0) == "directory is there in the daemon"
    assert notes == [
        "finally in the launcher",
        "directory is there in the launcher",
        "exit handler in the launcher",
    ]
    assert {p.name for p in box.path.iterdir()} == {"program.py", "notes"}


@pytest.mark.parametrize("how", ["success", "signal"])
def test_after_a_success_only_the_daemon_unwinds(box: support.Sandbox, how: str) -> None:
    done = box.run(UNWINDING, how)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert box.text("notes").splitlines() == [
        *(["body in the daemon"] if how == "success" else []),
        "finally in the daemon",
        "directory is there in the daemon",
        "exit handler in the daemon",
    ]
    assert {p.name for p in box.path.iterdir()} == {"program.py", "notes"}


def test_without_with_the_exit_handlers_run_in_the_launcher_alone(box: support.Sandbox) -> None:
    done = box.run("""
        import atexit, os, tempfile
        from daemon_context import DaemonContext
        home, launcher = os.getcwd(), os.getpid()
        def note():
            with open(f"{home}/notes", "a") as file:
                file.write("launcher" if os.getpid() == launcher else "daemon")
        atexit.register(note)
        directory = tempfile.TemporaryDirectory(dir=home)
        DaemonContext(detach_process=True, readiness="explicit").open()
        raise RuntimeError("no")
    """)
    assert done.returncode == 1
    assert box.text("notes") == "launcher"
    assert {p.name for p in box.path.iterdir()} == {"program.py", "notes"}
