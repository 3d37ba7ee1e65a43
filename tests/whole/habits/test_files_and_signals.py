"""What published callers do with python-daemon goes on working: files and signals."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers import support
from tests.helpers.habits import log, run, stop


@pytest.mark.parametrize("preserve", ["range(1024)", "list(range(3, 300))", "{700, 800, None}"])
def test_numbers_that_are_not_open_are_tolerated(box: support.Sandbox, preserve: str) -> None:
    run(
        box,
        f"""
        from daemon import DaemonContext
        data = open("data", "w")
        with DaemonContext(detach_process=True, stdout="log", files_preserve={preserve}):
            try:
                data.write("x")
                data.flush()
                print("kept", flush=True)
            except (OSError, ValueError):
                print("closed", flush=True)
        """,
    )
    log(box, "closed" if "700" in preserve else "kept")


def test_streams_that_are_files_are_kept_and_duplicated(box: support.Sandbox) -> None:
    run(
        box,
        """
        import os, sys
        from daemon import DaemonContext
        log = open("log", "a")
        with open("in", "w") as file:
            file.write("typed")
        with DaemonContext(detach_process=True, stdin=open("in"), stdout=log, stderr=log):
            print(sys.stdin.read(), flush=True)
            print("to stderr", file=sys.stderr, flush=True)
            print("to the file", file=log, flush=True)
            os.system("echo from a child")
            print([os.get_inheritable(n) for n in range(3)], flush=True)
        """,
    )
    log(box, "typed", "to stderr", "to the file", "from a child", "[True, True, True]")


def test_a_stream_without_a_descriptor_takes_over_the_name_in_sys(box: support.Sandbox) -> None:
    run(
        box,
        """
        import io, os, sys
        from daemon import DaemonContext

        class Collect:
            def __init__(self):
                self.text = []
            def write(self, text):
                self.text.append(text)
            def flush(self):
                pass

        out, err, data = Collect(), io.StringIO(), open("log", "w")
        with DaemonContext(detach_process=True, stdout=out, stderr=err, files_preserve=[data]):
            print("hello")
            print("oops", file=sys.stderr)
            data.write(f"{sys.stdout is out} {''.join(out.text)!r} {err.getvalue()!r} "
                       f"{os.readlink('/proc/self/fd/1')}\\n")
            data.flush()
        """,
    )
    log(box, "True 'hello\\n' 'oops\\n' /dev/null")


def test_an_empty_signal_map_sets_nothing(box: support.Sandbox) -> None:
    run(
        box,
        """
        import signal
        from daemon import DaemonContext
        numbers = (signal.SIGTERM, signal.SIGTSTP, signal.SIGTTIN, signal.SIGINT)
        before = [signal.getsignal(number) for number in numbers]
        with DaemonContext(detach_process=True, signal_map={}, stdout="log", pidfile="d.pid") as d:
            print([signal.getsignal(number) for number in numbers] == before, flush=True)
            d.sleep()
        """,
    )
    log(box, "True")
    pid = box.pid()
    assert int(support.status(pid)["SigIgn"], 16) >> (signal.SIGTSTP - 1) & 1 == 0
    stop(box)


def test_a_given_map_replaces_the_default_one(box: support.Sandbox) -> None:
    run(
        box,
        """
        import signal
        from daemon import DaemonContext
        context = DaemonContext(
            detach_process=True, pidfile="d.pid", stdout="log",
            signal_map={signal.SIGHUP: None, signal.SIGUSR1: "terminate"},
        )
        with context:
            print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
            context.sleep()
        """,
    )
    log(box, "True")
    os.kill(box.pid(), signal.SIGHUP)
    stop(box, signal.SIGUSR1)
    assert not (box.path / "d.pid").exists()


def test_the_default_map_ignores_the_terminals_signals_and_terminates(
    box: support.Sandbox,
) -> None:
    run(
        box,
        """
        from daemon import DaemonContext
        with DaemonContext(detach_process=True, pidfile="d.pid", stdout="log") as context:
            try:
                context.sleep()
            except SystemExit as error:
                print(error.code, error, flush=True)
                raise
        """,
    )
    pid = box.pid()
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(pid, number)
    stop(box)
    log(box, "0 terminated by SIGTERM")


def test_terminate_leaves_with_status_0(box: support.Sandbox) -> None:
    done = box.run("""
        import os, signal
        from daemon import DaemonContext
        with DaemonContext(detach_process=False, stdout="log"):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_request_stop_ends_the_loop(box: support.Sandbox) -> None:
    run(
        box,
        """
        import signal
        from daemon import DaemonContext
        context = DaemonContext(
            pidfile="d.pid", detach_process=True, stdout="log",
            signal_map={signal.SIGTERM: "request_stop"},
        )
        with context as daemon:
            for count in daemon.every(3600):
                print("round", count, flush=True)
            print("over", daemon.stop_requested, flush=True)
        """,
    )
    log(box, "round 0")
    stop(box)
    log(box, "round 0", "over True")
    assert not (box.path / "d.pid").exists()
