"""What /proc says about a process, and the kernel about the lock of a pid file."""

from __future__ import annotations

import fcntl
import os
import re
import struct
from typing import Any

PLACEHOLDER = "closed-with-an-error"
STATUS = ("Uid", "Gid", "Groups", "Umask", "SigBlk", "SigIgn", "SigCgt")
FLOCK = "hhqqi4x"


def text_at(pid: int, address: int) -> str:
    """The string in the memory of a process that waits for an answer."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        page = 4096 - address % 4096
        return os.pread(memory, min(page, 512), address).partition(b"\0")[0].decode()
    except (OSError, ValueError, OverflowError):
        return ""
    finally:
        os.close(memory)


def target_of(pid: int, fd: int) -> str:
    """What the descriptor of a process is."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def stat(pid: int) -> list[str]:
    """state, ppid, pgrp, session, tty, … or nothing."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """Whether the process runs: a zombie does not."""
    return (stat(pid) or ["Z"])[0] not in "ZX"


def facts(pid: int) -> dict[str, Any]:
    """All that a start may change in a process."""
    status = dict(
        line.split(":\t", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":\t" in line
    )
    _, _, group, session, tty, *_ = stat(pid)
    return {
        **{name: status[name].split() for name in STATUS},
        "cwd": os.readlink(f"/proc/{pid}/cwd").replace(os.getcwd(), "."),
        "root": os.readlink(f"/proc/{pid}/root").replace(os.getcwd(), "."),
        "core": _read(f"/proc/{pid}/limits").split("Max core file size")[1].split()[:2],
        "leads its group": int(group) == pid,
        "leads its session": int(session) == pid,
        "tty": tty,
        "descriptors": _descriptors(pid),
    }


def _descriptors(pid: int) -> dict[str, list[str]]:
    found = {}
    for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        target = os.readlink(f"/proc/{pid}/fd/{name}").replace(os.getcwd(), ".")
        if PLACEHOLDER not in target:
            flags = _read(f"/proc/{pid}/fdinfo/{name}").split()[3]
            found[name] = [target, flags]
    return found


def differences(before: dict[str, Any], after: dict[str, Any], *, exact: bool) -> list[str]:
    """In words. Not exact: between two processes, whose pipes have other numbers.

    What the daemon has reserved (`O_PATH`) is not compared then: a descriptor that a fault has
    left open is reserved, and a start that could not list its descriptors reserves none.
    """
    if not exact:
        before, after = _without_numbers(before), _without_numbers(after)
    return [
        f"{name}: {before[name]} → {after[name]}" for name in before if before[name] != after[name]
    ]


def _without_numbers(found: dict[str, Any]) -> dict[str, Any]:
    targets = sorted(
        [re.sub(r"\[\d+\]", "[]", target), flags]
        for target, flags in found["descriptors"].values()
        if not (target == "/dev/null" and int(flags, 8) & os.O_PATH)
    )
    return {**found, "descriptors": targets}


def lock_of(path: str) -> tuple[bool, int]:
    """Whether anybody holds the lock of the pid file, and the pid of the recorded daemon or 0."""
    try:
        fd = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False, 0
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0)
        kind = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
        head = os.pread(fd, 100, 0).partition(b"\n")[0].split()
    finally:
        os.close(fd)
    named = int(head[1]) if kind == fcntl.F_RDLCK and head[:1] == [b"pid"] else 0
    return kind != fcntl.F_UNLCK, named


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        data = b""
        while chunk := os.read(fd, 1 << 16):
            data += chunk
        return data.decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
