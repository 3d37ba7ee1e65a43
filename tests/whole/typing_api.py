"""The public names as a typed program uses them; only mypy reads this file."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import assert_type

import lockfile

from daemon_context import (
    DEFAULT_STEPS,
    AlreadyRunning,
    DaemonContext,
    DaemonError,
    DaemonOSEnvironmentError,
    DaemonProcessDetachError,
    PidFile,
    Step,
    StepError,
    Steps,
    default_signal_map,
)
from daemon_context.options import Options
from daemon_context.pidfile import PIDLockFile, TimeoutPIDLockFile
from daemon_context.sequence import Walk


class Own(DaemonContext):
    """Published callers subclass, with own attributes and an own `terminate`."""

    requests: int = 0

    def terminate(self, signal_number: int, stack_frame: FrameType | None) -> None:
        raise SystemExit(self.requests)


class Nice(Step):
    """A step with a field."""

    def __init__(self, by: int) -> None:
        self.by = by

    def describe(self, options: Options) -> str:
        return f"be nicer by {self.by}, as {options.user or options.uid}"

    def apply(self, walk: Walk) -> int:
        return (walk.options.umask or 0) + self.by


def handler(signal_number: int, frame: FrameType | None) -> None:
    """As in a signal map."""


def positional() -> None:
    """PEP 3143's options, in python-daemon's order."""
    DaemonContext(None, "/", 0o022, 1, 1, False, True, None, [3], None, None, sys.stdout)


def keywords() -> None:
    """The rest, and assigning after construction."""
    context = Own(
        chroot_directory=Path("/srv"),
        uid="nobody",
        files_preserve=range(1024),
        pidfile=TimeoutPIDLockFile("/run/a.pid", 10),
        stdout="/var/log/a.log",
        readiness="explicit",
        start_timeout=30,
        threads="refuse",
        preserve_logging=False,
        steps=DEFAULT_STEPS.insert_after("detach", Nice(5)).remove("prevent-core"),
    )
    context.signal_map = {**default_signal_map(), signal.SIGHUP: handler, signal.SIGINT: None}
    context.files_preserve = {sys.stderr}
    context.pidfile = PIDLockFile("/run/a.pid")
    with context as daemon:
        assert_type(daemon, Own)
        assert_type(daemon.requests, int)
        daemon.ready()
        assert_type(daemon.sleep(1), bool)
        for count in daemon.every(0.5):
            assert_type(count, int)
    assert_type(context.is_open, bool)
    assert_type(context.supervisor.reason, str)
    for row in context.explain():
        assert_type(row.needed, bool)


def steps() -> None:
    """The sequence."""
    assert_type(DEFAULT_STEPS, Steps)
    assert_type(DEFAULT_STEPS.names, tuple[str, ...])
    assert_type(DEFAULT_STEPS["detach"], Step)


def pid_file() -> None:
    """The owner and the lock."""
    with PidFile("/run/a.pid", timeout=1) as lock:
        assert_type(lock, PidFile)
        assert_type(lock.owner(), int | None)
        assert_type(lock.holder().state, str)


def errors() -> None:
    """What can be caught, and what the errors carry."""
    try:
        DaemonContext().open()
    except AlreadyRunning as error:
        assert_type(error.pid, int | None)
    except lockfile.LockTimeout:
        pass
    except (DaemonOSEnvironmentError, DaemonProcessDetachError, OSError):
        pass
    except StepError as error:
        assert_type(error.step, str | None)
    except DaemonError as error:
        assert_type(error.path, str | None)
