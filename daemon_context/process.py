"""Facts about processes, from the kernel; and ``signal`` without its import cost."""

from __future__ import annotations

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
else:
    # `signal` wraps this built-in module in enums, which costs more than our whole start.
    import _signal as signal

KILL_TIMEOUT = 10.0  # seconds for a killed process to vanish; it may be in a system call
CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT = 6, 7, 18


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


def reap(pid: int, *, block: bool = True) -> int | None:
    """Wait for our child, and for no other: a `wait` for any child takes statuses from the
    program's own ``subprocess``. None: it still runs, or somebody else has reaped it.
    """
    try:
        reaped, status = os.waitpid(pid, 0 if block else os.WNOHANG)
    except ChildProcessError:  # SIGCHLD is ignored, or a handler of the program waits for all
        return None
    return status if reaped else None


def peek_status(pid: int) -> int | None:
    """The wait status of our child that has ended, which stays unreaped; None if nobody knows."""
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if info is None:
        return None
    return info.si_status << 8 if info.si_code == os.CLD_EXITED else info.si_status & 0x7F


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
    from time import monotonic, sleep

    if pidfd is not None:
        return bool(poll({pidfd}, seconds))
    deadline = monotonic() + seconds
    while is_alive(pid):
        if monotonic() >= deadline:
            return False
        sleep(0.01)
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


def stat_fields(pid: int | str) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` after the name: state, ppid, pgrp, session, tty_nr, …"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().decode("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None


def poll(fds: set[int], seconds: float | None) -> set[int]:
    """Those of the descriptors that are readable or at their end within the time."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    milliseconds = None if seconds is None else max(0, int(seconds * 1000 + 0.999))
    return {fd for fd, _ in poller.poll(milliseconds)}


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
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) >> number & 1)
    except OSError:
        pass
    return os.geteuid() == 0


def live_threads() -> list[str]:
    """Names of all threads but this one, Python's and native: none will exist after a fork."""
    threading = sys.modules.get("threading")
    python = [
        thread
        for thread in (threading.enumerate() if threading else ())
        if thread is not threading.current_thread()  # type: ignore[union-attr]
        and getattr(thread, "native_id", None)
    ]
    names = [thread.name for thread in python]
    known = {str(thread.native_id) for thread in python} | {str(os.getpid())}
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:
        return names
    return names + [_native_name(task) for task in tasks if task not in known]


def _native_name(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm") as file:
            return f"{file.read().strip()} (native)"
    except OSError:
        return f"thread {task} (native)"


class Child:
    """A process that is watched through a pidfd, where the kernel has them.

    :param ours: whether we are its parent, and so the ones to reap it
    """

    def __init__(self, pid: int, *, ours: bool = True, watched: bool = True) -> None:
        self.pid = pid
        self.ours = ours
        self.status: int | None = None
        self.pidfd = open_pidfd(pid) if watched else None

    @property
    def fds(self) -> set[int]:
        return set() if self.pidfd is None else {self.pidfd}

    def ended(self) -> bool:
        """Whether it has ended. It stays unreaped, so that its number can't be used again."""
        if not self.wait(0):
            return False
        if self.ours and self.status is None:
            self.status = peek_status(self.pid)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False when the time is over first."""
        return wait_ended(self.pid, self.pidfd, seconds)

    def wait_or_kill(self, seconds: float) -> None:
        """Wait for the end, then force it; reap it in both cases."""
        if not self.wait(seconds):
            self.kill()
        if self.ended() and self.ours:
            reap(self.pid)

    def end(self, grace: float) -> None:
        """SIGTERM, and after the grace SIGKILL."""
        send_signal(self.pid, self.pidfd, signal.SIGTERM)
        self.wait_or_kill(grace)

    def kill(self) -> None:
        """SIGKILL, and wait until it has worked."""
        send_signal(self.pid, self.pidfd, signal.SIGKILL)
        self.wait(KILL_TIMEOUT)

    def kill_group(self) -> None:
        """SIGKILL to the process group that it led; only while its number is surely its own."""
        if peek_status(self.pid) is None:
            return  # somebody else has reaped it
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def close(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
