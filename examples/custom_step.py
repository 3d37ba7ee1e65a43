#!/usr/bin/env python3
"""Two steps of one's own, put into the sequence where they belong.

custom_step.py [DIRECTORY] [DESCRIPTORS]     pid file and log go there; default: . 512
"""

from __future__ import annotations

import ctypes  # here, and not in apply(): as another user, or in a chroot, it may be out of reach
import os
import resource
import sys
from pathlib import Path

from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
from daemon_context.options import Options
from daemon_context.sequence import Walk

PR_SET_NO_NEW_PRIVS = 38  # prctl(2)


class RaiseFdLimit(Step):
    """Allow so many open descriptors; a step with a field."""

    touches = frozenset({"limits"})

    def __init__(self, number: int) -> None:
        self.number = number

    def describe(self, options: Options) -> str:
        return f"set the limit on open descriptors to {self.number}"

    def apply(self, walk: Walk) -> tuple[int, int]:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.number, before[1]))
        return before

    def undo(self, walk: Walk, memory: tuple[int, int]) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, memory)


class NoNewPrivileges(Step):
    """No setuid program that the daemon runs will gain anything; there is no undo for it."""

    touches = frozenset({"privileges"})

    def describe(self, options: Options) -> str:
        return "give up new privileges"

    def apply(self, walk: Walk) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    directory, number, *more = [*sys.argv[1:], *[".", "512"][len(sys.argv) - 1 :]]
    if more or not number.isdecimal() or directory in ("-h", "--help"):
        print(__doc__ or "usage: [DIRECTORY] [DESCRIPTORS]", file=sys.stderr)  # python -OO
        sys.exit(2)
    state = Path(directory).absolute()
    steps = DEFAULT_STEPS.insert_after("detach", RaiseFdLimit(int(number))).insert_after(
        "change-owner", NoNewPrivileges()
    )
    context = DaemonContext(
        pidfile=state / "custom-step.pid",
        stdout=state / "custom-step.log",
        umask=0o022,
        steps=steps,
    )
    try:
        print(context.explain())
        context.open()
    except DaemonError as error:
        sys.exit(f"custom_step: {error}")
    with context as daemon:
        print("may open", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        daemon.sleep()


if __name__ == "__main__":
    main()
