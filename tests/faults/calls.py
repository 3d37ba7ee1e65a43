"""System calls: their names, the errors that the kernel can give there, and what is left out."""

from __future__ import annotations

import errno
import fcntl
import os
import platform

from .facts import target_of, text_at

MACHINE = platform.machine()
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(MACHINE, 0)
SECCOMP = {"x86_64": 317, "aarch64": 277}.get(MACHINE, 0)

# name: (number on x86_64, number on aarch64); -1: not there
NUMBERS = {
    "read": (0, 63), "write": (1, 64), "open": (2, -1), "close": (3, 57), "stat": (4, -1),
    "fstat": (5, 80), "lstat": (6, -1), "poll": (7, -1), "lseek": (8, 62),
    "rt_sigaction": (13, 134), "ioctl": (16, 29), "pread64": (17, 67), "pwrite64": (18, 68),
    "access": (21, -1), "pipe": (22, -1), "dup": (32, 23), "dup2": (33, -1), "socket": (41, 198),
    "connect": (42, 203), "clone": (56, 220), "fork": (57, -1), "vfork": (58, -1),
    "execve": (59, 221), "wait4": (61, 260), "kill": (62, 129), "fcntl": (72, 25),
    "ftruncate": (77, 46), "getdents": (78, -1), "getcwd": (79, 17), "chdir": (80, 49),
    "rename": (82, -1), "link": (86, -1), "unlink": (87, -1), "readlink": (89, -1),
    "fchmod": (91, 52), "fchown": (93, 55), "setpgid": (109, 154), "setsid": (112, 157),
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setgroups": (116, 159), "setresuid": (117, 147), "setresgid": (119, 149),
    "rt_sigtimedwait": (128, 137), "statfs": (137, 43), "fstatfs": (138, 44),
    "chroot": (161, 51), "setrlimit": (160, 164), "getdents64": (217, 61), "waitid": (247, 95),
    "openat": (257, 56), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, -1),
    "linkat": (265, 37), "readlinkat": (267, 78), "faccessat": (269, 48), "ppoll": (271, 73),
    "dup3": (292, 24), "pipe2": (293, 59), "prlimit64": (302, 261), "statx": (332, 291),
    "pidfd_send_signal": (424, 424), "clone3": (435, 435), "pidfd_open": (434, 434),
    "close_range": (436, 436), "faccessat2": (439, 439), "getsockopt": (55, 209),
    "getsockname": (51, 204), "sendto": (44, 206), "epoll_create1": (291, 20),
    "setsockopt": (54, 208), "recvmsg": (47, 212), "symlink": (88, -1),
    "memfd_create": (319, 279), "mkdir": (83, -1), "mkdirat": (258, 34), "flock": (73, 32),
}  # fmt: skip

# Not even asked about, each for its reason. (A call of neither table is asked about, and makes
# the harness refuse to go on: nothing that a start does stays unnoticed.)
LEFT_OUT = {
    "can't fail: they tell or set a number of the process itself": {
        "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174),
        "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "umask": (95, 166),
        "getpgrp": (111, -1), "getsid": (124, 156), "getpgid": (121, 155),
        "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150),
        "sysinfo": (99, 179), "uname": (63, 160), "sched_getaffinity": (204, 123),
        "sigaltstack": (131, 132), "getrandom": (318, 278), "clock_gettime": (228, 113),
        "clock_nanosleep": (230, 115), "gettimeofday": (96, 169), "times": (100, 153),
        "getrusage": (98, 165), "prctl": (157, 167),
    },
    "signal masks: fail only for a wrong pointer or size": {
        "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigsuspend": (130, 133),
        "rt_sigpending": (127, 136),
        "pause": (34, -1), "restart_syscall": (219, 128),
    },
    "memory and threads of the interpreter: a failure ends or suspends it, whatever the program": {
        "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
        "mremap": (25, 216), "madvise": (28, 233), "futex": (202, 98), "sched_yield": (24, 124),
        "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
        "membarrier": (324, 283), "arch_prctl": (158, -1),
    },
    "the end of a process": {"exit": (60, 93), "exit_group": (231, 94)},
    "hands the filter over to this harness, which can't be asked before it has it": {
        "sendmsg": (46, 211),
    },
}  # fmt: skip

_column = 0 if MACHINE == "x86_64" else 1
ALLOWED = sorted(
    {pair[_column] for group in LEFT_OUT.values() for pair in group.values() if pair[_column] >= 0}
)
_NAMES = {pair[_column]: name for name, pair in NUMBERS.items() if pair[_column] >= 0}

# One name for what programs can't tell apart.
_SAME = {
    "open": "openat", "stat": "stat", "lstat": "stat", "newfstatat": "stat", "statx": "stat",
    "clone": "fork", "clone3": "fork", "vfork": "fork", "pipe": "pipe2", "dup3": "dup2",
    "ppoll": "poll", "unlink": "unlinkat", "readlink": "readlinkat", "access": "faccessat",
    "faccessat2": "faccessat", "getdents": "getdents64", "wait4": "waitpid",
}  # fmt: skip
_COMMANDS = {
    getattr(fcntl, name): name
    for name in ("F_DUPFD", "F_DUPFD_CLOEXEC", "F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL",
                 "F_GETLK", "F_SETLK", "F_SETLKW", "F_OFD_GETLK", "F_OFD_SETLK")
    if hasattr(fcntl, name)
}  # fmt: skip

