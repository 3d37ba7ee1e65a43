"""The sequence: immutable edits, order refused with its reason, users' steps, and explain()."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_context import DEFAULT_STEPS, DaemonContext, Step, Steps
from daemon_context.errors import SequenceError, UnknownStepError

from . import support

ORDER = (
    "flush-streams", "lock-pidfile", "open-streams", "detach", "close-descriptors", "change-root",
    "set-umask", "change-directory", "write-pidfile", "change-owner", "prevent-core",
    "install-signals", "redirect-streams", "enter-pidfile", "report-ready",
)  # fmt: skip
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Mark(Step):
    """A user's step."""

    name = "mark"

    def apply(self, walk: Any) -> None: ...


def named(name: str) -> Step:
    return type("Named", (Step,), {"name": name})()


# --- the sequence as a value


def test_the_default_order_is_the_designs() -> None:
    assert DEFAULT_STEPS.names == ORDER
    assert len(DEFAULT_STEPS) == len(ORDER)


def test_stock_steps_have_no_fields() -> None:
    assert [vars(step) for step in DEFAULT_STEPS] == [{}] * len(ORDER)


def test_verbs_return_a_new_sequence() -> None:
    mark = Mark()
    before = DEFAULT_STEPS.insert_before("detach", mark)
    after = DEFAULT_STEPS.insert_after("detach", mark)
    instead = DEFAULT_STEPS.replace("detach", mark)
    without = DEFAULT_STEPS.remove("detach", "set-umask")
    at = ORDER.index("detach")
    assert before.names == (*ORDER[:at], "mark", *ORDER[at:])
    assert after.names == (*ORDER[: at + 1], "mark", *ORDER[at + 1 :])
    assert instead.names == (*ORDER[:at], "mark", *ORDER[at + 1 :])
    assert without.names == tuple(n for n in ORDER if n not in ("detach", "set-umask"))
    assert DEFAULT_STEPS.names == ORDER


def test_verbs_take_several_steps() -> None:
    one, two = named("one"), named("two")
    steps = Steps([Mark()])
    assert steps.insert_before("mark", one, two).names == ("one", "two", "mark")
    assert steps.insert_after("mark", one, two).names == ("mark", "one", "two")
    assert steps.replace("mark", one, two).names == ("one", "two")
    assert Steps().names == ()


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: setattr(s, "_steps", ()),
        lambda s: setattr(s, "names", ()),
        lambda s: delattr(s, "_steps"),
        lambda s: s.__setitem__(0, Mark()),
        lambda s: s.append(Mark()),
    ],
)
def test_the_sequence_can_not_be_changed(edit: Any) -> None:
    with pytest.raises((AttributeError, TypeError)):
        edit(DEFAULT_STEPS)
    assert DEFAULT_STEPS.names == ORDER


def test_lookup() -> None:
    assert DEFAULT_STEPS["set-umask"].name == "set-umask"
    assert DEFAULT_STEPS[3] is DEFAULT_STEPS["detach"]
    assert DEFAULT_STEPS[-1].name == "report-ready"
    assert DEFAULT_STEPS.index("detach") == 3
    assert "detach" in DEFAULT_STEPS
    assert DEFAULT_STEPS["detach"] in DEFAULT_STEPS
    assert "no-such-step" not in DEFAULT_STEPS
    assert Mark() not in DEFAULT_STEPS
    assert tuple(DEFAULT_STEPS) == tuple(DEFAULT_STEPS[name] for name in ORDER)


def test_equality_hash_and_pickle() -> None:
    again = Steps(DEFAULT_STEPS)
    assert again == DEFAULT_STEPS
    assert hash(again) == hash(DEFAULT_STEPS)
    assert again != again.remove("set-umask")
    assert again != tuple(again)
    assert pickle.loads(pickle.dumps(again)).names == again.names


