"""Steps of the user's own."""

from __future__ import annotations

from typing import Any

import pytest

from daemon_context import DEFAULT_STEPS, DaemonContext, Step, Steps
from tests.helpers import support
from tests.helpers.stepping import ORDER, Mark, named


def test_a_step_is_named_after_its_class() -> None:
    class RaiseFdLimit(Step):
        """Without a name."""

    class MyUmask(type(DEFAULT_STEPS["set-umask"])):  # type: ignore[misc]
        """Takes the place of the one that it is made from."""

    assert RaiseFdLimit.name == "raise-fd-limit"
    assert RaiseFdLimit().describe(None) == "raise fd limit"  # type: ignore[arg-type]
    assert DEFAULT_STEPS.replace("set-umask", MyUmask()).names == ORDER


def test_the_repr_of_a_step_shows_its_fields() -> None:
    class RaiseFdLimit(Step):
        def __init__(self, limit: int) -> None:
            self.limit = limit

    assert repr(RaiseFdLimit(4096)) == "RaiseFdLimit(limit=4096)"
    assert "raise-fd-limit  " in repr(Steps([RaiseFdLimit(1), named("x")]))


USER_STEP = """
    import os, resource, sys
    from daemon_context import DEFAULT_STEPS, DaemonContext, Step

    class RaiseFdLimit(Step):
        touches = frozenset({"limits"})

        def __init__(self, limit):
            self.limit = limit

        def describe(self, options):
            return f"set the limit of descriptors to {self.limit}"

        def apply(self, walk):
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.limit, hard))
            walk.context.applied_in = (walk.process, os.getpid())

    verb, place, limit = sys.argv[1:]
    if verb == "fresh":
        steps = [*DEFAULT_STEPS, RaiseFdLimit(int(limit))]
    else:
        steps = getattr(DEFAULT_STEPS, verb)(place, RaiseFdLimit(int(limit)))
    with DaemonContext(steps=steps, pidfile="d.pid", stdout="log", detach_process=True) as daemon:
        process, pid = daemon.applied_in
        print(process, pid == os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("verb", "place", "process"),
    [
        ("insert_before", "flush-streams", "launcher"),
        ("insert_before", "detach", "launcher"),
        ("insert_after", "detach", "daemon"),
        ("insert_after", "change-owner", "daemon"),
        ("insert_after", "report-ready", "daemon"),
        ("replace", "prevent-core", "daemon"),
        ("fresh", "", "daemon"),
    ],
)
def test_a_users_step_with_a_field_works_anywhere(
    box: support.Sandbox, verb: str, place: str, process: str
) -> None:
    done = box.run(USER_STEP, verb, place, 123)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert box.text("log") == f"{process} {process == 'daemon'} 123\n"


@pytest.mark.parametrize("place", ORDER)
def test_a_users_step_that_fails_behaves_like_a_stock_step(
    box: support.Sandbox, place: str
) -> None:
    done = box.run(USER_STEP, "insert_before", place, 10**9 * 9)
    number = ORDER.index(place) + 1
    assert done.returncode == 1
    note = "In the daemon" if number > 4 else "changed for good in this process by: raise-fd-limit"
    assert note in done.stderr
    message = next(line for line in done.stderr.splitlines() if "cannot set the limit" in line)
    assert f"(step {number} of 16, raise-fd-limit)" in message
    assert "raise-fd-limit" in message
    if number > 4:
        assert "in apply" in done.stderr  # the remote traceback, as a note
    assert sorted(path.name for path in box.path.iterdir()) == ["program.py"]
    box.settled()


ODD = """
    import os, sys
    from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
    from tests.helpers.launching import attempt

    how, place, detach, trace = sys.argv[1:]

    class Odd(Step):
        def describe(self, options):
            if how == "raise":
                raise KeyError("no such field")
            if how == "exit":
                sys.exit(3)

        def apply(self, walk):
            os.mkdir("/proc/no-such-place/x")

    context = DaemonContext(
        pidfile="d.pid", umask=0o77, prevent_core=False, record_trace=bool(trace),
        detach_process=bool(detach), steps=DEFAULT_STEPS.insert_before(place, Odd()))
    answer = os.dup(1)  # the foreground closes all others
    context.files_preserve = [answer]
    failure = attempt(context)
    os.write(answer, f"{failure['message']}\\n{failure['changed']}".encode())
