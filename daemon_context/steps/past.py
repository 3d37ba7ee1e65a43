"""What comes into the fork from before and is of no use in the daemon: in words, with the remedy.

Imported by the launcher, and only where there is something to say.
"""

from __future__ import annotations

import os
import sys

from ..system import child_pids, of_proc, stat_fields
from ..system.descriptors import loops
from ..system.owners import objects_of
from ..system.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = 200  # characters of a name


def complaints(others: set[int]) -> Iterator[str]:
    """All that apply to this process, now.

    :param others: the descriptors that will be closed
    """
    yield from _loops(others)
    yield from _children()
    yield from _bundle()


def _loops(others: set[int]) -> Iterator[str]:
    """An epoll descriptor is the kernel's object of both processes; in the daemon it is closed."""
    if "gevent" in sys.modules:
        return  # it makes its loop anew in what is forked
    found = [f"{kind} (descriptor {fd})" for fd, kind in loops(others).items()]
    if found:
        hint = ""
        if "twisted.internet.reactor" in sys.modules:
            hint = "; twisted's reactor is made by its first import"
        yield (
            f"an event loop or watcher was made before the daemon: {', '.join(found)}, which is "
            f"closed there, so that the loop fails or spins: make it after open(){hint}"
        )


def _children() -> Iterator[str]:
    known = _expected()
    running = [_name(pid) for pid in child_pids() if pid in known and _runs(pid)]
    if running:
        yield (
            f"{len(running)} child process(es) run: {', '.join(running)}; they stay the "
            "launcher's, and in the daemon wait() and terminate() of their objects do nothing: "
            "start them after open()"
        )


def _expected() -> set[int]:
    """Those that an object of this program waits for."""
    module = sys.modules.get("subprocess")
    popens = [] if module is None else objects_of(module.Popen)
    found = {popen.pid for popen in popens if getattr(popen, "returncode", 0) is None}
    processes = getattr(sys.modules.get("multiprocessing.process"), "_children", ())
    return found | {process.pid for process in tuple(processes)}


def _runs(pid: int) -> bool:
    return (stat_fields(pid) or "Z")[0] != "Z"


def _name(pid: int) -> str:
    return f"{shown((of_proc(f'{pid}/comm') or 'a process').strip(), SHORT)} (pid {pid})"


def _bundle() -> Iterator[str]:
    """PyInstaller's, of one file: the launcher's parent has unpacked it, and removes it."""
    path = getattr(sys, "_MEIPASS", None)
    place = os.path.dirname(os.path.realpath(sys.executable))
    if path and os.path.commonpath([place, os.path.realpath(path)]) != place:
        yield (
            f"the program is frozen into one file, and its directory {path!r} is removed when the "
            "launcher ends: what the daemon imports or opens there later is gone; freeze it into "
            "a directory (PyInstaller: --onedir)"
        )
