"""A process apart, in which something is measured; nothing that it has started survives it.

It is the reaper of all its descendants (PR_SET_CHILD_SUBREAPER): a daemon becomes its child, so
that it learns of every end from the kernel, and proves by ECHILD that nothing is left. So is who
has started it: a limb that is killed leaves its daemons to that one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
CLOSE_RANGE = 436  # on every architecture
_libc = ctypes.CDLL(None, use_errno=True)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Setup = Callable[[], None]


class Failed(Exception):
    """A contender did not do what was asked."""


class TooSlow(Exception):
    """It was not over in the time that it has."""


def apart(work: Callable[[], Any], *setups: Setup, timeout: int = 60) -> Any:
    """Do the work in a limb, after the setups, and return its value (as JSON has it).

    Nothing of it runs any more afterwards, whatever ends the limb or the wait for it. Nor does any
    other child of the caller.

    :raises TooSlow: the time was over; Failed: anything else
    """
    _adopt()
    try:
        text = _told(work, setups, timeout)
    finally:
        end_all()
    if not text:
        raise Failed("the process that measures died")
    answer = json.loads(text)
    if "slow" in answer:
        raise TooSlow(f"more than {timeout} s")
    if "failed" in answer:
        raise Failed(answer["failed"])
    return answer["value"]


def _told(work: Callable[[], Any], setups: tuple[Setup, ...], timeout: int) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _live(work, setups, timeout, writer)
    os.close(writer)
    with open(reader) as pipe:
        return pipe.read()


def _live(work: Callable[[], Any], setups: tuple[Setup, ...], timeout: int, writer: int) -> None:
    answer: dict[str, Any] = {"failed": "no answer"}
    try:
        _adopt()
        _die_of_stops()
        _inherit_nothing()
        _come_first()
        signal.signal(signal.SIGALRM, _over)
        signal.alarm(timeout)
        for setup in setups:
            setup()
        answer = {"value": work()}
    except TooSlow:
        answer = {"slow": True}
    except Failed as error:
        answer = {"failed": str(error)}
    except BaseException:
        answer = {"failed": traceback.format_exc()}
    finally:
        signal.alarm(0)
        end_all()
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)


def _adopt() -> None:
    """Whatever is started from here becomes a child of this process when its own parent ends."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_of_stops() -> None:
    # At once, without a handler that could break into its end: who has started it ends the rest.
    for number in STOPS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _inherit_nothing() -> None:
    """What our caller has left open is not part of any scene."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:  # the one that listed them
            continue


def _come_first() -> None:
    """Where that is permitted, run as soon as something has ended: its time is what is measured."""
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK  # not for those who are measured
        os.sched_setscheduler(0, policy, os.sched_param(1))
    except OSError:
        pass


def _over(number: int, frame: object) -> None:
    raise TooSlow


def children() -> set[int]:
    """The children of this process, zombies included."""
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    if listing.exists():
        return {int(pid) for pid in listing.read_text().split()}
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            ppid = entry.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(ppid) == os.getpid():
            found.add(int(entry.parent.name))
    return found


def end(pid: int, patience: float = 2.0) -> None:
    """Stop a daemon, as its owner would; by SIGKILL if it doesn't hear."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        os.kill(pid, signal.SIGTERM)
        if not select.select([pidfd], [], [], patience)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pidfd)


def end_all() -> None:
    """Kill every descendant, and return when the kernel says that there is none left."""
    while True:
        for pid in children():
            os.kill(pid, signal.SIGKILL)  # ours until we reap it, so it can be nobody else
        try:
            os.waitpid(-1, 0)  # what it leaves behind becomes our child
        except ChildProcessError:
            return


def wait_for_all() -> None:
    """Return when every descendant has ended by itself."""
    while children():
        os.waitpid(-1, 0)


def reaped(pid: int) -> int:
    """Wait for a child; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- setups


def raise_limit(number: int) -> Setup:
    """RLIMIT_NOFILE, both limits."""

    def setup() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))

    return setup


def soft_limit_to_hard() -> None:
    """As many descriptors as an ordinary process may have."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def refuse_close_range() -> None:
    """close_range(2) fails with EPERM, as in containers whose seccomp filter is older than it."""
    load, jump_if_equal, ret = 0x20, 0x15, 0x06
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (load, 0, 0, 0),  # the number of the system call
            (jump_if_equal, 0, 1, CLOSE_RANGE),
            (ret, 0, 0, 0x00050000 | errno.EPERM),
            (ret, 0, 0, 0x7FFF0000),
        )
    )
    text = ctypes.create_string_buffer(program, len(program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(text)))
    _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _prctl(PR_SET_SECCOMP, 2, ctypes.addressof(filters), 0, 0)


def _prctl(option: int, *values: int) -> None:
    if _libc.prctl(option, *(ctypes.c_ulong(value) for value in values)):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def now() -> int:
    """CLOCK_MONOTONIC in nanoseconds: the same in all processes."""
    return time.monotonic_ns()
