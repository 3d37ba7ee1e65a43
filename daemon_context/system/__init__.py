"""The kernel: processes, signals, descriptors, credentials, paths. Knows nothing of daemons.

Here is what every start asks of it: its calls, signals (and ``signal`` without its import cost),
and facts about processes. The calls are the system's own: what eventlet and gevent put into `os`
and `select` waits in a loop of theirs, which runs the program's other code in the middle of a
start, and has lost its descriptors in what was forked; their thread identity is a green thread's.
"""

from __future__ import annotations

import os
import select
import sys
from _thread import get_native_id
from io import FileIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any
else:
    # `signal` wraps this built-in module in enums, which costs more than our whole start.
    import _signal as signal


MOST_WORDS = 12  # of a command line: the interpreter, its options and the script
SIGNALS = signal.valid_signals()
KILL_TIMEOUT = 10.0  # seconds for a killed process to vanish; it may be in a system call
LONGEST_POLL = 1_000_000  # seconds; poll(2) takes a C int of milliseconds


def is_own(function: object) -> bool:
    """Whether it is a function in C, as the system's calls are."""
    return type(function) is type(len)


def own(module: ModuleType, name: str) -> Any:
    """Of a module in C. Where a library has replaced or removed it, from a second copy."""
    found = getattr(module, name, None)
    if is_own(found) or module.__spec__ is None:
        return found
    from importlib.util import module_from_spec

    copy = module_from_spec(module.__spec__)
    assert module.__spec__.loader is not None
    module.__spec__.loader.exec_module(copy)
    return getattr(copy, name, None)


if TYPE_CHECKING:
    from os import fork as fork
    from os import read as read
    from os import waitid as waitid
    from os import waitpid as waitpid
    from os import write as write

    new_poll = select.poll
else:
    _posix = sys.modules[os.name]
    fork, read, write = getattr(_posix, "fork", None), _posix.read, _posix.write
    waitpid, waitid = _posix.waitpid, getattr(_posix, "waitid", None)
    new_poll = own(select, "poll")


def is_main_thread() -> bool:
    """Whether this is the main thread: the system's, of which every green thread is a part."""
    threading = sys.modules.get("threading")
    return (
        threading is None
        or get_native_id() == os.getpid()
        or threading.current_thread() is threading.main_thread()
    )


def reinit_loop() -> None:
    """In what was forked: gevent does this in its own fork, and asks others to (gevent.reinit)."""
    gevent = sys.modules.get("gevent")
    if gevent is not None:
        gevent.reinit()


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


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15; the number in words where it has no name."""
    for name in dir(signal):
        if name.startswith("SIG") and name[3] != "_" and getattr(signal, name) == number:
            return name
    return f"signal {number}"


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


def is_ending(pid: int) -> bool:
    """Whether the process has begun to end, and so has closed its files; or nobody can tell."""
    fields = stat_fields(pid)
    return fields is None or fields[0] in "ZX" or bool(int(fields[6]) & 0x4)  # PF_EXITING


def start_time(pid: int) -> str:
    """When the process started, in ticks since boot: with the pid it names one process for ever."""
    fields = stat_fields(pid)
    return fields[19] if fields else ""


def child_pids() -> list[int]:
    """The main thread's children, where the program has loaded what it may have started them by."""
    if "subprocess" not in sys.modules and "multiprocessing.process" not in sys.modules:
        return []
    return [*map(int, (of_proc(f"self/task/{os.getpid()}/children") or "").split())]


def ancestors() -> Iterator[int]:
    """The parent of this process, its parent, and so on."""
    pid = os.getppid()
    while pid > 0:
        yield pid
        fields = stat_fields(pid)
        pid = int(fields[1]) if fields else 0


def same_program(pid: int) -> str | None:
    """The command line of another live process that runs the script of this one; None: it doesn't.

    By the name of the file: a daemon has left the directory that a relative path belongs to.
    """
    if pid == os.getpid() or not (found := of_proc(f"{pid}/cmdline")) or not is_alive(pid):
        return None
    words = found.rstrip("\0").split("\0")
    main = getattr(sys.modules.get("__main__"), "__spec__", None)  # python -m
    name = os.path.basename("".join(sys.argv[:1])) if main is None else main.name
    runs = name in map(os.path.basename, words[:MOST_WORDS])
    return " ".join(words) if name and runs else None


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


def send_signal(pid: int, pidfd: int | None, number: int) -> None:
    """Send a signal to the process of the pidfd, which no other process can take the place of."""
    try:
        if pidfd is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def has_threads() -> bool:
    """Whether there may be threads beside this one."""
    try:
        # The kernel counts each thread as a link, beside the two that every directory has.
        return os.stat("/proc/self/task").st_nlink > 3
    except OSError:
        return "threading" in sys.modules
