"""What can go wrong, as classes that carry the facts and survive pickling.

Some are also ``lockfile``'s, for callers who catch those. Importing that costs more than this whole
package, so it is done only when a program names one of them; where it is imported already, as by
every program that catches its classes, an error that is raised is one of these, too.
"""

from __future__ import annotations

import errno
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .embedding import Handle

_FILES = "close some files, or raise the limit on open ones (ulimit -n, or LimitNOFILE= of a unit)"
_ROOM = "make room there: blocks or inodes are used up (see df and df -i)"
#: By error number: what can befall whatever opens or writes, and what to do about it.
REMEDIES = {
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
}

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


class SetupExit(StartError):
    """`Daemon.setup` has called ``sys.exit``: the text is what it said, and `exit_status` 0 means
    that there was nothing to do.
    """


class DaemonOSEnvironmentError(StepError, OSError):
    """The operating system refused something that a step needed (as in python-daemon)."""


class DaemonProcessDetachError(StepError, OSError):
    """The process could not be detached (as in python-daemon)."""


class AlreadyRunning(StepError):
    """Another process holds the pid file's lock; `pid` is its pid where that can be told."""

    @property
    def handle(self) -> Handle:
        """A handle of the running daemon, proven by its record; waits for one that is starting.

        :raises DaemonError: there is none (any more), or it can't be proven who it is
        """
        if self.path is None:
            raise DaemonError("nobody knows which pid file's daemon runs already")

        from .embedding import running

        return running(str(self.path))


class LockTimeout(StepError):
    """The lock was still held when the time was over; `pid` as in `AlreadyRunning`."""


class PidFileError(DaemonOSEnvironmentError):
    """The pid file can't be used: `path` and, where the system gave one, `errno` say why."""


class NotLocked(DaemonError):
    """Released without being held."""


class NotMyLock(DaemonError):
    """Released by a process that does not hold it."""


# Ours, and the one of ``lockfile`` that it is as well. Not among the names of this module, so that
# a program that names one comes to `__getattr__`.
_LOCK_ERRORS = {
    kind.__name__: (kind, theirs)
    for kind, theirs in (
        (AlreadyRunning, "AlreadyLocked"),
        (LockTimeout, "LockTimeout"),
        (PidFileError, "LockFailed"),
        (NotLocked, "NotLocked"),
        (NotMyLock, "NotMyLock"),
    )
}
for _name in _LOCK_ERRORS:
    del globals()[_name]


def __getattr__(name: str) -> type[DaemonError]:
    if name not in _LOCK_ERRORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import lockfile  # noqa: F401

    return lock_class(name)


def join_lockfile() -> None:
    """Where ``lockfile`` is imported, let the classes be its own as well."""
    lockfile = sys.modules.get("lockfile")
    if lockfile is None:
        return
    for kind, theirs in _LOCK_ERRORS.values():
        base = getattr(lockfile, theirs, None)
        if base is not None and base not in kind.__bases__:
            kind.__bases__ = (*kind.__bases__, base)


def lock_class(name: str) -> type[DaemonError]:
    """The class of that name, without importing ``lockfile`` for it."""
    join_lockfile()
    return _LOCK_ERRORS[name][0]


def lock_error(kind: str, text: str, **facts: Any) -> DaemonError:
    """An error of that class about a pid file."""
    return lock_class(kind)(text, **facts)


def is_lock_error(error: DaemonError) -> bool:
    """Whether it is about a pid file."""
    return type(error).__name__ in _LOCK_ERRORS


def from_lockfile(error: Exception, pidfile: object) -> DaemonError | None:
    """The error of ours for one that another library's pid file raised; None if it is no such."""
    lockfile = sys.modules.get("lockfile")
    for theirs, ours in (
        ("AlreadyLocked", "AlreadyRunning"),
        ("LockTimeout", "LockTimeout"),
        ("LockError", "PidFileError"),
    ):
        if lockfile is not None and isinstance(error, getattr(lockfile, theirs)):
            path = getattr(pidfile, "path", None)
            said = str(error) or type(error).__name__
            text = f"cannot enter the pid file {pidfile!r}: {said}"
            return lock_error(ours, text, path=path if isinstance(path, str) else None)
    return None


def text_of(error: BaseException) -> str:
    """The error's text, also where its ``__str__`` fails, which must not hide the error."""
    try:
        return str(error)
    except Exception:
        return "(its text can't be made)"


def by_name(name: str) -> type[DaemonError] | None:
    """The class of that name, if a report may name it: never anything but our own."""
    if name in _LOCK_ERRORS:
        return lock_class(name)
    kind = globals().get(name)
    return kind if isinstance(kind, type) and issubclass(kind, DaemonError) else None


def refuse(option: str, value: object, expected: str) -> OptionError:
    """The error for a value that can't be used."""
    return OptionError(f"{option}={value!r} can't be used: expected {expected}")


def warn(text: str, kind: type[Warning]) -> None:
    """Warn at the line of the program's own that has called us, from however deep below it."""
    import warnings

    frame, level = sys._getframe(1), 2  # noqa: SLF001 - no public one is as cheap
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, kind, stacklevel=level)
