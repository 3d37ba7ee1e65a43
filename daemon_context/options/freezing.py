"""The options of one start: normalised, validated, resolved and frozen.

All of it happens in the launching process when `open()` starts, so that a bad value is refused
before anything has changed, and neither ``chdir``, ``chroot`` nor a change of owner can give a
path or a name another meaning afterwards.
"""

from __future__ import annotations

import os
import sys
from io import IOBase

from ..errors import OptionError, refuse
from ..manager import Supervisor
from ..system.own import is_main_thread
from ..system.paths import absolute_path, text_path
from ..system.processes import SIGNALS, signal, signal_name
from . import Given, default_signal_map
from .frozen import Options, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


STREAMS = ("stdin", "stdout", "stderr")
LARGEST_FD = 0x7FFFFFFF  # a C int


def freeze(
    given: Given, *, forks: bool = True, goes_on: bool = False, always: bool = False
) -> Options:
    """Check and resolve every option.

    :param forks: whether the sequence has the step `detach`
    :param goes_on: whether the launching process does
    :param always: for `spawn`, which always detaches

    :raises OptionError: names the option, the value and what is expected
    """
    if not goes_on:
        _require_place()
    supervisor = _detachment(given._detach_process, forks=forks, always=always)
    if goes_on and not supervisor.detach:
        _require_place()
    chroot = _path("chroot_directory", given.chroot_directory, optional=True)
    keep = given._detach_process is None and not supervisor.detach
    streams = {option: _target(option, getattr(given, option), keep=keep) for option in STREAMS}
    return Options(
        chroot_directory=chroot,
        working_directory=_working_directory(given.working_directory, chroot),
        umask=_umask(given.umask),
        prevent_core=_flag("prevent_core", given.prevent_core),
        record_trace=_recorded(given.record_trace),
        detach_process=supervisor.detach and forks,
        goes_on=goes_on,
        supervisor=supervisor,
        files_preserve=_preserved(given.files_preserve),
        pidfile=_pidfile(given.pidfile),
        signal_map=_signal_map(given),
        readiness=_choice("readiness", given.readiness, ("open", "explicit")),
        settle=_pause("settle", given.settle),
        start_timeout=_seconds("start_timeout", given.start_timeout),
        threads=_choice("threads", given.threads, ("warn", "refuse", "ignore")),
        preserve_logging=_flag("preserve_logging", given.preserve_logging),
        **streams,
        **_owner(given),
    )


def _owner(given: Given) -> dict[str, Any]:
    """Whom to become. Most daemons stay who they are, and need no look into the databases."""
    initgroups = _flag("initgroups", given.initgroups)
    uid, gid = os.getuid(), os.getgid()
    if initgroups or _is_elevated() or given._uid is not None or given._gid is not None:
        from .owner import resolve_owner

        return resolve_owner(given)
    return {
        "uid": uid,
        "gid": gid,
        "initgroups": False,
        "user": None,
        "home": None,
        "groups": None,
        "owner_changes": False,
    }


def _is_elevated() -> bool:
    """Whether real, effective and saved ids differ, as in a setuid program."""
    if not hasattr(os, "getresuid"):
        return (os.getuid(), os.getgid()) != (os.geteuid(), os.getegid())
    return len({*os.getresuid()}) > 1 or len({*os.getresgid()}) > 1


def _require_place() -> None:
    """Forking inside an event loop or a thread leaves a daemon that can't work."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise OptionError(
            "open() was called inside a running asyncio loop, whose descriptors the daemon would "
            "not have; open the context first, and call asyncio.run() in it"
        )
    if not is_main_thread():
        raise OptionError(
            "open() was called outside the main thread, where no signal handlers can be set and "
            "no exit handlers run; call it in the main thread"
        )


def _flag(option: str, value: object) -> bool:
    if value is True or value is False or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise refuse(option, value, "True or False")


def _recorded(value: object) -> bool:
    return callable(value) or _flag("record_trace", value)


def _choice(option: str, value: object, choices: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in choices:
        return value
    raise refuse(option, value, " or ".join(map(repr, choices)))


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


def _umask(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    raise refuse("umask", value, "a number from 0 to 0o777")


def _path(option: str, value: object, *, optional: bool = False) -> str | None:
    if value is None and optional:
        return None
    return absolute_path(option, value)


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


def _working_directory(value: object, chroot: str | None) -> str:
    """With a chroot, a relative directory is relative to the new root."""
    path = text_path("working_directory", value)
    if chroot is not None:
        return os.path.normpath(os.path.join("/", path))
    return absolute_path("working_directory", path)


def _detachment(given: object, *, forks: bool, always: bool) -> Supervisor:
    if given is None and not always:
        from ..manager.supervisor import detect

        return detect()
    detach = _flag("detach_process", given) if given is not None else True
    if always:
        if not forks:
            raise OptionError(
                "spawn() always detaches, and the sequence has no 'detach': leave that step in"
            )
        return Supervisor("not asked", True, "spawn always detaches")
    return Supervisor("not asked", detach, f"detach_process={detach} was given")


def _pidfile(value: Any) -> Any:
    # Paths first: until Python 3.12 a pathlib.Path is a context manager as well.
    if isinstance(value, (str, bytes, os.PathLike)):
        from ..pidfile import PidFile

        return PidFile(value)
    if getattr(type(value), "__enter__", None) is IOBase.__enter__:
        expected = "None, a path or a PidFile; an open file locks nothing: give its path"
        raise refuse("pidfile", value, expected)
    enters = hasattr(value, "__enter__") and hasattr(value, "__exit__")
    if value is None or (enters and not isinstance(value, type)):
        return value
    raise refuse("pidfile", value, "None, a path, a PidFile or another context manager")


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


def _preserved(items: Any) -> frozenset[int]:
    if hasattr(items, "fileno"):  # a file is an iterable as well: of its lines
        raise refuse("files_preserve", items, "an iterable, such as a list with that file in it")
    try:
        members = () if items is None else tuple(items)
    except Exception as error:  # whatever the items' owner raises
        raise refuse(
            "files_preserve", items, "None or an iterable of files and descriptors"
        ) from error
    if {*map(type, members)} == {int} and 0 <= min(members) <= max(members) <= LARGEST_FD:
        return frozenset(members)  # thousands of them pass quickly
    found = (descriptor_of("files_preserve", item) for item in members if item is not None)
    return frozenset(fd for fd in found if fd is not None)


def _target(option: str, value: Any, *, keep: bool) -> Target:
    if value is None:
        return Target(option, "keep" if keep else "null")
    if isinstance(value, (str, bytes, os.PathLike)):
        return Target(option, "path", path=_path(option, value) or "")
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
