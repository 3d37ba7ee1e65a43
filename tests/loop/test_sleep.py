"""The sleep that a signal ends at once, whoever sleeps."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from tests.helpers import support
from tests.helpers.signalled import daemon, ended, foreground, run

LOOPS = {
    "sleep": "daemon.sleep()",
    "short sleeps": "while daemon.sleep(0.0005): pass",
    "long sleep": "daemon.sleep(1e9)",
    "every": "for _ in daemon.every(0.0005): pass",
    "rare": "for _ in daemon.every(1e9): pass",
    "thread": """
        slept = []
        thread = threading.Thread(target=lambda: slept.append(daemon.sleep()))
        thread.start()
        daemon.sleep()
        thread.join()
        assert slept == [False], slept""",
    "many threads": """
        threads = [threading.Thread(target=daemon.sleep) for _ in range(30)]
        for thread in threads:
            thread.start()
        daemon.sleep()
        for thread in threads:
            thread.join()""",
    "only a thread": """
        thread = threading.Thread(target=daemon.sleep)
        thread.start()
        thread.join()""",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stop_ends_every_kind_of_sleep(box: support.Sandbox, loop: str) -> None:
    program = foreground(box, "signal_map={signal.SIGTERM: 'request_stop'}", LOOPS[loop])
    program.send_signal(signal.SIGTERM)
    assert ended(program) == (0, "", "")


def test_no_wake_up_is_lost(box: support.Sandbox) -> None:
    # Each round is stopped by one signal, at a moment that sweeps over all that a sleep does: a
    # wake-up that got lost would never be made up for.
    program = box.script("""
        import os, random, signal, sys, time
        from daemon_context import DaemonContext
        rng = random.Random()
        for round in range(500):
            context = DaemonContext(detach_process=False, working_directory=".",
                                    signal_map={signal.SIGUSR1: "request_stop"},
                                    steps=[s for s in DaemonContext().steps
                                           if s.name in ("install-signals", "report-ready")])
            with context as daemon:
                # The timer is started at once, and ends within the first moments of the sleep.
                signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGUSR1))
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 3e-4))
                if round % 2:
                    assert not daemon.sleep()
                else:
                    for _ in daemon.every(1000):
                        pass
                assert daemon.stop_requested
        print("all ended")
    """)
    done = box.run(program, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all ended\n", "")


def test_no_signal_from_outside_is_lost(box: support.Sandbox) -> None:
    program = box.popen("""
        import signal, sys
        from daemon_context import DaemonContext
        context = DaemonContext(detach_process=False, stdin=sys.stdin, stdout=sys.stdout,
                                stderr=sys.stderr, signal_map={signal.SIGUSR1: "request_stop"})
        context.open()
        for round in range(500):
            print(round, flush=True)
            while context.sleep(1000):
                pass
            context.close()
            context.open()
    """)
    for _ in range(500):
        assert program.stdout.readline(), program.communicate()
        deadline = time.monotonic() + random.uniform(0, 2e-4)
        while time.monotonic() < deadline:
            pass
        program.send_signal(signal.SIGUSR1)
    assert ended(program) == (0, "", "")


def test_the_wake_up_descriptor_of_the_program_is_restored_and_gets_its_bytes(
    box: support.Sandbox,
) -> None:
    program = foreground(
        box,
        "signal_map={signal.SIGTERM: 'request_stop', signal.SIGUSR1: lambda *a: None}",
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        print("go", flush=True)
        daemon.sleep()
        print(signal.set_wakeup_fd(-1) == writer)
        print(list(os.read(reader, 100)))""",
    )
    assert program.stdout.readline() == "go\n"
    program.send_signal(signal.SIGUSR1)
    time.sleep(0.05)  # so that the two come in this order; both would do
    program.send_signal(signal.SIGTERM)
    status, out, err = ended(program)
    assert (status, err) == (0, "")
    restored, received = out.splitlines()
    assert restored == "True"
    assert sorted(json.loads(received)) == [signal.SIGUSR1, signal.SIGTERM]


def test_a_handler_that_raises_ends_the_sleep_and_leaves_no_wake_up_descriptor(
    box: support.Sandbox,
) -> None:
    program = foreground(
        box,
        body="""
        try:
            daemon.sleep()
        finally:
            print(signal.set_wakeup_fd(-1))""",
    )
    program.send_signal(signal.SIGTERM)
    assert ended(program) == (0, "-1\n", "")


