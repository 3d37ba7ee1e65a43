"""The options of one start, frozen: what the steps read, and who started us.

Most are at their defaults, which need no check; the others go through `freezing`.
"""

from __future__ import annotations

import os

from ..errors import OptionError
from ..manager import Supervisor, may_be_tracked
from ..system import signal
from . import DEFAULTS, default_signal_map, is_default
from .place import require_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ..pidfile import PidFile
    from . import Given


class Options:
    """The frozen options: PEP 3143's names, each with its resolved value.

    Beside them: ``user``, ``home`` (of the new uid, or None), ``groups`` (the supplementary groups
    to set, or None to keep them), ``owner_changes``, ``supervisor`` (who started us, and the
    reason for `detach_process`), ``goes_on`` (whether the launching process does), ``helper``
    (whether it is a daemon beside the program), and ``preserved`` (all descriptors that stay open).
    """

    chroot_directory: str | None
    working_directory: str | int | None
    umask: int | None
    uid: int
    gid: int
    initgroups: bool
    prevent_core: bool
    detach_process: bool
    files_preserve: frozenset[int]
    pidfile: Any
    stdin: Target
    stdout: Target
    stderr: Target
    signal_map: dict[int, Any]
    readiness: str
    settle: float
    start_timeout: float | None
    threads: str
    preserve_logging: bool
    record_trace: bool
    goes_on: bool
    helper: bool
    supervisor: Supervisor
    user: str | None
    home: str | None
    groups: tuple[int, ...] | None
    owner_changes: bool

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"the options are frozen since open() began; {name} can't be set")

    @property
    def pidfile_lock(self) -> PidFile | None:
        """The pid file, if it is one of ours; other context managers are entered in the daemon."""
        return self.pidfile if getattr(self.pidfile, "in_parts", False) else None

    @property
    def streams(self) -> tuple[Target, Target, Target]:
        """Where descriptors 0, 1 and 2 go."""
        return self.stdin, self.stdout, self.stderr


class Target:
    """Where a standard stream goes.

    ``kind`` is ``null`` (``/dev/null``), ``keep`` (as the supervisor gave it), ``path``,
    ``descriptor`` (of a given file), or ``object`` (a file without a descriptor: only the name
    in `sys` is bound to it).
    """

    __slots__ = ("fd", "file", "kind", "option", "path")

    def __init__(
        self, option: str, kind: str, path: str = os.devnull, fd: int = -1, file: Any = None
    ) -> None:
        self.option, self.kind, self.path, self.fd, self.file = option, kind, path, fd, file

    def __str__(self) -> str:
        if self.kind == "keep":
            return f"{self.option} as it is"
        if self.kind == "descriptor":
            return f"{self.option} to descriptor {self.fd}"
        return f"{self.option} to {self.path if self.kind != 'object' else self.file!r}"


STREAMS = ("stdin", "stdout", "stderr")


def freeze(
    given: Given,
    *,
    forks: bool = True,
    goes_on: bool = False,
    always: bool = False,
    serves: bool = False,
) -> Options:
    """Check and resolve every option.

    :param forks: whether the sequence has the step `detach`
    :param goes_on: whether the launching process does
    :param always: for `spawn`, which always detaches
    :param serves: whether the daemon is the program all the same, and not a helper beside it

    :raises OptionError: names the option, the value and what is expected
    """
    if not goes_on:
        require_place()
    asked = _detach(given._detach_process)
    helper = goes_on and not serves
    supervisor = _detachment(asked, always=always, serves=serves, helper=helper, forks=forks)
    if goes_on and not supervisor.detach:
        require_place()
    keep = asked is None and not supervisor.detach
    return Options(
        **{
            **DEFAULTS,
            "files_preserve": frozenset(),
            "signal_map": _default_signals(given),
            **{option: Target(option, "keep" if keep else "null") for option in STREAMS},
            **_given(given),
            **_owner(given),
        },
        detach_process=supervisor.detach and forks,
        goes_on=goes_on,
        helper=helper,
        supervisor=supervisor,
    )


def _given(given: Given) -> dict[str, Any]:
    """What is not at its default, checked."""
    asked = {name: getattr(given, name) for name in DEFAULTS}
    if all(map(is_default, asked, asked.values())):
        return {}
    from .freezing import checked  # loaded when the option was assigned

    found = {
        name: checked(given, name, value)
        for name, value in asked.items()
        if not is_default(name, value)
    }
    directory = found.get("working_directory")
    if isinstance(directory, int):  # it must be open when that is changed
        found["files_preserve"] = found.get("files_preserve", frozenset()) | {directory}
    return found


def _default_signals(given: Given) -> dict[int, Any]:
    """PEP 3143: None ignores, a string names a method of the context."""
    return {
        number: signal.SIG_IGN if name is None else getattr(given, name)
        for number, name in default_signal_map().items()
    }


def _detach(given: Any) -> bool | str | None:
    if given is None or given is True or given is False:
        return given
    from .freezing import flag

    return given if isinstance(given, str) and given == "force" else flag("detach_process", given)


def _detachment(
    given: bool | str | None, *, always: bool, serves: bool, helper: bool, forks: bool
) -> Supervisor:
    """Whether to detach, and why.

    :param given: None, a flag, or ``"force"``
    :param always: for `spawn`, which does in any case
    :param serves: whether the daemon is the program, though the launching process goes on
    :param helper: whether it is one beside the program
    :param forks: whether the sequence has the step for it
    :raises OptionError: what is given can't be right here
    """
    if given is None and not always:
        from ..manager.supervisor import detect

        return detect()
    if always and not forks:
        raise OptionError(
            "spawn() always detaches, and the sequence has no 'detach': leave that step in"
        )
    if (given or always) and forks and given != "force":
        _require_untracked(serves=serves, helper=helper)
    if always:
        return Supervisor("not asked", True, "spawn always detaches")
    return Supervisor("not asked", bool(given), f"detach_process={given} was given")


def _require_untracked(*, serves: bool, helper: bool) -> None:
    """Who is tracked by his pid, and detaches, has ended: refused before that goes unnoticed."""
    if helper or not may_be_tracked():
        return
    from ..manager.contradictions import contradiction
    from ..manager.facts import Facts

    if not (reason := contradiction(Facts())):
        return
    if serves:
        what, remedy = "cannot start", "use the verb run, or run_foreground(), in place of start"
    else:
        what = "detach_process=True was given"
        remedy = "set detach_process=False, or None, which finds out what is right"
    raise OptionError(f"{what}: {reason}; {remedy} ('force' as detach_process detaches regardless)")


def _owner(given: Given) -> dict[str, Any]:
    """Whom to become. Most daemons stay who they are, and need no look into the databases."""
    if not is_default("initgroups", given.initgroups) or _is_elevated() or _is_asked(given):
        from .owner import resolve_owner

        return resolve_owner(given)
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "initgroups": False,
        "user": None,
        "home": None,
        "groups": None,
        "owner_changes": False,
    }


def _is_asked(given: Given) -> bool:
    return given._uid is not None or given._gid is not None


def _is_elevated() -> bool:
    """Whether real, effective and saved ids differ, as in a setuid program."""
    if not hasattr(os, "getresuid"):
        return (os.getuid(), os.getgid()) != (os.geteuid(), os.getegid())
    return len({*os.getresuid()}) > 1 or len({*os.getresgid()}) > 1
