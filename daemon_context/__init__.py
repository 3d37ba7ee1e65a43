"""Turn the running Python program into a well-behaved Unix daemon (PEP 3143).

The start is a visible sequence of small step objects: read `DaemonContext.open`, then
`daemon_context.sequence.perform`, then `DEFAULT_STEPS`.
"""

from __future__ import annotations

from .context import DaemonContext
from .options import default_signal_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .daemon import Daemon as Daemon
    from .embedding import running as running
    from .errors import AlreadyRunning as AlreadyRunning
    from .errors import DaemonError as DaemonError
    from .errors import DaemonOSEnvironmentError as DaemonOSEnvironmentError
    from .errors import DaemonProcessDetachError as DaemonProcessDetachError
    from .errors import LockTimeout as LockTimeout
    from .errors import OptionError as OptionError
    from .errors import PidFileError as PidFileError
    from .errors import SequenceError as SequenceError
    from .errors import StartError as StartError
    from .errors import StepError as StepError
    from .manager.sockets import listen_fds as listen_fds
    from .pidfile import PidFile as PidFile
    from .sequence.step import Step as Step
    from .sequence.step import Steps as Steps
    from .steps import DEFAULT_STEPS as DEFAULT_STEPS
    from .steps.keyring import NewSessionKeyring as NewSessionKeyring
    from .steps.reaping import ReapChildren as ReapChildren

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_STEPS",
    "AlreadyRunning",
    "Daemon",
    "DaemonContext",
    "DaemonError",
    "DaemonOSEnvironmentError",
    "DaemonProcessDetachError",
    "LockTimeout",
    "NewSessionKeyring",
    "OptionError",
    "PidFile",
    "PidFileError",
    "ReapChildren",
    "SequenceError",
    "StartError",
    "Step",
    "StepError",
    "Steps",
    "default_signal_map",
    "listen_fds",
    "running",
]

# Imported when they are named; `lockfile`, behind AlreadyRunning, is heavy.
_LATE = {
    "DEFAULT_STEPS": "steps",
    "AlreadyRunning": "errors",
    "Daemon": "daemon",
    "DaemonError": "errors",
    "DaemonOSEnvironmentError": "errors",
    "DaemonProcessDetachError": "errors",
    "LockTimeout": "errors",
    "NewSessionKeyring": "steps.keyring",
    "OptionError": "errors",
    "PidFile": "pidfile",
    "PidFileError": "errors",
    "ReapChildren": "steps.reaping",
    "SequenceError": "errors",
    "StartError": "errors",
    "Step": "sequence.step",
    "StepError": "errors",
    "Steps": "sequence.step",
    "listen_fds": "manager.sockets",
    "running": "embedding",
}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{_LATE[name]}", fromlist=[name])
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
