"""reap-children: an init of its own, for a container that was started without one."""

from __future__ import annotations

import os

from ..errors import OptionError
from ..report import flush_standard_streams
from ..sequence.step import Step
from ..system import SIGNALS, block_signals, fork, reinit_loop, signal, waitpid
from ..system.descriptors import close_unseen
from .detach import consider_threads, hand_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ..options import Options
    from ..sequence import Walk

SI_KERNEL = 0x80  # of linux/siginfo.h


class ReapChildren(Step):
    """As process 1: stay behind as a small init, and let a child be the daemon.

    Orphans of the container become children of process 1, and stay zombies until it waits for
    them. Waiting for any child in the daemon itself would take statuses from its own `subprocess`,
    and nothing tells the two apart; so they are not children of one process. Process 1 passes
    signals on, and ends as the daemon does.
    """

    name = "reap-children"
    touches = frozenset({"pid", "ppid"})
    after = {
        "flush-streams": "both processes would write what files have buffered",
        "install-signals": "the daemon must have its handlers before it gets signals",
    }

    def needed(self, options: Options) -> bool:
        return os.getpid() == 1 and not options.detach_process

    def describe(self, options: Options) -> str:
        return "stay as process 1, which reaps orphans, and fork the daemon"

    def why_not(self, options: Options) -> str:
        return "this is not process 1 of a container, or it detaches"

    def check(self, walk: Walk) -> None:
        written = "write-pidfile" in walk.steps.names[: walk.steps.index(self.name)]
        if written and walk.options.owner_changes and walk.options.pidfile_lock is not None:
            raise OptionError(
                "'reap-children' comes after 'change-owner', and another user may not write into "
                "the pid file that the daemon has another pid now: put it before 'write-pidfile', "
                "and 'install-signals' before it: steps.remove('install-signals').insert_before("
                "'write-pidfile', steps['install-signals'], ReapChildren())"
            )
        if children := _children():
            raise OptionError(
                f"process 1 has children already (pid {', '.join(children)}), which the daemon "
                "could not wait for with 'reap-children': start them after open()"
            )
        consider_threads(walk.options.threads)

    def apply(self, walk: Walk) -> None:
        flush_standard_streams()
        mask = block_signals()
        hand_over(walk, True)
        try:
            if daemon := fork():
                _reap(daemon)
            reinit_loop()
            _own_pidfile(walk)
        finally:
            hand_over(walk, False)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _own_pidfile(walk: Walk) -> None:
    """It names process 1, if it is written already."""
    pidfile = walk.options.pidfile_lock
    if pidfile is not None and walk.entered:
        pidfile.identify()
        pidfile.own(walk.options.uid, in_reach=walk.options.chroot_directory is None)


def _children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()


def _reap(daemon: int) -> NoReturn:
    """Process 1 for the rest of its life. All signals are blocked, and waited for."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, how the daemon ends would be lost
        close_unseen(set())  # who waits for the end of a pipe waits for the daemon's end only
        while (ended := _ended(daemon)) is None:
            _pass_on(daemon, signal.sigwaitinfo(SIGNALS))
        # By a signal it can't end itself: the kernel protects process 1. So as a shell says it.
        status = os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else 128 + os.WTERMSIG(ended)
    finally:
        os._exit(status)


def _ended(daemon: int) -> int | None:
    """Reap whoever has ended; the daemon's wait status, if it is among them."""
    while True:
        pid, status = waitpid(-1, os.WNOHANG)
        if pid in (0, daemon):
            return status if pid else None


def _pass_on(daemon: int, info: Any) -> None:
    # What a terminal sends, as with Ctrl-C, the daemon has got as well.
    if info.si_signo != signal.SIGCHLD and info.si_code != SI_KERNEL:
        os.kill(daemon, info.si_signo)
