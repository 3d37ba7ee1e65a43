"""Many starts at once on one pid file, and starts that are killed at any moment."""

from __future__ import annotations

import collections
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from daemon_context import PidFile
from tests.helpers import support
from tests.helpers.pidfiles import Starter, end, kernel_owner, lock_of

MANY = 300
RUNNING = "daemon_context.errors.AlreadyRunning"


def winners(results: list[dict[str, Any]]) -> int:
    """How many of the starts worked; fails unless all others were refused clearly."""
    for result in results:
        if result["status"] != 0:
            assert result["status"] == 1
            assert RUNNING in result["kinds"], result
            assert result["step"] == "lock-pidfile"
            about = "already running with pid|being started by another process"
            assert re.search(about, result["text"]), result["text"]
    return collections.Counter(result["status"] for result in results)[0]


def one_daemon(starter: Starter, path: Path) -> int:
    """The pid of the only daemon there is, on whose word kernel, file and process table agree."""
    (pid,) = starter.daemons
    assert path.read_text() == f"{pid}\n"
    assert kernel_owner(path) == pid
    return pid


@pytest.mark.slow
@pytest.mark.parametrize("before", ["fresh", "stale", "killed", "garbage"])
def test_of_many_starts_at_once_one_wins(starter: Starter, tmp_path: Path, before: str) -> None:
    path = tmp_path / "run" / "d.pid"
    path.parent.mkdir()
    if before == "stale":
        path.write_text(f"{os.getpid()}\n")
    elif before == "garbage":
        path.write_bytes(os.urandom(4096))
    elif before == "killed":
        assert starter.start(path) == {"status": 0}
        end(one_daemon(starter, path), signal.SIGKILL)
    assert winners(starter.start_many(MANY, path)) == 1
    pid = one_daemon(starter, path)
    assert winners(starter.start_many(3, path)) == 0
    end(pid)
    assert list(path.parent.iterdir()) == []
    assert starter.daemons == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_while_the_old_daemon_is_ending(starter: Starter, tmp_path: Path, number: int) -> None:
    """No two at any moment; and the old one's end leaves the new one's file alone."""
    path, witness = tmp_path / "d.pid", tmp_path / "witness"
    assert starter.start(path, witness=os.fspath(witness)) == {"status": 0}
    old = one_daemon(starter, path)
    dice = random.Random(number)
    for count in (MANY, *[15] * 20):
        kill = (old, number, dice.uniform(0, 0.01))  # seconds, so that some come before it
        job = {"kill": kill, "witness": os.fspath(witness)}
        won = winners(starter.start_many(count, path, **job))
        support.gone(old)
        if won == 0:
            assert starter.daemons == set()
            assert path.exists() == (number == signal.SIGKILL)
            assert starter.start(path, witness=os.fspath(witness)) == {"status": 0}
        assert won <= 1
        old = one_daemon(starter, path)
    end(old)
    assert not path.exists()
    assert witness.read_text() == ""


@pytest.mark.slow
def test_while_an_orphan_with_the_lock_is_ending(starter: Starter, tmp_path: Path) -> None:
    """Nobody else is ever taken for it: not the start that has got the lock after it."""
    path, witness = tmp_path / "d.pid", os.fspath(tmp_path / "witness")
    dice = random.Random(1)
    for _ in range(12):
        assert starter.start(path, witness=witness) == {"status": 0}
        daemon = one_daemon(starter, path)
        os.kill(daemon, signal.SIGUSR2)  # see the starter: it has a child, by a native fork
        support.until(lambda: len(starter.daemons) == 2)
        end(daemon, signal.SIGKILL)
        (orphan,) = starter.daemons
        kill = (orphan, signal.SIGKILL, dice.uniform(0, 0.03))
        results = starter.start_many(15, path, kill=kill, witness=witness)
        support.gone(orphan)
        told = rf"its child \(pid {orphan}\) still|(already running|being started)"
        for result in results:
            assert result["status"] == 0 or re.search(told, result["text"]), result
        assert len(starter.daemons) == sum(result["status"] == 0 for result in results) <= 1
        for pid in starter.daemons:
            end(pid)


