"""What can go wrong, as classes that carry the facts and survive pickling.

The classes that are also ``lockfile``'s live in `daemon_context.pidfile.lockerrors`: importing
``lockfile`` costs more than this whole package, so it is done only when one of them is named.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FACTS = ("step", "path", "pid", "errno", "exit_status", "signal_number")


class DaemonError(Exception):
    """Base of every error that this library raises.

    :ivar step: name of the step that failed, or None
    :ivar path: the file or directory concerned, or None
    :ivar pid: the process concerned, or None
    :ivar errno: the operating system's error number, or None
    :ivar exit_status: how the daemon exited, where it did before it was ready
    :ivar signal_number: the signal that killed the daemon before it was ready
    """

    step: str | None
    path: str | None
    pid: int | None
    errno: int | None
    exit_status: int | None
    signal_number: int | None

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        for fact in FACTS:
            setattr(self, fact, facts.pop(fact, None))
        if facts:
            raise TypeError(f"unknown facts for {type(self).__name__}: {', '.join(facts)}")

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def facts(self) -> dict[str, Any]:
        """The data of the error, as it travels through a pickle or the report."""
        return {fact: getattr(self, fact, None) for fact in FACTS}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.facts(), getattr(self, "__notes__", []))


def _rebuild(
    kind: type[DaemonError], message: str, facts: dict[str, Any], notes: list[str]
) -> DaemonError:
    error = kind(message, **facts)
    for note in notes:
        error.add_note(note)
    return error


class OptionError(DaemonError, ValueError):
    """An option of the context has a value that can't be used; nothing has changed."""


class SequenceError(DaemonError, ValueError):
    """The steps can't be walked: not a step, two of one name, or an order that can't work."""


class UnknownStepError(SequenceError, KeyError):
    """No step of the sequence has that name."""


class StepError(DaemonError):
    """A step failed; `step` names it."""


class StartError(StepError):
    """The daemon ended, fell silent or ran out of time before it was ready."""


class DaemonOSEnvironmentError(StepError, OSError):
    """The operating system refused something that a step needed (as in python-daemon)."""


class DaemonProcessDetachError(StepError, OSError):
    """The process could not be detached (as in python-daemon)."""


def text_of(error: BaseException) -> str:
    """The error's text, also where its ``__str__`` fails, which must not hide the error."""
    try:
        return str(error)
    except Exception:
        return "(its text can't be made)"


LOCK_ERRORS = ("AlreadyRunning", "LockTimeout", "NotLocked", "NotMyLock", "PidFileError")


def refuse(option: str, value: object, expected: str) -> OptionError:
    """The error for a value that can't be used."""
    return OptionError(f"{option}={value!r} can't be used: expected {expected}")
