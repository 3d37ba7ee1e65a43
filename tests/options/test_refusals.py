"""What open() refuses in a real program, before anything has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import support

# --- open() in a real program: nothing has changed when it refuses

BECOME_NOBODY = """
    from tests.helpers.support import become_nobody
    become_nobody()
"""
REFUSALS = """
    import json, os, signal, sys
    from pathlib import Path
    from daemon_context import DaemonContext, DaemonError, Step, DEFAULT_STEPS
    from tests.helpers.support import snapshot

    class Twin(Step):
        def apply(self, walk): raise AssertionError("applied")

    here = Path.cwd()
    closed = open("closed", "w"); closed.close()
    os.mkdir("root"); os.mkdir("locked", 0)
    os.mkfifo("fifo"); os.symlink("closed", "link")
    jail = dict(chroot_directory="root")
    CASES = {
        "missing directory": dict(working_directory=here / "nope"),
        "file as directory": dict(working_directory=here / "closed"),
        "missing root": dict(chroot_directory="nope"),
        "file as root": dict(chroot_directory="closed"),
        "directory missing in the root": dict(chroot_directory="root", working_directory="/srv"),
        "unknown user": dict(uid="no-such-user"),
        "unknown group": dict(gid="no-such-group"),
        "uncatchable": dict(signal_map={signal.SIGKILL: None}),
        "no such signal": dict(signal_map={999: None}),
        "no such handler": dict(signal_map={signal.SIGHUP: "nope"}),
        "closed file": dict(files_preserve=[closed]),
        "object": dict(files_preserve=[object()]),
        "closed stream": dict(stdout=closed),
        "missing log directory": dict(stdout=here / "nope" / "log"),
        "missing input": dict(stdin=here / "nope"),
        "directory as log": dict(stderr=here / "root"),
        "pid file is a directory": dict(pidfile=here / "root"),
        "pid file is a FIFO": dict(pidfile=here / "fifo"),
        "pid file is a link": dict(pidfile=here / "link"),
        "pid file in no directory": dict(pidfile=here / "nope" / "pid"),
        "non-step": dict(steps=[*DEFAULT_STEPS, "x"]),
        "step class": dict(steps=[*DEFAULT_STEPS, Twin]),
        "twins": dict(steps=[Twin(), *DEFAULT_STEPS, Twin()]),
        "nobody reports": dict(steps=DEFAULT_STEPS.remove("report-ready")),
        "order": dict(steps=reversed(list(DEFAULT_STEPS))),
        "readiness": dict(readiness="soon"),
        "umask": dict(umask=0o1777),
        "timeout": dict(start_timeout=-1),
        "threads": dict(threads="kill"),
        "NUL": dict(pidfile="d.pid\\0"),
    }
    if os.getuid():
        CASES["unreadable directory"] = dict(working_directory=here / "locked")
        CASES["without privilege"] = dict(uid=1)
        CASES["group without privilege"] = dict(gid=1)
        CASES["root without privilege"] = dict(chroot_directory="root")
    os.umask(0o027)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    before, files = snapshot(), sorted(os.listdir())
    for name, options in CASES.items():
        try:
            DaemonContext(detach_process=True, **options).open()
        except DaemonError as error:
            now = snapshot()
            changed = {key: (before[key], now[key]) for key in now if now[key] != before[key]}
            if sorted(os.listdir()) != files:
                changed["files"] = os.listdir()
            print(json.dumps([name, str(error), repr(changed)]))
        else:
            raise SystemExit(f"{name}: opened")
    try:
        os.wait()
    except ChildProcessError:
        pass
    else:
        raise SystemExit("a child was left")