def test_the_repr_is_a_numbered_list() -> None:
    lines = repr(DEFAULT_STEPS).splitlines()
    assert lines[0] == "Steps("
    assert lines[-1] == ")"
    assert [line.split()[:2] for line in lines[1:-1]] == [
        [str(number), name] for number, name in enumerate(ORDER, 1)
    ]
    assert "Detach()" in lines[4]


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.insert_before("detatch", Mark()),
        lambda s: s.insert_after("detatch", Mark()),
        lambda s: s.replace("detatch", Mark()),
        lambda s: s.remove("set-umask", "detatch"),
        lambda s: s.index("detatch"),
        lambda s: s["detatch"],
    ],
)
def test_an_unknown_name_lists_the_known_ones(edit: Any) -> None:
    with pytest.raises(UnknownStepError) as caught:
        edit(DEFAULT_STEPS)
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == f"there is no step 'detatch'; known steps: {', '.join(ORDER)}"


# --- what is no sequence


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([None], "None is not a step; a step is an object of a subclass"),
        (["detach"], "'detach' is not a step"),
        ([Mark], "put an object in, not its class: Mark()"),
        ([Mark(), Mark()], "two steps are named 'mark'"),
        ([*DEFAULT_STEPS, *DEFAULT_STEPS], "two steps are named 'flush-streams'"),
        ([named(5)], "must be a string"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_step_is_refused(members: Any, words: str) -> None:
    with pytest.raises(SequenceError) as caught:
        Steps(members)
    assert words in str(caught.value)
    with pytest.raises(SequenceError):
        DEFAULT_STEPS.insert_after("detach", *members, named("detach"))


DECLARED = [(s.name, other, why) for s in DEFAULT_STEPS for other, why in s.after.items()]


@pytest.mark.parametrize(
    ("name", "other", "why"), DECLARED, ids=[f"{a}-{b}" for a, b, _ in DECLARED]
)
def test_an_order_that_can_not_work_is_refused_with_the_reason(
    name: str, other: str, why: str
) -> None:
    assert Steps([DEFAULT_STEPS[other], DEFAULT_STEPS[name]])
    with pytest.raises(SequenceError) as caught:
        Steps([DEFAULT_STEPS[name], DEFAULT_STEPS[other]])
    assert str(caught.value) == f"step {name!r} must come after {other!r}: {why}"
    assert caught.value.step == name
    moved = DEFAULT_STEPS[other]
    with pytest.raises(SequenceError, match="must come after"):
        DEFAULT_STEPS.remove(other).insert_after(name, moved)


def test_the_orders_that_matter_most_are_declared() -> None:
    declared = {(name, other) for name, other, _ in DECLARED}
    assert {
        ("write-pidfile", "detach"),
        ("write-pidfile", "lock-pidfile"),
        ("change-owner", "change-root"),
        ("change-owner", "lock-pidfile"),
        ("change-owner", "write-pidfile"),
        ("change-directory", "change-root"),
        ("redirect-streams", "open-streams"),
        ("close-descriptors", "detach"),
        ("detach", "flush-streams"),
        ("report-ready", "write-pidfile"),
    } <= declared


def test_every_declared_order_holds_by_default() -> None:
    for name, other, why in DECLARED:
        assert ORDER.index(other) < ORDER.index(name)
        assert why


def test_a_users_step_may_declare_an_order_of_its_own() -> None:
    class Late(Mark):
        name = "late"
        after = {"detach": "it needs the daemon's pid"}

    with pytest.raises(SequenceError, match="'late' must come after 'detach': it needs"):
        DEFAULT_STEPS.insert_before("detach", Late())
    assert DEFAULT_STEPS.insert_after("detach", Late())
    assert Steps([Late()])  # nothing to come after


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert_before", "insert_after", "replace", "remove"]),
        st.sampled_from([*ORDER, "a", "b", "c", "nope"]),
        st.lists(st.sampled_from([*ORDER, "a", "b", "c"]), max_size=2),
    ),
    max_size=12,
)


