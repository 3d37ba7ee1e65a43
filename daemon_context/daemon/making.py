"""The context of a daemon, made of the daemon's attributes."""

from __future__ import annotations

import os
from types import MappingProxyType

from ..context import DaemonContext
from ..control.statusfile import StatusFile, path_of
from ..errors import DaemonError, refuse
from ..options import default_signal_map
from ..options.freezing import lasting
from ..pidfile import PidFile
from ..system import signal
from ..system.descriptors import is_open
from .openstatus import with_status
from .refusals import require_known
from .serving import Serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULTS = {"umask": 0o022, "settle": 0.3}

# In the foreground, where they are settings of the unit or the container: UMask=,
# WorkingDirectory=, LimitCORE=.
AS_GIVEN = {"umask": None, "working_directory": None, "prevent_core": False}


class Making(Serving):
    """The part of `Daemon` that has its options."""

    # Class-level, so that a subclass need not call our __init__; it only has to have a pid file.
    pidfile: Any = None
    stdin: Any = None
    stdout: Any = None
    stderr: Any = None
    options: Mapping[str, Any] = MappingProxyType({})
    #: Whether streams given as paths are used in the foreground, too.
    foreground_streams = False

    def _require_outside(self) -> None:
        if self._is_daemon():
            raise DaemonError(
                "this process is the daemon already; have another one start it anew, or replace "
                "the program by os.execv()",
                pid=os.getpid(),
            )

    def _lock(self) -> PidFile:
        if self._context is not None and self._context.is_open:
            lock: PidFile = self._context.pidfile  # a relative path would name another file here
            return lock
        return self.pidfile if isinstance(self.pidfile, PidFile) else PidFile(self.pidfile)

    def _log(self) -> str:
        """Where the daemon says what ends it, if that is a file."""
        path = self._streams()["stderr"]
        return os.path.abspath(os.fsdecode(path)) if _is_path(path) else ""

    def _make_context(self, *, detach: bool = True) -> DaemonContext:
        self._require_outside()
        lock = self._lock()
        if not lock.in_parts:  # the launcher must hold it when it replaces the status file
            lock = PidFile(lock.path, lock.timeout)
        self._said = StatusFile(path_of(lock.path))
        require_known(self.options)
        self.options = {name: lasting(value) for name, value in self.options.items()}
        options = {**(DEFAULTS if detach else AS_GIVEN), **self.options}
        options["signal_map"] = self._signal_map(options.get("signal_map"))
        options["steps"] = with_status(options.get("steps"), self._said)
        streams = self._streams()
        if not detach:
            streams = _kept_streams(streams, paths=self.foreground_streams)
        forced = detach and options.get("detach_process") == "force"
        self._explicit = options.get("readiness") == "explicit"
        if options.get("readiness") in (None, "open"):
            options["readiness"] = "explicit"  # after setup(), which is ours to say
        options.update(streams, detach_process="force" if forced else detach, pidfile=lock)
        context = DaemonContext(**options)
        context.on_round, context.on_wait = self._reload_if_due, self.on_wait
        context.serves = True
        return context

    def _streams(self) -> dict[str, Any]:
        """A traceback lands where the output goes."""
        follows = self.stderr is None and _is_path(self.stdout)
        stderr = self.stdout if follows else self.stderr
        return {"stdin": self.stdin, "stdout": self.stdout, "stderr": stderr}

    def _signal_map(self, given: Any) -> dict[int, Any]:
        """Ours, then what is given; a name is that of a method of the daemon, or of the context."""
        try:
            own = dict(given or {})
        except (TypeError, ValueError) as error:
            raise refuse("signal_map", given, "a mapping of signal numbers to targets") from error
        merged = {
            **default_signal_map(),
            signal.SIGTERM: self._on_terminate,
            signal.SIGHUP: self._on_hangup,
            **own,
        }
        return {
            number: getattr(self, target, target) if isinstance(target, str) else target
            for number, target in merged.items()
        }


def _kept_streams(streams: dict[str, Any], *, paths: bool) -> dict[str, Any]:
    """In the foreground, a stream stays as it is: one that is not given, and one that is a path
    unless these are wanted.
    """
    return {
        name: number if is_open(number) and _stays(given, paths) else given
        for number, (name, given) in enumerate(streams.items())
    }


def _stays(given: Any, paths: bool) -> bool:
    return given is None or (_is_path(given) and not paths)


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, bytes, os.PathLike))
