"""Last words of threads and exit handlers, and of a daemon in the foreground."""

from __future__ import annotations

import textwrap

import pytest

from tests.helpers import support
from tests.helpers.syslog import WAYS, Log, is_traceback, prefix, start, told

pytestmark = pytest.mark.root

THREADS = {
    "thread": """
        import threading
        def work(): raise RuntimeError("out of luck")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """,
    "thread of before": """
        import time
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """,
    "raw thread": """
        import _thread, time
        def work():
            try:
                raise RuntimeError("out of luck")
            finally:
                done.append(1)
        done = []
        _thread.start_new_thread(work, ())
        while not done: time.sleep(0.01)
        time.sleep(0.1)
    """,
    "exit handler": """
        import atexit
        def work(): raise RuntimeError("out of luck")
        atexit.register(work)
    """,
}


@pytest.mark.parametrize("way", [*WAYS, "class"])
@pytest.mark.parametrize("kind", THREADS)
def test_exceptions_in_threads_and_exit_handlers_arrive(
    devices: support.Sandbox, log: Log, way: str, kind: str
) -> None:
    code = textwrap.indent(textwrap.dedent(THREADS[kind]).strip(), " " * 8)
    before = "import threading\ndef work(): raise RuntimeError('out of luck')\n"
    body = {
        "with": "with context:\n        say_pid()\n",
        "open": "context.open()\nif 1:\n        say_pid()\n",
        "spawn": "def target():\n        say_pid()\n",
        "class": "from daemon_context import Daemon\n"
        "class D(Daemon):\n    def run(self):\n        say_pid()\n",
    }[way]
    after = {
        "spawn": "\ncontext.spawn(target)",
        "class": "\nD('d.pid', working_directory='.').start()",
    }.get(way, "")
    pid = start(devices, (before if "before" in kind else "") + body + code + after)
    texts = told(devices, log, pid)
    assert is_traceback(texts, "RuntimeError: out of luck"), texts


HOOKED = {
    "sys.excepthook": ("work()", 3),
    "threading.excepthook": (
        "thread = threading.Thread(target=work); thread.start(); thread.join()", 1),
    "sys.unraisablehook": ("atexit.register(work)", 1),
}  # fmt: skip


@pytest.mark.parametrize("hook", HOOKED)
def test_a_hook_of_the_program_gets_it_as_well(
    devices: support.Sandbox, log: Log, hook: str
) -> None:
    end, arguments = HOOKED[hook]
    body = f"""
        import atexit, threading
        def work():
            raise RuntimeError("out of luck")
        def hook(*args):
            (place / "hooked").write_text(str(len(args)))
        {hook} = hook
        context.open()
        say_pid()
        {end}
    """
    pid = start(devices, body)
    assert is_traceback(told(devices, log, pid), "RuntimeError: out of luck")
    assert devices.text("hooked") == str(arguments)


def test_what_ends_nothing_says_nothing(devices: support.Sandbox, log: Log) -> None:
    pid = start(
        devices,
        """
        import threading
        class Thing:
            def __del__(self):
                raise RuntimeError("ends nothing")
        with context:
            say_pid()
            Thing()
            thread = threading.Thread(target=sys.exit, args=("on purpose",))
            thread.start()
            thread.join()
    """,
    )
    assert told(devices, log, pid) == []


FOREGROUND = {
    "context": "with DaemonContext(detach_process=False): work()",
    "supervised": """
        from daemon_context.manager import Supervisor, supervisor
        supervisor.detect = lambda: Supervisor("a test", False, "it says so")
        with DaemonContext() as context:
            work()
    """,
    "class": """
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                work()
        sys.exit(D("d.pid").run_foreground())
    """,
    "descriptor": "with DaemonContext(detach_process=False, stderr=sys.stderr): work()",
}


@pytest.mark.parametrize(
    ("kind", "stderr"),
    [
        (kind, stderr)
        for kind in FOREGROUND
        for stderr in ("2>/dev/null", "2>errors", "2>&-")
        if (kind, stderr) != ("descriptor", "2>&-")  # there is no sys.stderr
    ],
)
def test_in_the_foreground_as_well(
    devices: support.Sandbox, log: Log, kind: str, stderr: str
) -> None:
    script = devices.script(
        "import os, sys\nfrom pathlib import Path\nfrom daemon_context import DaemonContext\n"
        "def work():\n"
        f"    Path({str(devices.path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    raise RuntimeError('out of luck')\n" + textwrap.dedent(FOREGROUND[kind])
    )
    done = devices.run(script, prefix=[*prefix(devices), "sh", "-c", f'exec "$@" {stderr}', "sh"])
    assert done.returncode == 1, done
    pid = devices.pid("pid")
    texts = told(devices, log, pid)
    heard = stderr == "2>errors" and kind != "context"
    assert heard == (texts == []), texts
    assert heard or is_traceback(texts, "RuntimeError: out of luck"), texts


def test_an_exit_handlers_arrive_from_a_chroot(devices: support.Sandbox, log: Log) -> None:
    (devices.path / "jail").mkdir()
    body = """
        import atexit
        def work():
            raise RuntimeError("out of luck")
        atexit.register(work)
        context.chroot_directory = place / "jail"
        context.working_directory = "/"
        with context:
            say_pid()
    """
    pid = start(devices, body, pidfile="jail/pid")
    texts = told(devices, log, pid)
    assert is_traceback(texts, "RuntimeError: out of luck"), texts