@CALM
@given(EDITS)
def test_any_edits_keep_order_and_unique_names(edits: list[Any]) -> None:
    steps = DEFAULT_STEPS
    for verb, name, others in edits:
        new = [DEFAULT_STEPS[n] if n in ORDER else named(n) for n in others]
        before = list(steps.names)
        try:
            steps = getattr(steps, verb)(name, *(() if verb == "remove" else new))
        except SequenceError:
            assert list(steps.names) == before
            continue
        at = before.index(name)
        expected = {
            "insert_before": before[:at] + others + before[at:],
            "insert_after": before[: at + 1] + others + before[at + 1 :],
            "replace": before[:at] + others + before[at + 1 :],
            "remove": before[:at] + before[at + 1 :],
        }[verb]
        assert list(steps.names) == expected
        assert len(set(steps.names)) == len(steps.names)
        for number, step in enumerate(steps):
            assert not set(step.after) & set(steps.names[number:])


# --- users' steps


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
    from tests.launching import attempt

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


# --- in the foreground: whatever fails, wherever, the process is as before

FOREGROUND = """
    import mmap, os, signal, sys, traceback
    from hypothesis import HealthCheck, given, settings, strategies as st
    from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step, Steps
    from daemon_context.errors import SequenceError
    from tests.support import become_nobody, snapshot

    NOBODY = "nobody" in sys.argv
    ROOT = os.getuid() == 0 and not NOBODY
    os.makedirs("jail/srv")
    keep = open("keep", "w")
    os.chmod("keep", 0o666)
    os.umask(0o027)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    class Fail(Step):
        touches = frozenset({"umask"})
        def __init__(self, how):
            self.how = how
        def apply(self, walk):
            raise self.how

    class Scratch(Step):
        '''A user's step that undoes what it did.'''
        touches = frozenset({"environment"})
        def __init__(self, name):
            self.name = name
        def apply(self, walk):
            os.environ[self.name] = "x"
        def undo(self, walk, memory):
            del os.environ[self.name]

    NAMES = DEFAULT_STEPS.names
    HOW = [OSError(5, "no"), ValueError("no"), SystemExit(3), KeyboardInterrupt()]
    EDITS = st.lists(st.one_of(
        st.tuples(st.just("remove"), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["insert_before", "insert_after", "replace"]),
                  st.sampled_from(NAMES), st.builds(Scratch, st.sampled_from("ABC"))),
    ), max_size=4)
    OPTIONS = st.fixed_dictionaries({}, optional={
        "pidfile": st.just("d.pid"), "stdout": st.just("out.log"), "stderr": st.just("err.log"),
        "stdin": st.just("keep"), "umask": st.sampled_from([0, 0o77]),
        "working_directory": st.sampled_from(["/", "jail/srv"]),
        "files_preserve": st.sampled_from([None, range(1024)]),
        "prevent_core": st.booleans(),
        **({"uid": st.just("nobody"), "gid": st.just(1), "chroot_directory": st.just("jail")}
           if ROOT else {}),
    })

    def attempt(options, steps):
        '''In a process of its own: what is wrong afterwards.'''
        before, files = snapshot(), sorted(os.listdir())
        context = DaemonContext(detach_process=False, steps=steps, **options)
        try:
            context.open()
        except BaseException as error:
            failure = error
        else:
            return "it did not fail"
        after = snapshot()
        changed = {key for key in after if after[key] != before[key]}
        said = " ".join(getattr(failure, "__notes__", ()))
        lasting = said.partition("changed for good in this process by: ")[2].split(", ")
        allowed = set()
        for name in lasting:
            if name:
                allowed |= steps[name].touches
        wrong = []
        if changed - allowed:
            wrong.append(f"changed: {[(k, before[k], after[k]) for k in changed - allowed]}")
        if "could not undo" in said and not {"change-root", "change-owner"} & set(lasting):
            wrong.append(said)
        if context.is_open:
            wrong.append("open")
        if not isinstance(failure, (DaemonError, KeyboardInterrupt)):
            wrong.append(repr(failure))
        if "root" not in allowed and "uid" not in allowed and sorted(os.listdir()) != files:
            wrong.append(f"files: {os.listdir()}")
        return wrong and f"{wrong} after {failure!r} {said}"

    @settings(max_examples=int(sys.argv[1]), deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(EDITS, OPTIONS, st.integers(0, 14), st.sampled_from(HOW))
    def test(edits, options, place, how):
        steps = DEFAULT_STEPS
        for verb, name, *new in edits:
            try:
                steps = getattr(steps, verb)(name, *new)
            except SequenceError:
                pass
        place = min(place, len(steps))
        steps = Steps([*list(steps)[:place], Fail(how), *list(steps)[place:]])
        said = mmap.mmap(-1, 1 << 16)  # survives closed descriptors, another root and owner
        pid = os.fork()
        if not pid:
            try:
                if NOBODY:
                    become_nobody()
                wrong = attempt(options, steps)
            except BaseException:
                wrong = traceback.format_exc()
            said.write(str(wrong or "").encode()[:60000])
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        text = said[:].rstrip(b"\\0").decode()
        for name in ("d.pid", "d.pid.lock", "out.log", "err.log"):
            if os.path.exists(name):
                os.unlink(name)
        assert not text and not status, (text, status)
    test()
    print("done")
"""


