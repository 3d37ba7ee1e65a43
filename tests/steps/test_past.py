"""What comes into the fork from before: named with the remedy, by a warning and by explain()."""

from __future__ import annotations

import ctypes
import json
import os
import textwrap

import pytest

from tests.helpers import support

HEAD = """
import asyncio, ctypes, json, multiprocessing, os, select, subprocess, sys, warnings
from daemon_context import Daemon, DaemonContext

class D(Daemon):
    def run(self):
        pass

warned = []
warnings.showwarning = lambda message, *args, **more: warned.append(str(message))
"""
TAIL = """
context = DaemonContext(detach_process=True, umask=0o022, threads="ignore")
remarks = [text for text in context.explain().remarks if not text.startswith("threads run")]
if "spawn" in sys.argv:
    context.spawn(os.getpid).wait()
else:
    D("d.pid", threads="ignore").start()
with open("said", "w") as file:
    json.dump([warned, remarks], file)
for child in started:
    child.kill()
"""


def said(box: support.Sandbox, before: str, *args: str) -> list[str]:
    """What a program is warned of, which is what it would have been told by explain()."""
    body = f"{HEAD}started = []\n{textwrap.dedent(before)}\n{TAIL}"
    done = box.run(box.script(body), *args)
    assert (done.returncode, done.stderr) == (0, "")
    warned, remarks = json.loads((box.path / "said").read_text())
    if "spawn" not in args:
        assert warned == remarks
    return list(warned)


LOOPS = {
    "loop = asyncio.new_event_loop()": "eventpoll",
    "watch = select.epoll()": "eventpoll",
    "watch = ctypes.CDLL(None).inotify_init()": "inotify",
    "import twisted.internet.reactor": "eventpoll",
}


@pytest.mark.parametrize("before", LOOPS)
def test_an_event_loop_is_named(box: support.Sandbox, before: str) -> None:
    if "twisted" in before:
        pytest.importorskip("twisted")
    (text,) = said(box, before)
    assert f"made before the daemon: {LOOPS[before]} (descriptor " in text
    assert "make it after open()" in text
    assert ("twisted's reactor" in text) == ("twisted" in before)


RING = """
setup = (ctypes.c_char * 120)()
ring = ctypes.CDLL(None).syscall(425, 8, setup)  # io_uring_setup
import mmap
shared = mmap.mmap(ring, 4096)"""


def has_rings() -> bool:
    """Whether the kernel makes an io_uring for us."""
    ring = ctypes.CDLL(None).syscall(425, 8, (ctypes.c_char * 120)())
    if ring >= 0:
        os.close(ring)
    return bool(ring >= 0)


@pytest.mark.parametrize("before", [*LOOPS, RING])
def test_an_event_loop_is_named_among_many(box: support.Sandbox, before: str) -> None:
    """Of so many not each is looked at: of all kinds beside it, some that can't be written to."""
    if "twisted" in before:
        pytest.importorskip("twisted")
    if before == RING and not has_rings():
        pytest.skip("there is no io_uring here")
    many = "many = [os.dup(fd) for fd in (0, *os.pipe()) for _ in range(100)]"
    (text,) = said(box, f"{many}\n{textwrap.dedent(before)}")
    assert f"made before the daemon: {LOOPS.get(before, 'io_uring')} (descriptor " in text


def test_none_is_named_among_many_others(box: support.Sandbox) -> None:
    assert said(box, "many = [os.dup(fd) for fd in (0, *os.pipe()) for _ in range(100)]") == []


CHILDREN = {
    "started.append(subprocess.Popen(['sleep', '1000']))": "sleep (pid ",
    """
    class Own(subprocess.Popen):
        pass
    started.append(Own(["sleep", "1000"]))""": "sleep (pid ",
    """
    import time
    started.append(multiprocessing.get_context("fork").Process(target=time.sleep, args=[1000]))
    started[0].start()""": "1 child process(es) run: ",
    """
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.kill = pool.terminate
    started.append(pool)""": "2 child process(es) run: ",
}


@pytest.mark.parametrize("before", CHILDREN)
def test_a_child_that_the_daemon_can_not_wait_for_is_named(
    box: support.Sandbox, before: str
) -> None:
    (text,) = said(box, before)
    assert CHILDREN[before] in text
    assert "start them after open()" in text


FINE = [
    "subprocess.Popen(['true']).wait()",
    "subprocess.run(['true'])",
    """
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)""",
    """
    if not (pid := os.fork()):
        os.execvp("sleep", ["sleep", "1000"])
    class Child:
        def kill(self):
            os.kill(pid, 9)
    started.append(Child())""",
    "watch = os.eventfd(0)",
    """
    from multiprocessing import resource_tracker
    resource_tracker.ensure_running()
    class Tracker:
        def kill(self):
            resource_tracker._resource_tracker._stop()
    started.append(Tracker())""",
]


@pytest.mark.parametrize("before", FINE)
def test_what_is_no_trouble_is_not(box: support.Sandbox, before: str) -> None:
    assert said(box, before) == []


@pytest.mark.parametrize("before", [next(iter(LOOPS)), next(iter(CHILDREN))])
def test_spawn_leaves_them_to_the_program_that_goes_on(box: support.Sandbox, before: str) -> None:
    assert said(box, before, "spawn") == []


@pytest.mark.parametrize(("place", "named"), [("/tmp/_MEI12345", True), ("_internal", False)])
def test_a_program_frozen_into_one_file_is_named(
    box: support.Sandbox, place: str, named: bool
) -> None:
    """What PyInstaller's bootloader sets; the program itself is not needed for it."""
    texts = said(
        box,
        f"""
        sys.frozen = True
        sys._MEIPASS = os.path.join(os.path.dirname(os.path.realpath(sys.executable)), {place!r})
        """,
    )
    assert ["frozen into one file" in text and "--onedir" in text for text in texts] == [
        True
    ] * named


def test_a_preserved_one_is_the_programs_own_choice(box: support.Sandbox) -> None:
    done = box.run("""
        import os, select
        from daemon_context import DaemonContext
        watch = select.epoll()
        DaemonContext(detach_process=True, files_preserve=[watch]).open()
        """)
    assert (done.returncode, done.stderr) == (0, "")
