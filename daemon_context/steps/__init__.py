"""The stock steps. `DEFAULT_STEPS` is the order of a start; there is no other list of it."""

from __future__ import annotations

from ..sequence.step import Steps
from .coordination import EnterPidfile, LockPidfile, ReportReady, WritePidfile
from .descriptors import CloseDescriptors, FlushStreams
from .detach import Detach
from .streams import OpenStreams, RedirectStreams
from .surroundings import (
    ChangeDirectory,
    ChangeOwner,
    ChangeRoot,
    InstallSignals,
    PreventCore,
    SetUmask,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .keyring import NewSessionKeyring as NewSessionKeyring

DEFAULT_STEPS = Steps(
    (
        FlushStreams(),
        LockPidfile(),
        OpenStreams(),
        Detach(),
        CloseDescriptors(),
        ChangeRoot(),
        SetUmask(),
        ChangeDirectory(),
        WritePidfile(),
        ChangeOwner(),
        PreventCore(),
        InstallSignals(),
        RedirectStreams(),
        EnterPidfile(),
        ReportReady(),
    )
)

__all__ = [
    "DEFAULT_STEPS",
    "ChangeDirectory",
    "ChangeOwner",
    "ChangeRoot",
    "CloseDescriptors",
    "Detach",
    "EnterPidfile",
    "FlushStreams",
    "InstallSignals",
    "LockPidfile",
    "NewSessionKeyring",
    "OpenStreams",
    "PreventCore",
    "RedirectStreams",
    "ReportReady",
    "SetUmask",
    "WritePidfile",
]


def __getattr__(name: str) -> object:
    if name != "NewSessionKeyring":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .keyring import NewSessionKeyring  # it imports ctypes, which the others do without

    return NewSessionKeyring
