"""Make the objects, become a daemon, use them: what comes of it."""

from __future__ import annotations

import gc
import os
import warnings
from typing import Any

from daemon_context import DaemonContext
from tests.helpers.holders.cases import CASES
from tests.helpers.launching import report

FRESH = 40  # new files in the daemon: more than there are numbers that could be free


def double_fork() -> None:
    """As the tutorials do it: two forks, and everything closed that a number can stand for."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(0)
    for fd in range(os.sysconf("SC_OPEN_MAX")):
        try:
            os.close(fd)
        except OSError:
            pass
    os.open(os.devnull, os.O_RDWR)
    os.dup2(0, 1)
    os.dup2(0, 2)


def examine(name: str, how: str) -> None:
    """Make the objects, become a daemon, open new files, use the objects, and collect them."""
    case = CASES[name]
    preserve, use = case.make()
    closed: list[Any] = []
    if how == "naive":
        double_fork()
    else:
        # Event loops and children from before are what this is about: see test_past for the words.
        warnings.simplefilter("ignore", RuntimeWarning)
        context = DaemonContext(
            working_directory=".",
            detach_process=True,
            files_preserve=preserve if how == "preserved" and case.kind != "always" else None,
            preserve_logging=how == "preserved",
            threads="ignore",  # one that was joined may need a moment to end
        )
        context.open()
        closed = [(item.fd, item.what, item.owner) for item in context.closed_descriptors]
    fresh = {
        os.open(f"fresh-{number}", os.O_RDWR | os.O_CREAT | os.O_EXCL): f"fresh-{number}"
        for number in range(FRESH)
    }
    try:
        use()
        used = ""
    except Exception as error:
        used = f"{type(error).__name__}: {error}"
    del preserve, use, case
    CASES.clear()
    gc.collect()
    spoilt = [path for fd, path in fresh.items() if not _intact(fd, path)]
    report("result", {"used": used, "spoilt": spoilt, "closed": closed, "fresh": list(fresh)})


def _intact(fd: int, path: str) -> bool:
    try:
        found, wanted = os.fstat(fd), os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino, found.st_size) == (wanted.st_dev, wanted.st_ino, 0)


def examine_all(how: str, names: list[str]) -> None:
    """Each in a launcher and a directory of its own. The imports are the same for all."""
    for name in names:
        os.mkdir(name)
        pid = os.fork()
        if not pid:
            os.chdir(name)
            error = os.open("stderr", os.O_WRONLY | os.O_CREAT)
            os.dup2(error, 2)
            os.close(error)
            examine(name, how)
            return  # the daemon: the interpreter's end may still write somewhere
        status = os.waitpid(pid, 0)[1]
        with open(f"{name}/status", "w") as file:
            file.write(str(status))
