"""detach: fork, setsid, fork (setsid(2), credentials(7)); here one process becomes three."""

from __future__ import annotations

import os
import sys

from ..errors import DaemonError, DaemonProcessDetachError, OptionError, warn
from ..report import Report, flush_standard_streams
from ..sequence.step import Step
from ..system import block_signals, fork, has_threads, is_main_thread, reinit_loop, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.frozen import Options
    from ..sequence import Walk


class Detach(Step):
    """Leave the caller's session, and its terminal, for good.

    The first fork makes a process that is no group leader, so that it may call ``setsid``; the
    second one makes a process that is no session leader, so that it can never get a controlling
    terminal again. The process between them stays until the daemon is ready, and then leaves
    before the launcher does.
    """

    name = "detach"
    touches = frozenset({"pid", "ppid", "pgid", "sid", "tty", "descriptors"})
    after = {"flush-streams": "launcher and daemon would both write what files have buffered"}

    def needed(self, options: Options) -> bool:
        return options.detach_process

    def describe(self, options: Options) -> str:
        return "detach from the caller: fork, setsid, fork"

    def why_not(self, options: Options) -> str:
        return str(options.supervisor.reason)

    def check(self, walk: Walk) -> None:
        if not hasattr(os, "fork"):
            raise DaemonProcessDetachError("this operating system has no fork()")
        if "report-ready" not in walk.steps:
            raise OptionError(
                "the sequence has 'detach' but no 'report-ready', so the launcher would wait for "
                "ever; for a body that says so itself, use readiness='explicit'"
            )
        _require_main_thread()
        consider_threads(walk.options.threads)

    def apply(self, walk: Walk) -> None:
        walk.attempted = None  # what it changes ends with the other processes
        flush_standard_streams()  # a user's step may have printed since flush-streams
        activated = os.environ.get("LISTEN_PID") == str(walk.launcher)
        # A handler that raises between the fork and the wait would lose sight of the child.
        mask = block_signals()
        try:
            report = walk.report = Report(walk)
            hand_over(walk, True)
            leader = _fork("first")
        except BaseException:
            hand_over(walk, False)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            raise
        if leader:
            _launch(walk, report, leader, mask)
        else:
            _lead(walk, report, mask, activated)


def _launch(walk: Walk, report: Report, leader: int, mask: Any) -> None:
    """In the launcher: wait for the outcome, and let go. Signals are blocked but for the wait."""
    walk.report = None
    try:
        walk.daemon = report.wait(leader, walk.options.start_timeout, mask)
        walk.words, walk.identity = report.words, report.identity
        walk.over = True
        walk.applied.clear()  # an interrupt that comes now is too late: it undoes nothing
        walk.close_all()
        if walk.options.pidfile_lock is not None:
            walk.options.pidfile_lock.forget()
    except DaemonError:
        walk.number = 0  # a report names its step itself; the body that failed is none
        raise
    finally:
        hand_over(walk, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _lead(walk: Walk, report: Report, mask: Any, activated: bool) -> None:
    """In the session leader, which never returns, and in the daemon, which does."""
    try:
        walk.process = "session leader"
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        report.begin_leader()
        walk.note("first fork")
        os.setsid()
        walk.note("setsid")
        # Ignored, or with a handler that waits for all, how the daemon dies would be lost.
        children = signal.getsignal(signal.SIGCHLD)
        _handle_children(children, signal.SIG_DFL)
        daemon = _fork("second")
    except BaseException as error:
        report.lead_failed(error)
    if daemon:
        report.lead(daemon)
    walk.process = "daemon"
    _handle_children(children, children)
    hand_over(walk, False)
    if walk.options.pidfile_lock is not None:
        walk.options.pidfile_lock.identify()
    report.begin_daemon()
    walk.note("second fork")
    if activated:
        # Sockets handed over by a supervisor are meant for the process that LISTEN_PID names
        # (sd_listen_fds(3)): from now on the daemon.
        os.environ["LISTEN_PID"] = str(os.getpid())


def _fork(which: str) -> int:
    try:
        pid = fork()
    except OSError as error:
        raise DaemonProcessDetachError(
            f"cannot detach: the {which} fork failed: {error.strerror}; look at the limits on "
            "processes (ulimit -u, the cgroup's pids.max) and memory",
            errno=error.errno,
        ) from error
    if not pid:
        reinit_loop()
    return pid


def _handle_children(given: Any, handler: Any) -> None:
    """Set SIGCHLD's handler, unless the program has left it alone or set one in C."""
    if given not in (None, signal.SIG_DFL):
        signal.signal(signal.SIGCHLD, handler)


def hand_over(walk: Walk, under_way: bool) -> None:
    """The one time when forked processes go on with the start, and must keep the lock."""
    if walk.options.pidfile_lock is not None:
        walk.options.pidfile_lock.handing_over = under_way


def _require_main_thread() -> None:
    """Of `spawn`; `open` has been refused there before anything else."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        place = "inside a running asyncio loop, which would run in the daemon as well"
    elif not is_main_thread():
        place = "outside the main thread, where the daemon could set no signal handlers"
    else:
        return
    raise OptionError(
        f"the process can't be forked {place}; give spawn() 'package.module:function', which runs "
        "in a fresh interpreter"
    )


def consider_threads(policy: str) -> None:
    if policy == "ignore" or not has_threads():
        return
    from ..system.threads import live_threads

    names = live_threads()
    if not names:
        return
    text = (
        f"{len(names)} other thread(s) run: {', '.join(names)}; they will not exist in the daemon, "
        "and locks that they hold stay locked there: start threads after open()"
    )
    if policy == "refuse":
        raise OptionError(f"threads='refuse', and {text}")
    warn(text, RuntimeWarning)
