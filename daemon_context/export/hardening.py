"""What a daemon can do without, line by line: systemd.exec(5), "Sandboxing".

Each line was tried with a start, a reload, the watchdog and a stop. MemoryDenyWriteExecute= is not
among them, as ctypes and cffi may need such memory.
"""

from __future__ import annotations

from .paths import HOMES, TEMPORARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace

    from ..options import Options
    from .paths import Paths

ALWAYS = (
    "SystemCallArchitectures=native",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "PrivateDevices=yes",
    "NoNewPrivileges=yes",
    "ProcSubset=pid",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
)


def hardening(
    options: Options, paths: Paths, call: SimpleNamespace, *, asks: bool
) -> Iterator[str]:
    """The lines; where the options need more, with a comment that says so.

    :param asks: whether the program itself is run for a reload
    """
    yield "# What the program itself needs beyond this, give back line by line."
    yield from _privileges(options)
    yield from _users(options, asks)
    yield from ALWAYS
    yield from _homes(paths, call)
    yield from _temporary(paths)


def _privileges(options: Options) -> Iterator[str]:
    capabilities, calls = _needed(options)
    if capabilities:
        yield f"# chroot_directory= needs {capabilities}, and its calls"
    yield f"CapabilityBoundingSet={capabilities}"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallFilter=~@privileged @resources"
    if calls:
        yield f"SystemCallFilter={calls}"


def _users(options: Options, asks: bool) -> Iterator[str]:
    if options.chroot_directory is not None:
        yield "# PrivateUsers=yes would leave no root that could call chroot(2)"
    elif asks and options.uid == 0:
        yield "# PrivateUsers=yes would hide the daemon of root from ExecReload=, which has its own"
    else:
        yield "PrivateUsers=yes"


def _needed(options: Options) -> tuple[str, str]:
    """Capabilities and system calls of the start that an unprivileged one lacks."""
    if options.chroot_directory is None:
        return "", ""
    if options.owner_changes:
        return "CAP_SYS_CHROOT CAP_SETUID CAP_SETGID CAP_CHOWN", "chroot @setuid @chown"
    return "CAP_SYS_CHROOT", "chroot"


def _homes(paths: Paths, call: SimpleNamespace) -> Iterator[str]:
    if call.user:
        yield "# The way to the manager is below /run/user, which ProtectHome=yes would hide"
        yield "ProtectHome=read-only"
    elif path := paths.below(*HOMES):
        yield f"# {path!r} is below a home directory"
        yield "ProtectHome=read-only"
    else:
        yield "ProtectHome=yes"


def _temporary(paths: Paths) -> Iterator[str]:
    if path := paths.below(*TEMPORARY):
        yield f"# PrivateTmp=yes would hide {path!r}"
    else:
        yield "PrivateTmp=yes"
