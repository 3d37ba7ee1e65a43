"""Which descriptors the daemon keeps."""

from __future__ import annotations

import errno
import os
import stat
import sys

from ..errors import text_of
from ..manager import handed_over
from ..system import restore_wakeup, signal
from ..system.descriptors import KINDS, STANDARD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..options.frozen import Options
    from .walk import Walk

NOTE = "closed when the process became a daemon"
# Of SQLite, whose files got EBADF; and of `select` and others, for a closed object's number -1.
WORDS = ("disk I/O error", "negative integer")
MOST_NAMED = 8
DEEPEST = 16  # causes of causes


class Closed:
    """A descriptor that the daemon closed: its number, what it was, who owned it.

    ``what`` is ``"unknown"`` where it was not looked at: of more than 256 only a start that records
    a trace does. ``owner`` is None where no Python object was found: then the number is reserved.
    """

    __slots__ = ("fd", "owner", "what")

    def __init__(self, fd: int, mode: int, owner: str | None) -> None:
        self.fd, self.owner = fd, owner
        kind = "unknown" if mode == UNKNOWN else KINDS.get(stat.S_IFMT(mode))
        self.what = kind or "anonymous inode"

    def __repr__(self) -> str:
        return f"<closed {self.fd}: {_words(self)}>"


def _words(item: Closed) -> str:
    known = [] if item.what == "unknown" else [item.what]
    return ", ".join([*known, item.owner or "reserved"])


def closed(walk: Walk) -> tuple[Closed, ...]:
    """What the walk has closed."""
    owners = walk.owners.closed if walk.owners is not None else {}
    modes = walk.modes
    return tuple(Closed(fd, modes.get(fd, UNKNOWN), owners.get(fd)) for fd in sorted(walk.closed))


def note_closed(walk: Walk, error: BaseException) -> None:
    """Of what ends the daemon, and may come from what was closed, say what that was; once."""
    before = getattr(error, "__notes__", ())
    if walk.closed and NOTE not in "".join(map(str, before)) and _is_of_closed(error):
        items = [f"{item.fd} ({_words(item)})" for item in closed(walk)]
        more = [f"{len(items) - MOST_NAMED} more"] if len(items) > MOST_NAMED else []
        named = ", ".join(items[:MOST_NAMED] + more)
        error.add_note(
            f"It may be one of those that were {NOTE}: {named}; open files, databases and "
            "connections after open(), in the daemon, or give them as files_preserve"
        )


def _is_of_closed(error: BaseException | None) -> bool:
    """By the words of those who use a number that was closed, or an object that was."""
    for _ in range(DEEPEST):
        if error is None:
            break
        text = text_of(error)
        if getattr(error, "errno", None) == errno.EBADF or any(w in text for w in WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def preserved(walk: Walk) -> set[int]:
    """All descriptors that stay open."""
    kept = asked(walk.options, walk.launcher)
    kept |= gained(walk)  # in place: of thousands each further set is a quarter of a megabyte
    return kept


def gained(walk: Walk) -> set[int]:
    """What stays open beside that: by the steps, and for threads, which may sleep already."""
    kept = _acquired(walk).union(walk.kept, walk.loop.fds)
    if not walk.detaches:
        kept.update(_of_others_open(walk))
    return kept


def asked(options: Options, launcher: int) -> set[int]:
    """What stays open by the options, and for what the program has loaded; but for logs that are
    not those of `logging`, which are looked for in the heap (`Owners.logs`).
    """
    kept = STANDARD.union(
        options.files_preserve, handed_over(launcher, os.getpid()), _resource_tracker()
    )
    kept.update(target.fd for target in options.streams if target.fd > 2)
    if options.preserve_logging:
        kept.update(_logging())
    return kept


def vacant() -> set[int]:
    """Numbers of standard streams that were closed at the start of the program, so that a file
    of its own may have got one.
    """
    streams = sys.__stdin__, sys.__stdout__, sys.__stderr__
    return {fd for fd, stream in enumerate(streams) if stream is None}


def to_stay_open(walk: Walk) -> set[int]:
    """Regular files and sockets that the program or a logger goes on with, on these numbers."""
    kept = {fd for fd in walk.options.files_preserve if _lasts(fd)}
    if walk.options.preserve_logging:
        from ..system.owners import Owners

        kept |= _logging() | Owners(vacant()).logs()
    return kept


def _lasts(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _acquired(walk: Walk) -> set[int]:
    """What the walk has acquired, and the pid files that this process has locked beside."""
    module = sys.modules.get("daemon_context.pidfile.lockedfile")
    return walk.descriptors.union(*(lock.descriptors for lock in getattr(module, "_held", ())))


def _of_others_open(walk: Walk) -> set[int]:
    """What contexts hold in whose body this one is opened: the program goes on with them."""
    found: set[int] = set()
    for other in walk.opened.values():
        if other.is_here:
            found.update(other.descriptors, other.loop.fds)
    return found


def _logging() -> set[int]:
    """Log handlers on regular files and sockets go on working; those on pipes and terminals
    don't: a caller would wait for their end.
    """
    logging = sys.modules.get("logging")
    found = set()
    for reference in getattr(logging, "_handlerList", ()):
        handler = reference()
        for name in ("stream", "sock", "socket"):
            try:
                fd = getattr(handler, name).fileno()
                lasts = _lasts(fd)
            except Exception:  # no such attribute, closed, in memory, or a user's proxy
                continue
            if lasts:
                found.add(fd)
    return found


def _resource_tracker() -> set[int]:
    """Multiprocessing's tracker takes the end of this pipe for the end of the program, and
    unlinks shared memory that is in use.
    """
    module = sys.modules.get("multiprocessing.resource_tracker")
    fd = getattr(getattr(module, "_resource_tracker", None), "_fd", None)
    return set() if fd is None else {fd}


def reset_wakeup(walk: Walk, others: set[int]) -> None:
    """Wake-up bytes must not be written to whatever gets that number next, or has it already."""
    fd = signal.set_wakeup_fd(-1)
    if fd >= 0 and fd not in others | _acquired(walk):
        restore_wakeup(fd)
