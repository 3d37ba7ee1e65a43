"""Descriptors: which are open, which stay so, and how the others are closed.

The cost follows what is open, not the limits, which may be a billion: what is open is listed,
never guessed from a limit, which may have been lowered after a descriptor was opened.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys

from .own import new_poll
from .processes import close_quietly, own_status, restore_wakeup, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..sequence import Walk
    from .owners import Owners

FEW, MANY = 256, 1 << 16
UNKNOWN = -1  # a mode
UNSEEN = 1 << 20  # what fs.nr_open usually is; without close_range each costs a system call
KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFLNK: "symbolic link",
}


class Closed:
    """A descriptor that the daemon closed: its number, what it was, who owned it.

    ``owner`` is None where no Python object was found: then the number is reserved.
    """

    __slots__ = ("fd", "owner", "what")

    def __init__(self, fd: int, mode: int, owner: str | None) -> None:
        self.fd, self.owner = fd, owner
        kind = "unknown" if mode == UNKNOWN else KINDS.get(stat.S_IFMT(mode))
        self.what = kind or "anonymous inode"

    def __repr__(self) -> str:
        return f"<closed {self.fd}: {self.what}, {self.owner or 'reserved'}>"


def open_numbers() -> set[int]:
    """The numbers of all open descriptors."""
    size = _table_size()
    if size is None:
        return _polled(MANY)
    count = os.stat("/proc/self/fd").st_size  # Linux 6.2; 0 before
    if count and FEW < size <= MANY:
        found = _polled(size, count)
        if len(found) == count:  # `poll` takes an O_PATH descriptor for closed
            return found
    return _listed()


def _table_size() -> int | None:
    """``FDSize`` bounds every open number: it is the size of the kernel's table of this process,
    which follows what is open. None without ``/proc``.
    """
    size = own_status("FDSize:")
    return None if size is None else int(size)


def _listed() -> set[int]:
    # The listing had a descriptor itself, which is closed by now.
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)}


def is_open(fd: int) -> bool:
    """Whether the number is an open descriptor."""
    try:
        os.fstat(fd)
    except OSError as error:
        return error.errno != errno.EBADF  # open, but not to be asked, as on a dead network mount
    return True


def _polled(size: int, most: int = MANY) -> set[int]:
    """Ask for many numbers in one system call: half the cost of a listing of ten thousand.

    :param most: how many there can be
    """
    found: set[int] = set()
    for start in range(0, size, FEW):
        if len(found) == most:
            break
        numbers = range(start, min(start + FEW, size))
        poller = new_poll()
        register = poller.register
        for fd in numbers:
            register(fd, 0)
        try:
            answers = poller.poll(0)
        except OSError:  # more than RLIMIT_NOFILE, which was lowered
            found.update(filter(is_open, numbers))
            continue
        found.update(numbers)
        found.difference_update([fd for fd, event in answers if event & select.POLLNVAL])
    return found


def preserved(walk: Walk) -> set[int]:
    """All descriptors that stay open."""
    options = walk.options
    kept = {0, 1, 2, *options.files_preserve, *_acquired(walk), *walk.kept}
    kept.update(target.fd for target in options.streams if target.fd > 2)
    kept.update(_activated(walk.launcher))
    kept.update(walk.context._stopping().fds)  # a thread may sleep already
    if not walk.detaches:
        kept.update(_of_others_open(walk))
    if options.preserve_logging:
        kept.update(_logging())
    kept.update(_resource_tracker())
    return kept


def vacant() -> set[int]:
    """Numbers of standard streams that were closed at the start of the program, so that a file
    of its own may have got one.
    """
    streams = sys.__stdin__, sys.__stdout__, sys.__stderr__
    return {fd for fd, stream in enumerate(streams) if stream is None}


def to_stay_open(walk: Walk) -> set[int]:
    """Regular files and sockets that the program or a log handler goes on with."""
    kept = {fd for fd in walk.options.files_preserve if _lasts(fd)}
    return kept | _logging() if walk.options.preserve_logging else kept


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
    for context in walk.context._all_open.values():
        other = context._walk
        if other is not None and other.owner == os.getpid():
            found.update(other.descriptors, context._stopping().fds)
    return found


def _activated(launcher: int) -> range:
    """The sockets that a supervisor has handed over (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") not in (str(launcher), str(os.getpid())):
        return range(0)
    try:
        count = int(os.environ["LISTEN_FDS"])
    except (KeyError, ValueError):
        return range(0)
    return range(3, min(3 + count, _table_size() or MANY))  # a number, but not to be believed


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


def close_all(others: set[int], owners: Owners | None) -> dict[int, int]:
    """Close these descriptors: through their owners, or reserved. Returns the mode of each.

    There may be thousands: so no call and no object for each beyond what has to be. Objects that
    the garbage collector knows would make it run, and what it looks at is copied after a fork.
    """
    modes: dict[int, int] = {}
    if not others:
        return modes
    owned = owners.raw if owners is not None else {}
    stand_in = _stand_in()
    fstat, dup2 = os.fstat, os.dup2
    for fd in sorted(others):
        try:
            modes[fd] = fstat(fd).st_mode
        except OSError:
            modes[fd] = UNKNOWN
        if fd == stand_in or (fd in owned and owners is not None and owners.close(fd)):
            continue
        try:
            dup2(stand_in, fd, inheritable=False)  # reserved
        except OSError:  # no stand-in; or above a lowered limit: nobody can get that number
            close_quietly(fd)
    if stand_in >= 0:
        os.close(stand_in)
    return modes


def _stand_in() -> int:
    """Of /dev/null, not of a directory, which would be a way out of a chroot; -1: not Linux."""
    flags = getattr(os, "O_PATH", None)
    return -1 if flags is None else os.open(os.devnull, flags | os.O_CLOEXEC)


def close_unseen(kept: set[int]) -> None:
    """Close, gap by gap, what can't be seen without /proc: `poll` takes an ``O_PATH`` descriptor
    for closed, and was asked for the numbers below MANY only.
    """
    # Not beyond the limit: from there CPython 3.13 takes closefrom(3), which aborts the process
    # where neither /proc nor close_range works.
    bound = min(os.sysconf("SC_OPEN_MAX"), UNSEEN)
    start = 3
    for fd in sorted(fd for fd in kept if 2 < fd < bound):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, bound)