@pytest.mark.slow
def test_while_others_lock_and_remove_it(starter: Starter, tmp_path: Path) -> None:
    """Whoever opened the file before it was removed must not take its lock for the pid file's."""
    path = tmp_path / "d.pid"
    busy = starter.box.popen("""
        import select, sys
        from daemon_context import AlreadyRunning, PidFile
        lock = PidFile(sys.argv[1])
        rounds = 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            try:
                with lock:
                    rounds += 1
            except AlreadyRunning:
                pass
        print(rounds)
    """, path, stderr=None)  # fmt: skip
    for count in (MANY, 30):
        won = winners(starter.start_many(count, path))
        daemons = starter.daemons - {busy.pid}
        assert len(daemons) == won <= 1
        for pid in daemons:
            assert kernel_owner(path) == pid
            end(pid)
    assert int(busy.communicate()[0]) > 0
    assert not path.exists()
    assert starter.start(path) == {"status": 0}
    end(one_daemon(starter, path))


@pytest.mark.slow
def test_who_has_the_lock_has_the_file(box: support.Sandbox) -> None:
    """A few processes take and remove it as fast as they can."""
    program = box.script("""
        import os, sys
        from daemon_context import AlreadyRunning, PidFile
        locks, times = [PidFile("d.pid") for _ in range(2)], 0
        while times < 300:
            lock = locks[times % 2]
            try:
                with lock:
                    times += 1
                    held = os.fstat(lock._fd)
                    assert os.path.samestat(held, os.stat("d.pid"))
                    assert lock.read_pid() == os.getpid()
            except AlreadyRunning:
                pass
    """)
    racing = [box.popen(program) for _ in range(3)]
    assert [process.communicate()[1] for process in racing] == [""] * 3
    assert not (box.path / "d.pid").exists()


@pytest.mark.slow
def test_while_somebody_keeps_removing_it(starter: Starter, tmp_path: Path) -> None:
    """A daemon whose files are gone can't be seen by others; but nothing hangs, lies or is left."""
    path = tmp_path / "d.pid"
    vandal = starter.box.popen("""
        import os, select, sys
        while not select.select([sys.stdin], [], [], 0)[0]:
            for name in (sys.argv[1], sys.argv[1] + ".lock"):
                try:
                    os.unlink(name)
                except FileNotFoundError:
                    pass
    """, path, stderr=None)  # fmt: skip
    results = starter.start_many(MANY, path)
    daemons = starter.daemons - {vandal.pid}
    for result in results:
        if result["status"] != 0 and RUNNING not in result["kinds"]:
            assert "somebody removed or replaced it during the start; start" in result["text"]
            assert result["step"] == "write-pidfile"
    assert len(daemons) == collections.Counter(r["status"] for r in results)[0]
    vandal.communicate()
    for pid in daemons:
        end(pid)
    assert not path.exists()
    assert starter.start(path) == {"status": 0}
    end(one_daemon(starter, path))


# Locks the file and lets go of it, again and again, in one way each; until its stdin ends.
LOCKERS = """
    import itertools, os, random, select, sys, time
    from tests.helpers.pidfiles import take_lock

    ways = list(itertools.product(("record", "ofd", "flock"), (0, 1, 2), (False, True)))
    kind, start, exclusive = ways[int(sys.argv[2])]
    dice = random.Random(int(sys.argv[2]))
    while not select.select([sys.stdin], [], [], dice.uniform(0, 0.02))[0]:
        try:
            fd = take_lock(sys.argv[1], kind, start, exclusive=exclusive)
        except (BlockingIOError, FileNotFoundError):
            continue
        time.sleep(dice.uniform(0, 0.005))
        os.close(fd)
"""


@pytest.mark.slow
def test_while_others_lock_it(starter: Starter, tmp_path: Path) -> None:
    """They come and go, as root, so that they may be daemons of other libraries; a start wins, or
    is refused at once and says why.
    """
    path, witness = tmp_path / "d.pid", tmp_path / "witness"
    program = starter.box.script(LOCKERS)
    path.touch()
    lockers = [starter.box.popen(program, path, way, stderr=None) for way in range(18)]
    others = {locker.pid for locker in lockers}
    refusals: set[str] = set()

    def starts(count: int) -> None:
        results = starter.start_many(count, path, witness=os.fspath(witness))
        refusals.update(refusal(result) for result in results if result["status"])
        assert not others.intersection(named_as_running(results)), results
        daemons = starter.daemons - others
        assert len(daemons) == sum(result["status"] == 0 for result in results) <= 1
        for pid in daemons:
            assert kernel_owner(path) == pid
            end(pid)
        path.touch()

    for count in (MANY, *[30] * 5):
        starts(count)
    support.until(lambda: "another library" in refusals or starts(1))
    for locker in lockers:
        locker.communicate()
        assert locker.returncode == 0
    assert starter.start(path) == {"status": 0}
    end(one_daemon(starter, path))
    assert not witness.exists() or witness.read_text() == ""


