"""The filter that asks about every system call, and the answers; seccomp_unotify(2)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import NamedTuple

from .calls import ALLOWED, AUDIT_ARCH, SECCOMP

MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE = 1, 1 << 3, 1 << 5
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
RECEIVE, SEND, ADD_FD = 0xC0502100, 0xC0182101, 0x40182103
CONTINUE, SET_FD = 1, 1
NO_NEW_PRIVILEGES = 38


class Question(NamedTuple):
    """A process waits for an answer before its system call is made."""

    key: int
    pid: int
    number: int
    args: tuple[int, ...]


def install() -> int:
    """Ask about every call of this process, and of all that it will fork; who listens, answers.

    WAIT_KILLABLE: a signal does not take a question back that was read, so no call counts twice.
    """
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, AUDIT_ARCH), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, 0)]
    for left, number in zip(range(len(ALLOWED), 0, -1), ALLOWED, strict=True):
        code.append((EQUAL, left, 0, number))
    code += [(RETURN, 0, 0, NOTIFY), (RETURN, 0, 0, ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    fd = libc.syscall(SECCOMP, MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE, header)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return int(fd)


def receive(listener: int) -> Question | None:
    """The next question; None where the process has died meanwhile."""
    data = bytearray(80)
    try:
        fcntl.ioctl(listener, RECEIVE, data)
    except OSError:
        return None
    key, pid, _, number, _, _, *args = struct.unpack("QIIiIQ6Q", data)
    return Question(key, pid, number, tuple(args))


def proceed(listener: int, question: Question) -> None:
    """The call is made as if nothing were."""
    _answer(listener, question, 0, CONTINUE)


def fail(listener: int, question: Question, error: int) -> None:
    """The call is not made, and the process sees the error."""
    _answer(listener, question, -error, 0)


def release(listener: int, question: Question, number: int, placeholder: int) -> None:
    """Linux frees a descriptor even where close(2) fails: the placeholder takes its place."""
    request = struct.pack("QIIII", question.key, SET_FD, placeholder, number, os.O_CLOEXEC)
    try:
        fcntl.ioctl(listener, ADD_FD, request)
    except OSError:  # it was not open
        pass


def _answer(listener: int, question: Question, error: int, flags: int) -> None:
    try:
        fcntl.ioctl(listener, SEND, struct.pack("QqiI", question.key, 0, error, flags))
    except OSError:  # killed meanwhile
        pass
