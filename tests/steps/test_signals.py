"""The signal map, the end by a signal, and the daemon's children."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_context import DaemonContext, OptionError
from daemon_context.options.freezing import freeze
from tests.helpers import support
from tests.helpers.signalled import daemon, ended, foreground, run


def numbers(pid: int, field: str) -> set[int]:
    """Signals in a mask of /proc/PID/status."""
    mask = int(support.status(pid)[field], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


# --- the map

STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def test_the_default_map(box: support.Sandbox) -> None:
    pid = daemon(box)
    assert numbers(pid, "SigIgn") >= STOPS
    assert numbers(pid, "SigCgt") >= {signal.SIGTERM}
    assert numbers(pid, "SigBlk") == set()
    for number in STOPS:
        os.kill(pid, number)
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert not (box.path / "d.pid").exists()


def test_a_map_replaces_the_default_one(box: support.Sandbox) -> None:
    pid = daemon(box, "signal_map={signal.SIGHUP: None}")
    assert numbers(pid, "SigIgn") >= {signal.SIGHUP}
    assert not numbers(pid, "SigIgn") & STOPS
    assert signal.SIGTERM not in numbers(pid, "SigCgt")


def test_an_empty_map_changes_nothing(box: support.Sandbox) -> None:
    pid = daemon(box, "signal_map={}")
    assert not (numbers(pid, "SigIgn") | numbers(pid, "SigCgt")) & {*STOPS, signal.SIGTERM}


def test_targets_are_none_names_and_callables(box: support.Sandbox) -> None:
    program = foreground(
        box,
        before="""
    def seen(number, frame):
        os.write(1, b"seen %d\\n" % number)  # print() must not be entered again
    class Named(DaemonContext):
        def reload(self, number, frame):
            os.write(1, b"reload %d\\n" % (self is context))
    context = Named(detach_process=False, stdout=sys.stdout, stderr=sys.stderr,
                    working_directory=".")
    context.signal_map = {signal.SIGUSR1: seen, signal.SIGHUP: "reload", signal.SIGUSR2: None,
                          signal.SIGTERM: "request_stop", signal.SIGINT: signal.SIG_DFL}
    """,
    )
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP):
        program.send_signal(number)
        expected = {signal.SIGUSR1: "seen 10\n", signal.SIGHUP: "reload 1\n"}.get(number)
        assert expected is None or program.stdout.readline() == expected
    program.send_signal(signal.SIGTERM)
    assert ended(program) == (0, "", "")


def test_what_the_map_names_is_unblocked(box: support.Sandbox) -> None:
    done = box.run("""
        import signal
        from daemon_context import DaemonContext
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})
        with DaemonContext(pidfile="d.pid", detach_process=True,
                           signal_map={signal.SIGTERM: "terminate", signal.SIGHUP: None}) as daemon:
            daemon.sleep()
    """)
    assert done.returncode == 0
    pid = box.pid()
    assert numbers(pid, "SigBlk") == {signal.SIGUSR1}
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    "bad",
    [
        "{signal.SIGKILL: None}", "{signal.SIGSTOP: None}", "{999: None}", "{0: None}",
        "{-1: None}", "{'SIGTERM': None}", "{None: None}", "{signal.SIGTERM: 'no_such_method'}",
        "{signal.SIGTERM: 'umask'}", "{signal.SIGTERM: 7}", "{signal.SIGTERM: object()}",
        "{signal.SIGTERM: []}", "7", "[1, 2]", "{32: None}", "{33: None}", "{15.5: None}",
        "{True: None, signal.SIGKILL: None}",
    ],
)  # fmt: skip
def test_a_map_that_cannot_work_is_refused_before_anything_has_changed(
    box: support.Sandbox, bad: str, detach: bool
) -> None:
    done = box.run(f"""
        import signal
        from tests.helpers.launching import *
        report("outcome", attempt(DaemonContext(
            pidfile="d.pid", stdout="log", detach_process={detach}, signal_map={bad})))
    """)
    assert (done.returncode, done.stderr) == (0, "")
    outcome = json.loads(box.text("outcome"))
    assert outcome["class"] == "OptionError"
    assert "signal_map" in outcome["message"]
    assert outcome["changed"] == {}


TARGETS = st.one_of(
    st.none(),
    st.sampled_from(["terminate", "request_stop", "close", "no_such_method", "umask", ""]),
    st.sampled_from([signal.SIG_IGN, signal.SIG_DFL, print, 7, object(), 1.5]),
)
MAPS = st.dictionaries(st.integers(-3, 70) | st.sampled_from(list(signal.Signals)), TARGETS)


@given(MAPS)
@settings(max_examples=300, deadline=None)
def test_any_map_is_refused_or_resolved(signal_map: dict[int, Any]) -> None:
    context = DaemonContext(detach_process=False, signal_map=signal_map)
    before = dict(signal_map)
    try:
        frozen = freeze(context).signal_map
    except OptionError:
        pass
    else:
        assert set(frozen) == set(signal_map)
        assert all(callable(h) or h in (signal.SIG_IGN, signal.SIG_DFL) for h in frozen.values())
    assert signal_map == before


def test_any_map_that_is_not_refused_works(box: support.Sandbox) -> None:
    seed = random.randrange(1 << 30)
    done = box.run(
        """
        import json, os, random, signal, sys
        from daemon_context import DaemonContext, DaemonError

        def handler(number, frame):
            got.append(number)

        rng = random.Random(int(sys.argv[1]))
        targets = [None, "request_stop", handler, signal.SIG_IGN, signal.SIG_DFL, "umask", "no", 7]
        worked = refused = 0
        for _ in range(60):
            chosen = rng.sample(range(1, 65), rng.randrange(1, 6))
            wanted = {number: rng.choice(targets[:rng.choice((5, 8))]) for number in chosen}
            signal.pthread_sigmask(signal.SIG_BLOCK, rng.sample(range(1, 32), 5))
            process = os.fork()
            if process == 0:
                got = []
                context = DaemonContext(detach_process=False, signal_map=wanted)
                try:
                    context.open()
                except DaemonError as error:
                    os._exit(1 if "signal_map" in str(error) else 2)
                blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
                ok = not blocked & set(wanted)
                for number, target in wanted.items():
                    if target in (None, signal.SIG_IGN, handler, "request_stop"):
                        os.kill(os.getpid(), number)
                        ok = ok and (target is not handler or got.pop() == number)
                stop = "request_stop" in wanted.values()
                ok = ok and context.stop_requested == stop
                os._exit(0 if ok else 3)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if status not in (0, 1):
                sys.exit(f"{wanted}: {status}")
            worked, refused = worked + (status == 0), refused + (status == 1)
        print(worked > 5 and refused > 5)
        """,
        seed,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", ""), seed


# --- the end


def test_sigterm_ends_with_status_0_in_the_foreground(box: support.Sandbox) -> None:
    program = foreground(box, "pidfile='d.pid'", "time.sleep(1000)")
    program.send_signal(signal.SIGTERM)
    assert ended(program) == (0, "", "")
    assert not (box.path / "d.pid").exists()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_the_exit_status_of_a_daemon(box: support.Sandbox, number: str) -> None:
    # Its adopter sees the exit status: of a daemon usually process 1, here this program.
    done = box.run(
        """
        import ctypes, os, signal, subprocess, sys
        from pathlib import Path
        PR_SET_CHILD_SUBREAPER = 36
        assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        subprocess.run([sys.executable, "-c", '''if True:
            from daemon_context import DaemonContext
            with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
                daemon.sleep()
        '''], check=True)
        daemon = int(Path("d.pid").read_text())
        os.kill(daemon, getattr(signal, sys.argv[1]))
        print(os.waitstatus_to_exitcode(os.waitpid(daemon, 0)[1]))
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            print("no other child")
        """,
        number,
    )
    expected = {"SIGTERM": "0", "SIGKILL": "-9"}[number]
    assert (done.stdout, done.stderr) == (f"{expected}\nno other child\n", "")


def test_terminate_explains_the_signal(box: support.Sandbox) -> None:
    program = foreground(
        box,
        body="""
        try:
            time.sleep(1000)
        except SystemExit as error:
            print(error.code, error)
            raise""",
    )
    program.send_signal(signal.SIGTERM)
    assert ended(program) == (0, "0 terminated by SIGTERM\n", "")


# --- the daemon's own children


def test_statuses_of_the_own_children_are_right_and_no_zombies_stay(box: support.Sandbox) -> None:
    pid = daemon(
        box,
        body="""
            statuses = [subprocess.run(["sh", "-c", f"exit {n}"]).returncode for n in range(9)]
            statuses.append(subprocess.run(["sh", "-c", "kill -9 $$"]).returncode)
            statuses.append(os.waitstatus_to_exitcode(os.system("exit 5")))
            background = subprocess.Popen(["sleep", "0.01"])
            daemon.sleep(0.05)
            statuses.append(background.wait())
            report("statuses", statuses)
            daemon.sleep()""",
    )
    assert json.loads(box.text("statuses")) == [*range(9), -9, 5, 0]
    assert not Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_sigchld_can_be_mapped(box: support.Sandbox) -> None:
    program = foreground(
        box,
        before="""
    def reap(number, frame):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(status))
    context.signal_map = {signal.SIGCHLD: reap, signal.SIGTERM: "request_stop"}""",
        body="""
        for status in (3, 4):
            if os.fork() == 0:
                os._exit(status)
        daemon.sleep()""",
    )
    assert sorted(program.stdout.readline() for _ in range(2)) == ["3\n", "4\n"]
    program.send_signal(signal.SIGTERM)
    assert ended(program) == (0, "", "")


def test_a_handler_that_raises_as_signals_are_blocked_leaves_none_blocked(
    box: support.Sandbox,
) -> None:
    """A signal that comes just before the system call has its handler run just behind it."""
    done = box.run("""
        import ctypes, itertools, signal
        from daemon_context import system as process

        # Converting the signals for the call, in C, sends one: no handler runs before the call.
        send = getattr(ctypes.PyDLL(None), "raise")
        process.SIGNALS = itertools.filterfalse(send, [signal.SIGINT])
        try:
            with process.SignalsHeld():
                print("not reached")
        except KeyboardInterrupt:
            print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")