def test_signals_that_stop_nothing_leave_all_sleeping_threads_alone(box: support.Sandbox) -> None:
    program = foreground(
        box,
        "signal_map={signal.SIGTERM: 'request_stop', signal.SIGUSR1: lambda *a: None}",
        """
        threads = [threading.Thread(target=daemon.sleep) for _ in range(5)]
        for thread in threads:
            thread.start()
        for _ in range(200):
            os.kill(os.getpid(), signal.SIGUSR1)
            daemon.sleep(0.0001)
        print([thread.is_alive() for thread in threads], flush=True)
        daemon.sleep()
        for thread in threads:
            thread.join()""",
    )
    assert program.stdout.readline() == f"{[True] * 5}\n"
    program.send_signal(signal.SIGTERM)
    assert ended(program) == (0, "", "")


def test_a_stop_before_the_sleep_ends_it_too(box: support.Sandbox) -> None:
    body = "daemon.request_stop(); print(daemon.sleep(), daemon.sleep(5), list(daemon.every(1)))"
    assert ended(run(box, body=body)) == (0, "False False []\n", "")


@pytest.mark.parametrize("detach", [True, False])
def test_a_stop_before_open_returns_ends_it_too(box: support.Sandbox, detach: bool) -> None:
    done = box.run("""
        import os, signal, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Stop(Step):
            def apply(self, walk):
                os.kill(os.getpid(), signal.SIGTERM)
        with DaemonContext(detach_process=sys.argv[1] == "True", stdout="log",
                           working_directory=".", signal_map={signal.SIGTERM: "request_stop"},
                           steps=DEFAULT_STEPS.insert_before("report-ready", Stop())) as daemon:
            print(daemon.sleep())
    """, detach)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert box.text("log") == "False\n"
    box.settled()


def test_sleep_says_whether_the_time_is_over(box: support.Sandbox) -> None:
    body = "print(daemon.sleep(0), daemon.sleep(-1), daemon.sleep(0.01), daemon.stop_requested)"
    assert ended(run(box, body=body)) == (0, "True True True False\n", "")


def test_rounds_are_numbered(box: support.Sandbox) -> None:
    body = "print([number for number, _ in zip(daemon.every(0.01), 'abc')])"
    assert ended(run(box, body=body)) == (0, "[0, 1, 2]\n", "")


def test_a_round_that_takes_longer_delays_the_others(box: support.Sandbox) -> None:
    body = """
        begun = time.monotonic()
        for number in daemon.every(0.2):
            if not number:
                time.sleep(0.5)
            if number == 3:
                break
        assert time.monotonic() - begun >= 0.9  # 0, 0.5, 0.7, 0.9
    """
    assert ended(run(box, body=body)) == (0, "", "")


def test_a_daemon_that_sleeps_does_not_wake(box: support.Sandbox) -> None:
    pid = daemon(box)

    def switches() -> int:
        return int(support.status(pid)["voluntary_ctxt_switches"])

    support.until(lambda: support.state(pid) == "S")
    before = switches()
    time.sleep(0.3)
    assert switches() == before


def test_a_stop_by_another_thread_ends_the_sleep(box: support.Sandbox) -> None:
    body = "threading.Timer(0.05, daemon.request_stop).start(); print(daemon.sleep())"
    assert ended(run(box, body=body)) == (0, "False\n", "")


def test_a_stop_ends_threads_that_still_work_when_the_context_is_closed(
    box: support.Sandbox,
) -> None:
    program = box.popen("""
        import os, signal, sys, threading
        from daemon_context import DaemonContext
        closed = threading.Event()
        def work():
            for _ in daemon.every(0.01):
                os.kill(os.getpid(), signal.SIGTERM)
                closed.wait()
            while daemon.sleep(0.01):
                pass
        daemon = DaemonContext(detach_process=False, signal_map={signal.SIGTERM: "request_stop"},
                               stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
        for _ in range(2):
            closed.clear()
            with daemon:
                thread = threading.Thread(target=work, daemon=True)
                print(daemon.stop_requested)
                thread.start()
                daemon.sleep()
            closed.set()
            thread.join(20)
            print(thread.is_alive())
    """)
    assert ended(program) == (0, "False\nFalse\n" * 2, "")


