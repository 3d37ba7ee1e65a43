"""What crosses: frames, and in them an error as facts.

A frame is a kind, a length and JSON, from a process that may be torn off, slow or hostile. A daemon
may be out of descriptors, in a chroot or another user when it fails, and its package may have been
upgraded under it. So it reports class, text, and of each of the traceback's frames file, line and
function; the launcher, which has the files, makes words and a traceback of them
(`daemon_context.report.failures`). Never a pickle: an unprivileged daemon must not be able to run
code in a root launcher. JSON is written by hand, as ``json`` costs as much as a whole start.
"""

from __future__ import annotations

import os

from .. import system
from ..errors import DaemonError, text_of
from ..system import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

HELLO, BEGUN, READY, ERROR = b"H", b"B", b"R", b"E"
HEADER = 5
LARGEST = 1 << 20
WORDS_LARGEST = 1000  # bytes of READY
# Characters. All together, at the twelve bytes that JSON needs for the widest ones, stay below
# `LARGEST`, or only the error's own text is told.
TEXT_LARGEST = 1 << 14
SHORT_LARGEST = 1 << 11
MOST = 900_000  # bytes of JSON: a report with it stays below `LARGEST`
MOST_NOTES = 8
FIRST_FRAMES, LAST_FRAMES = 8, 32
NOTICE = 32  # characters of room for half of the words about what is left out
DEEPEST = 8  # causes, contexts and members of groups


class Frames:
    """Reads frames, as they come, from a process that may be torn off, slow or hostile."""

    def __init__(self) -> None:
        self.data = b""

    def read(self, fd: int) -> bool:
        """Read what is there; False at the end."""
        try:
            chunk = system.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not self.hostile:
            self.data += chunk
        return bool(chunk)

    def drain(self, fd: int) -> None:
        """Read what is left of the first frame: a descendant may write behind it for ever."""
        os.set_blocking(fd, False)
        while not self.decided and self.read(fd):
            pass

    @property
    def _length(self) -> int:
        return int.from_bytes(self.data[1:HEADER], "big")

    @property
    def complete(self) -> bool:
        return len(self.data) >= HEADER and len(self.data) >= HEADER + self._length

    @property
    def decided(self) -> bool:
        """Whether no further byte can change what the first frame says."""
        return self.complete or self.hostile

    @property
    def hostile(self) -> bool:
        """Nothing that we write looks like this."""
        kind = self.data[:1]
        return bool(kind) and (
            kind not in (HELLO, BEGUN, READY, ERROR)
            or (len(self.data) >= HEADER and self._length > LARGEST)
        )

    def first(self) -> tuple[bytes, bytes]:
        """Kind and payload; what can't be read is an error without any."""
        if self.hostile or not self.complete:
            return ERROR, b""
        return self.data[:1], self.data[HEADER : HEADER + self._length]

    def drop(self) -> None:
        self.data = self.data[HEADER + self._length :]


def send(fd: int, kind: bytes, payload: bytes = b"") -> bool:
    """Write a frame; False if nobody reads any more."""
    data = kind + len(payload).to_bytes(4, "big") + payload
    try:
        while data:
            data = data[write(fd, data) :]
        return True
    except BrokenPipeError:
        return False


