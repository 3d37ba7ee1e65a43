"""The body under readiness="explicit": ready, or an error."""

from __future__ import annotations

import json

import pytest

from tests.helpers import support

BODY = """
    import os, signal, sys, time, warnings
    from pathlib import Path
    from daemon_context import DaemonContext, DaemonError

    how, style = sys.argv[1:]

    def body(daemon):
        Path("daemon").write_text(str(os.getpid()))
        print("from the body", flush=True)
        if how == "raise":
            raise RuntimeError("the body's own error")
        if how == "os-error":
            os.stat("/no/such/file")
        if how == "unprintable":
            from tests.helpers.launching import Unprintable
            raise Unprintable
        if how == "exit-3":
            sys.exit(3)
        if how == "exit-huge":
            sys.exit(2**31 + 3)
        if how == "exit-0":
            sys.exit()
        if how == "exit-text":
            sys.exit("the body says so")
        if how == "_exit":
            os._exit(4)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        if how == "sleep":
            time.sleep(1000)
        if how == "wrong-words":
            daemon.ready(42)
        if how in ("ready", "twice"):
            daemon.ready("up")
        if how == "twice":
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                daemon.ready()
            Path("warned").write_text("\\n".join(str(w.message) for w in seen))
        if how in ("ready", "twice"):
            daemon.sleep()

    context = DaemonContext(
        pidfile="d.pid", stdout="d.log", stderr="d.err", detach_process=True,
        working_directory=".", readiness="explicit", start_timeout=0.5 if how == "sleep" else None)
    launcher = os.getpid()
    try:
        if style == "with":
            with context as daemon:
                body(daemon)
        else:
            context.open()
            body(context)
    except DaemonError as error:
        if os.getpid() == launcher:
            import tests.helpers.launching as launching
            launching.report("outcome", launching.describe(error))
        raise
"""

BODIES = {
    "raise": ("RuntimeError before it was ready: the body's own error", "body's own error", {}),
    "os-error": ("No such file or directory: '/no/such/file'", "os.stat(", {"errno": 2}),
    "exit-3": ("called sys.exit(3) before it was ready", "", {"exit_status": 3}),
    "exit-huge": ("called sys.exit(2147483651) before it was ready", "", {"exit_status": 3}),
    "wrong-words": ("'int' object has no attribute 'encode'", "daemon.ready(42)", {}),
    "exit-0": ("before it was ready", "", {"exit_status": 0}),
    "unprintable": ("raised Unprintable before it was ready", "(its text can't be made)", {}),
    "exit-text": ("called sys.exit('the body says so')", "", {"exit_status": 1}),
    "_exit": ("exited with status 4 before it was ready", "", {"exit_status": 4}),
    "kill": ("was killed by SIGKILL before it was ready", "", {"signal_number": 9}),
    "sigterm": ("terminated by SIGTERM before it was ready", "", {}),
    "end": ("ended without saying ready()", "", {}),
    "sleep": ("was not ready after 0.5 seconds (start_timeout)", "", {}),
}


@pytest.mark.parametrize("style", ["with", "open"])
@pytest.mark.parametrize("how", BODIES)
def test_a_body_that_ends_before_ready_is_an_error_in_the_launcher(
    box: support.Sandbox, how: str, style: str
) -> None:
    message, note, facts = BODIES[how]
    done = box.run(BODY, how, style)
    assert done.returncode == 1
    outcome = json.loads(box.text("outcome"))
    if style == "open" and how.startswith(("exit", "sigterm")):
        # Without `with` Python shows nobody the SystemExit of its end; only that it ended is known.
        message, facts = "ended without saying ready()", {}
    assert message in outcome["message"]
    assert outcome["message"] in done.stderr
    assert note in "\n".join(outcome["notes"])
    assert facts.items() <= outcome.items()
    assert outcome["step"] is None  # all had been done
    assert "(step" not in outcome["message"]
    assert outcome["pid"] == int(box.text("daemon"))
    assert not support.alive(outcome["pid"])
    assert not (box.path / "d.pid").exists()
    assert box.text("d.log") == "from the body\n"
    box.settled()


@pytest.mark.parametrize("style", ["with", "open"])
@pytest.mark.parametrize("how", ["ready", "twice"])
def test_the_launcher_exits_0_once_the_body_is_ready(
    box: support.Sandbox, how: str, style: str
) -> None:
    done = box.run(BODY, how, style)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert box.pid() == int(box.text("daemon"))
    assert support.alive(box.pid())
    if how == "twice":
        assert "ready() does nothing" in box.text("warned")


