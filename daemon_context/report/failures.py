"""What another process tells of an error, in words: an exception with a traceback.

In the launcher, and in the verbs that ask a daemon: they have the files of the program, and may
import what this needs. The traceback becomes a note on the error, printed by whoever shows that.
What they are told may come from a hostile daemon.
"""

from __future__ import annotations

import json
import linecache
import sys
from traceback import FrameSummary, StackSummary

from ..errors import (
    DaemonError,
    DaemonOSEnvironmentError,
    SetupExit,
    StartError,
    by_name,
    is_lock_error,
    text_of,
)
from ..sequence import in_words
from ..sequence.walk import Walk, words
from ..system.endings import ending
from ..system.text import shown
from .frames import MOST_NOTES, SHORT_LARGEST, TEXT_LARGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OTHERS = ("session leader", "fresh interpreter")  # that report, beside the daemon
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


class Told(Exception):
    """Stands for an error of another process, whose class is not looked up here."""


def decode(walk: Walk | None, payload: bytes, pid: int | None) -> DaemonError:
    """The error that a report describes; of a report that can't be read, what is known.

    :param walk: whose steps it may name; None: of a program of one's own, which has named them
    """
    try:
        fields = json.loads(payload.decode("utf-8", "replace"))
        if "died" in fields:
            return _obituary(walk, fields, pid)
        return _failure(walk, fields, pid)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return StartError(
            "the daemon failed before it was ready, and its report can't be read", pid=pid
        )


def _failure(walk: Walk | None, fields: dict[str, Any], pid: int | None) -> DaemonError:
    facts, number = fields["error"], int(fields["step"])
    error = _rebuilt(facts) if facts else None
    if walk is None:
        failure: BaseException | None = error
    else:
        failure = in_words(walk, number, error) if number and error else _unready(error)
    if not isinstance(failure, DaemonError):
        failure = StartError(words(failure or StartError()))
    if walk is not None:
        _disbelieve(failure, walk, pid)
    elif failure.pid is None:
        failure.pid = pid
    if facts:
        _annotate(failure, failure is error, facts, _process(fields["process"], pid))
    return failure


def _disbelieve(failure: DaemonError, walk: Walk, pid: int | None) -> None:
    """Leave only those facts that the launcher knows as well: the daemon may be hostile, and
    programs act on these, as `AlreadyRunning.handle` does on the path.
    """
    options = walk.options
    pidfile = getattr(options.pidfile, "path", None)  # another library's has one as well
    places = {options.chroot_directory, options.working_directory, pidfile}
    places.update(stream.path for stream in options.streams)
    if failure.step not in walk.steps.names:
        failure.step = None
    failure.path = failure.path if failure.path in places else None
    failure.pid = pid
    if is_lock_error(failure):
        failure.path, failure.pid = pidfile, None  # the holder's pid nobody has proven


def _process(name: object, pid: int | None) -> str:
    if name in OTHERS:
        return str(name)
    return f"daemon (pid {pid})" if pid else "daemon"


def _annotate(failure: DaemonError, itself: bool, facts: dict[str, Any], process: str) -> None:
    """The remote traceback, and the error's notes. Of an error of ours the cause has the frames
    that matter; its notes travel by themselves.
    """
    cause = facts.get("cause")
    if not itself:
        trace = formatted({**facts, "notes": ()})  # which follow
    else:
        trace = formatted(cause) if cause else "".join(_stack(facts))
    if trace and type(failure) is not StartError:
        failure.add_note(f"In the {process}:\n{trace.rstrip()}")
    for note in _notes(facts):
        failure.add_note(note)


def _notes(facts: dict[str, Any]) -> list[str]:
    return [shown(str(note), SHORT_LARGEST, lines=True) for note in facts["notes"][:MOST_NOTES]]


def _rebuilt(facts: dict[str, Any]) -> BaseException:
    """The class comes from an allow-list: a report must not choose what is run here."""
    text = _text(facts)
    ours = by_name(str(facts["ours"])) if facts["ours"] else None
    if ours is not None:
        return ours(text, **{key: v for key, v in facts["facts"].items() if _is_fact(key, v)})
    if "exit" in facts and facts["plain"]:
        return SystemExit(_exit_code(facts["exit"]))
    return _stand_in(facts, text)


class _Shown(str):
    """A value by what stands for it."""

    def __repr__(self) -> str:
        return str(self)


