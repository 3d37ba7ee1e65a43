"""A start in the foreground: whatever fails, wherever, the process is as before."""

from __future__ import annotations

import pytest

from daemon_context import DEFAULT_STEPS
from tests.helpers import support

FOREGROUND = """
    import mmap, os, signal, sys, traceback
    from hypothesis import HealthCheck, given, settings, strategies as st
    from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step, Steps
    from daemon_context.errors import SequenceError
    from tests.helpers.support import become_nobody, snapshot

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
