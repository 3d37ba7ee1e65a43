"""What a trace looks at: the state of one process, from ``/proc`` where it is in reach."""

from __future__ import annotations

import fcntl
import os
import stat
import sys

from ..system import SIGNALS, restore_wakeup, signal, signal_name
from ..system.descriptors import KINDS, is_open, open_numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IDS = ("pid", "ppid", "pgid", "sid", "tty")
O_PATH = getattr(os, "O_PATH", 0)
NO_TTY = "?"  # as ps says it
CONSOLES, PTS = 4, 136  # the major numbers of virtual consoles and Unix98 pseudo-terminals


def take(proc: int | None = None) -> dict[str, Any]:
    """The state of this process, by the names that `Step.touches` uses.

    :param proc: a descriptor of ``/proc``, for use in a chroot that does not have it
    """
    status = _status(proc)
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "pgid": os.getpgrp(),
        "sid": os.getsid(0),
        "tty": _tty(proc),
        "cwd": _cwd(),
        "root": _root(),
        "umask": _umask(status),
        "uid": status.get("Uid", " ".join(map(str, os.getresuid()))),
        "gid": status.get("Gid", " ".join(map(str, os.getresgid()))),
        "groups": " ".join(map(str, sorted(os.getgroups()))),
        "core": _core(),
        "signals": _dispositions(),
        "signal mask": _mask(),
        "wake-up descriptor": _wakeup(),
        "streams": " ".join(_stream(name) for name in ("stdin", "stdout", "stderr")),
        "environment": {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")},
        "descriptors": {fd: _descriptor(proc, fd) for fd in sorted(_numbers(proc))},
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name → (before, after) for all that differs; of a mapping only what differs in it."""
    found = {}
    for name, old in before.items():
        new = after[name]
        if old != new:
            found[name] = _differing(old, new) if isinstance(old, dict) else (old, new)
    return found


def _differing(old: dict[Any, Any], new: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return {k: old[k] for k in keys if k in old}, {k: new[k] for k in keys if k in new}


def _text(name: str, proc: int | None) -> str:
    """Content of a file in ``/proc/self``; '' where it is out of reach."""
    try:
        fd = os.open(f"self/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        # The program's name is in there, as bytes of any encoding, and cut in mid-character.
        with open(fd, errors="replace") as file:
            return file.read()
    except (OSError, TypeError):
        return ""


def _status(proc: int | None) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text("status", proc).splitlines())
    return {key: " ".join(value.split()) for key, _, value in pairs}


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "unknown"


def _root() -> str:
    """By device and inode, because every process calls its own root "/"."""
    found = os.stat("/")
    return f"inode {found.st_ino} of {os.major(found.st_dev)}:{os.minor(found.st_dev)}"


def _umask(status: dict[str, str]) -> str:
    if "Umask" in status:
        return f"{int(status['Umask'], 8):03o}"
    current = os.umask(0o077)  # there is no other way to read it
    os.umask(current)
    return f"{current:03o}"


def _tty(proc: int | None) -> str:
    """The controlling terminal, by its number in stat; its name can't be told in general."""
    fields = _text("stat", proc).rpartition(")")[2].split()
    if len(fields) < 5:
        return "unknown"
    number = int(fields[4])
    if not number:
        return NO_TTY
    major, minor = os.major(number), os.minor(number)
    if major == CONSOLES:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return f"pts/{minor}" if major == PTS else f"{major}:{minor}"


def _core() -> str:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_CORE)
    return " ".join("unlimited" if n == resource.RLIM_INFINITY else str(n) for n in limits)


def _dispositions() -> dict[str, str]:
    words = {}
    for number in sorted(SIGNALS):
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_DFL, None):
            words[signal_name(number)] = _handler(handler)
    return words


def _handler(handler: Any) -> str:
    if handler == signal.SIG_IGN:
        return "ignored"
    return getattr(handler, "__name__", None) or type(handler).__name__


def _mask() -> str:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return " ".join(map(signal_name, sorted(blocked))) or "none"


def _wakeup() -> int:
    fd = signal.set_wakeup_fd(-1)
    if fd != -1:
        restore_wakeup(fd)
    return fd


def _stream(name: str) -> str:
    stream = getattr(sys, name)
    return f"{name}={type(stream).__name__}@{id(stream):x}"


def _numbers(proc: int | None) -> set[int]:
    try:
        listing = os.open("self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except (OSError, TypeError):
        return open_numbers()
    try:
        numbers = {int(name) for name in os.listdir(listing)}
    finally:
        os.close(listing)
    return {fd for fd in numbers if is_open(fd)}  # without those of the listing itself


def _descriptor(proc: int | None, fd: int) -> str:
    try:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & O_PATH and os.fstat(fd).st_rdev:
            return "reserved"  # see `close_all`
        return os.readlink(f"self/fd/{fd}", dir_fd=proc)
    except (OSError, TypeError):
        pass
    try:
        return KINDS.get(stat.S_IFMT(os.fstat(fd).st_mode), "anonymous inode")
    except OSError:
        return "unknown"
