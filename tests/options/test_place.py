"""Starts that would end what they are part of, or begin it once more."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import daemon_context
from daemon_context import DaemonContext, OptionError
from tests.helpers import support
from tests.helpers.support import until

# --- pytest


@pytest.mark.parametrize("detach", [True, False, None])
def test_the_process_that_runs_pytest_becomes_no_daemon(detach: bool | None) -> None:
    context = DaemonContext(detach_process=detach)
    for start in (context.open, context.__enter__):
        with pytest.raises(OptionError, match=r"runs pytest.* use spawn\(\)"):
            start()
    assert not context.is_open


def test_nor_does_it_run_one(tmp_path: Path) -> None:
    class D(daemon_context.Daemon):
        def run(self) -> None:
            pass

    with pytest.raises(OptionError, match="runs pytest"):
        D(tmp_path / "d.pid").run_foreground()
    assert not list(tmp_path.iterdir())


SUITE = """
    import os, subprocess, sys, time
    import pytest
    from daemon_context import Daemon, DaemonContext, OptionError

    class D(Daemon):
        def run(self):
            self.sleep(60)

    def body():
        open("spawned", "w").close()

    @pytest.fixture
    def opened():
        with DaemonContext():
            yield

    def test_open():
        DaemonContext(pidfile="d.pid").open()

    def test_fixture(opened):
        pass

    def test_spawn():
        DaemonContext(working_directory=".").spawn(body).wait()
        assert os.path.exists("spawned")

    def test_class():
        d = D("d.pid")
        d.start()
        d.stop()

    def test_explain():
        assert DaemonContext().explain()

    @pytest.mark.parametrize("detach", [True, False])
    def test_fork(detach):
        pid = os.fork()
        if not pid:
            try:
                with DaemonContext(detach_process=detach, working_directory="."):
                    open(f"forked-{detach}", "w").close()
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        for _ in range(2000):
            if os.path.exists(f"forked-{detach}"):
                break
            time.sleep(0.01)
        else:
            raise AssertionError

    def test_program():
        done = subprocess.run([sys.executable, "-c",
            "import pytest, daemon_context as d; d.DaemonContext(detach_process=True).open()"])
        assert done.returncode == 0

    def test_last():
        pass
"""


def test_a_suite_that_opens_contexts_goes_on(box: support.Sandbox) -> None:
    box.script(SUITE, "test_suite.py")
    run = box.script("import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))")
    done = box.run(run, "-q", "-p", "no:cacheprovider", "test_suite.py")
    box.settled()
    assert done.returncode == 1
    assert "1 failed, 7 passed, 1 error" in done.stdout, done.stdout
    assert done.stdout.count("OptionError: the context was opened in the process that runs") >= 2


# --- inside itself


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("pidfile", ["d.pid", "/tmp/relative/to/another/place", None])
def test_a_child_of_multiprocessing_is_no_second_daemon(
    box: support.Sandbox, method: str, pidfile: str | None
) -> None:
    path = None if pidfile is None else str(box.path / "d.pid")
    script = box.script(f"""
        import multiprocessing, os
        from daemon_context import DaemonContext

        def work():
            pass

        def start():
            context = DaemonContext(
                detach_process=True, pidfile={path!r}, stderr="errors", working_directory=".")
            with context:
                if os.path.exists("started"):
                    open("again", "w").close()
                    return
                open("started", "w").close()
                context = multiprocessing.get_context({method!r})
                child = context.Process(target=work)
                child.start()
                child.join()
                with open("status", "w") as file:
                    file.write(str(child.exitcode))

        start()
        """)
    assert box.run(script).returncode == 0
    assert box.text("status") == "1"
    box.settled()
    assert not (box.path / "again").exists()
    errors = (box.path / "errors").read_text()
    assert "OptionError: the program runs once more, in a child that process" in errors
    assert "if __name__ == '__main__':" in errors


def test_a_reloader_in_the_daemon_is_told_so(box: support.Sandbox) -> None:
    script = box.script(f"""
        import os, subprocess, sys
        from daemon_context import Daemon

        class D(Daemon):
            def run(self):
                done = subprocess.run([sys.executable, *sys.argv])
                with open("status", "w") as file:
                    file.write(str(done.returncode))

        D("{box.path}/d.pid", stderr="errors", working_directory=".").main()
        """)
    assert box.run(script, "start").returncode == 0
    assert box.text("status") == "1"
    box.settled()
    errors = (box.path / "errors").read_text()
    assert "runs once more inside its own daemon" in errors
    assert "is an ancestor of this process" in errors


# --- a pid file that is not locked


OTHERS = """
    import os, sys, time
    if "other" in sys.argv:  # as another library starts it: it writes a pid, and locks nothing
        with open("d.pid", "w") as file:
            print(os.getpid(), file=file)
        time.sleep(1000)
    from daemon_context import DaemonContext
    context = DaemonContext(detach_process=True, pidfile="d.pid", umask=0o022)
    if "explain" in sys.argv:
        print(*context.explain().remarks)
    else:
        context.open()
"""


def test_a_daemon_of_another_library_is_named(box: support.Sandbox) -> None:
    script = box.script(OTHERS)
    other = box.popen(script, "other")
    pid = box.pid()
    assert pid == other.pid
    remark = box.run(script, "explain").stdout
    done = box.run(script)
    assert done.returncode == 0
    for text in (remark, done.stderr):
        assert f"named process {pid} (" in text
        assert "program.py other), which runs this program" in text
        assert f"kill {pid}" in text
    strict = box.run(script, prefix=[], env={"PYTHONWARNINGS": "error"})
    assert strict.returncode == 0, "nothing is named any more"


def test_it_is_named_as_an_error_where_warnings_are_and_nothing_is_left(
    box: support.Sandbox,
) -> None:
    script = box.script(OTHERS)
    box.popen(script, "other")
    box.pid()
    done = box.run(script, env={"PYTHONWARNINGS": "error::RuntimeWarning"})
    assert (done.returncode, "which runs this program" in done.stderr) == (1, True)
    again = box.run(script)
    assert again.returncode == 0, again.stderr


def test_another_program_with_that_pid_is_not(box: support.Sandbox) -> None:
    script = box.script(OTHERS)
    stranger = box.popen(box.script("import time; time.sleep(1000)", "stranger.py"))
    for pid in (stranger.pid, 4_000_000, os.getpid()):
        (box.path / "d.pid").write_text(f"{pid}\n")
        assert box.run(script, "explain").stdout.strip() == ""
        done = box.run(script)
        assert (done.returncode, done.stderr) == (0, "")
        for number in box.processes() - {stranger.pid}:
            os.kill(number, signal.SIGTERM)
        until(lambda: box.processes() == {stranger.pid})
