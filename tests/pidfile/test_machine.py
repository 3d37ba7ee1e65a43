"""Any order of starts, stops, deaths, forks, locks and bad content, against a model of two lines:

at most one daemon holds the lock; no process but the daemon is ever signalled.

``MACHINE_EXAMPLES=250 pytest tests/pidfile/test_machine.py`` goes through as many with each seed,
longer ones, and others each time; by default they are few, and always the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daemon_context import Daemon, PidFile
from tests.helpers import support
from tests.helpers.pidfiles import READER, Innocent, Starter, is_excluded, kernel_owner, lock_of

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", 0))
COMMON = settings(
    print_blob=True,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
QUICK = settings(
    COMMON,
    max_examples=15,
    stateful_step_count=20,
    database=None,
    phases=[Phase.generate],  # each example takes real time, and there are minutes of shrinking
)
FULL = settings(COMMON, max_examples=EXAMPLES or 1, stateful_step_count=40)

COUNTS = st.sampled_from([1, 2, 6])
FORKS = {"python": signal.SIGUSR1, "native": signal.SIGUSR2}
ENDS = st.sampled_from([signal.SIGTERM, signal.SIGKILL])
# Kind, first byte, and whether it is exclusive; all that matter, and some that don't.
LOCKS = [
    ("record", 0, False),
    ("record", 0, True),
    ("record", 1, True),
    ("record", 2, True),
    ("ofd", 0, False),
    ("ofd", 0, True),
    ("ofd", 1, True),
    ("flock", 0, True),
]
CONTENTS = ["innocent", "innocent", "dead", "garbage", "", "-1\n"]
GENTLE, HARD = [("TERM", 20)], [("KILL", 20)]


class PidFileMachine(RuleBasedStateMachine):
    """The model beside the real processes; `settled` compares them after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.open = contextlib.ExitStack()
        self.path = Path(self.open.enter_context(tempfile.TemporaryDirectory())) / "d.pid"
        self.box = support.Sandbox(self.path.parent)
        self.open.callback(self.box.end)
        self.daemon: int | None = None  # holds the lock of the file at the path
        self.lost: list[int] = []  # daemons whose file was removed: nobody can see them
        self.children: dict[int, int] = {}  # forked by daemons; and by which
        self.keepers: set[int] = set()  # native ones, with a copy of the file's lock
        self.content: str | None = None  # of the file, if there is one
        self.dead = 32767  # the pid that a killed daemon has left in it
        self.reader: subprocess.Popen[str] | None = None  # somebody else, who has locked it
        self.refusal = ""  # and what starts are told because of that
        self.generation = 0  # of the file: who held its predecessor may still live

    @initialize(running=st.booleans())
    def begin(self, running: bool) -> None:
        self.starter = Starter(self.box)
        self.innocent = Innocent(self.box)
        if running:
            self.start(1)

    def teardown(self) -> None:
        self.open.close()

    # --- the model

    @property
    def in_the_way(self) -> str:
        """What a start is told, as a pattern; '' if one wins."""
        if self.daemon:
            return f"already running with pid {self.daemon} "
        if self.keepers:
            pids = "|".join(map(str, self.keepers))
            child = rf"its child \(pid ({pids})\)"
            return rf"the daemon is dead, but {child} still holds its lock \(pid file"
        return self.refusal

    @property
    def pid_in_the_file(self) -> int | None:
        found = re.fullmatch(r"([1-9]\d*)\n", self.content or "")
        return int(found[1]) if found else None

    @property
    def own(self) -> str:
        """What the daemon has written, or the one that was killed."""
        return f"{self.daemon or self.dead}\n"

    @property
    def witness(self) -> str:
        return f"{self.path}.witness.{self.generation}"

    def start_some(self, count: int, **job: Any) -> list[dict[str, Any]]:
        results = self.starter.start_many(count, self.path, witness=self.witness, **job)
        assert {result["status"] for result in results} <= {0, 1}, results
        return results

    def begun(self, results: list[dict[str, Any]]) -> None:
        """One of the starts has won, or more than one."""
        won = self.alive() - self.expected()
        assert len(won) == 1 == sum(result["status"] == 0 for result in results), (won, results)
        (self.daemon,) = won
        self.content = self.own

    def refused(self, results: list[dict[str, Any]], pattern: str) -> None:
        for result in results:
            if result["status"]:
                assert re.search(pattern, result["text"]), (pattern, result)

    def ended(self, number: int) -> None:
        """The daemon has ended by a signal."""
        assert self.daemon
        if number == signal.SIGTERM:
            self.content = None
            self.keepers.clear()
        else:
            self.dead = self.daemon
        self.daemon = None

    def alive(self) -> set[int]:
        return self.box.processes()

    def expected(self) -> set[int]:
        others = [self.daemon, self.starter.program.pid, self.innocent.process.pid]
        if self.reader:
            others.append(self.reader.pid)
        return {pid for pid in others if pid}.union(self.lost, self.children)

    # --- starts and ends

    @rule(count=COUNTS)
    def start(self, count: int) -> None:
        pattern = self.in_the_way
        results = self.start_some(count)
        if pattern:
            assert all(result["status"] for result in results), (pattern, results)
            # One of several may see another that looks at whose the pid file is.
            self.refused(results, f"{pattern}|being started" if self.refusal else pattern)
        else:
            self.begun(results)
            self.refused(results, f"already running with pid {self.daemon} |being started")

    @precondition(lambda self: self.daemon)
    @rule(number=ENDS)
    def end(self, number: int) -> None:
        assert self.daemon
        os.kill(self.daemon, number)
        support.gone(self.daemon)
        self.ended(number)

    @precondition(lambda self: self.daemon)
    @rule(number=ENDS, count=st.sampled_from([3, 12]), delay=st.floats(0, 0.008))
    def start_while_it_ends(self, number: int, count: int, delay: float) -> None:
        """Nobody wins, or one; and never while the old one is still there: it has a witness."""
        old = self.daemon
        assert old
        results = self.start_some(count, kill=(old, number, delay))
        support.gone(old)
        self.ended(number)
        others = self.in_the_way
        if any(result["status"] == 0 for result in results):
            assert not others, results
            self.begun(results)
        elif not others:
            self.begun(self.start_some(1))  # what comes next must not depend on who was faster
        told = [f"already running with pid ({old}|{self.daemon}) ", "being started"]
        self.refused(results, "|".join([*told, others] if others else told))

    @precondition(lambda self: self.lost)
    @rule(number=ENDS)
    def end_a_lost_one(self, number: int) -> None:
        """Whatever has come in the place of its file stays."""
        pid = self.lost.pop()
        os.kill(pid, number)
        support.gone(pid)

    # --- stop

    @property
    def told_by_stop(self) -> str:
        """Why a stop fails, as a pattern; '' if it does not."""
        if self.daemon:
            return ""
        if self.in_the_way:
            return self.in_the_way.removesuffix("; end")
        ours = lock_of(self.path).exists()  # then what the pid file says is stale
        if self.content == f"{self.innocent.process.pid}\n" and not ours:
            return "nothing proves that it is the daemon"
        return ""

    # A start under way is waited for, for long; and such a lock of a reader looks like one.
    @precondition(lambda self: "being started" not in self.in_the_way)
    @precondition(lambda self: self.daemon or self.content is not None)
    @rule(schedule=st.sampled_from([GENTLE, HARD]))
    def stop(self, schedule: list[tuple[str, int]]) -> None:
        told, daemon = self.told_by_stop, self.daemon
        answer = self.starter.ask(stop=os.fspath(self.path), schedule=schedule)
        if told:
            assert re.search(told, answer["error"]), (told, answer)
            return
        assert answer == {"pid": daemon}
        self.content = None
        if daemon is None:
            return
        self.ended(signal.SIGTERM)  # whatever it was, nothing is left
        if schedule is HARD:
            for child in [pid for pid, parent in self.children.items() if parent == daemon]:
                self.child_ended(child)

    # --- children

    @precondition(lambda self: self.daemon and len(self.children) < 3)
    @rule()
    def fork(self) -> None:
        self.have_child("python")

    @precondition(lambda self: self.daemon and len(self.children) < 3)
    @rule()
    def fork_natively(self) -> None:
        self.have_child("native")

    def have_child(self, how: str) -> None:
        assert self.daemon
        os.kill(self.daemon, FORKS[how])
        support.until(lambda: self.alive() - self.expected())
        (child,) = self.alive() - self.expected()
        self.children[child] = self.daemon
        if how == "native":
            self.keepers.add(child)
        else:
            support.until(lambda: str(self.path) not in support.descriptors(child).values())

    @precondition(lambda self: self.children)
    @rule(number=st.integers(0, 7))
    def kill_a_child(self, number: int) -> None:
        child = list(self.children)[number % len(self.children)]
        os.kill(child, signal.SIGKILL)
        self.child_ended(child)

    def child_ended(self, child: int) -> None:
        support.gone(child)
        self.children.pop(child)
        self.keepers.discard(child)

    # --- others, who do something to the file

    @precondition(lambda self: self.content in (None, self.own))
    @rule(content=st.sampled_from(CONTENTS))
    def write(self, content: str) -> None:
        pids = {"dead": self.dead, "innocent": self.innocent.process.pid}
        self.content = f"{pids[content]}\n" if content in pids else content
        self.path.write_text(self.content)

    @precondition(lambda self: self.daemon or self.keepers or self.refusal)
    @rule()
    def unlink(self) -> None:
        self.path.unlink(missing_ok=True)
        lock_of(self.path).unlink(missing_ok=True)
        self.content, self.refusal = None, ""
        self.keepers.clear()
        self.generation += 1
        if self.daemon:
            self.lost.append(self.daemon)
            self.daemon = None

    @precondition(lambda self: not self.reader and not self.daemon and not self.keepers)
    @rule(how=st.sampled_from(LOCKS))
    def lock(self, how: tuple[str, int, bool]) -> None:
        kind, start, exclusive = how
        self.path.touch()
        self.content = self.content or ""
        args = [self.path, kind, start, 0, *["exclusive"] * exclusive]
        self.reader = self.box.popen(self.box.script(READER, "reader.py"), *args, stderr=None)
        assert self.reader.stdout is not None
        pid = int(self.reader.stdout.readline())
        if kind == "flock":
            self.refusal = rf"a daemon of another library \(pid {pid}\) holds it"
        elif kind == "ofd" and exclusive:
            self.refusal = "a daemon of an older form of this library"
        else:
            self.refusal = ""

    @precondition(lambda self: self.reader)
    @rule()
    def unlock(self) -> None:
        assert self.reader
        self.reader.communicate()
        assert self.reader.returncode == 0
        self.reader, self.refusal = None, ""

    # --- after each step, from outside

    @invariant()
    def at_most_one_daemon_holds_the_lock(self) -> None:
        assert self.alive() == self.expected()
        assert self.content == (self.path.read_text() if self.path.exists() else None)
        if self.content is not None and not self.refusal:
            assert kernel_owner(self.path) == self.daemon
            assert is_excluded(self.path) == bool(self.daemon or self.keepers)
        for witness in self.path.parent.glob("*.witness.*"):
            assert witness.read_text() == ""

    @invariant()
    def no_process_but_the_daemon_is_signalled(self) -> None:
        assert self.innocent.is_unharmed
        assert self.reader is None or self.reader.poll() is None

    @invariant()
    def who_asks_is_told(self) -> None:
        lock = PidFile(self.path)
        assert lock.owner() == self.daemon
        assert lock.is_locked() == bool(self.in_the_way)
        assert lock.read_pid() == self.pid_in_the_file
        status = Daemon(self.path).status()
        assert status.pid == self.daemon
        assert status.is_running == bool(self.daemon or "being started" in self.in_the_way)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_whatever_happens_in_whatever_order(number: int) -> None:
    machine = type("Machine", (PidFileMachine,), {})
    if EXAMPLES:
        run_state_machine_as_test(machine, settings=FULL)
    else:
        run_state_machine_as_test(seed(number)(machine), settings=QUICK)
