"""detach: fork, setsid, fork (setsid(2), credentials(7)); here one process becomes three."""

from __future__ import annotations

import os

from ..errors import DaemonProcessDetachError, OptionError
from ..process import live_threads
from ..report import Report, prepare
from ..sequence import explained
from ..step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..options import Options
    from ..sequence import Walk


class Detach(Step):
    """Leave the caller's session, and its terminal, for good.

    The first fork makes a process that is no group leader, so that it may call ``setsid``; the
    second one makes a process that is no session leader, so that it can never get a controlling
    terminal again. The process between them stays until the daemon is ready, and then leaves
    before the launcher does.
    """

    name = "detach"
    touches = frozenset({"pid", "ppid", "pgid", "sid", "tty"})

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
        _consider_threads(walk.options.threads)

    def apply(self, walk: Walk) -> None:
        if walk.options.owner_changes or walk.options.chroot_directory:
            prepare()
        walk.report = Report(walk)
        _hand_over(walk, True)
        leader = _fork("first")
        if leader:
            _launch(walk, leader)
        else:
            _lead(walk)


def _launch(walk: Walk, leader: int) -> None:
    """In the launcher: wait for the outcome."""
    assert walk.report is not None
    report, walk.report = walk.report, None
    report.begin_launcher()
    try:
        walk.daemon = report.wait(leader, walk.options.start_timeout)
    finally:
        _hand_over(walk, False)
    walk.over = True
    walk.close()
    if walk.options.pidfile_lock is not None:
        walk.options.pidfile_lock.forget()


def _lead(walk: Walk) -> None:
    """In the session leader, which never returns, and in the daemon, which does."""
    assert walk.report is not None
    try:
        walk.process = "session leader"
        walk.report.begin_leader()
        os.setsid()
        daemon = _fork("second")
    except BaseException as error:
        walk.report.lead_failed(explained(walk, error))
    if daemon:
        walk.report.lead(daemon)
    walk.process = "daemon"
    _hand_over(walk, False)
    walk.report.begin_daemon()
    _follow_activation(walk.launcher)


def _fork(which: str) -> int:
    try:
        return os.fork()
    except OSError as error:
        raise DaemonProcessDetachError(
            f"cannot detach: the {which} fork failed: {error.strerror}; look at the limits on "
            "processes (ulimit -u, the cgroup's pids.max) and memory",
            errno=error.errno,
        ) from error


def _hand_over(walk: Walk, under_way: bool) -> None:
    """The one time when forked processes must keep the lock of our pid file."""
    if walk.options.pidfile_lock is not None:
        walk.options.pidfile_lock.handing_over = under_way


def _follow_activation(launcher: int) -> None:
    """Sockets handed over by a supervisor are meant for the process that LISTEN_PID names
    (sd_listen_fds(3)): from now on the daemon.
    """
    if os.environ.get("LISTEN_PID") == str(launcher):
        os.environ["LISTEN_PID"] = str(os.getpid())


def _consider_threads(policy: str) -> None:
    names = [] if policy == "ignore" else live_threads()
    if not names:
        return
    text = (
        f"{len(names)} other thread(s) run: {', '.join(names)}; they will not exist in the daemon, "
        "and locks that they hold stay locked there: start threads after open()"
    )
    if policy == "refuse":
        raise OptionError(f"threads='refuse', and {text}")
    from warnings import warn

    warn(text, RuntimeWarning, stacklevel=2)
