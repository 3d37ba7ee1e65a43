"""Turn the running Python program into a well-behaved Unix daemon (PEP 3143).

The start is a visible sequence of small step objects: read `DaemonContext.open`, then
`daemon_context.sequence.perform`, then `DEFAULT_STEPS`.
"""

from __future__ import annotations

from .context import DaemonContext, default_signal_map
from .errors import (
    DaemonError,
    DaemonOSEnvironmentError,
    DaemonProcessDetachError,
    OptionError,
    SequenceError,
    StartError,
    StepError,
)
from .step import Step, Steps
from .steps import DEFAULT_STEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .lockerrors import AlreadyRunning as AlreadyRunning
    from .pidfile import PidFile as PidFile

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_STEPS",
    "AlreadyRunning",
    "DaemonContext",
    "DaemonError",
    "DaemonOSEnvironmentError",
    "DaemonProcessDetachError",
    "OptionError",
    "PidFile",
    "SequenceError",
    "StartError",
    "Step",
    "StepError",
    "Steps",
    "default_signal_map",
]

# Named only by those who need them; `lockfile`, behind AlreadyRunning, is heavy.
_LATE = {"AlreadyRunning": "lockerrors", "PidFile": "pidfile"}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    globals()[name] = value
    return value