"""


@pytest.mark.parametrize("trace", ["", "trace"])
@pytest.mark.parametrize(
    ("place", "detach"), [("detach", "detach"), ("set-umask", "detach"), ("change-directory", "")]
)
@pytest.mark.parametrize("how", ["none", "raise", "exit"])
def test_a_step_that_can_not_describe_itself_hides_no_error(
    box: support.Sandbox, how: str, place: str, detach: str, trace: str
) -> None:
    done = box.run(ODD, how, place, detach, trace)
    number = ORDER.index(place) + 1
    message, changed = done.stdout.splitlines()
    assert message == (
        f"cannot odd: No such file or directory: '/proc/no-such-place/x' (step {number} of 16, odd)"
    )
    # What closing the descriptors changes in the foreground can't be undone.
    assert changed == "{}" or (not detach and changed.startswith("{'open': ["))
    assert not (box.path / "d.pid").exists()


def test_a_describe_that_returns_nothing_does_not_cost_the_explanation() -> None:
    class Silent(Mark):
        def describe(self, options: Any) -> str:
            return None  # type: ignore[return-value]

    steps = DEFAULT_STEPS.insert_after("detach", Silent())
    assert "mark" in str(DaemonContext(steps=steps, detach_process=True).explain())


@pytest.mark.parametrize("way", ["daemon", "launcher", "fork"])
def test_what_a_step_has_changed_for_good_in_the_launcher_is_told(
    box: support.Sandbox, way: str
) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Fail(Step):
            touches = frozenset({"luck"})
            def apply(self, walk):
                raise RuntimeError("out of luck")
        def no_fork():
            raise OSError(11, "out of luck")
        if sys.argv[1] == "fork":
            from daemon_context.steps import detach
            detach.fork = no_fork
        core = DEFAULT_STEPS["prevent-core"]
        steps = DEFAULT_STEPS.remove("prevent-core").insert_before("detach", core)
        place = "report-ready" if sys.argv[1] == "daemon" else "detach"
        if sys.argv[1] != "fork":
            steps = steps.insert_before(place, Fail())
        DaemonContext(steps=steps, detach_process=True, pidfile="d.pid").open()
    """, way)  # fmt: skip
    assert done.returncode == 1
    assert "out of luck" in done.stderr
    told = "prevent-core, fail" if way == "launcher" else "prevent-core"
    assert done.stderr.endswith(f"changed for good in this process by: {told}\n")


def test_an_error_about_two_paths_names_both(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Move(Step):
            def apply(self, walk):
                os.rename("/tmp", "/no/such/place")
        steps = DEFAULT_STEPS.insert_before("report-ready", Move())
        DaemonContext(steps=steps, detach_process=True).open()
    """)
    assert "cannot move: No such file or directory: '/tmp' -> '/no/such/place' (step" in done.stderr


def test_a_step_that_a_signal_ends_does_not_say_that_it_called_exit(box: support.Sandbox) -> None:
    done = box.run("""
        import os, signal
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Connect(Step):
            def apply(self, walk):
                os.kill(os.getpid(), signal.SIGTERM)
        steps = DEFAULT_STEPS.insert_before("report-ready", Connect())
        DaemonContext(steps=steps, detach_process=True).open()
    """)
    assert done.returncode == 1
    assert "cannot connect: Terminated: terminated by SIGTERM (step 15 of 16, con" in done.stderr


@pytest.mark.parametrize("detach", [True, False])
def test_a_step_at_once_is_noted_before_a_signal_is_handled(
    box: support.Sandbox, detach: bool
) -> None:
    done = box.run("""
        import os, signal, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Acquire(Step):
            at_once = True
            def apply(self, walk):
                print("acquired")
                os.kill(os.getpid(), signal.SIGINT)
                return "it"
            def undo(self, walk, memory):
                print("let go of", memory)
        steps = DEFAULT_STEPS.insert_before("detach", Acquire())
        DaemonContext(steps=steps, detach_process=sys.argv[1] == "True").open()
    """, detach)  # fmt: skip
    assert done.stderr.endswith("\nKeyboardInterrupt\n")
    assert done.stdout == "acquired\nlet go of it\n"


def test_a_step_that_makes_a_session_does_not_make_the_daemon_its_leader(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import os
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class OwnSession(Step):
            def apply(self, walk):
                os.setsid()
                raise RuntimeError("out of luck")
        steps = DEFAULT_STEPS.insert_after("detach", OwnSession())
        DaemonContext(steps=steps, detach_process=True).open()
    """)
    assert done.returncode == 1
    assert "In the daemon (pid " in done.stderr
    assert "In the session leader" not in done.stderr


def test_an_error_of_a_class_made_from_ours_arrives_as_ours_with_its_traceback(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        from daemon_context import (
            DEFAULT_STEPS, DaemonContext, DaemonError, DaemonOSEnvironmentError, Step)
        class NoDatabase(DaemonError):
            pass
        class NoRoom(DaemonOSEnvironmentError):
            pass
        class Fail(Step):
            def apply(self, walk):
                raise self.how
        for how in (NoDatabase("it is down"), NoRoom("it is full", errno=28)):
            fail = Fail()
            fail.how = how
            steps = DEFAULT_STEPS.insert_before("report-ready", fail)
            try:
                DaemonContext(steps=steps, detach_process=True).open()
            except DaemonError as error:
                print(type(error).__name__, error.errno, error, "in apply" in error.__notes__[0])
    """)
    place = "(step 15 of 16, fail)"
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"DaemonError None it is down {place} True\n"
        f"DaemonOSEnvironmentError 28 it is full {place} True\n",
        "",
    )


@pytest.mark.parametrize("place", ["detach", "set-umask"])
@pytest.mark.parametrize("readiness", ["open", "explicit"])
def test_no_step_can_say_that_the_daemon_is_ready(
    box: support.Sandbox, readiness: str, place: str
) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Hasty(Step):
            def apply(self, walk):
                walk.context.ready("up")
        class Fail(Step):
            def apply(self, walk):
                raise RuntimeError("out of luck")
        steps = DEFAULT_STEPS.insert_before(sys.argv[2], Hasty())
        steps = steps.insert_before("report-ready", Fail())
        DaemonContext(steps=steps, detach_process=True, readiness=sys.argv[1]).open()
    """, readiness, place)  # fmt: skip
    assert done.returncode == 1
    number = ORDER.index(place) + 1
    assert f"call open() first (step {number} of 17, hasty)" in done.stderr
