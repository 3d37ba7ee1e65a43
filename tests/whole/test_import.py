"""What importing the package costs, its names, its errors, and systems that are not Linux."""

from __future__ import annotations

import ast
import copy
import errno
import pickle
import re
from pathlib import Path
from typing import Any

import lockfile
import pytest

import daemon_context
import daemon_context.pidfile
import daemon_context.steps
from daemon_context import errors
from tests.helpers import support

PUBLIC = {
    "AlreadyRunning", "DEFAULT_STEPS", "DaemonContext", "DaemonError", "DaemonOSEnvironmentError",
    "DaemonProcessDetachError", "PidFile", "Step", "StepError", "Steps", "default_signal_map",
}  # fmt: skip
HEAVY = {
    "asyncio", "ctypes", "dataclasses", "enum", "inspect", "json", "lockfile", "logging", "signal",
    "socket", "subprocess", "traceback", "typing",
}  # fmt: skip


def loaded(box: support.Sandbox, code: str) -> set[str]:
    """What the code loads in a bare interpreter."""
    done = box.run(
        f"import sys; sys.path[:0] = [{str(support.ROOT)!r}]\n{code}\n"
        "print(*sys.modules, file=sys.__stdout__, flush=True)",
        prefix=None,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_importing_loads_nothing_heavy(box: support.Sandbox) -> None:
    bare = loaded(box, "")
    found = loaded(box, "import daemon_context; daemon_context.DaemonContext()")
    assert "daemon_context.context" in found
    assert not (found - bare) & HEAVY
    assert not {name.partition(".")[0] for name in found - bare} & HEAVY


def test_a_start_loads_nothing_heavy(box: support.Sandbox) -> None:
    bare = loaded(box, "")
    start = """
import os
from daemon_context import DaemonContext
context = DaemonContext(detach_process=True, pidfile="d.pid", stdout="log")
context.open()
print(*sys.modules)
context.close()
os._exit(0)
"""
    box.run(box.script(f"import sys\n{start}"))
    found = set(box.text("log").split())
    assert "daemon_context.report" in found
    assert not (found - bare) & (HEAVY - {"socket"})


# Of a start without a pid file; byte code as CPython 3.11, whose is the largest, makes it.
MOST_MODULES, MOST_BYTES = 28, 330_000


def test_a_plain_start_loads_little(box: support.Sandbox) -> None:
    """To be found and opened each module costs some 50 µs, and its code by its size."""
    done = box.run(
        f"""
        import marshal, os, sys
        sys.path[:0] = [{str(support.ROOT)!r}]
        from daemon_context import DaemonContext

        found = os.path.abspath("found")
        DaemonContext(detach_process=True).open()
        weights = {{}}
        for name, module in sorted(sys.modules.items()):
            if name.partition(".")[0] == "daemon_context":
                with open(module.__file__) as file:
                    code = compile(file.read(), module.__file__, "exec", dont_inherit=True)
                weights[name] = len(marshal.dumps(code))
        with open(found, "w") as file:
            print(len(weights), sum(weights.values()), weights, file=file)
        """,
        prefix=None,
    )
    assert (done.returncode, done.stderr) == (0, "")
    modules, size, weights = box.text("found").split(maxsplit=2)
    assert int(modules) <= MOST_MODULES, weights
    assert int(size) <= MOST_BYTES, weights


def test_all_public_names_are_there() -> None:
    assert set(daemon_context.__all__) >= PUBLIC
    for name in daemon_context.__all__:
        assert getattr(daemon_context, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        daemon_context.no_such_name  # type: ignore[attr-defined]  # noqa: B018
    for name in ("PidFile", "TimeoutPIDLockFile", "PIDLockFile"):
        assert issubclass(getattr(daemon_context.pidfile, name), daemon_context.PidFile)
    for step in daemon_context.DEFAULT_STEPS:
        assert type(step) is getattr(daemon_context.steps, type(step).__name__)


def test_names_that_are_loaded_late_can_be_imported(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import AlreadyRunning, PidFile
        import lockfile
        print(issubclass(AlreadyRunning, lockfile.AlreadyLocked), PidFile.__name__)
    """)
    assert (done.stdout, done.stderr) == ("True PidFile\n", "")


@pytest.mark.parametrize("imported", [True, False])
def test_a_refusal_is_lockfiles_for_who_has_imported_that(
    box: support.Sandbox, imported: bool
) -> None:
    done = box.run(
        """
        import sys
        if sys.argv[1] == "True":
            import lockfile
        from daemon_context import DaemonContext, PidFile
        with PidFile("x.pid"):
            try:
                DaemonContext(pidfile="x.pid", detach_process=False).open()
            except Exception as error:
                print("lockfile" in sys.modules)
                import lockfile
                print(isinstance(error, lockfile.AlreadyLocked))
                from daemon_context import AlreadyRunning
                print(isinstance(error, lockfile.AlreadyLocked), type(error) is AlreadyRunning)
                print(f"{type(error).__module__}.{type(error).__name__}")
        """,
        imported,
    )
    assert done.stdout.splitlines() == [
        f"{imported}",
        f"{imported}",
        "True True",
        "daemon_context.errors.AlreadyRunning",
    ]


# --- errors

KINDS: list[type[daemon_context.DaemonError]] = sorted(
    {
        kind
        for kind in (*vars(errors).values(), *(getattr(errors, n) for n in errors._LOCK_ERRORS))
        if isinstance(kind, type) and issubclass(kind, errors.DaemonError)
    },
    key=lambda kind: kind.__name__,
)
FACTS: dict[str, Any] = {
    "step": "set-umask", "path": "/run/x.pid", "pid": 42, "errno": errno.EACCES,
    "exit_status": 3, "signal_number": 9,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling_with_their_data(kind: type[errors.DaemonError]) -> None:
    error = kind("a message", **FACTS)
    error.add_note("a note")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert str(again) == "a message"
        assert {fact: getattr(again, fact) for fact in FACTS} == FACTS
        assert again.__notes__ == ["a note"]
    assert str(copy.copy(error)) == "a message"
    bare = pickle.loads(pickle.dumps(kind("only words")))
    assert (str(bare), bare.step, bare.errno) == ("only words", None, None)


def test_unknown_facts_are_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="shoe_size"):
        daemon_context.DaemonError("x", shoe_size=43)


def test_errors_are_caught_as_those_of_python_daemon_and_lockfile() -> None:
    assert len(KINDS) >= 12
    assert issubclass(errors.DaemonOSEnvironmentError, (errors.DaemonError, OSError))
    assert issubclass(errors.DaemonOSEnvironmentError, OSError)
    assert issubclass(errors.DaemonProcessDetachError, OSError)
    assert issubclass(errors.OptionError, ValueError)
    assert issubclass(errors.AlreadyRunning, lockfile.AlreadyLocked)
    assert issubclass(errors.LockTimeout, lockfile.LockTimeout)
    assert issubclass(errors.PidFileError, lockfile.LockFailed)
    assert issubclass(errors.NotLocked, lockfile.NotLocked)
    assert issubclass(errors.NotMyLock, lockfile.NotMyLock)
    assert all(issubclass(kind, daemon_context.DaemonError) for kind in KINDS)


# --- elsewhere than on Linux

NOT_LINUX = """
    import fcntl, os, _signal, sys
    # What CPython does not have on macOS.
    for module, names in {
        fcntl: ["F_OFD_SETLK", "F_OFD_GETLK", "F_OFD_SETLKW"],
        os: ["pidfd_open", "getresuid", "getresgid", "setresuid", "setresgid", "O_PATH", "waitid",
             "waitid_result", "P_PIDFD"],
        _signal: ["pidfd_send_signal", "sigtimedwait", "sigwaitinfo"],
    }.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    from daemon_context import DaemonContext, DaemonError
    try:
        DaemonContext(detach_process=True, **eval(sys.argv[1])).open()
    except DaemonError as error:
        print(error)
    else:
        print("works")
"""


def test_without_linuxs_locks_a_pid_file_is_refused_with_the_reason(box: support.Sandbox) -> None:
    done = box.run(NOT_LINUX, "dict(pidfile='d.pid')")
    assert (done.returncode, done.stderr) == (0, "")
    assert "open-file-description locks" in done.stdout
    assert "operating system" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not (box.path / "d.pid").exists()


@pytest.mark.root
def test_without_setresuid_a_change_of_owner_is_refused_with_the_reason(
    box: support.Sandbox,
) -> None:
    done = box.run(NOT_LINUX, "dict(uid='nobody')")
    assert (done.returncode, done.stderr) == (0, "")
    assert "operating system has no setresuid()" in done.stdout


def test_without_all_that_is_linuxs_own_it_detaches_all_the_same(box: support.Sandbox) -> None:
    done = box.run(NOT_LINUX, "dict(stdout='log')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert box.text("log") == "works\n"


def test_without_fork_it_can_be_imported_and_says_so(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        del os.fork, os.register_at_fork
        from daemon_context import DaemonContext, DaemonProcessDetachError
        try:
            DaemonContext(detach_process=True).open()
        except DaemonProcessDetachError as error:
            print(error)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert "operating system has no fork()" in done.stdout


def test_only_two_steps_fork() -> None:
    """Whoever forks decides which process goes on, and what it holds."""
    package = support.ROOT / "daemon_context"
    forking = {str(path.relative_to(package)) for path in package.rglob("*.py") if _forks(path)}
    assert forking == {"steps/detach.py", "steps/reaping.py"}


def _forks(path: Path) -> bool:
    """Whether code of the file, no text in it, does."""
    calls = re.compile(r"(\w+\.)?_?(fork|forkpty|posix_spawn)\(")
    nodes = ast.walk(ast.parse(path.read_text()))
    return any(calls.match(ast.unparse(node)) for node in nodes if isinstance(node, ast.Call))