def test_a_failure_in_the_foreground_leaves_the_process_as_before(
    open_box: support.Sandbox,
) -> None:
    done = open_box.run(FOREGROUND, 100)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr[-3000:]


@pytest.mark.root
def test_nor_does_one_of_an_ordinary_user(open_box: support.Sandbox) -> None:
    done = open_box.run(FOREGROUND, 50, "nobody")
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr[-3000:]


@pytest.mark.parametrize("name", sorted({*DEFAULT_STEPS.names} - {"lock-pidfile"}))
def test_without_any_one_step_it_goes_on_in_the_foreground(box: support.Sandbox, name: str) -> None:
    done = box.run("""
        import sys
        from daemon_context import DEFAULT_STEPS, DaemonContext
        steps = DEFAULT_STEPS.remove(sys.argv[1])
        with DaemonContext(detach_process=False, steps=steps, pidfile="d.pid",
                           stdout="log", working_directory=".") as daemon:
            print("works", flush=True)
    """, name)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout or box.text("log")) == "works\n"


@pytest.mark.parametrize("detach", [True, False])
def test_without_its_lock_the_pid_file_is_not_written(box: support.Sandbox, detach: bool) -> None:
    done = box.run(f"""
        from daemon_context import DEFAULT_STEPS, DaemonContext
        steps = DEFAULT_STEPS.remove("lock-pidfile")
        DaemonContext(detach_process={detach}, steps=steps, pidfile="d.pid").open()
    """)
    assert done.returncode == 1
    assert "d.pid' was not locked; keep the step lock-pidfile" in done.stderr
    assert "closed" not in done.stderr.splitlines()[-1]
    assert not (box.path / "d.pid").exists()


