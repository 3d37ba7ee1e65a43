"""A request to stop is never lost, and what has begun to end is left in peace."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path

import pytest

from daemon_context.loop import Terminated
from tests.helpers import support

HEAD = """
    import gc, multiprocessing, os, signal, sys, threading, time, weakref
    from daemon_context import Daemon, DaemonContext
    class Slow:
        def __del__(self):
            time.sleep(0.3)
    class Other:
        pass
"""
SWALLOWED = {
    "__del__": "while True:\n    Slow()",
    "a weakref callback": (
        "def slow(reference): time.sleep(0.3)\n"
        "while True:\n    it = Other()\n    r = weakref.ref(it, slow)\n    del it"
    ),
    "a framework's except": (
        "count = 0\nwhile True:\n    try:\n        time.sleep(60)\n"
        "    except BaseException:\n        count += 1\n        if count > 1: raise"
    ),
}


def indented(text: str, spaces: int) -> str:
    return text.replace("\n", "\n" + " " * spaces)


def daemon(
    box: support.Sandbox, body: str, more: str = "", cleanup: str = "note('cleanup')"
) -> Path:
    path = str(box.path / "notes")
    return box.script(
        HEAD
        + f"""
    def note(*words):
        with open({path!r}, "a") as file:
            print(*words, file=file)
    class Work(Daemon):
        def run(self):
            note("running")
            {indented(body, 12)}
        def cleanup(self):
            {indented(cleanup, 12)}
    {more}
    if __name__ == "__main__":
        Work("d.pid", stdout="d.log", stderr="d.log").main()
    """,
        "work.py",
    )


@pytest.mark.parametrize("way", SWALLOWED)
def test_what_is_swallowed_is_raised_again(box: support.Sandbox, way: str) -> None:
    script = daemon(box, SWALLOWED[way])
    assert box.run(script, "start").returncode == 0
    begun = time.monotonic()
    done = box.run(script, "stop")
    assert done.returncode == 0
    assert "killed" not in done.stdout
    assert time.monotonic() - begun < 7
    assert box.text("notes") == "running\ncleanup\n"
    assert not (box.path / "d.log").read_text()


@pytest.mark.parametrize("way", SWALLOWED)
def test_the_same_of_a_context(box: support.Sandbox, way: str) -> None:
    done = box.run(
        HEAD
        + f"""
    with DaemonContext(pidfile="d.pid", detach_process=True, stderr="d.log"):
        {indented(SWALLOWED[way], 8)}
    """
    )
    assert done.returncode == 0, done
    pid = box.pid()
    time.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    support.gone(pid, 7)
    assert not (box.path / "d.pid").exists()
    assert not (box.path / "d.log").read_text()


@pytest.mark.parametrize(
    ("body", "cleanup"),
    [
        ("time.sleep(60)", "time.sleep(3.5); note('cleanup')"),
        (
            "try:\n    time.sleep(60)\nfinally:\n    time.sleep(3.5)\n    note('tidied')",
            "note('cleanup')",
        ),
        (
            "try:\n    time.sleep(60)\nexcept SystemExit:\n    time.sleep(3.5)\n    note('tidied')",
            "note('cleanup')",
        ),
        ("for _ in self.every(0.1):\n    time.sleep(3.5)\n    note('tidied')", "note('cleanup')"),
    ],
)
def test_what_has_begun_to_end_is_left_in_peace(
    box: support.Sandbox, body: str, cleanup: str
) -> None:
    script = daemon(box, body, cleanup=cleanup)
    assert box.run(script, "start").returncode == 0
    done = box.run(script, "stop")
    assert "killed" not in done.stdout
    notes = box.text("notes").splitlines()
    assert notes[-1] == "cleanup"
    assert ("tidied" in notes) == ("tidied" in body)


def test_one_thread_insists_however_many_signals_come(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    with DaemonContext(detach_process=False, stdout=sys.stdout):
        for _ in range(5):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except SystemExit:
                pass
        print(len(os.listdir("/proc/self/task")))
    """
    )
    assert (done.returncode, done.stdout) == (0, "2\n")


