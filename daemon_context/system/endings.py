"""When a process began, and how one ended that is not our child."""

from __future__ import annotations

import os

from . import poll, signal_name, start_time


def ending(status: int) -> tuple[str, dict[str, int]]:
    """How a process ended, in words and as facts, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by {signal_name(number)}", {"signal_number": number}
    code = os.WEXITSTATUS(status)
    return f"exited with status {code}", {"exit_status": code}


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
