"""What the threads of this process may do (capabilities(7)), also where /proc is out of reach, and
the giving up of what programs could inherit. Imported only where the owner changes.
"""

from __future__ import annotations

import os
import sys

from . import of_proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT = 5, 6, 7, 18
PERMITTED, INHERITABLE = "CapPrm", "CapInh"
VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two blocks of 32 bits each


def has_capability(number: int) -> bool:
    """Whether the process has that effective capability."""
    effective = _own_status("CapEff:")
    return os.geteuid() == 0 if effective is None else bool(int(effective, 16) >> number & 1)


def _own_status(which: str) -> str | None:
    """The first word behind that of ``/proc/self/status``; None without ``/proc``."""
    _, found, rest = (of_proc("self/status") or "").partition(f"\n{which}")
    return rest.split(None, 1)[0] if found else None


def open_statuses(take: Callable[[int], int]) -> list[int]:
    """The status file of each thread: what it says can be read where it could not be opened.

    :param take: what each descriptor is given to
    :raises OSError: there is no ``/proc``
    """
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            fd = os.open(f"/proc/self/task/{task}/status", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # it has ended
            continue
        found.append(take(fd))
    return found


def held(statuses: list[int], which: str) -> int:
    """The capabilities that any of the threads has."""
    union = 0
    for fd in statuses:
        try:
            text = os.pread(fd, 1 << 14, 0).decode("ascii", "replace")
        except ProcessLookupError:  # it has ended
            continue
        union |= int(text.partition(f"\n{which}:")[2].split(None, 1)[0], 16)
    return union


def prepare() -> None:
    """Load what `clear_inheritable` needs, now that it can be."""
    import ctypes  # noqa: F401


def clear_inheritable() -> None:
    """Leave this thread nothing that a program could inherit: execve(2), capset(2).

    :raises OSError: the system call is not permitted
    """
    ctypes: Any = sys.modules.get("ctypes")
    if ctypes is None:
        return  # that they are still there will be seen: nothing is imported on the way
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    # For each 32 capabilities: effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)()
    failed = libc.capget(header, sets)
    sets[2] = sets[5] = 0
    if failed or libc.capset(header, sets):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
