"""The kernel: processes, signals, descriptors, credentials, paths. Knows nothing of daemons.

Here are the system's own calls, whatever a library of green threads has put in their place.

What eventlet and gevent put into `os` and `select` waits in a loop of theirs, which runs the
program's other code in the middle of a start, and has lost its descriptors in what was forked;
their thread identity is a green thread's.
"""

from __future__ import annotations

import os
import select
import sys
from _thread import get_native_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def is_own(function: object) -> bool:
    """Whether it is a function in C, as the system's calls are."""
    return type(function) is type(len)


def own(module: ModuleType, name: str) -> Any:
    """Of a module in C. Where a library has replaced or removed it, from a second copy."""
    found = getattr(module, name, None)
    if is_own(found) or module.__spec__ is None:
        return found
    from importlib.util import module_from_spec

    copy = module_from_spec(module.__spec__)
    assert module.__spec__.loader is not None
    module.__spec__.loader.exec_module(copy)
    return getattr(copy, name, None)


if TYPE_CHECKING:
    from os import fork as fork
    from os import read as read
    from os import waitid as waitid
    from os import waitpid as waitpid
    from os import write as write
    from select import poll as poll

    new_poll = poll
else:
    _posix = sys.modules[os.name]
    fork, read, write = getattr(_posix, "fork", None), _posix.read, _posix.write
    waitpid, waitid = _posix.waitpid, getattr(_posix, "waitid", None)
    new_poll = own(select, "poll")


def is_main_thread() -> bool:
    """Whether this is the main thread: the system's, of which every green thread is a part."""
    threading = sys.modules.get("threading")
    return (
        threading is None
        or get_native_id() == os.getpid()
        or threading.current_thread() is threading.main_thread()
    )


def reinit_loop() -> None:
    """In what was forked: gevent does this in its own fork, and asks others to (gevent.reinit)."""
    gevent = sys.modules.get("gevent")
    if gevent is not None:
        gevent.reinit()
