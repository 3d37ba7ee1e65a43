"""Capabilities of this process (capabilities(7))."""

from __future__ import annotations

import os

from .processes import own_status

CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT = 5, 6, 7, 18


def has_capability(number: int) -> bool:
    """Whether the process has that effective capability (capabilities(7))."""
    effective = _capabilities("CapEff:")
    return os.geteuid() == 0 if effective is None else bool(effective >> number & 1)


def permitted_capabilities() -> int:
    """The capabilities that the process may use, if not now; 0 where they can't be told."""
    return _capabilities("CapPrm:") or 0


def _capabilities(which: str) -> int | None:
    found = own_status(which)
    return None if found is None else int(found, 16)
