"""The last end of a daemon: when, how and why it ended, as its status file remembers it.

Told by the daemon itself, or, of one that was killed, by who has stopped it. What nobody could tell
is ``vanished``.
"""

from __future__ import annotations

import os
import sys
import time

from ..errors import text_of
from ..loop import Terminated
from ..system import signal, signal_name
from ..system.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

REQUESTED, EXIT, EXCEPTION = "requested", "exit", "exception"
SIGNAL, KILLED, VANISHED = "signal", "killed", "vanished"
HOWS = (REQUESTED, EXIT, EXCEPTION, SIGNAL, KILLED, VANISHED)
NUMBERS, TEXTS = ("pid", "exit_status"), ("at", "signal", "error", "where", "text")
ERROR_LARGEST = 1 << 11  # characters
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
LIBRARIES = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Ending:
    """Why the daemon ends.

    :ivar how: ``"requested"``, ``"exit"`` (`run` has come to its end, or has called ``sys.exit``)
        or ``"exception"``
    :ivar signal: the name of the signal by which it was requested, or None
    :ivar exit_status: the status that it ends with
    :ivar error: what `run` or `setup` has raised, or None
    """

    def __init__(self, error: BaseException | None, requested: bool, number: int = 0) -> None:
        number = number or getattr(error, "signal_number", 0)
        if isinstance(error, KeyboardInterrupt):
            number = signal.SIGINT
        well = error is None or isinstance(error, SystemExit)
        self.error = error
        self.exit_status = _status(error)
        self.signal = signal_name(number) if number else None
        if isinstance(error, (Terminated, KeyboardInterrupt)) or (
            requested and well and not self.exit_status
        ):
            self.how = REQUESTED
        else:
            self.how = EXIT if well else EXCEPTION

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __str__(self) -> str:
        if self.how == REQUESTED:
            return f"asked to stop{f', by {self.signal}' if self.signal else ''}"
        if self.how == EXCEPTION:
            return f"{self._name()}{_placed(where(self.error))}"
        said = getattr(self.error, "code", None)
        return f"exit status {self.exit_status}{f': {said}' if isinstance(said, str) else ''}"

    def _name(self) -> str:
        text = text_of(self.error) if self.error is not None else ""
        return f"{type(self.error).__name__}{': ' if text else ''}{text}"

    def told(self) -> dict[str, Any]:
        """For the status file. In the daemon."""
        failed = self.how == EXCEPTION
        return record(
            self.how,
            os.getpid(),
            exit_status=self.exit_status,
            signal=self.signal,
            error=shown(self._name(), ERROR_LARGEST) if failed else None,
            where=where(self.error) if failed else None,
            text=shown(str(self), ERROR_LARGEST),
        )


def record(how: str, pid: int | None, *, known: bool = True, **facts: Any) -> dict[str, Any]:
    """An end, with all its keys.

    :param known: whether it has ended just now
    """
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) if known else None
    return {"how": how, "at": at, "pid": pid, **dict.fromkeys((*NUMBERS[1:], *TEXTS[1:])), **facts}


def last_of(said: dict[str, Any] | None) -> dict[str, Any] | None:
    """The end of the daemon whose status file it is, which does not live any more."""
    if not said:
        return None
    told = as_told(said.get("ended"))
    pid = said.get("pid")
    if told is None and isinstance(pid, int):
        told = record(VANISHED, pid, known=False, text=GONE)
    return told or as_told(said.get("previous"))


GONE = "it vanished: it was killed or has crashed, and nobody could tell"


def as_told(found: Any) -> dict[str, Any] | None:
    """What a status file says of an end; whoever has written it, it can be shown."""
    if not isinstance(found, dict) or found.get("how") not in HOWS:
        return None
    told: dict[str, Any] = {"how": found["how"]}
    for name in TEXTS:
        value = found.get(name)
        told[name] = shown(value, 2 * ERROR_LARGEST) if isinstance(value, str) else None
    for name in NUMBERS:
        value = found.get(name)
        told[name] = value if isinstance(value, int) and 0 <= value < 1 << 31 else None
    return told


def in_words(ended: dict[str, Any]) -> str:
    """For people, with the local time."""
    pid = f" (pid {ended['pid']})" if ended["pid"] else ""
    return f"the last one{pid} ended{_local(ended['at'])}: {ended['text'] or ended['how']}"


def _local(at: str | None) -> str:
    from datetime import datetime

    try:
        when = datetime.fromisoformat(at or "").astimezone()
    except (ValueError, OverflowError, OSError):
        return ""
    return f" {when:%F %T}"


def where(error: BaseException | None) -> str | None:
    """The last frame in the program's own files: not in the library's, nor in ours."""
    found = None
    traceback: TracebackType | None = error.__traceback__ if error is not None else None
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if _is_the_programs(file):
            found = f"{file}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def _is_the_programs(file: str) -> bool:
    return not file.startswith((OURS, LIBRARIES, "<")) and not any(p in file for p in INSTALLED)


def _placed(place: str | None) -> str:
    return f" ({os.path.basename(place)})" if place else ""


def _status(error: BaseException | None) -> int:
    """As `embedding.target.exit_status`, without showing anything."""
    if error is None:
        return 0
    code = error.code if isinstance(error, SystemExit) else 1
    return (code or 0) & 0xFF if isinstance(code, (int, type(None))) else 1


def of_program() -> BaseException | None:
    """What has ended the program, as the interpreter tells exit handlers."""
    return getattr(sys, "last_value", None)
