"""Facts about processes, from the kernel; and ``signal`` without its import cost."""

from __future__ import annotations

import errno
import os
import select
import sys
from io import FileIO

from .own import is_own, new_poll, waitpid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
    from collections.abc import Callable
    from typing import Any
else:
    # `signal` wraps this built-in module in enums, which costs more than our whole start.
    import _signal as signal

SIGNALS = signal.valid_signals()
KILL_TIMEOUT = 10.0  # seconds for a killed process to vanish; it may be in a system call
LONGEST_POLL = 1_000_000  # seconds; poll(2) takes a C int of milliseconds
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT = 5, 6, 7, 18


def block_signals() -> Any:
    """Block all signals. Returns the mask as it was.

    The call that blocks runs the handlers of what came just before it, blocked already: if one of
    them raises, nobody but us knows the mask to go back to.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    return mask


class SignalsHeld:
    """Signals wait while something is acquired: what a handler raises, such as KeyboardInterrupt,
    must not come between getting a descriptor and noting that there is one to close.

    :param wanted: whether it is so; otherwise nothing happens
    """

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted

    def __enter__(self) -> None:
        if self.wanted:
            self.mask = block_signals()

    def __exit__(self, *error: object) -> None:
        if self.wanted:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


def restore_wakeup(fd: int) -> None:
    """Unless the program has closed it, and the number is free or a blocking file's by now: then
    there is none, and not ours either, which is closed one day.
    """
    try:
        signal.set_wakeup_fd(fd)
    except (OSError, ValueError):
        signal.set_wakeup_fd(-1)


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


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15; the number in words where it has no name."""
    for name in dir(signal):
        if name.startswith("SIG") and name[3] != "_" and getattr(signal, name) == number:
            return name
    return f"signal {number}"


def ending(status: int) -> tuple[str, dict[str, int]]:
    """How a process ended, in words and as facts, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by {signal_name(number)}", {"signal_number": number}
    code = os.WEXITSTATUS(status)
    return f"exited with status {code}", {"exit_status": code}


def reap(pid: int) -> None:
    """Wait for our child, and for no other: a `wait` for any child takes statuses from the
    program's own ``subprocess``.
    """
    try:
        waitpid(pid, 0)
    except ChildProcessError:  # SIGCHLD is ignored, or a handler of the program waits for all
        pass


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, or None where there is none.

    :raises ProcessLookupError: the process has ended and is reaped
    """
    try:
        return os.pidfd_open(pid)
    except AttributeError:  # not Linux
        return None
    except OSError as error:
        if isinstance(error, ProcessLookupError):
            raise
        return None  # Linux before 5.3, or a seccomp filter


def wait_ended(pid: int, pidfd: int | None, seconds: float) -> bool:
    """Wait until the process has ended; False when the time is over first."""
    from time import monotonic

    if pidfd is not None:
        return bool(poll({pidfd}, seconds))
    deadline = monotonic() + seconds
    while is_alive(pid):
        if monotonic() >= deadline:
            return False
        poll(set(), 0.01)
    return True


def is_alive(pid: int) -> bool:
    """Whether the process runs: a zombie, which ``kill(pid, 0)`` takes for alive, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return (stat_fields(pid) or ["?"])[0] != "Z"


def of_proc(path: str) -> str | None:
    """The content of a small file below ``/proc``; None if it can't be had.

    Without the buffer and the codec of other file objects, which cost several times as much: a
    start asks about a dozen of these.
    """
    try:
        with FileIO(f"/proc/{path}") as file:
            return (file.read(1 << 14) or b"").decode("utf-8", "replace")
    except OSError:
        return None


def stat_fields(pid: int | str) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` after the name: state, ppid, pgrp, session, tty_nr, …"""
    found = of_proc(f"{pid}/stat")
    return None if found is None else found.rpartition(")")[2].split()


def start_time(pid: int) -> str:
    """When the process started, in ticks since boot: with the pid it names one process for ever."""
    fields = stat_fields(pid)
    return fields[19] if fields else ""


def started_at(pid: int) -> float | None:
    """When the process started, in seconds since the epoch."""
    ticks = start_time(pid)
    try:
        with open("/proc/stat") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    except (OSError, StopIteration):
        return None
    return booted + int(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def exit_words(pidfd: int) -> str | None:
    """How the process ended, where the kernel tells those who are not its parent (Linux 6.15)."""
    import fcntl

    # struct pidfd_info of linux/pidfd.h: mask, cgroupid, then 12 numbers of 32 bits, the last of
    # which is the exit code; asked for by PIDFD_INFO_EXIT, and set once the process is reaped.
    size, wanted = 64, 1 << 3
    request = 3 << 30 | size << 16 | 0xFF << 8 | 11
    for _ in range(5):
        info = memoryview(bytearray(size))
        info.cast("Q")[0] = wanted
        try:
            answer = memoryview(fcntl.ioctl(pidfd, request, info.tobytes()))
        except OSError:
            return None
        if answer.cast("Q")[0] & wanted:
            return ending(answer.cast("i")[15])[0]
        poll(set(), 0.0002)  # its parent has yet to reap it
    return None


def poll(fds: set[int], seconds: float | None) -> set[int]:
    """Those of the descriptors that are readable or at their end within the time."""
    poller = new_poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    while seconds is not None and seconds > LONGEST_POLL:
        if found := poller.poll(LONGEST_POLL * 1000):
            return {fd for fd, _ in found}
        seconds -= LONGEST_POLL
    milliseconds = None if seconds is None else max(0, int(seconds * 1000 + 0.999))
    return {fd for fd, _ in poller.poll(milliseconds)}


def poll_beside(fds: set[int], seconds: float | None) -> set[int]:
    """`poll` for the program's own waits: where a library has replaced `select.select`, its green
    threads run meanwhile.
    """
    if is_own(select.select):
        return poll(fds, seconds)
    return set(select.select(list(fds), [], [], seconds)[0])


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


def send_signal(pid: int, pidfd: int | None, number: int) -> None:
    """Send a signal to the process of the pidfd, which no other process can take the place of."""
    try:
        if pidfd is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def has_capability(number: int) -> bool:
    """Whether the process has that effective capability (capabilities(7))."""
    effective = own_status("CapEff:")
    return os.geteuid() == 0 if effective is None else bool(int(effective, 16) >> number & 1)


def own_status(which: str) -> str | None:
    """The first word behind that of ``/proc/self/status``; None without ``/proc``."""
    _, found, rest = (of_proc("self/status") or "").partition(f"\n{which}")
    return rest.split(None, 1)[0] if found else None


def has_threads() -> bool:
    """Whether there may be threads beside this one."""
    try:
        # The kernel counts each thread as a link, beside the two that every directory has.
        return os.stat("/proc/self/task").st_nlink > 3
    except OSError:
        return "threading" in sys.modules