# Whoever does not sleep, but spins, polls thousands of times.
COUNTED = """
    from daemon_context import loop as stopping
    polls = []
    def poll(*args):
        polls.append(args)
        return wait(*args)
    wait, stopping.poll = stopping.poll, poll
"""


def test_a_thread_sleeps_on_when_the_context_is_closed(box: support.Sandbox) -> None:
    body = """
        thread = threading.Thread(target=lambda: print(daemon.sleep(0.5), len(polls) < 9))
        thread.start()
        while not polls:
            time.sleep(0.001)
        daemon.close()
        thread.join()"""
    assert ended(run(box, body=body, before=COUNTED)) == (0, "True True\n", "")


def test_a_sleep_before_the_context_is_opened_harms_no_later_one(box: support.Sandbox) -> None:
    before = f"{COUNTED}    context.sleep(0.01)"
    body = "print(daemon.sleep(0.5), len(polls) < 9)"
    assert ended(run(box, body=body, before=before)) == (0, "True True\n", "")


def test_a_thread_that_sleeps_already_when_the_context_is_opened(box: support.Sandbox) -> None:
    before = f"""{COUNTED}
    thread = threading.Thread(target=lambda: print(context.sleep()))
    thread.start()
    while not polls:
        time.sleep(0.001)
    """
    body = """
        print(daemon.sleep(0.2), len(polls) < 9)
        os.kill(os.getpid(), signal.SIGTERM)
        thread.join()"""
    program = run(box, 'threads="ignore", signal_map={15: "request_stop"}', body, before)
    assert ended(program) == (0, "True True\nFalse\n", "")


def test_a_stop_that_a_thread_has_not_seen_when_the_context_is_opened_again(
    box: support.Sandbox,
) -> None:
    """It makes nobody spin."""
    before = """
    from daemon_context import loop as stopping
    polls, woken, again = [], threading.Event(), threading.Event()
    def poll(*args):
        polls.append(args)
        found = wait(*args)
        if threading.current_thread() is thread:
            woken.set()
            again.wait()
        return found
    wait, stopping.poll = stopping.poll, poll
    thread = threading.Thread(target=lambda: context.sleep(0.4))
    """
    body = """
        thread.start()
        while not polls:
            time.sleep(0.001)
        daemon.request_stop()
        woken.wait()
        daemon.close()
        daemon.open()
        again.set()
        print(daemon.sleep(0.2), len(polls) < 9)
        thread.join()"""
    program = run(box, 'threads="ignore"', body, before)
    assert ended(program) == (0, "True True\n", "")


def test_a_handler_that_sleeps_takes_nothing_from_the_sleep_that_it_interrupts(
    box: support.Sandbox,
) -> None:
    body = """
        def poll(*args):
            polls.append(args)
            if len(polls) == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            elif len(polls) == 3:  # the handler's second one: its time is over
                clock.append(1)
                return wait(args[0], 0)
            return wait(*args)
        polls, looks, clock = [], [], [0]
        wait, stopping.poll = stopping.poll, poll
        stopping.monotonic = lambda: clock[-1]
        daemon._loop_stop._between = lambda: looks.append(len(polls))
        print(daemon.sleep(1), looks)"""
    options = "signal_map={signal.SIGUSR1: lambda *args: daemon.sleep(1)}"
    program = run(box, options, body, "from daemon_context import loop as stopping")
    # Before each of the two sleeps, when the handler's is woken, and then the interrupted one.
    assert ended(program) == (0, "True [0, 1, 2, 3]\n", "")


def test_a_sleep_survives_a_wake_up_descriptor_that_is_closed(box: support.Sandbox) -> None:
    body = """
        daemon.sleep(0)  # its pipes are made: they won't get the number
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        os.close(writer)
        print(daemon.sleep(0.01), signal.set_wakeup_fd(-1))"""
    assert ended(run(box, body=body)) == (0, "True -1\n", "")


def test_a_stop_in_a_forked_child_is_not_one_of_the_daemon(box: support.Sandbox) -> None:
    body = """
        if os.fork() == 0:
            daemon.request_stop()
            os._exit(daemon.sleep())
        print(os.wait()[1], daemon.sleep(0.01))"""
    assert ended(run(box, body=body)) == (0, "0 True\n", "")
