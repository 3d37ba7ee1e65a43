"""One start: who is who, which call is which, and what happens at the chosen one."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from . import calls, facts, filter, programs

ROLES = ("launcher", "session leader", "daemon")
PATIENCE = 60.0  # seconds until a run counts as hanging


class Case(NamedTuple):
    """One run: the variant, the call that is hit, and what happens to it.

    :ivar action: name of an error; ``kill``; the name of a signal for the launcher's process
        group; or ``list`` or ``none`` for an undisturbed start
    """

    variant: str
    role: str = ""
    call: str = ""
    nth: int = 0
    action: str = "list"

    def __str__(self) -> str:
        return f"{self.variant}: {self.role} {self.call} #{self.nth} {self.action}"


class Run:
    """A program that runs, and what is seen of it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.counts: Counter[tuple[str, str]] = Counter()
        self.points: list[tuple[str, str, int, str]] = []
        self.hit = ""
        self.roles: dict[int, str] = {}
        self.watched: dict[int, int] = {}  # pidfd → pid
        self.expected = 0  # forked, but not heard of yet
        self.marks: dict[str, tuple[int, dict[str, Any]]] = {}
        self.status: int | None = None
        self.unreaped = False
        self.slow = 0.0
        self.hung = False
        self.doomed = 0

    # --- the program

    def start(self) -> Callable[[], None] | None:
        """Fork; returns what to run, in the program, and None in the harness."""
        self.before = {"text": _text(programs.PIDFILE), "files": os.listdir(".")}
        ours, theirs = socket.socketpair()
        self.launcher = os.fork()
        if self.launcher == 0:
            return self._become_program(theirs)
        theirs.close()
        _, (self.listener,), _, _ = socket.recv_fds(ours, 1, 1)
        ours.close()
        self.placeholder = os.memfd_create(facts.PLACEHOLDER)
        self._meet(self.launcher)
        return None

    def _become_program(self, link: socket.socket) -> Callable[[], None]:
        os.setpgid(0, 0)
        for number, path in enumerate(("/dev/null", "stdout", "stderr")):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(fd, number)
            os.close(fd)
        listener = filter.install()
        socket.send_fds(link, [b"x"], [listener])
        link.detach()
        os.closerange(3, 256)
        program, variant = programs.PROGRAMS[self.case.variant], self.case.variant
        return lambda: program(variant)

    # --- what it asks

    def serve(self, finished: Callable[[], bool]) -> None:
        """Answer until all is settled, or the patience is over."""
        deadline = time.monotonic() + PATIENCE
        while not finished():
            if time.monotonic() > deadline:
                self.hung = True
                return
            poller = select.poll()
            poller.register(self.listener, select.POLLIN)
            for pidfd in self.watched:
                poller.register(pidfd, select.POLLIN)
            for fd, events in poller.poll(500):
                if fd in self.watched:
                    self._ended(fd)
                elif events & select.POLLIN:
                    question = filter.receive(self.listener)
                    if question is not None:
                        self._answer(question)
                elif events & select.POLLHUP:
                    self.expected = 0  # nobody is left who could ask

    def _answer(self, question: filter.Question) -> None:
        pid = question.pid
        if pid not in self.roles:
            self._meet(pid)
        call, path = calls.described(question.number, question.args, pid)
        if path.startswith(programs.MARK):
            self._marked(pid, path.removeprefix(programs.MARK))
            if self.case[2:] == (path, 1, "kill"):
                self.hit = path
                return self._hit(question, call)
        elif self._counts(pid) and call and self._is_hit(self.roles[pid], call, path):
            return self._hit(question, call)
        if call == "fork":
            self.expected += 1
        filter.proceed(self.listener, question)
        return None

    def _counts(self, pid: int) -> bool:
        """From the first mark on, and in the daemon until it is ready; until something is hit."""
        return (
            "begin" in self.marks
            and not self.hit
            and all(pid != self.marks[name][0] for name in ("ready", "failed", "started")
                    if name in self.marks)
        )  # fmt: skip

    def _is_hit(self, role: str, call: str, path: str) -> bool:
        self.counts[role, call] += 1
        nth = self.counts[role, call]
        if self.case.action == "list":
            self.points.append((role, call, nth, path))
        if (role, call, nth) == self.case[1:4]:
            self.hit = path or "yes"
        return bool(self.hit)

    def _hit(self, question: filter.Question, call: str) -> None:
        action = self.case.action
        if action == "kill":
            self.doomed = question.pid
            os.kill(question.pid, signal.SIGKILL)
        elif action.startswith("SIG"):
            try:
                os.killpg(self.launcher, getattr(signal, action))
            except ProcessLookupError:
                pass
            if call == "fork":
                self.expected += 1
            filter.proceed(self.listener, question)
        else:
            if call == "close":
                filter.release(self.listener, question, question.args[0], self.placeholder)
            filter.fail(self.listener, question, calls.number_of(action))

    def _marked(self, pid: int, name: str) -> None:
        if name == "failed" and pid != self.launcher:
            return  # SIGTERM has ended the daemon's body, where open() is part of it
        try:
            self.marks[name] = (pid, facts.facts(pid))
        except (OSError, LookupError, ValueError):
            if facts.alive(pid):
                raise
            return  # killed while it asked
        if name == "failed":
            # All that the program has started is reaped by the time that it sees the error.
            self.unreaped = any(
                facts.stat(other)[1:2] == [str(self.launcher)] for other in self.roles
            )

    # --- who is who

    def _meet(self, pid: int) -> None:
        """The first one after the launcher is the session leader, the next one the daemon."""
        self.expected = max(0, self.expected - 1)
        self.roles[pid] = ROLES[len(self.roles)] if len(self.roles) < 3 else "another"
        try:
            self.watched[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            pass
        except OSError:  # EINVAL, by now ENOENT: a thread, of a daemon that was asked to end
            self.roles[pid] = "another"

    def _ended(self, pidfd: int) -> None:
        pid = self.watched.pop(pidfd)
        os.close(pidfd)
        if pid == self.launcher:
            self.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @property
    def daemon(self) -> int:
        """Who said that it is ready; 0: nobody."""
        return self.marks["ready"][0] if "ready" in self.marks else 0

    @property
    def live(self) -> set[int]:
        """Processes that have not ended."""
        return set(self.watched.values())

    def settled(self) -> bool:
        """The start is over: nobody is under way any more."""
        return not self.expected and self.live <= {self.daemon} - {self.doomed}

    def over(self) -> bool:
        """Nobody is left."""
        return not self.expected and not self.live

    # --- from the beginning to the end

    def observe(self) -> dict[str, Any]:
        """Start to stop; what was seen."""
        begun = time.monotonic()
        self.serve(self.settled)
        self.slow = time.monotonic() - begun
        seen = self._picture()
        daemon = self.daemon if self.daemon in self.live else 0
        if daemon and not self.hung:
            os.kill(daemon, signal.SIGTERM)
            self.serve(self.over)
        seen["after stop"] = _pidfile()
        seen["hung"] = self.hung
        self.end()
        seen["data"] = _text(programs.DATA)
        return seen

    def _picture(self) -> dict[str, Any]:
        live = self.live
        if not live:
            _collect()  # one that was killed before its first call may still be ending
        return {
            "case": self.case,
            "before": self.before,
            "hit": self.hit,
            "points": self.points,
            "status": self.status,
            "stderr": _text("stderr"),
            "daemon": self.daemon if self.daemon in live else 0,
            "launcher": self.launcher,
            "ready": bool(self.daemon),
            "left": sorted(self.roles[pid] for pid in live - {self.daemon}),
            "unreaped": self.unreaped,
            "marks": {name: found for name, (_, found) in self.marks.items()},
            "pidfile": _pidfile(),
            "files": sorted(os.listdir(".")),
            "seconds": self.slow,
        }

    def end(self) -> None:
        """Kill what is left, and collect it."""
        for pidfd in self.watched:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self.watched.clear()
        os.close(self.listener)
        os.close(self.placeholder)
        _collect()


def _collect() -> None:
    """Wait for the end of all orphans: they come to this process (a subreaper)."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def _pidfile() -> dict[str, Any]:
    """What is in the pid file, and who holds its lock."""
    locked, owner = facts.lock_of(programs.PIDFILE)
    exists = os.path.exists(programs.PIDFILE)
    return {"exists": exists, "text": _text(programs.PIDFILE), "locked": locked, "owner": owner}


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 16).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def clear(directory: str) -> None:
    """Empty the directory of a run, and enter it."""
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory, 0o755)
    os.chdir(directory)
