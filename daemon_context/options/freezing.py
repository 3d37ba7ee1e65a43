"""The options that are not at their defaults: checked and resolved.

All of it happens in the launching process when `open()` starts, so that a bad value is refused
before anything has changed, and neither ``chdir``, ``chroot`` nor a change of owner can give a
path or a name another meaning afterwards. Loaded when such an option is assigned: what is at its
default needs no check.
"""

from __future__ import annotations

import os
from io import IOBase

from ..errors import refuse
from ..system import SIGNALS, signal, signal_name
from ..system.paths import absolute_path, text_path
from . import Given, default_signal_map
from .frozen import Target
from .frozen import freeze as freeze

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


LARGEST_FD = 0x7FFFFFFF  # a C int


def checked(given: Given, name: str, value: Any) -> Any:
    """What the option of that name means.

    :raises OptionError: names the option, the value and what is expected
    """
    if name == "working_directory":
        return _working_directory(value, _path("chroot_directory", given.chroot_directory))
    if name in ("stdin", "stdout", "stderr"):
        return _target(name, value)
    if name == "signal_map":
        return _signal_map(given)
    return CHECKS[name](name, value)


def flag(option: str, value: object) -> bool:
    if value is True or value is False or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise refuse(option, value, "True or False")


def _recorded(option: str, value: object) -> bool:
    return callable(value) or flag(option, value)


def _choice(option: str, value: object) -> str:
    if isinstance(value, str) and value in CHOICES[option]:
        return value
    raise refuse(option, value, " or ".join(map(repr, CHOICES[option])))