_REQUESTS = {0x5401: "TCGETS", 0x5421: "FIONBIO", 0x5450: "FIONCLEX", 0x5451: "FIOCLEX"}

# What the kernel can say, by fork(2), openat(2) and so on; a few that differ in what they mean.
ERRORS = {
    "fork": "EAGAIN ENOMEM",
    "setsid": "EPERM",
    "openat": "EMFILE EACCES ENOSPC ENOENT",
    "dup": "EBADF EMFILE",
    "dup2": "EBADF EMFILE EBUSY",
    "fcntl(F_DUPFD_CLOEXEC)": "EBADF EMFILE",
    "fcntl(F_GETFD)": "EBADF",
    "fcntl(F_SETFD)": "EBADF",
    "fcntl(F_GETFL)": "EBADF",
    "fcntl(F_SETFL)": "EBADF EPERM",
    "fcntl(F_OFD_SETLK)": "ENOLCK EINTR EAGAIN",
    "fcntl(F_SETLK)": "ENOLCK EINTR EAGAIN",
    "fcntl(F_OFD_GETLK)": "EINVAL ENOLCK",
    "fcntl(F_GETLK)": "EINVAL ENOLCK",
    "flock": "ENOLCK",
    "read": "EINTR EIO",
    "pread64": "EINTR EIO",
    "read(pipe)": "EINTR",
    "write": "EINTR EIO ENOSPC",
    "write(pipe)": "EINTR EPIPE",
    "pwrite64": "ENOSPC EIO EINTR",
    "ftruncate": "ENOSPC EIO",
    "lseek": "ESPIPE",
    "ioctl(TCGETS)": "EIO",
    "ioctl(FIOCLEX)": "ENOTTY EACCES",
    "ioctl(FIONCLEX)": "ENOTTY EACCES",
    "ioctl(FIONBIO)": "EACCES",
    "close": "EINTR EIO",
    "close_range": "ENOSYS EPERM",
    "stat": "EACCES ENOENT",
    "fstat": "EIO",
    "statfs": "EIO",
    "fstatfs": "EIO",
    "faccessat": "EACCES",
    "readlinkat": "EACCES ENOENT",
    "getdents64": "EIO",
    "getcwd": "ENOENT",
    "unlinkat": "EACCES EIO",
    "fchmod": "EPERM EIO",
    "fchown": "EPERM EIO",
    "pipe2": "EMFILE ENFILE",
    "poll": "EINTR ENOMEM",
    "setgroups": "EPERM ENOMEM",
    "setresgid": "EPERM EAGAIN",
    "setresuid": "EPERM EAGAIN",
    "setgid": "EPERM EAGAIN",
    "setuid": "EPERM EAGAIN",
    "chroot": "EACCES ENOENT",
    "chdir": "EACCES ENOENT",
    "prlimit64": "EPERM",
    "rt_sigaction": "EINVAL",
    "rt_sigtimedwait": "EINTR",
    "pidfd_open": "ENOSYS EMFILE EPERM",
    "pidfd_send_signal": "EPERM",
    "kill": "EPERM",
    "waitid": "ECHILD EINTR",
    "waitpid": "ECHILD EINTR",
    "socket": "EMFILE EACCES",
    "connect": "EACCES ECONNREFUSED EAGAIN",
}

AT_EMPTY_PATH = 0x1000
PATHS = {"openat": 1, "newfstatat": 1, "unlinkat": 1, "readlinkat": 1, "open": 0, "stat": 0,
         "lstat": 0, "unlink": 0, "readlink": 0, "access": 0, "faccessat": 1, "faccessat2": 1,
         "statx": 1, "chdir": 0, "chroot": 0}  # which argument is the path  # fmt: skip


def described(number: int, args: tuple[int, ...], pid: int) -> tuple[str, str]:
    """Name and path of a call; the name is '' where it only asks, and so can't fail."""
    raw = _NAMES.get(number, f"syscall {number}")
    path = text_at(pid, args[PATHS[raw]]) if raw in PATHS else ""
    if raw in ("newfstatat", "statx") and not path:
        return "fstat", ""
    if raw in ("read", "write") and target_of(pid, args[0]).startswith("pipe:"):
        return f"{raw}(pipe)", ""
    if raw == "fcntl":
        return f"fcntl({_COMMANDS.get(args[1], args[1])})", ""
    if raw == "ioctl":
        return f"ioctl({_REQUESTS.get(args[1], hex(args[1]))})", ""
    if (raw, 0) in (("rt_sigaction", args[1]), ("prlimit64", args[2])):
        return "", ""
    return _SAME.get(raw, raw), path


def errors(call: str) -> list[str]:
    """Names of the errors that the call can give.

    :raises KeyError: the table above does not know the call
    """
    return ERRORS[call].split()


def number_of(error: str) -> int:
    """EPERM → 1."""
    return int(getattr(errno, error))


def words(error: str) -> str:
    """EPERM → the operating system's text."""
    return os.strerror(number_of(error))
