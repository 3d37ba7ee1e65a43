"""The options of one start, frozen: what the steps read. Made by `freezing`."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ..manager import Supervisor
    from ..pidfile import PidFile


class Options:
    """The frozen options: PEP 3143's names, each with its resolved value.

    Beside them: ``user``, ``home`` (of the new uid, or None), ``groups`` (the supplementary groups
    to set, or None to keep them), ``owner_changes``, ``supervisor`` (who started us, and the
    reason for `detach_process`), and ``preserved`` (all descriptors that stay open).
    """

    chroot_directory: str | None
    working_directory: str
    umask: int
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