def test_a_start_that_takes_its_time_works_without_a_terminal_too(box: support.Sandbox) -> None:
    """After a second a launcher would say on a terminal that it waits: one that polls."""
    done = box.run("""
        import os, time
        from daemon_context import DaemonContext
        del os.pidfd_open  # as where there are none
        with DaemonContext(readiness="explicit", detach_process=True, start_timeout=60) as daemon:
            time.sleep(1.2)
            daemon.ready()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_launcher_waits_for_ready(box: support.Sandbox) -> None:
    launcher = box.popen("""
        import os
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                           working_directory=".") as daemon:
            os.mkfifo("go")
            open("go").read()
            daemon.ready()
            daemon.sleep()
    """)
    support.until((box.path / "go").exists)
    daemon = box.pid()
    # The session leader is the daemon's parent, and the launcher the session leader's.
    leader = int(support.stat(daemon)[1])
    assert int(support.stat(leader)[1]) == launcher.pid
    assert launcher.poll() is None
    (box.path / "go").write_text("")
    assert launcher.wait(support.DEADLINE) == 0
    assert not support.state(leader)
    assert support.alive(daemon)


def test_what_an_override_of_ready_raises_arrives_and_unwinds_nothing(box: support.Sandbox) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext, DaemonError
        launcher = os.getpid()
        class Checked(DaemonContext):
            def ready(self, status=""):
                raise RuntimeError("not yet")
        try:
            Checked(detach_process=True, pidfile="d.pid").open()
        except DaemonError as error:
            print(error, file=sys.stderr)
        finally:
            print(os.getpid() == launcher, file=sys.stderr)
    """)
    assert "RuntimeError: not yet (step " in done.stderr
    assert done.stderr.splitlines()[1:] == ["True"]
    box.settled()


def test_a_child_of_the_daemon_can_not_say_that_it_is_ready(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from pathlib import Path
        from daemon_context import DaemonContext, DaemonError
        with DaemonContext(readiness="explicit", detach_process=True,
                           working_directory=".") as daemon:
            if os.fork() == 0:
                try:
                    daemon.ready("from the child")
                except DaemonError as error:
                    Path("child").write_text(str(error))
                os._exit(0)
            os.wait()
            raise RuntimeError("the daemon never was")
    """)
    assert done.returncode == 1
    assert "RuntimeError: the daemon never was" in done.stderr
    assert "in a child of the daemon" in box.text("child")


@pytest.mark.parametrize("how", ["ready", "raise"])
def test_a_report_is_not_written_to_a_file_that_got_the_number_of_its_pipe(
    box: support.Sandbox, how: str
) -> None:
    done = box.run("""
        import os, sys
        from pathlib import Path
        from daemon_context import DaemonContext
        with DaemonContext(readiness="explicit", detach_process=True,
                           working_directory=".") as daemon:
            os.closerange(3, 100)
            files = [open(f"file-{n}", "wb", 0) for n in range(20)]
            try:
                if sys.argv[1] == "ready":
                    daemon.ready("up")
                raise RuntimeError("out of luck")
            except Exception as error:
                Path("error").write_text(str(error))
                for file in files:
                    file.close()  # fails where its number is no longer its own
                raise
    """, how)  # fmt: skip
    assert done.returncode == 1
    assert "exited with status 1 before it was ready" in done.stderr
    told = {"ready": "the program has closed the descriptor", "raise": "out of luck"}[how]
    assert told in box.text("error")
    assert [path.stat().st_size for path in box.path.glob("file-*")] == [0] * 20


def test_progress_is_not_written_to_a_file_that_got_the_number_of_its_pipe(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        place = os.getcwd()
        class CloseAll(Step):
            def apply(self, walk):
                os.closerange(3, 100)
                self.files = [os.open(f"{place}/file-{n}", os.O_WRONLY | os.O_CREAT)
                              for n in range(20)]
        steps = DEFAULT_STEPS.insert_after("close-descriptors", CloseAll())
        DaemonContext(steps=steps, detach_process=True).open()
    """)
    assert done.returncode == 1
    assert "exited with status 1 before it was ready (step 6 of 16, close-all)" in done.stderr
    assert [path.stat().st_size for path in box.path.glob("file-*")] == [0] * 20


def test_a_step_that_closes_the_pipe_of_the_progress_is_named(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Close(Step):
            def apply(self, walk):
                os.close(walk.report.progress_w)
        steps = DEFAULT_STEPS.insert_after("close-descriptors", Close())
        DaemonContext(steps=steps, detach_process=True).open()
    """)
    assert done.returncode == 1
    assert "step 'close' has closed the descriptor by which the launcher is told" in done.stderr


@pytest.mark.parametrize("place", ["step", "body"])
def test_the_error_of_a_daemon_that_has_used_up_its_descriptors_arrives(
    box: support.Sandbox, place: str
) -> None:
    done = box.run("""
        import resource, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Pool(Step):
            def apply(self, walk):
                self.files = []
                while True:
                    self.files.append(open("/dev/null"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        steps, pool = DEFAULT_STEPS, Pool()
        if sys.argv[1] == "step":
            steps = steps.insert_before("report-ready", pool)
        with DaemonContext(steps=steps, detach_process=True, readiness="explicit"):
            pool.apply(None)
    """, place)  # fmt: skip
    assert done.returncode == 1
    assert "Too many open files: '/dev/null'" in done.stderr
    assert "in apply" in done.stderr
