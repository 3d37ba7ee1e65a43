"""What a start is asked for: given here, then read, checked, resolved and `frozen`.

What belongs here: the options, their defaults, and whom they mean (`owner`). What does not: what is
done with them.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..manager import Supervisor
    from .frozen import Options as Options
    from .frozen import Target as Target
else:
    import _signal as signal  # see `daemon_context.system`


def default_signal_map() -> dict[int, str | None]:
    """PEP 3143's default: SIGTSTP, SIGTTIN, SIGTTOU ignored, SIGTERM → ``"terminate"``.

    A new dictionary each time, to be extended.
    """
    names = {"SIGTSTP": None, "SIGTTIN": None, "SIGTTOU": None, "SIGTERM": "terminate"}
    return {
        getattr(signal, name): target for name, target in names.items() if hasattr(signal, name)
    }


# Of what needs no check as long as it is so.
DEFAULTS: dict[str, Any] = {
    "chroot_directory": None,
    "working_directory": "/",
    "umask": 0,
    "initgroups": False,
    "prevent_core": True,
    "files_preserve": None,
    "pidfile": None,
    "stdin": None,
    "stdout": None,
    "stderr": None,
    "signal_map": None,
    "readiness": "open",
    "settle": 0,
    "start_timeout": None,
    "threads": "warn",
    "preserve_logging": True,
    "record_trace": False,
}


def is_default(name: str, value: object) -> bool:
    """Whether that option, if it is one, is at its default."""
    default = DEFAULTS.get(name, value)
    return value is default or (name == "signal_map" and value == default_signal_map())


class Given:
    """The options of PEP 3143, and ours, as attributes that can be read and assigned.

    :param chroot_directory: path of the daemon's root directory, or None
    :param working_directory: path, with a chroot relative to the new root; or the descriptor of a
        directory, which stays open; None: left as it is
    :param umask: file creation mask, 0 to 0o777; None: left as it is
    :param uid: user number or name; None: the real user of the process
    :param gid: group number or name; None: the primary group of a changed `uid`, else the real one
    :param initgroups: whether the new user's supplementary groups are set; otherwise none but `gid`
    :param prevent_core: whether core dumps are prevented
    :param detach_process: True, False, or None: decided by who started us (see `supervisor`);
        ``"force"`` detaches also where who started us would take the daemon for ended
    :param files_preserve: descriptors and file objects that stay open, from any iterable
    :param pidfile: path, `PidFile`, or any context manager, which is entered in the daemon
    :param stdin: file object, descriptor or path; None is ``/dev/null``
    :param stdout: the same; a path is appended to
    :param stderr: the same
    :param signal_map: signal number → None (ignore), name of a method of the context, or handler;
        replaces `default_signal_map`
    :param readiness: ``"open"``: the daemon is ready when `open` returns in it; ``"explicit"``:
        when the body calls `ready`
    :param settle: with ``"open"``, seconds that the body must live, or have ended well, for the
        daemon to be ready: what ends it before is a failed start. 0: none
    :param start_timeout: seconds after which a start that is not ready is cancelled, or None
    :param threads: ``"warn"``, ``"refuse"`` or ``"ignore"`` threads that the daemon will not have
    :param preserve_logging: whether log handlers on regular files and sockets stay open
    :param steps: the sequence; None is `DEFAULT_STEPS`
    :param record_trace: whether `trace` tells what each step changed; or a function that gets each
        record at once, in the process in which it is made
    """

    def __init__(
        self,
        chroot_directory: Any = None,
        working_directory: Any = "/",
        umask: int | None = 0,
        uid: int | str | None = None,
        gid: int | str | None = None,
        initgroups: bool = False,
        prevent_core: bool = True,
        detach_process: bool | str | None = None,
        files_preserve: Iterable[Any] | None = None,
        pidfile: Any = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        signal_map: Mapping[int, Any] | None = None,
        *,
        readiness: str = "open",
        settle: float = 0,
        start_timeout: float | None = None,
        threads: str = "warn",
        preserve_logging: bool = True,
        steps: Iterable[Any] | None = None,
        record_trace: bool | Callable[[Any], None] = False,
    ) -> None:
        self.chroot_directory = chroot_directory
        self.working_directory = working_directory
        self.umask = umask
        self.uid = uid
        self.gid = gid
        self.initgroups = initgroups
        self.prevent_core = prevent_core
        self.detach_process = detach_process
        self.files_preserve = files_preserve
        self.pidfile = pidfile
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.signal_map: Any = default_signal_map() if signal_map is None else signal_map
        self.readiness = readiness
        self.settle = settle
        self.start_timeout = start_timeout
        self.threads = threads
        self.preserve_logging = preserve_logging
        self.record_trace = record_trace
        self.steps = steps

    # Class-level defaults, so that a subclass need not call our __init__ before it sets options.
    _steps: Any = None
    _uid: Any = None
    _gid: Any = None
    _detach_process: Any = None

    @property
    def uid(self) -> Any:
        """The user to become; as given, or the real one."""
        return os.getuid() if self._uid is None else self._uid

    @uid.setter
    def uid(self, value: Any) -> None:
        self._uid = value

    @property
    def gid(self) -> Any:
        """The group to become; as given, or the one that the default resolves to."""
        if self._gid is not None:
            return self._gid
        if self._uid is None:
            return os.getgid()
        from .owner import default_gid

        return default_gid(self._uid)

    @gid.setter
    def gid(self, value: Any) -> None:
        self._gid = value

    @property
    def detach_process(self) -> Any:
        """Whether to detach; as given, or decided by who started us."""
        return self.supervisor.detach if self._detach_process is None else self._detach_process

    @detach_process.setter
    def detach_process(self, value: Any) -> None:
        self._detach_process = value

    @property
    def supervisor(self) -> Supervisor:
        """Who started us, whether to detach, and the reason in words."""
        from ..manager.supervisor import detect

        return detect()


def __getattr__(name: str) -> Any:
    if name not in ("Options", "Target"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import frozen

    return getattr(frozen, name)
