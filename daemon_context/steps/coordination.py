"""Steps that tell others: the pid file's lock and content, and the report to the launcher."""

from __future__ import annotations

import os

from ..errors import StepError, from_lockfile, warn
from ..sequence.step import Step
from ..system import ancestors, same_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.frozen import Options
    from ..pidfile import PidFile
    from ..pidfile.holder import Holder
    from ..sequence import Walk

OTHER = "the given pidfile has a way of its own to be entered: in the daemon"


class LockPidfile(Step):
    """Lock the pid file in the launcher: one daemon per pid file, and refusals are seen.

    As the launching user and outside any chroot; the daemon inherits the lock.
    """

    name = "lock-pidfile"
    touches = frozenset({"descriptors"})

    def needed(self, options: Options) -> bool:
        return options.pidfile_lock is not None

    def describe(self, options: Options) -> str:
        return f"lock the pid file {_lock(options).path!r}"

    def why_not(self, options: Options) -> str:
        return "no pidfile is given" if options.pidfile is None else OTHER

    def check(self, walk: Walk) -> None:
        _lock(walk.options).check(walk.options.uid)

    def apply(self, walk: Walk) -> bool:
        lock = _lock(walk.options)
        held = lock.i_am_locking()
        try:
            lock.begin(walk.options.uid)
            if lock.replaced is not None:
                warn_of_unlocked(lock.path, lock.replaced)
        except StepError as error:
            raise _told_if_again(error) from None
        except Warning:  # as an error: python -W error
            self.undo(walk, held)
            raise
        return held

    def undo(self, walk: Walk, memory: bool) -> None:
        lock = _lock(walk.options)
        if memory and os.getpid() == walk.launcher:
            lock.resume()  # the program held it before, and goes on holding it
        else:
            lock.abandon()


class WritePidfile(Step):
    """Write the pid (FHS), and into the lock file who the daemon is; from then on the lock says
    that it lives. A daemon that becomes another user can write neither file after this.
    """

    name = "write-pidfile"
    touches = frozenset({"descriptors"})
    after = {
        "detach": "the pid is known only after the forks",
        "lock-pidfile": "the content may be changed only by who holds the lock",
    }

    def needed(self, options: Options) -> bool:
        return options.pidfile_lock is not None

    def describe(self, options: Options) -> str:
        return f"write the pid to {_lock(options).path!r}"

    def why_not(self, options: Options) -> str:
        return "no pidfile is given" if options.pidfile is None else OTHER

    def apply(self, walk: Walk) -> None:
        options = walk.options
        _lock(options).own(options.uid, in_reach=options.chroot_directory is None)
        walk.entered = True

    def undo(self, walk: Walk, memory: Any) -> None:
        walk.entered = False  # the files are for who has locked them to undo


class EnterPidfile(Step):
    """Enter a context manager of another kind that is given as the pid file: as the daemon's user,
    and inside a chroot.
    """

    name = "enter-pidfile"
    after = {"detach": "it belongs to the process that enters it"}

    def needed(self, options: Options) -> bool:
        return options.pidfile is not None and options.pidfile_lock is None

    def describe(self, options: Options) -> str:
        return f"enter the pid file {options.pidfile!r}"

    def why_not(self, options: Options) -> str:
        return "no pidfile is given" if options.pidfile is None else "the pid file is one of ours"

    def apply(self, walk: Walk) -> None:
        _enter(walk.options.pidfile)
        walk.entered = True

    def undo(self, walk: Walk, memory: Any) -> None:
        walk.entered = False
        walk.options.pidfile.__exit__(None, None, None)


class ReportReady(Step):
    """Tell the launcher that the daemon works: when the last step is done, or when the body
    says so.

    The message goes out after the last step, so that a step behind this one can fail as well.
    """

    name = "report-ready"
    after = {
        "detach": "there is nobody to report to before the forks",
        "write-pidfile": "exit 0 promises that the pid file is there",
        "enter-pidfile": "exit 0 promises that the pid file is there",
    }

    def needed(self, options: Options) -> bool:
        return True

    def describe(self, options: Options) -> str:
        if options.readiness == "explicit":
            return "leave it to the body to report ready"
        if not options.detach_process:
            return "be ready"
        return "report ready to the launcher, which exits 0"

    def apply(self, walk: Walk) -> None:
        walk.ready_due = walk.options.readiness == "open"

    def undo(self, walk: Walk, memory: None) -> None:
        walk.ready_due = False


def _told_if_again(error: StepError) -> StepError:
    """In words of its own where an ancestor holds the lock: its program runs once more, in a
    child.
    """
    if error.pid is not None and error.pid in ancestors():
        error.args = (
            "the program runs once more inside its own daemon, which has the pid file "
            f"{error.path!r} and is an ancestor of this process (pid {error.pid}), as with "
            "reloaders and multiprocessing; put the start under if __name__ == '__main__':, and "
            "use no reloader",
        )
    return error


def warn_of_unlocked(path: str, named: Holder) -> None:
    """Warn where who was named by the pid file, which nobody had locked, may be a daemon of this
    program: then there are two now.
    """
    command = None if named.pid is None else same_program(named.pid)
    if command is not None:
        from ..pidfile.refusals import unlocked

        warn(unlocked(path, named, command), RuntimeWarning)


def _enter(pidfile: Any) -> None:
    """Enter another library's pid file; an error of ``lockfile``'s becomes ours of that class."""
    try:
        pidfile.__enter__()
    except Exception as error:
        known = from_lockfile(error, pidfile)
        if known is None:
            raise
        raise known from error


def _lock(options: Options) -> PidFile:
    assert options.pidfile_lock is not None  # the step is not needed without one
    return options.pidfile_lock