@pytest.mark.parametrize("look", ["daemon.sleep(0)", "next(daemon.every(1))"])
def test_a_request_ends_a_forked_worker_that_never_looks_at_it(
    box: support.Sandbox, look: str
) -> None:
    """As a pool of multiprocessing ends its own: it waited for them for ever. By the signal, as
    outside a daemon.
    """
    program = foreground(
        box,
        "signal_map={signal.SIGTERM: 'request_stop'}",
        f"""
        import multiprocessing
        def work(looks):
            daemon.stop_requested if looks else None
            began.set()
            while not (looks and daemon.stop_requested):
                time.sleep(0.01)
            print("asked", flush=True)
        {look}
        fork = multiprocessing.get_context("fork")
        for looks in False, True:
            began = fork.Event()
            worker = fork.Process(target=work, args=[looks])
            worker.start()
            began.wait()
            worker.terminate()
            worker.join()
            print("ended with status", worker.exitcode, flush=True)
        print(daemon.stop_requested)
    """,
    )
    first, second = (f"ended with status {status}\n" for status in (-15, 0))
    assert ended(program) == (0, f"{first}asked\n{second}False\n", "")


def test_a_forked_worker_finishes_its_first_round_as_well(box: support.Sandbox) -> None:
    program = run(
        box,
        "signal_map={signal.SIGTERM: 'request_stop'}",
        """
        child = os.fork()
        if child == 0:
            for number in daemon.every(0.01):
                os.kill(os.getpid(), signal.SIGTERM)
                print("round", number, "is done", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """,
    )
    assert ended(program) == (0, "round 0 is done\n", "")


def test_a_terminate_that_asks_for_a_stop_ends_a_forked_worker(box: support.Sandbox) -> None:
    done = box.run("""
        import os, signal, time
        from daemon_context import DaemonContext
        class Polite(DaemonContext):
            def terminate(self, *args):
                self.request_stop(*args)
        with Polite(detach_process=False, stdout=1, stderr=2):
            child = os.fork()
            if child == 0:
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(1000)
                except BaseException as error:
                    print(type(error).__name__, flush=True)
                    os._exit(0)
            os.waitpid(child, 0)
    """)
    assert (done.stdout, done.stderr) == ("Terminated\n", "")
