"""Where a start may take place, and where it would end or repeat what it is part of."""

from __future__ import annotations

import os
import sys

from ..errors import OptionError
from ..system import is_main_thread, of_proc


def require_place() -> None:
    """Forking inside an event loop or a thread leaves a daemon that can't work.

    :raises OptionError: it is such a place
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise OptionError(
            "open() was called inside a running asyncio loop, whose descriptors the daemon would "
            "not have; open the context first, and call asyncio.run() in it"
        )
    if not is_main_thread():
        raise OptionError(
            "open() was called outside the main thread, where no signal handlers can be set and "
            "no exit handlers run; call it in the main thread"
        )


def require_own_process(*, loaded_in: int, survives: bool) -> None:
    """A start takes the process that it is made in, which must be the program's own.

    :param loaded_in: the process in which this package was imported
    :param survives: whether this process goes on as it was, beside the daemon
    :raises OptionError: it is not
    """
    if _is_imported_again():
        raise OptionError(
            f"the program runs once more, in a child that process {os.getppid()} has started by "
            "multiprocessing (spawn or forkserver), and came to the start of its daemon again, "
            "which may be an ancestor of this process; put the start under "
            "if __name__ == '__main__':"
        )
    if not survives and _is_test_run(loaded_in):
        raise OptionError(
            "the context was opened in the process that runs pytest, which would become the "
            "daemon, or end with status 0 in the middle of its tests; in a test use spawn(), "
            "Daemon.start() or a program of its own (subprocess), or fork a child that opens it"
        )


def _is_imported_again() -> bool:
    """Whether multiprocessing is importing the main module, to find in it what a child runs."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and getattr(module.current_process(), "_inheriting", False)


def _is_test_run(loaded_in: int) -> bool:
    if "_pytest" not in sys.modules or os.getpid() != loaded_in or not _is_below("_pytest"):
        return False
    # What was forked without running another program, and has imported this package itself.
    mine = of_proc("self/cmdline")
    return mine is None or of_proc(f"{os.getppid()}/cmdline") != mine


def _is_below(package: str) -> bool:
    frame = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