def test_what_stays_changed_is_listed(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Fail(Step):
            def apply(self, walk):
                raise RuntimeError("no")
        DaemonContext(detach_process=False, steps=[*DEFAULT_STEPS, Fail()]).open()
    """)
    assert done.returncode == 1
    assert "changed for good in this process by: close-descriptors, prevent-core" in done.stderr


# --- explain


def test_explain_has_a_row_for_every_step() -> None:
    before = support.snapshot()
    rows = list(DaemonContext(detach_process=True, pidfile="/run/x.pid").explain())
    assert [row.name for row in rows] == list(ORDER)
    assert [row.number for row in rows] == list(range(1, len(ORDER) + 1))
    assert [row.process for row in rows] == ["launcher"] * 3 + ["all three"] + ["daemon"] * 11
    assert all(row.text for row in rows)
    assert support.snapshot() == before


def test_explain_knows_no_other_step() -> None:
    explanation = DaemonContext(detach_process=True).explain()
    assert explanation["detach"].number == 4
    with pytest.raises(KeyError, match="chroot"):
        explanation["chroot"]


def test_explain_gives_the_reason_why_a_step_is_not_needed() -> None:
    explanation = DaemonContext(detach_process=False, signal_map={}, prevent_core=False).explain()
    unneeded = {row.name: row.text for row in explanation if not row.needed}
    assert unneeded == {
        "lock-pidfile": "no pidfile is given",
        "detach": "detach_process=False was given",
        "change-root": "no chroot_directory is given",
        "change-owner": unneeded["change-owner"],
        "prevent-core": "prevent_core=False was given",
        "install-signals": "the signal map is empty",
        "write-pidfile": "no pidfile is given",
        "enter-pidfile": "no pidfile is given",
    }
    assert "already" in unneeded["change-owner"]
    assert {row.process for row in explanation} == {"this process"}


def test_explain_promises_no_launcher_where_no_step_detaches() -> None:
    steps = DEFAULT_STEPS.remove("detach")
    explanation = DaemonContext(detach_process=True, steps=steps).explain()
    assert explanation["report-ready"].text == "be ready"


def test_explain_changes_nothing_even_where_open_would_fail(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        from tests.support import snapshot
        context = DaemonContext(
            detach_process=True, pidfile="d.pid", stdout="log", uid="nobody",
            working_directory="/no/such/directory", files_preserve=iter([]),
        )
        files = os.listdir()
        before = snapshot()
        first, second = str(context.explain()), str(context.explain())
        assert snapshot() == before
        assert first == second
        assert os.listdir() == files
        assert not context.is_open
        context.working_directory = "/"
        assert "'/'" in str(context.explain())
        print(first)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no/such/directory" in done.stdout
    assert sorted(path.name for path in box.path.iterdir()) == ["program.py"]


def explain(box: support.Sandbox, *args: str) -> Any:
    run = box.script("import runpy; runpy.run_module('daemon_context', run_name='__main__')")
    return box.run(run, "explain", *args)


def test_the_command_prints_an_aligned_table(box: support.Sandbox) -> None:
    done = explain(box)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["#", "step", "process", "what"]
    assert [line.split()[1] for line in lines] == list(ORDER)
    for word in ("step", "process", "what"):
        column = head.index(word)
        assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert "who started it" in done.stdout


MODULE = """
    from daemon_context import DaemonContext
    feed = DaemonContext(pidfile="/run/feed.pid", detach_process=True, umask=0o22)
    number = 5
    bad = DaemonContext(umask="x")
"""


def test_the_command_explains_a_context_of_yours_also_as_json(box: support.Sandbox) -> None:
    box.script(MODULE, "mine.py")
    assert "write the pid to '/run/feed.pid'" in explain(box, "mine:feed").stdout
    found = json.loads(explain(box, "--json", "mine:feed").stdout)
    rows = found if isinstance(found, list) else found["steps"]
    assert [row["name"] for row in rows] == list(ORDER)
    assert next(row for row in rows if row["name"] == "set-umask")["text"] == "set the umask to 022"
    assert {"number", "name", "process", "needed", "text"} <= set(rows[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:feed", "no_such_module"),
        ("mine:no_such_name", "no_such_name"),
        ("mine", "context"),
        ("mine:number", "is no DaemonContext and no Daemon, but 5"),
        ("mine:bad", "umask='x'"),
        (":feed", "MODULE:NAME"),
        (".mine:feed", "MODULE:NAME"),
        ("program.py", "'program.py' is a file; give MODULE:NAME"),
    ],
)
def test_the_command_has_one_clear_line_for_what_is_no_context(
    box: support.Sandbox, name: str, words: str
) -> None:
    box.script(MODULE, "mine.py")
    box.script("print('I was run')", "program.py")
    done = explain(box, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.startswith("daemon_context: ")
    assert len(done.stderr.splitlines()) == 1