def _exit_code(told: Any) -> Any:
    return _Shown(shown(str(told[0]), TEXT_LARGEST)) if isinstance(told, list) else told


def _stand_in(facts: dict[str, Any], text: str) -> BaseException:
    """Of a class of that name, made here."""
    base = OSError if "os" in facts else SystemExit if "exit" in facts else Told
    kind: type[BaseException] = type(_name(facts).rpartition(".")[2], (base,), {})
    number, strerror, first, second = facts.get("os") or [None] * 4
    if not isinstance(number, int):
        return kind(text)
    return kind(number, shown(str(strerror), SHORT_LARGEST), *_files(first, second))


def _is_fact(key: object, value: object) -> bool:
    if key in ("step", "path"):
        return isinstance(value, str)
    return key in ("pid", "errno", "exit_status", "signal_number") and isinstance(value, int)


def _obituary(walk: Walk | None, fields: dict[str, Any], pid: int | None) -> StartError:
    """Of a daemon that died without a word: how, and in which step."""
    number, status = int(fields["step"]), fields["died"]
    how, facts = ("ended, nobody knows how,", {}) if status is None else ending(int(status))
    place, step = "", None
    if walk is not None and 1 <= number <= len(walk.steps):
        step = walk.steps[number - 1].name
        place = f" (step {number} of {len(walk.steps)}, {step})"
    text = f"the {_process('daemon', pid)} {how} before it was ready{place}"
    return StartError(text, pid=pid, step=step, **facts)


def _unready(error: BaseException | None) -> DaemonError:
    """Of a body that ended before it was ready."""
    if error is None:
        return StartError("the daemon's body ended without saying ready(), so it never was")
    if isinstance(error, SetupExit):
        return error
    if isinstance(error, SystemExit):
        plain = type(error) is SystemExit
        how = f"called sys.exit({error.code!r})" if plain else f"ended: {text_of(error)}"
        status = error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
        return StartError(f"the daemon's body {how} before it was ready", exit_status=status)
    text = f"the daemon's body raised {type(error).__name__} before it was ready: {text_of(error)}"
    if isinstance(error, OSError):
        return DaemonOSEnvironmentError(text, errno=error.errno)
    return DaemonError(text)


def in_short(said: Any) -> tuple[str, str]:
    """Of facts in a status file: class and text, and all with the traceback."""
    try:
        return _line(said), formatted(said).rstrip()
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError):
        return "an error", ""


def _line(facts: dict[str, Any]) -> str:
    text = _text(facts)
    return f"{_name(facts)}{': ' if text else ''}{text}"


def _text(facts: dict[str, Any]) -> str:
    return shown(str(facts["text"]), TEXT_LARGEST, lines=True)


def _name(facts: dict[str, Any]) -> str:
    return shown(str(facts["class"]), SHORT_LARGEST)


def formatted(facts: dict[str, Any]) -> str:
    """The error with its traceback, and those of its causes, as Python prints them."""
    lines: list[str] = []
    for key, words_between in (("cause", CAUSED), ("context", DURING)):
        if key in facts:
            lines += [formatted(facts[key]), words_between]
    stack = _stack(facts)
    if stack:
        lines += ["Traceback (most recent call last):\n", *stack]
    lines.append(f"{_line(facts)}\n")
    lines += [f"{note}\n" for note in _notes(facts)]
    for number, member in enumerate(facts.get("members", ()), 1):
        lines.append(f"  +---------------- {number} ----------------\n")
        lines += [f"  | {line}\n" for line in formatted(member).splitlines()]
    return "".join(lines)


def _stack(facts: dict[str, Any]) -> list[str]:
    known = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())}
    frames = [
        _frame(str(file), int(line), str(name), known) for file, line, name in facts["frames"]
    ]
    return StackSummary.from_list(frames).format()


def _frame(file: str, line: int, name: str, known: set[str | None]) -> FrameSummary:
    """With the source line, if the file is one of this program: a hostile daemon could name any,
    and have root read a secret or wait at a FIFO.
    """
    text = linecache.getline(file, line) if file in known else ""
    where, what = shown(file, SHORT_LARGEST), shown(name, SHORT_LARGEST)
    return FrameSummary(
        where, line, what, lookup_line=False, line=shown(text.strip(), SHORT_LARGEST)
    )


def _files(*names: Any) -> tuple[Any, ...]:
    first, second = (shown(n, SHORT_LARGEST) if isinstance(n, str) else n for n in names)
    return first, None, second
