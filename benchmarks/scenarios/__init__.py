"""The scenarios: each a function that measures one thing and returns its tables and plots."""

from __future__ import annotations

from collections.abc import Callable

from ..bench import Bench
from ..figures import Outcome
from .code import code
from .counts import counts
from .growth import descriptors, heap, limits
from .pidfiles import lock, race, refused
from .running import idle, memory, stop
from .starts import detach, imports, launch

ALL: dict[str, Callable[[Bench], Outcome]] = {
    "import": imports,
    "launch": launch,
    "detach": detach,
    "limit": limits,
    "descriptors": descriptors,
    "heap": heap,
    "memory": memory,
    "lock": lock,
    "race": race,
    "refused": refused,
    "stop": stop,
    "idle": idle,
    "counts": counts,
    "code": code,
}
