"""Libraries of green threads, which put calls of their own into the place of the system's."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from tests.helpers import support

GREEN = {
    "eventlet": "import eventlet as green; green.monkey_patch",
    "gevent": "import gevent as green, gevent.monkey; gevent.monkey.patch_all",
}
HEAD = """
    import warnings
    warnings.simplefilter("ignore")  # of eventlet, about itself and forks
    {patch}({options})
    import os, sys, threading, time
    warnings.simplefilter("default")
    warnings.filterwarnings("ignore", module="eventlet")
    if "gevent" not in sys.modules:  # whose loop is made anew
        warnings.filterwarnings("ignore", "an event loop or watcher was made before")
"""


@pytest.fixture(params=[(name, how) for name in GREEN for how in ("", "thread=False")], ids=str)
def head(request: pytest.FixtureRequest) -> str:
    """The head of a program that is patched, in one way or the other."""
    name, options = request.param
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed beside {sys.executable}")
    return HEAD.format(patch=GREEN[name], options=options)


def test_a_start_works_and_so_do_green_threads_in_the_daemon(
    box: support.Sandbox, head: str
) -> None:
    done = box.run(
        head
        + """
    from daemon_context import DaemonContext

    def say():
        for _ in range(3):
            green.sleep(0.01)
            said.append(os.getpid())

    said = []
    green.spawn(say)
    green.sleep(0)  # it runs, and its loop exists, before the start
    with DaemonContext(pidfile="d.pid", detach_process=True, stdout="log", stderr="log",
                       threads="refuse", start_timeout=20) as daemon:
        if green.__name__ == "eventlet":
            import eventlet.hubs
            eventlet.hubs.use_hub()  # as the README says
        green.spawn(say)
        daemon.sleep(0.5)
        for number in daemon.every(0.01):
            if number == 2:
                daemon.request_stop()
        expected = 3 if green.__name__ == "eventlet" else 6
        print(len(said) == expected, {*said} == {os.getpid()}, number, flush=True)
    """,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert box.text("log") == "True True 2\n"
    box.settled()


def test_a_start_that_fails_is_told_and_nobody_is_left(box: support.Sandbox, head: str) -> None:
    done = box.run(
        head
        + """
    from daemon_context import DEFAULT_STEPS, DaemonContext, Step

    class Fail(Step):
        def apply(self, walk):
            raise RuntimeError("out of luck")

    steps = DEFAULT_STEPS.insert_before("report-ready", Fail())
    DaemonContext(pidfile="d.pid", detach_process=True, steps=steps, start_timeout=20).open()
    """,
        timeout=30,
    )
    assert done.returncode == 1
    assert "cannot fail: RuntimeError: out of luck" in done.stderr
    box.settled()


def test_a_handle_works_beside_other_green_threads(box: support.Sandbox, head: str) -> None:
    done = box.run(
        head
        + """
    from daemon_context import DaemonContext

    def work():
        if green.__name__ == "eventlet":
            import eventlet.hubs
            eventlet.hubs.use_hub()  # as the README says
        open(f"{home}/ran", "w").close()
        context.sleep()

    home = os.getcwd()
    green.sleep(0)
    context = DaemonContext(start_timeout=20, working_directory=".")
    handle = context.spawn(work)
    alive = handle.is_alive()
    ticks = []
    helper = green.spawn(lambda: [(ticks.append(1), green.sleep(0.01)) for _ in range(3)])
    handle.wait(2)
    ran = len(ticks)
    handle.stop()
    print(alive, ran, handle.is_alive())
    """,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 3 False\n", "")
    box.settled()


def test_faulthandler_keeps_its_file(box: support.Sandbox, head: str) -> None:
    """It is found by real threads of a forked child: green ones have no number to signal."""
    done = box.run(
        head
        + """
    import faulthandler
    from daemon_context import DaemonContext

    faulthandler.enable(open("crashes", "w"))
    with DaemonContext(detach_process=True, start_timeout=20):
        faulthandler._sigsegv()
    """,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "Segmentation fault" in box.text("crashes")
    box.settled()


def test_a_real_thread_is_no_main_thread(box: support.Sandbox, head: str) -> None:
    done = box.run(
        head
        + """
    from daemon_context import DaemonContext, OptionError
    from daemon_context.system import own
    import _thread

    def start():
        try:
            DaemonContext(detach_process=True).open()
        except OptionError as error:
            os.write(1, str(error).encode())
        over.release()

    over = own(_thread, "allocate_lock")()
    over.acquire()
    own(_thread, "start_new_thread")(start, ())
    over.acquire()
    """,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("open() was called outside the main thread")
