"""A unit for systemd, written from the options that a script really uses.

The script is run, as a module of it can't be imported for that, and stopped at its first `open()`
or `main()`.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from ..errors import DaemonError
from .capture import Captured, run_until_start
from .unit import unit_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def export(
    file: str, arguments: Sequence[str] = (), *, user: bool = False, watchdog: float | None = None
) -> NoReturn:
    """Write a unit for the script to standard output, and end the process: with status 0, or with
    1 and a line on standard error.

    :param file: path of the script
    :param arguments: what it is given on its command line, there and in the unit
    :param user: for the manager of a user (``systemctl --user``)
    :param watchdog: seconds after which a daemon without a sign of life is stuck; None: any time
    """
    output = _own_output()

    def stopped(captured: Captured) -> NoReturn:
        call = SimpleNamespace(
            argv=[sys.executable, os.path.abspath(file), *arguments], user=user, watchdog=watchdog
        )
        try:
            text = unit_of(captured, call)
        except DaemonError as error:
            _end(1, f"{file}: {error}")
        with open(output, "w", encoding="utf-8", errors="surrogateescape") as unit:
            unit.write(text)
        _end(0)

    _end(1, run_until_start(file, arguments, stopped))


def _own_output() -> int:
    """Standard output; what the script prints goes to standard error from now on."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    return output


def _end(status: int, said: str = "") -> NoReturn:
    """At once: no ``finally``, exit handler or thread of the script has another word."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # the script's own, or closed
            pass
    if said:
        os.write(2, f"daemon_context: {' '.join(said.split())}\n".encode(errors="backslashreplace"))
    os._exit(status)