def write(fd: int, data: bytes) -> int:
    """`os.write` with SIGPIPE blocked: the program may have set it to its default, which would
    kill us here.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    before = signal.sigpending()
    try:
        return system.write(fd, data)
    finally:
        # Also after a write that came short: the reader has left in the middle of it.
        if signal.SIGPIPE in signal.sigpending() - before and hasattr(signal, "sigtimedwait"):
            signal.sigtimedwait({signal.SIGPIPE}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def encoded(error: BaseException | None, number: int, process: str) -> bytes:
    """A failed start, for the launcher.

    :param error: None: the body has ended without one, and without being ready
    :param number: of the step that failed; 0: the body of the context
    :param process: which of ours this is
    """
    told: dict[str, Any] = {"process": process, "step": number}
    told["error"] = error and fitting(error)
    return as_json(told).encode()


def fitting(error: BaseException) -> dict[str, Any]:
    """The facts of an error, as many as fit into a frame or a status file."""
    told = facts_of(error)
    return told if len(as_json(told)) < MOST else facts_of(error, deepest=0)


def facts_of(error: BaseException, deepest: int = DEEPEST) -> dict[str, Any]:
    """Class, text, notes, frames, and the same of causes and members.

    :param deepest: how many errors behind this one are told as well; 0: and no frames
    """
    kind = type(error)
    where = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    told: dict[str, Any] = {
        "class": short(f"{where}{kind.__qualname__}", SHORT_LARGEST),
        "text": short(text_of(error), TEXT_LARGEST),
        "ours": next((k.__name__ for k in kind.__mro__ if _is_ours(k)), ""),
        "notes": [
            short(str(note), SHORT_LARGEST) for note in getattr(error, "__notes__", ())[:MOST_NOTES]
        ],
        "frames": _frames(error.__traceback__) if deepest else [],
    }
    if isinstance(error, DaemonError):
        told["facts"] = {key: _plain(value) for key, value in error.facts().items()}
    elif isinstance(error, OSError):
        names = (error.errno, error.strerror, error.filename, error.filename2)
        told["os"] = [_plain(name) for name in names]
    elif isinstance(error, SystemExit):
        told["exit"], told["plain"] = _code(error.code), kind is SystemExit
    if deepest:
        _tell_others(error, told, deepest - 1)
    return told


def short(text: str, largest: int) -> str:
    """The text, or of a longer one both ends. It is escaped by who shows it."""
    if len(text) <= largest:
        return text
    half = largest // 2 - NOTICE
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def plain(error: BaseException) -> str:
    """The error with its traceback, nearly as Python prints it, by who can import nothing."""
    lines = []
    for before in (error.__cause__, None if error.__suppress_context__ else error.__context__):
        if before is not None:
            lines += [plain(before), "and then:"]
            break
    frames = _frames(error.__traceback__)
    if frames:
        lines.append("Traceback (most recent call last):")
        lines += [f'  File "{file}", line {line}, in {name}' for file, line, name in frames]
    text = text_of(error)
    return "\n".join([*lines, f"{type(error).__name__}{': ' if text else ''}{text}"])


def _tell_others(error: BaseException, told: dict[str, Any], deepest: int) -> None:
    if error.__cause__ is not None:
        told["cause"] = facts_of(error.__cause__, deepest)
    elif error.__context__ is not None and not error.__suppress_context__:
        told["context"] = facts_of(error.__context__, deepest)
    if isinstance(error, BaseExceptionGroup):
        told["members"] = [facts_of(member, deepest) for member in error.exceptions[:deepest]]


def _code(code: object) -> Any:
    """As it is, or as a list with what stands for it."""
    return code if isinstance(code, (int, type(None))) else [short(repr(code), TEXT_LARGEST)]


def _is_ours(kind: type) -> bool:
    return issubclass(kind, DaemonError) and kind.__module__.startswith("daemon_context.")


def _plain(value: object) -> int | str | None:
    if isinstance(value, (int, type(None))):
        return value
    text = os.fsdecode(value) if isinstance(value, bytes) else str(value)
    return text if len(text) <= SHORT_LARGEST else None  # a path that were cut would be another one


def _frames(traceback: TracebackType | None) -> list[list[str | int]]:
    frames: list[list[str | int]] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        file, name = code.co_filename[-SHORT_LARGEST:], code.co_name[:SHORT_LARGEST]
        frames.append([file, traceback.tb_lineno, name])
        if len(frames) > FIRST_FRAMES + LAST_FRAMES:
            del frames[FIRST_FRAMES]
        traceback = traceback.tb_next
    return frames


def exit_status(error: BaseException | None) -> int:
    """The status of a daemon whose body ends so before it is ready; never 0, as it never was."""
    if not isinstance(error, SystemExit) or not isinstance(error.code, int):
        return 1
    return error.code & 0xFF or 1  # the interpreter, too, makes one byte of it


def as_json(value: object) -> str:
    """Strings, whole numbers, None, lists and dictionaries as JSON, in ASCII."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(k)}:{as_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_json, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return "true" if value else "false" if value is False else "null"
    return str(int(value))


def _quoted(text: str) -> str:
    return (
        '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else _escaped(c) for c in text) + '"'
    )


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 | number >> 10:04x}\\u{0xDC00 | number & 0x3FF:04x}"