def named_as_running(results: list[dict[str, Any]]) -> set[int]:
    return {r["pid"] for r in results if r["status"] and refusal(r) == "already running"}


def refusal(result: dict[str, Any]) -> str:
    """Who is in the way, as the error of the start says."""
    about = "another library|older form|already running|being started"
    found = re.search(about, result["text"])
    assert found, result["text"]
    return found[0]


def test_a_daemon_leaves_its_successors_file_alone(starter: Starter, tmp_path: Path) -> None:
    path = tmp_path / "d.pid"
    assert starter.start(path) == {"status": 0}
    first = one_daemon(starter, path)
    path.unlink()
    assert RUNNING in starter.start(path)["kinds"]
    lock_of(path).unlink()
    assert starter.start(path) == {"status": 0}
    (second,) = starter.daemons - {first}
    end(first)
    assert one_daemon(starter, path) == second
    end(second)
    assert not path.exists()


def test_starts_that_wait_take_turns(starter: Starter, tmp_path: Path) -> None:
    """Each gets the lock when the one before has ended."""
    path = tmp_path / "d.pid"
    program = starter.box.script("""
        import sys
        from daemon_context import DaemonContext, PidFile
        lock = PidFile(sys.argv[1], timeout=60)
        with DaemonContext(pidfile=lock, detach_process=True, stdout=sys.argv[2]):
            print("turn")
    """)
    log = tmp_path / "log"
    waiting = [starter.box.popen(program, path, log) for _ in range(6)]
    assert [process.communicate()[1] for process in waiting] == [""] * 6
    assert {process.returncode for process in waiting} == {0}
    support.until(lambda: starter.daemons == set())
    assert log.read_text() == "turn\n" * 6
    assert not path.exists()


# One launcher, session leader or daemon is killed at a random moment of a start; then all must
# end by itself, or there must be a whole daemon; and the next start must work.
KILLS = """
    import os, random, signal, sys, time
    from daemon_context import DaemonContext, PidFile
    from tests.helpers import support

    path, cycles, dice = "d.pid", int(sys.argv[1]), random.Random(int(sys.argv[2]))
    box = support.Sandbox(support.ROOT)
    box.mark = os.environ[support.MARK]

    def launch(told=False):
        pid = os.fork()
        if not pid:
            try:
                with DaemonContext(pidfile=path, detach_process=True) as daemon:
                    daemon.sleep()
            except Exception as error:
                if told:
                    print(error, file=sys.stderr, flush=True)
                os._exit(1)
            finally:
                os._exit(0)
        return pid

    def children(pid):
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                return [int(word) for word in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            return []

    def victim(launcher, generation):
        pid = launcher
        for _ in range(generation):
            pid = (children(pid) or [pid])[0]
        if pid == launcher and generation and PidFile(path).owner():
            return PidFile(path).owner()
        return pid

    def kill(pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def whole_start():
        began = time.monotonic()
        status = os.waitpid(launch(told=True), 0)[1]
        took = time.monotonic() - began
        assert status == 0, f"the next start failed: {status}"
        pid = PidFile(path).owner()
        assert box.processes() == {pid}, (box.processes(), pid)
        kill(pid)
        support.gone(pid)
        return took

    took = max(whole_start() for _ in range(3))
    killed = {0: 0, 1: 0}
    for cycle in range(cycles):
        launcher = launch()
        moment = time.monotonic() + dice.uniform(0, 1.2 * took)
        generation = dice.randrange(3)
        while time.monotonic() < moment:
            time.sleep(0)
        kill(victim(launcher, generation))
        status = os.waitpid(launcher, 0)[1]
        killed[int(status == 0)] += 1
        if status == 0:
            for pid in box.processes():
                kill(pid)
        elif os.WIFSIGNALED(status):  # it may have been killed when all was done
            support.until(lambda: box.processes() in (set(), {PidFile(path).owner()}))
            for pid in box.processes():
                kill(pid)
        support.until(lambda: not box.processes(), what=f"cycle {cycle}: {box.processes()}")
        # A process that is killed loses its memory, by which it was found, before its locks.
        support.until(lambda: not PidFile(path).is_locked(), what=f"cycle {cycle}: the lock")
        whole_start()
    print(cycles, killed)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_kill_at_any_moment_the_next_start_works(box: support.Sandbox, seed: int) -> None:
    done = box.run(KILLS, 50, seed, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("50 "), done.stdout
    with PidFile(box.path / "d.pid") as lock:
        assert lock.owner() == os.getpid()
