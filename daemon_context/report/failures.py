"""Errors on their way from the daemon to the launcher: as JSON, and back from it.

Imported only when a start fails, or before it where a failure could not import it any more.
JSON and never a pickle: an unprivileged daemon must not be able to run code in a root launcher.
"""

from __future__ import annotations

# `traceback` imports the first and `linecache` the last only when they need them, and in a new root
# it would be the root's own, or none.
import ast  # noqa: F401
import json
import os
import tokenize  # noqa: F401
import traceback

from ..errors import DaemonError, DaemonOSEnvironmentError, StartError, by_name, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Characters. All together, at the twelve bytes that JSON needs for the widest ones, stay below
# `frames.LARGEST`.
TEXT_LARGEST = 1 << 14
TRACEBACK_LARGEST = 1 << 15
SHORT_LARGEST = 1 << 11
MOST_NOTES = 8


def encode(error: BaseException, process: str = "daemon") -> bytes:
    """An error as JSON: class, text, facts, notes and traceback.

    :param process: which of ours this is; by its ids, a daemon that made a session would be another
    """
    facts = error.facts() if isinstance(error, DaemonError) else {}
    notes = getattr(error, "__notes__", ())[:MOST_NOTES]
    fields = {
        "class": _known(type(error)),
        "message": _capped(text_of(error), TEXT_LARGEST),
        "facts": {
            key: _capped(value, SHORT_LARGEST) if isinstance(value, str) else value
            for key, value in facts.items()
            if isinstance(value, (int, str))
        },
        "notes": [_capped(str(note), SHORT_LARGEST) for note in notes],
        "traceback": _capped(_traceback(error), TRACEBACK_LARGEST),
        "pid": os.getpid(),
        "process": process,
    }
    return json.dumps(fields).encode()


def _known(kind: type) -> str:
    """The class of ours that it is, or is made from: the launcher would not look up another."""
    return next((k.__name__ for k in kind.__mro__ if by_name(k.__name__) is k), "")


def _traceback(error: BaseException) -> str:
    """Of an error of ours the cause has the frames that matter; its notes travel by themselves."""
    cause = error.__cause__ or error
    try:
        if cause is error:
            return "".join(traceback.format_tb(error.__traceback__))
        return "".join(traceback.format_exception(cause))
    except Exception:  # without its traceback an error is still worth to be known
        return ""


def full_traceback(error: BaseException) -> str:
    """As Python prints it."""
    return "".join(traceback.format_exception(error))


def told(error: BaseException) -> dict[str, str]:
    """An error's words and traceback, for the status file."""
    return {
        "message": _capped(f"{type(error).__name__}: {text_of(error)}", TEXT_LARGEST),
        "traceback": _capped(full_traceback(error), TRACEBACK_LARGEST),
    }


def _capped(text: str, largest: int) -> str:
    if len(text) <= largest:
        return text
    half = largest // 2 - 32  # room for the words between
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def decode(payload: bytes, pid: int | None) -> DaemonError:
    """The error that a report describes; of a report that can't be read, what is known."""
    try:
        fields = json.loads(payload.decode("utf-8", "replace"))
        return _rebuilt(fields)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return StartError(
            "the daemon failed before it was ready, and its report can't be read", pid=pid
        )


def _rebuilt(fields: dict[str, Any]) -> DaemonError:
    """The class comes from an allow-list: a report must not choose what is run here."""
    kind = by_name(str(fields["class"])) or StartError
    facts = {key: value for key, value in fields["facts"].items() if _is_fact(key, value)}
    facts.setdefault("pid", int(fields["pid"]))
    error = kind(_shown(fields["message"]), **facts)
    process = "session leader" if fields["process"] == "session leader" else "daemon"
    trace = _shown(fields["traceback"]).rstrip()
    if trace and kind is not StartError:
        error.add_note(f"In the {process} (pid {int(fields['pid'])}):\n{trace}")
    for note in fields["notes"]:
        error.add_note(_shown(note))
    return error


def _shown(text: object) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(repr(c)[1:-1] if _is_control(c) else c for c in str(text))


def _is_control(c: str) -> bool:
    return c != "\n" and (c < " " or "\x7f" <= c < "\xa0")


def _is_fact(key: object, value: object) -> bool:
    if key in ("step", "path"):
        return isinstance(value, str)
    return key in ("pid", "errno", "exit_status", "signal_number") and isinstance(value, int)


def unready(error: BaseException | None) -> tuple[DaemonError, int]:
    """The failure of a body that ended before it was ready, and the daemon's exit status."""
    if error is None:
        return StartError("the daemon's body ended without saying ready(), so it never was"), 1
    if isinstance(error, SystemExit):
        # The interpreter, too, makes one byte of it.
        status = error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
        how = f"called sys.exit({error.code!r})" if status or not error.args else f"ended: {error}"
        failure: DaemonError = StartError(
            f"the daemon's body {how} before it was ready", exit_status=status
        )
        return failure, status or 1
    text = f"the daemon's body raised {type(error).__name__} before it was ready: {text_of(error)}"
    if isinstance(error, OSError):
        failure = DaemonOSEnvironmentError(text, errno=error.errno)
    else:
        failure = DaemonError(text)
    failure.__cause__ = error
    return failure, 1
