"""Descriptors: which are open, which stay so, and how the others are closed.

The cost follows what is open, not the limits, which may be a billion: what is open is listed,
never guessed from a limit, which may have been lowered after a descriptor was opened.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from io import FileIO

from . import new_poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .owners import Owners

STANDARD = {0, 1, 2}
FEW, MANY = 256, 1 << 16
UNKNOWN = -1  # a mode, of what could not be looked at
UNSEEN = 1 << 20  # what fs.nr_open usually is; without close_range each costs a system call
LOOPS = {"eventpoll", "inotify", "io_uring"}
KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFLNK: "symbolic link",
}


def duplicate(fd: int) -> int:
    """A copy, close-on-exec, with a number that does not belong to the standard streams."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def lifted(fd: int) -> int:
    """The descriptor under a number from 3 on: those below belong to the standard streams, and
    are handed out where the program was started with them closed.
    """
    if fd > 2:
        return fd
    try:
        return duplicate(fd)
    finally:
        os.close(fd)


def open_pipe(take: Callable[[int], int]) -> tuple[int, int]:
    """A pipe, each end taken over under the number that `take` returns, as from `lifted`."""
    reader, writer = os.pipe()
    # One at a time: where 0 and 1 were closed the pipe got their numbers.
    try:
        reader = take(reader)
    except BaseException:
        os.close(writer)
        raise
    return reader, take(writer)


def is_still(fd: int, found: os.stat_result | None) -> bool:
    """Whether the descriptor is the file that it was when that was found: where the program has
    closed it behind our back, its number may be another file's by now.
    """
    try:
        return found is not None and os.path.samestat(os.fstat(fd), found)
    except OSError as error:  # EIO, ESTALE: the file is in trouble, the number is ours
        return error.errno != errno.EBADF


def close_quietly(fd: int) -> None:
    """Close what nothing of ours is lost with: Linux frees the number also where close(2) fails
    (a signal, or the last write of an earlier owner on a network file system).
    """
    try:
        os.close(fd)
    except OSError:
        pass


def open_numbers() -> set[int]:
    """The numbers of all open descriptors."""
    lowest, count, size = _table()
    if lowest == count:  # no gap, as in most programs: nothing to ask for
        return set(range(count))
    if size is None:
        return polled(MANY)
    if count > 0 and size <= MANY:
        found = polled(size, count, lowest)
        if len(found) == count:  # `poll` takes an O_PATH descriptor for closed
            return found
    return _listed()


def _table() -> tuple[int, int, int | None]:
    """The lowest number that is free, how many descriptors are open (-1 before Linux 6.2), and
    what bounds their numbers: ``FDSize``, the size of the kernel's table of this process, which
    follows what is open; None without ``/proc``.
    """
    try:
        # Not by os.open(): a signal handler may raise before the number is noted.
        with FileIO("/proc/self/status") as file:
            lowest, count = file.fileno(), os.stat("/proc/self/fd").st_size - 1
            if lowest == count:
                return lowest, count, None  # not needed
            size = (file.read(1 << 14) or b"").partition(b"\nFDSize:")[2].split(None, 1)
    except OSError:
        return 0, -1, None
    return lowest, count, int(size[0]) if size else None


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


def loops(fds: set[int]) -> dict[int, str]:
    """The event loops and watchers among the descriptors: of what kind each is."""
    if len(fds) > FEW:
        from .suspects import suspects

        fds = suspects(fds)
    return {fd: kind for fd in sorted(fds) if (kind := loop_kind(fd))}


def loop_kind(fd: int) -> str:
    """What kind of event loop, or of watcher, the descriptor belongs to; '' if to none."""
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode):
            return ""  # no anonymous inode: most, at the price of one system call
        kind = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").strip("[]")
    except OSError:
        return ""
    return kind if kind in LOOPS else ""


def polled(size: int, most: int = MANY, lowest: int = 0) -> set[int]:
    """Ask for many numbers in one system call: half the cost of a listing.

    :param most: how many there can be
    :param lowest: below that all are open
    """
    found = set(range(lowest))
    for start in range(lowest, size, FEW):
        if len(found) == most:
            break
        numbers = range(start, min(start + FEW, size))
        answers = asked(numbers, 0)
        if answers is None:
            found.update(filter(is_open, numbers))
            continue
        found.update(numbers)
        found.difference_update([fd for fd, event in answers if event & select.POLLNVAL])
    return found


def asked(numbers: Sequence[int], events: int) -> list[tuple[int, int]] | None:
    """What `poll` answers for these numbers, FEW at most; None: it refuses."""
    poller = new_poll()
    any(map(poller.register, numbers, [events] * len(numbers)))  # without a step of ours for each
    try:
        return poller.poll(0)
    except OSError:  # more than RLIMIT_NOFILE, which was lowered
        return None


def modes_of(fds: set[int]) -> dict[int, int]:
    """The mode of each descriptor that can be looked at."""
    modes = {}
    for fd in fds:
        try:
            modes[fd] = os.fstat(fd).st_mode
        except OSError:  # as on a dead network mount
            pass
    return modes


def close_all(others: set[int], owners: Owners | None) -> None:
    """Close these descriptors: through their owners, or reserved.

    There may be thousands: so no call and no object for each beyond what has to be. Objects that
    the garbage collector knows would make it run, and what it looks at is copied after a fork.
    """
    if not others:
        return
    owned = owners.raw if owners is not None else {}
    stand_in = _stand_in()
    dup2 = os.dup2
    for fd in others:
        if fd == stand_in or (fd in owned and owners is not None and owners.close(fd)):
            continue
        try:
            dup2(stand_in, fd, inheritable=False)  # reserved
        except OSError:  # no stand-in; or above a lowered limit: nobody can get that number
            close_quietly(fd)
    if stand_in >= 0:
        os.close(stand_in)
    if owners is not None:
        owners.end()


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
