"""The programs that are started, in each variant; and the rivals, which must be convicted.

Harmless system calls are the marks by which the harness knows how far a program is.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

MARK = "/.faults-"
PIDFILE, LOG, ROOT, DATA = "d.pid", "d.log", "root", "data.txt"
WRITTEN = "once\n"
NOBODY = 65534


def mark(name: str) -> None:
    """Tell the harness where the program is."""
    try:
        os.close(os.open(MARK + name, os.O_RDONLY))
    except OSError:
        pass


OURS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pidfile": {"pidfile": PIDFILE, "stdout": LOG},
    "stale": {"pidfile": PIDFILE},
    "owner": {"pidfile": PIDFILE, "stdout": LOG, "uid": NOBODY, "gid": NOBODY},
    "chroot": {"pidfile": PIDFILE, "chroot_directory": ROOT},
    "explicit": {"pidfile": PIDFILE, "readiness": "explicit"},
    "files": {"pidfile": PIDFILE},
    "foreground": {"pidfile": PIDFILE, "stdout": LOG, "detach_process": False},
    "spawn": {"pidfile": PIDFILE},
}
FOR_ROOT = {"owner", "chroot"}


def ours(variant: str) -> None:
    """`DaemonContext`, until SIGTERM."""
    from daemon_context import DaemonContext

    options = {"detach_process": True, **OURS[variant]}
    context = DaemonContext(**options)
    held = _open_files() if variant == "files" else None
    mark("begin")
    try:
        if variant == "spawn":
            context.spawn(_body, context)
        else:
            context.open()
            if variant == "explicit":
                context.ready()
    except BaseException:
        if not context.is_open:  # or the signal came when all was done: it ends the body
            mark("failed")
        raise
    if variant == "spawn":
        mark("started")
    else:
        _body(context)
    del held


def _body(context: Any) -> None:
    mark("ready")
    context.sleep()


def _open_files() -> list[Any]:
    """What a program has open that the daemon must not have."""
    file = open(DATA, "w")  # noqa: SIM115
    file.write(WRITTEN)
    return [file, os.memfd_create("held")]


def python_daemon(_: str) -> None:
    """python-daemon, as it is used most."""
    import daemon
    import daemon.pidfile

    lock = daemon.pidfile.TimeoutPIDLockFile(os.path.abspath(PIDFILE), acquire_timeout=0)
    context = daemon.DaemonContext(pidfile=lock, detach_process=True)
    mark("begin")
    try:
        context.open()
    except BaseException:
        mark("failed")
        raise
    _work()


def naive(_: str) -> None:
    """The double fork that has been copied since 2007, with its pid file."""
    path = os.path.abspath(PIDFILE)
    mark("begin")
    try:
        if os.path.exists(path):
            sys.stderr.write(f"pidfile {path} already exists. Daemon already running?\n")
            sys.exit(1)
        _double_fork()
        for number, mode in ((0, os.O_RDONLY), (1, os.O_RDWR), (2, os.O_RDWR)):
            os.dup2(os.open("/dev/null", mode), number)
        import atexit

        atexit.register(os.remove, path)
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")
    except Exception:
        mark("failed")
        raise
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _work()


def _work() -> None:
    mark("ready")
    while True:  # and not pause(), which misses a signal that comes right before it
        time.sleep(0.01)


def _double_fork() -> None:
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.setsid()
    os.umask(0)
    if os.fork():
        os._exit(0)


PROGRAMS: dict[str, Callable[[str], None]] = {
    **dict.fromkeys(OURS, ours),
    "python-daemon": python_daemon,
    "naive": naive,
}
RIVALS = ("python-daemon", "naive")


def prepare(variant: str) -> None:
    """In the empty directory of a run: what the program finds there."""
    if variant == "stale":
        with open(PIDFILE, "w") as file:
            file.write("4194303\n")
    if variant == "chroot":
        os.mkdir(ROOT)


def preload() -> None:
    """Import all that a start may import, so that no fault hits Python's own search for modules.

    The first look-up of a user, too, makes the C library read what it then remembers.
    """
    import json
    import pkgutil
    import pwd
    import resource
    import socket
    import traceback
    from importlib import import_module

    import daemon_context

    for module in pkgutil.walk_packages(daemon_context.__path__, "daemon_context."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    try:
        import_module("daemon.pidfile")
    except ImportError:  # only for the rivals
        pass
    pwd.getpwuid(0)
    os.getgrouplist("root", 0)
    del json, resource, socket, traceback
