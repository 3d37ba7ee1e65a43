"""The standard streams of a program that stays in the foreground, and of one out of descriptors."""

from __future__ import annotations

from tests.helpers import support


def test_in_the_foreground_the_streams_are_redirected_too(box: support.Sandbox) -> None:
    done = box.run("""
        import subprocess, sys
        from daemon_context import DaemonContext
        print("before", end="")
        with DaemonContext(stdout="log", detach_process=False):
            print("after")
            subprocess.run(["echo", "from a program"])
            print("unseen", file=sys.stderr)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "before", "")
    assert box.text("log") == "after\nfrom a program\n"


def test_streams_are_not_closed_where_descriptors_run_out(box: support.Sandbox) -> None:
    done = box.run("""
        import fcntl, os, resource, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step

        class Fail(Step):
            def apply(self, walk):
                raise RuntimeError("out of luck")

        class FillUp(Step):
            def apply(self, walk):
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(walk.streams.values()) + 1, hard))

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        steps = (DEFAULT_STEPS.insert_before("redirect-streams", FillUp())
                              .insert_after("redirect-streams", Fail()))
        try:
            DaemonContext(detach_process=False, steps=steps).open()
        except Exception as error:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            print(error)
    """)
    assert "Too many open files" in done.stdout, done.stderr
    assert done.stderr == ""


def test_no_descriptor_for_the_null_device_is_an_error_about_it(box: support.Sandbox) -> None:
    done = box.run("""
        import os, resource
        from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
        class Lower(Step):
            def apply(self, walk):
                os.close(free := os.dup(0))
                resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        try:
            DaemonContext(steps=DEFAULT_STEPS.insert_before("open-streams", Lower())).open()
        except DaemonError as error:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            print(error.step, error.path, error)
    """)
    assert done.stdout.startswith("open-streams /dev/null cannot open /dev/null"), done
    assert "Too many open files" in done.stdout
    assert ".py" not in done.stdout