"""
SAID = {
    "missing directory": ["No such file", "/nope'", "set working_directory"],
    "file as directory": ["Not a directory", "/closed'", "set working_directory"],
    "missing root": ["No such file", "/nope'", "set chroot_directory"],
    "file as root": ["Not a directory", "/closed'"],
    "directory missing in the root": ["'/srv'", "No such file", "change-directory"],
    "unknown user": ["uid='no-such-user'", "user that exists"],
    "unknown group": ["gid='no-such-group'", "group that exists"],
    "uncatchable": ["signal_map", "SIGKILL"],
    "no such signal": ["signal_map", "999"],
    "no such handler": ["SIGHUP", "'nope'"],
    "closed file": ["files_preserve", "closed"],
    "object": ["files_preserve", "<object object"],
    "closed stream": ["stdout", "closed"],
    "missing log directory": ["/nope/log'", "stdout", "No such file"],
    "missing input": ["/nope'", "stdin", "No such file"],
    "directory as log": ["/root'", "stderr", "directory"],
    "pid file is a directory": ["/root'", "it is a directory"],
    "pid file is a FIFO": ["/fifo'", "it is a FIFO"],
    "pid file is a link": ["/link'", "it is a symlink"],
    "pid file in no directory": ["/nope/pid'", "No such file"],
    "non-step": ["'x' is not a step"],
    "step class": ["not its class: Twin()"],
    "twins": ["two steps", "'twin'"],
    "nobody reports": ["report-ready", "detach"],
    "order": ["must come after"],
    "readiness": ["readiness='soon'"],
    "umask": ["umask=1023", "0o777"],
    "timeout": ["start_timeout=-1"],
    "threads": ["threads='kill'"],
    "NUL": ["pidfile=", "NUL"],
}
SAID_TO_NOBODY = {
    "unreadable directory": ["/locked'", "Permission denied", "set working_directory"],
    "without privilege": ["uid 1", "not permitted", "CAP_SETUID"],
    "group without privilege": ["gid 1", "not permitted", "CAP_SETGID"],
    "root without privilege": ["/root'", "not permitted", "CAP_SYS_CHROOT"],
    "directory missing in the root": ["/root'", "not permitted", "CAP_SYS_CHROOT"],
}


def refusals(done: Any) -> Iterator[tuple[str, str]]:
    assert (done.returncode, done.stderr) == (0, "")
    for line in done.stdout.splitlines():
        name, message, changed = json.loads(line)
        assert changed == "{}", f"{name} has changed the launcher: {changed}"
        assert "\n" not in message
        yield name, message


def test_open_refuses_before_anything_has_changed(box: support.Sandbox) -> None:
    said = dict(refusals(box.run(REFUSALS)))
    expected = dict(SAID)
    if os.geteuid() != 0:  # the first thing that is missing is the right to change the root
        name = "directory missing in the root"
        expected[name] = SAID_TO_NOBODY[name]
    for name, words in expected.items():
        for word in words:
            assert word in said[name], f"{name}: {said[name]}"
    box.settled()


@pytest.mark.root
def test_open_refuses_what_nobody_may_not_do(open_box: support.Sandbox) -> None:
    done = open_box.run(BECOME_NOBODY + REFUSALS)
    said = dict(refusals(done))
    for name, words in {**SAID, **SAID_TO_NOBODY}.items():
        for word in words:
            assert word in said[name], f"{name}: {said[name]}"
    open_box.settled()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("working_directory='/no/such/directory'", "No such file or directory"),
        ("uid='no-such-user'", "uid='no-such-user' can't be used"),
        ("signal_map={signal.SIGKILL: None}", "SIGKILL"),
        ("files_preserve=[object()]", "files_preserve=<object object"),
    ],
)
def test_an_uncaught_refusal_ends_the_launcher_with_one_clear_message(
    box: support.Sandbox, options: str, words: str
) -> None:
    done = box.run(f"""
        import signal
        from daemon_context import DaemonContext
        DaemonContext(detach_process=True, {options}).open()
        print("not reached")
    """)
    assert done.returncode == 1
    assert done.stdout == ""
    assert words in done.stderr.splitlines()[-1]
    box.settled()


# --- where open() may be called


def test_open_in_a_running_event_loop_is_refused(box: support.Sandbox) -> None:
    done = box.run("""
        import asyncio
        from daemon_context import DaemonContext, DaemonError
        context = DaemonContext(detach_process=True)
        async def main():
            context.open()
        try:
            asyncio.run(main())
        except DaemonError as error:
            print(error)
        async def nothing(): pass
        asyncio.run(nothing())  # loops that are over are no obstacle
        loop = asyncio.new_event_loop()
        loop.close()
        with DaemonContext(detach_process=True, stdout="log"):
            asyncio.run(nothing())
            print("works")
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert "asyncio" in done.stdout
    assert "asyncio.run() in it" in done.stdout
    assert box.text("log") == "works\n"


def test_open_outside_the_main_thread_is_refused(box: support.Sandbox) -> None:
    done = box.run("""
        import threading
        from daemon_context import DaemonContext, DaemonError
        def work():
            for detach in (True, False):
                try:
                    DaemonContext(detach_process=detach).open()
                except DaemonError as error:
                    print(error)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert [("main thread" in line) for line in done.stdout.splitlines()] == [True, True]


THREADS = """
    import sys, threading, time
    from daemon_context import DaemonContext, DaemonError
    stop = threading.Event()
    threading.Thread(target=stop.wait, name="feeder", daemon=True).start()
    if sys.argv[2:]:
        import ctypes
        libc = ctypes.CDLL(None)
        SLEEP = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
        handle = ctypes.c_ulong()
        # sleep(3) itself as the start routine: a thread that Python knows nothing of.
        libc.pthread_create(ctypes.byref(handle), None, libc.sleep, ctypes.c_void_p(60))
        libc.pthread_setname_np(handle, b"poller")
    try:
        context = DaemonContext(detach_process=True, threads=sys.argv[1], stdout="log")
        context.open()
    except DaemonError as error:
        print(error)
        sys.exit(3)
    print("works")
"""


@pytest.mark.parametrize("native", [(), ("native",)], ids=["python", "native"])
@pytest.mark.parametrize("policy", ["warn", "refuse", "ignore"])
def test_live_threads(box: support.Sandbox, policy: str, native: tuple[str, ...]) -> None:
    done = box.run(THREADS, policy, *native)
    said = {"warn": done.stderr, "refuse": done.stdout, "ignore": ""}[policy]
    if policy != "ignore":
        assert "feeder" in said
        assert ("poller (native)" in said) == bool(native)
        assert "start threads after open()" in said
    if policy == "refuse":
        assert (done.returncode, done.stderr) == (3, "")
        assert not (box.path / "log").exists()
    else:
        assert done.returncode == 0
        assert bool(done.stderr) == (policy == "warn")
        assert box.text("log") == "works\n"
    box.settled()


def test_without_threads_nobody_is_warned(box: support.Sandbox) -> None:
    done = box.run("""
        import threading
        from daemon_context import DaemonContext
        thread = threading.Thread(target=print, args=("over",))
        thread.start()
        thread.join()
        DaemonContext(detach_process=True, threads="refuse").open()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
