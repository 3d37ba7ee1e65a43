"""The threads of this process, Python's and native: none but one will exist after a fork."""

from __future__ import annotations

import os
import sys
from _thread import get_native_id

from . import of_proc, poll

LOOKS, BETWEEN = 4, 0.005  # seconds


def live_threads() -> list[str]:
    """Names of all threads but this one."""
    threading = sys.modules.get("threading")
    python = [
        thread
        for thread in (threading.enumerate() if threading else ())
        # A green one is a part of this one, or has no number at all.
        if getattr(thread, "native_id", None) not in (None, get_native_id())
    ]
    known = {str(thread.native_id) for thread in python} | {str(os.getpid())}
    return [thread.name for thread in python] + [_name(task) for task in _others(known)]


def _others(known: set[str]) -> list[str]:
    """Tasks that Python does not know. One that has been joined a moment ago may still be seen."""
    others: set[str] | None = None
    for _ in range(LOOKS):
        try:
            tasks = set(os.listdir("/proc/self/task")) - known
        except OSError:
            return []
        others = tasks if others is None else others & tasks
        if not others:
            return []
        poll(set(), BETWEEN)
    return sorted(others or ())


def _name(task: str) -> str:
    name = of_proc(f"self/task/{task}/comm")
    return f"thread {task} (native)" if name is None else f"{name.strip()} (native)"
