"""Errors on their way from the daemon to the launcher: as JSON, and back from it.

Imported only when a start fails, or before it where a failure could not import it any more.
JSON and never a pickle: an unprivileged daemon must not be able to run code in a root launcher.
"""

from __future__ import annotations

# `traceback` imports the first and `linecache` the last only when they need them, and in a new root
# it would be the root's own, or none.
import ast  # noqa: F401
import json
import tokenize  # noqa: F401
import traceback

from ..errors import (
    LOCK_ERRORS,
    DaemonError,
    DaemonOSEnvironmentError,
    StartError,
    by_name,
    text_of,
)
from ..system.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..sequence import Walk

# Characters. All together, at the twelve bytes that JSON needs for the widest ones, stay below
# `frames.LARGEST`.
TEXT_LARGEST = 1 << 14
TRACEBACK_LARGEST = 1 << 15
SHORT_LARGEST = 1 << 11
MOST_NOTES = 8
RECORDS_LARGEST = 1 << 20

OTHERS = ("session leader", "fresh interpreter")  # that report, beside the daemon


def encode(error: BaseException, process: str = "daemon") -> bytes:
    """An error as JSON: class, text, facts, notes and traceback.

    :param process: which of ours this is; by its ids, a daemon that made a session would be another
    """
    facts = error.facts() if isinstance(error, DaemonError) else {}
    notes = getattr(error, "__notes__", ())[:MOST_NOTES]
    fields = {
        "class": _known(type(error)),
        "message": shown(text_of(error), TEXT_LARGEST, lines=True),
        "facts": {key: value for key, value in facts.items() if _fits(value)},
        "notes": [shown(str(note), SHORT_LARGEST, lines=True) for note in notes],
        "traceback": shown(_traceback(error), TRACEBACK_LARGEST, lines=True),
        "process": process,
    }
    return json.dumps(fields).encode()


def _fits(value: object) -> bool:
    # A path that were cut would be another one.
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= SHORT_LARGEST)


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


def records(error: BaseException) -> list[str]:
    """As Python prints it, line by line, for syslog."""
    return shown(full_traceback(error), RECORDS_LARGEST, lines=True).splitlines()


def told(error: BaseException) -> dict[str, str]:
    """An error's words and traceback, for the status file."""
    return {
        "message": shown(f"{type(error).__name__}: {text_of(error)}", TEXT_LARGEST, lines=True),
        "traceback": shown(full_traceback(error), TRACEBACK_LARGEST, lines=True),
    }


def decode(payload: bytes, pid: int | None, walk: Walk | None = None) -> DaemonError:
    """The error that a report describes; of a report that can't be read, what is known.

    :param pid: the daemon's, as the launcher knows it
    :param walk: of the start that failed; None: the report comes from this program itself, and its
        facts are believed
    """
    try:
        fields = json.loads(payload.decode("utf-8", "replace"))
        return _rebuilt(fields, pid, walk)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return StartError(
            "the daemon failed before it was ready, and its report can't be read", pid=pid
        )


def _rebuilt(fields: dict[str, Any], pid: int | None, walk: Walk | None) -> DaemonError:
    """The class comes from an allow-list: a report must not choose what is run here."""
    kind = by_name(str(fields["class"])) or StartError
    facts = {key: value for key, value in fields["facts"].items() if _is_fact(key, value)}
    if walk is not None:
        facts = _own(facts, kind, walk)
    facts.setdefault("pid", pid)
    error = kind(shown(str(fields["message"]), TEXT_LARGEST, lines=True), **facts)
    trace = shown(str(fields["traceback"]), TRACEBACK_LARGEST, lines=True).rstrip()
    if trace and kind is not StartError:
        error.add_note(f"In the {_process(fields['process'], pid)}:\n{trace}")
    for note in fields["notes"][:MOST_NOTES]:
        error.add_note(shown(str(note), SHORT_LARGEST, lines=True))
    return error


def _process(name: object, pid: int | None) -> str:
    if name in OTHERS:
        return str(name)
    return f"daemon (pid {pid})" if pid else "daemon"


def _is_fact(key: object, value: object) -> bool:
    if key in ("step", "path"):
        return isinstance(value, str)
    return key in ("pid", "errno", "exit_status", "signal_number") and isinstance(value, int)


def _own(said: dict[str, Any], kind: type, walk: Walk) -> dict[str, Any]:
    """Of what a report says, the facts that the launcher knows as well: the daemon may be hostile,
    and programs act on these, as `AlreadyRunning.handle` does on the path.
    """
    options = walk.options
    pidfile = getattr(options.pidfile, "path", None)  # another library's has one as well
    places = {options.chroot_directory, options.working_directory, pidfile}
    places.update(stream.path for stream in options.streams)
    known = {"pid": (), "step": {step.name for step in walk.steps}, "path": places}
    facts = {key: value for key, value in said.items() if value in known.get(key, (value,))}
    if kind.__name__ in LOCK_ERRORS:
        facts.update(path=pidfile, pid=None)  # a pid would be the holder's, whom nobody has proven
    return facts


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
