"""Daemons from outside: stopping one, having it reload, and what state it is in.

Only what is proven counts.
"""

from __future__ import annotations

from .reloading import TIMEOUT as RELOAD_TIMEOUT
from .reloading import NotRunning, NotTold, reload
from .status import Status, status_of
from .stopping import Stopped, stop
from .waiting import finish_stopping

__all__ = [
    "RELOAD_TIMEOUT",
    "NotRunning",
    "NotTold",
    "Status",
    "Stopped",
    "finish_stopping",
    "reload",
    "status_of",
    "stop",
]
