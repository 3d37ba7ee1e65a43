"""What is open: written out before the forks, and closed in the daemon if nothing preserves it."""

from __future__ import annotations

import os
import sys

from ..errors import DaemonOSEnvironmentError, warn
from ..sequence.keeping import gained, preserved, reset_wakeup, vacant
from ..sequence.step import Step
from ..system import child_pids, has_threads
from ..system.descriptors import (
    FEW,
    STANDARD,
    close_all,
    close_unseen,
    loops,
    modes_of,
    open_numbers,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.frozen import Options
    from ..sequence import Walk


class FlushStreams(Step):
    """Write what the standard streams and unpreserved Python files have buffered: once, by the
    launcher, and not again, or elsewhere, by the daemon.

    Preserved files keep their buffer, which the daemon alone writes. Also finds out, before the
    forks, which Python objects own what will be closed: the search reads the whole heap, and
    after a fork each page that it touches would be copied.
    """

    name = "flush-streams"

    def describe(self, options: Options) -> str:
        return "write what the standard streams and Python files have buffered"

    def apply(self, walk: Walk) -> None:
        # Under another name too: a program may have put something else in the place of sys.stdout.
        for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
            stream = getattr(sys, name)
            if hasattr(stream, "flush") and not getattr(stream, "closed", False):
                _flush(stream, f"sys.{name}")
        others = open_numbers()
        written = others
        if walk.options.goes_on:
            # The launcher goes on, and would write what preserved files have buffered as well.
            written = others.difference(STANDARD, walk.descriptors)
        others -= preserved(walk)
        if walk.detaches and not walk.options.helper:
            _consider_past(others)
        # What a thread opens from now on is not among these.
        if _stock_before(walk, "close-descriptors") and not has_threads():
            walk.others = others
        if written or vacant():
            _account_for(walk, written)


class CloseDescriptors(Step):
    """Close every descriptor that nothing preserves: callers that wait for the end of a pipe
    return, file systems can be unmounted, secrets stay with the launcher.

    Python files and sockets are closed through the objects that own them, which raise on later
    use. Every other number is reserved: an ``O_PATH`` descriptor takes its place, so that an
    object which still uses the number gets EBADF and never somebody else's file.
    """

    name = "close-descriptors"
    touches = frozenset({"descriptors", "wake-up descriptor"})
    after = {
        "detach": "the launcher goes on with its descriptors if the start fails",
        "flush-streams": "what Python files have buffered would be lost",
    }

    def describe(self, options: Options) -> str:
        kept = len(options.files_preserve)
        return f"close every descriptor from 3 on that is not preserved ({kept} given)"

    def apply(self, walk: Walk) -> None:
        # Looking again costs page faults, which a fork has made dear; so does a copy of the set.
        others = open_numbers() if walk.others is None else walk.others
        if others:
            others -= preserved(walk) if walk.others is None else gained(walk)
        reset_wakeup(walk, others)
        # Of few, what they were costs next to nothing; of thousands, more than to close them.
        modes = modes_of(others) if walk.trace is not None or len(others) <= FEW else {}
        close_all(others, walk.owners)
        walk.closed, walk.modes = others, modes
        if not os.access("/proc/self/fd", os.F_OK):
            close_unseen(preserved(walk).union(walk.closed))


def _stock_before(walk: Walk, name: str) -> bool:
    """Whether only stock steps come before the one of that name: a user's own may open what the
    walk does not know.
    """
    for step in walk.steps:
        if step.name == name:
            return True
        if not type(step).__module__.startswith(__package__):
            return False
    return True


def _consider_past(others: set[int]) -> None:
    """Warn of what was made before and is of no use in the daemon. Not for a helper, whose
    program goes on with it.
    """
    if loops(others) or child_pids() or hasattr(sys, "_MEIPASS"):
        from .past import complaints

        for text in complaints(others):
            warn(text, RuntimeWarning)


def _account_for(walk: Walk, others: set[int]) -> None:
    from ..system.owners import Owners  # loaded where anything was open already

    walk.owners = Owners(others)
    logs = walk.owners.logs() if walk.options.preserve_logging else set()
    walk.kept |= logs
    if "faulthandler" in sys.modules:
        # Where a dump goes can't be asked: to one of these, if not to stderr. Under another file
        # its number would get the dump into somebody's data; a reserved one gets it nowhere.
        walk.kept |= walk.owners.written_files()
    # Both processes would write what a log has buffered where the launcher goes on.
    for file in walk.owners.writers_beside(set() if walk.options.goes_on else logs):
        _flush(file, repr(file))
    if written := walk.owners.written_files() - STANDARD:
        for option in lost_streams(walk.options, written - preserved(walk)):
            _warn_lost(option)


def lost_streams(options: Options, closed: set[int]) -> list[str]:
    """Names in `sys` that the program has bound to a file that will be closed, so that what it
    prints goes to ``/dev/null``.

    :param closed: numbers of regular files that are open for writing
    """
    from ..system.owners import number_of

    null = (target.option for target in options.streams[1:] if target.kind == "null")
    return [option for option in null if number_of(getattr(sys, option)) in closed]


def _warn_lost(option: str) -> None:
    name = getattr(getattr(sys, option), "name", "")
    warn(
        f"sys.{option} is the file {name!r}, opened for writing, which the daemon closes: what it "
        f"prints there is lost; open the file for appending ('a'), or give its path as {option}",
        RuntimeWarning,
    )


def _flush(file: Any, name: str) -> None:
    try:
        file.flush()
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise DaemonOSEnvironmentError(
            f"cannot write what {name} has buffered: {text}; it would be lost: "
            "make room for it, or close the file first",
            errno=getattr(error, "errno", None),
        ) from error