def _seconds(option: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9:
        return float(value)
    raise refuse(option, value, "None or a positive number of seconds")


def _pause(option: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    raise refuse(option, value, "a number of seconds, or 0 for none")


def _umask(option: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    raise refuse(option, value, "None or a number from 0 to 0o777, such as 0o022")


def _path(option: str, value: object) -> str | None:
    return None if value is None else absolute_path(option, value)


def lasting(value: Any) -> Any:
    """What an iterator gives, it gives once: keep it, for after `explain` or a failed start.

    :raises OptionError: it can't be read
    """
    if not hasattr(value, "__next__") or hasattr(value, "fileno"):
        return value
    try:
        return tuple(value)
    except Exception as error:  # whatever the items' owner raises
        raise refuse("an iterator", value, "one that can be read") from error


def _working_directory(value: object, chroot: str | None) -> str | int | None:
    """With a chroot, a relative directory is relative to the new root."""
    if value is None:
        return None
    if isinstance(value, int):
        return _directory(value, chroot)
    path = text_path("working_directory", value)
    if chroot is not None:
        return os.path.normpath(os.path.join("/", path))
    return absolute_path("working_directory", path)


def _directory(fd: int, chroot: str | None) -> int:
    """A descriptor that is open; whether it is one of a directory, the step will check."""
    if isinstance(fd, bool) or not 0 <= fd <= LARGEST_FD:
        raise refuse("working_directory", fd, "a path or the descriptor of an open directory")
    if chroot is not None:
        expected = "a path: with a chroot, a descriptor could lead out of the new root"
        raise refuse("working_directory", fd, expected)
    try:
        os.fstat(fd)
    except OSError:
        expected = f"an open directory (descriptor {fd} is not open)"
        raise refuse("working_directory", fd, expected) from None
    return fd


def _pidfile(option: str, value: Any) -> Any:
    # Paths first: until Python 3.12 a pathlib.Path is a context manager as well.
    if isinstance(value, (str, bytes, os.PathLike)):
        from ..pidfile import PidFile

        return PidFile(value)
    if getattr(type(value), "__enter__", None) is IOBase.__enter__:
        expected = "None, a path or a PidFile; an open file locks nothing: give its path"
        raise refuse(option, value, expected)
    enters = hasattr(value, "__enter__") and hasattr(value, "__exit__")
    if value is None or (enters and not isinstance(value, type)):
        return value
    raise refuse(option, value, "None, a path, a PidFile or another context manager")


def descriptor_of(option: str, item: Any) -> int | None:
    """The descriptor that an item stands for; None for a file that lives in memory."""
    if isinstance(item, int) and not isinstance(item, bool):
        number = item
    elif hasattr(item, "fileno"):
        try:
            number = item.fileno()
        except OSError:  # io.UnsupportedOperation: nothing there that could be closed
            return None
        except Exception as error:
            raise refuse(option, item, f"an open file (its fileno() says: {error})") from None
    else:
        raise refuse(option, item, "a descriptor (0 or more) or an object with a fileno()")
    if not isinstance(number, int) or not 0 <= number <= LARGEST_FD:
        raise refuse(option, item, "an open file or a descriptor of 0 or more")
    return number


def _preserved(option: str, items: Any) -> frozenset[int]:
    if hasattr(items, "fileno"):  # a file is an iterable as well: of its lines
        raise refuse(option, items, "an iterable, such as a list with that file in it")
    try:
        members = () if items is None else tuple(items)
    except Exception as error:  # whatever the items' owner raises
        raise refuse(option, items, "None or an iterable of files and descriptors") from error
    if {*map(type, members)} == {int} and 0 <= min(members) <= max(members) <= LARGEST_FD:
        return frozenset(members)  # thousands of them pass quickly
    found = (descriptor_of(option, item) for item in members if item is not None)
    return frozenset(fd for fd in found if fd is not None)


def _target(option: str, value: Any) -> Target:
    if isinstance(value, (str, bytes, os.PathLike)):
        return Target(option, "path", path=absolute_path(option, value))
    if not isinstance(value, int) and not hasattr(value, "fileno"):
        if hasattr(value, "read" if option == "stdin" else "write"):
            return Target(option, "object", file=value)
        raise refuse(option, value, "None, a path, a descriptor or a file object")
    fd = descriptor_of(option, value)
    if fd is None:
        return Target(option, "object", file=value)
    try:
        os.fstat(fd)
    except OSError:
        raise refuse(option, value, f"an open file (descriptor {fd} is not open)") from None
    return Target(option, "descriptor", fd=fd)


def _signal_map(given: Given) -> dict[int, Any]:
    asked = default_signal_map() if given.signal_map is None else given.signal_map
    try:
        items = dict(asked).items()
    except Exception as error:  # whatever a mapping of the program's own raises
        raise refuse("signal_map", asked, "a mapping of signal numbers to targets") from error
    return {_signal(number, target): _handler(given, number, target) for number, target in items}


def _signal(number: Any, target: Any) -> int:
    if not isinstance(number, int) or number not in SIGNALS:
        raise refuse(
            "signal_map", {number: target}, "the number of a signal, such as signal.SIGHUP"
        )
    if number in (signal.SIGKILL, signal.SIGSTOP):
        raise refuse(
            "signal_map",
            {signal_name(number): target},
            "signals that can be caught; this one can't",
        )
    return int(number)


def _handler(given: Given, number: int, target: Any) -> Any:
    """PEP 3143: None ignores, a string names an attribute of the context, else the handler."""
    key = signal_name(number)
    if target is None:
        return signal.SIG_IGN
    if isinstance(target, str):
        handler = getattr(given, target, None)
        if not callable(handler):
            raise refuse(
                "signal_map", {key: target}, "the name of a method of the context, as 'terminate'"
            )
        return handler
    if callable(target):
        return target
    for plain in (signal.SIG_IGN, signal.SIG_DFL):
        if target == plain and not isinstance(target, bool):
            return plain  # not the enum's member, which `_signal` does not know
    raise refuse("signal_map", {key: target}, "None, a method's name or a callable")


CHOICES = {"readiness": ("open", "explicit"), "threads": ("warn", "refuse", "ignore")}
CHECKS = {
    "chroot_directory": _path,
    "umask": _umask,
    "initgroups": flag,
    "prevent_core": flag,
    "files_preserve": _preserved,
    "pidfile": _pidfile,
    "readiness": _choice,
    "settle": _pause,
    "start_timeout": _seconds,
    "threads": _choice,
    "preserve_logging": flag,
    "record_trace": _recorded,
}