@pytest.mark.slow
def test_an_event_loop_that_ends_and_waits_for_nothing_is_told_again(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    import asyncio
    async def main():
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("cancelled")
            await asyncio.sleep(60)
    with DaemonContext(detach_process=False, stdout=sys.stdout):
        asyncio.run(main())
    """,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "cancelled\n")


def test_what_is_raised_survives_pickling() -> None:
    raised = pickle.loads(pickle.dumps(Terminated(signal.SIGTERM)))
    assert (type(raised), raised.code) == (Terminated, 0)
    assert str(raised) == "terminated by SIGTERM"
    assert raised.signal_number == signal.SIGTERM


def test_threads_of_a_program_that_ends_are_waited_for(box: support.Sandbox) -> None:
    done = box.run(
        HEAD
        + """
    def work():
        time.sleep(4)
        open("worked", "w").close()
    here = os.getcwd()
    DaemonContext(pidfile="d.pid", detach_process=True, working_directory=here).open()
    threading.Thread(target=work).start()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    """
    )
    assert done.returncode == 0, done
    box.settled()
    assert (box.path / "worked").exists()


@pytest.mark.parametrize("kind", ["fork", "spawn", "forkserver"])
def test_workers_end_by_the_signal(box: support.Sandbox, kind: str) -> None:
    script = daemon(
        box,
        f"context = multiprocessing.get_context({kind!r})\n"
        "for _ in range(2):\n"
        "    worker = context.Process(target=time.sleep, args=[60])\n"
        "    worker.start()\n"
        "    time.sleep(1)\n"
        "    worker.terminate()\n"
        "    worker.join()\n"
        "    note(worker.exitcode)",
    )
    assert box.run(script, "start").returncode == 0
    box.settled()
    assert box.text("notes") == "running\n-15\n-15\ncleanup\n"


LOADED = """
    import asyncio, signal, sys
    from daemon_context import Daemon
    class Service(Daemon):
        def run(self):
            asyncio.run(self.serve())
        async def serve(self):
            stop = asyncio.Event()
            if HANDLER:
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            clients = [asyncio.create_task(self.ask(port)) for _ in range(20)]
            self.tell("serving")
            await stop.wait()
            for client in clients:
                client.cancel()
            server.close()
        async def answer(self, reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
        async def ask(self, port):
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"x\\n")
                await reader.readline()
                writer.close()
        def cleanup(self):
            self.tell("tidied up")
    HANDLER = sys.argv[2] == "handler"
    Service("d.pid", stdout="d.log", stderr="d.log").main(sys.argv[1:2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["handler", "none"])
def test_stops_under_load(box: support.Sandbox, handler: str) -> None:
    """A server and its clients in asyncio, as busy as can be; some of the stops came to nothing."""
    script = box.script(LOADED)
    for _ in range(6):
        assert box.run(script, "start", handler).returncode == 0
        support.until(lambda: "serving" in box.run(script, "status", handler).stdout)
        done = box.run(script, "stop", handler)
        assert done.returncode == 0
        assert "killed" not in done.stdout, done


def test_a_reload_of_a_framework_that_has_the_signal(box: support.Sandbox) -> None:
    script = daemon(box, "signal.signal(signal.SIGHUP, lambda *a: note('its own'))\nself.sleep()")
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "ready" in box.run(script, "status", "--json").stdout)
    begun = time.monotonic()
    done = box.run(script, "reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"sent SIGHUP to pid {box.pid()}" in done.stdout
    assert "nobody tells how it went" in done.stdout
    assert time.monotonic() - begun < 5
    assert "its own" in box.text("notes")
    assert box.run(script, "stop").returncode == 0


def test_a_reload_waits_for_a_round(box: support.Sandbox) -> None:
    body = "for _ in self.every(0.1):\n    note('round')\n    time.sleep(3)"
    script = daemon(box, body)
    assert box.run(script, "start").returncode == 0
    done = box.run(script, "reload")
    assert (done.returncode, done.stdout) == (0, f"Work: reloaded, pid {box.pid()}\n")
    assert box.run(script, "stop").returncode == 0
