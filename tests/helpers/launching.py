"""Imported by the programs that tests start: steps that fail, and what a launcher was like."""

from __future__ import annotations

import atexit
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step, Steps

from .support import MARK, Sandbox


class Unknown(Exception):
    """A class that the launcher must not be made to look up."""


class Unprintable(Exception):
    """An error that can't be turned into text."""

    def __str__(self) -> str:
        raise ValueError("this error has no text")

    __repr__ = __str__


def _os_error() -> NoReturn:
    os.mkdir("/proc/no-such-place")
    raise AssertionError


def _raise(error: BaseException) -> NoReturn:
    raise error


def _fork_and_fail() -> NoReturn:
    if os.fork() == 0:
        time.sleep(1000)
        os._exit(0)
    raise RuntimeError("after a fork")


def _run_and_fail() -> NoReturn:
    subprocess.Popen(["sleep", "1000"])
    raise RuntimeError("with a program running")


def _loop() -> NoReturn:
    while True:
        pass


def _loop_deaf() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _loop()


def _loop_with_program() -> NoReturn:
    subprocess.Popen(["sleep", "1000"])
    _loop()


def _recurse() -> NoReturn:
    _recurse()


def _noted(count: int) -> NoReturn:
    error = RuntimeError("with notes")
    for _ in range(count):
        error.add_note("\U0001f600" * 100_000)
    raise error


WAYS: dict[str, Callable[[], object]] = {
    "OSError": _os_error,
    "OSError-bare": lambda: _raise(OSError("no number")),
    "OSError-odd": lambda: _raise(OSError("a", "b", 7)),
    "RuntimeError": lambda: _raise(RuntimeError("out of luck")),
    "SystemExit-3": lambda: sys.exit(3),
    "SystemExit-0": lambda: sys.exit(0),
    "SystemExit-text": lambda: sys.exit("enough"),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "RecursionError": _recurse,
    "DaemonError": lambda: _raise(DaemonError("one of yours", path="/some/path", pid=4711)),
    "exit-7": lambda: os._exit(7),
    "exit-0": lambda: os._exit(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "loop": _loop,
    "loop-deaf": _loop_deaf,
    "loop-with-program": _loop_with_program,
    "fork": _fork_and_fail,
    "subprocess": _run_and_fail,
    "huge": lambda: _raise(RuntimeError("x" * 10_000_000)),
    "huge-wide": lambda: _raise(RuntimeError("begin" + "\U0001f600" * 1_000_000)),
    "huge-notes": lambda: _noted(10),
    "surrogates": lambda: _raise(RuntimeError("a \udcff b")),
    "unprintable": lambda: _raise(Unprintable()),
    "unknown": lambda: _raise(Unknown("nobody knows me")),
}


class Fail(Step):
    """Fails in the way that is asked for."""

    def __init__(self, way: str) -> None:
        self.way = way

    def apply(self, walk: Any) -> None:
        WAYS[self.way]()
        time.sleep(1000)  # a signal may need a moment to arrive


def positions() -> Iterator[tuple[int, Callable[[Step], Steps]]]:
    """Every place of a sequence where a step can be put: 0 is the first."""
    names = DEFAULT_STEPS.names
    for number, name in enumerate(names):
        yield number, lambda step, name=name: DEFAULT_STEPS.insert_before(name, step)
    yield len(names), lambda step: DEFAULT_STEPS.insert_after(names[-1], step)


#: Steps at these places and before them run in the launcher.
LAST_IN_LAUNCHER = DEFAULT_STEPS.index("detach")


def open_files() -> dict[int, str]:
    """Every open descriptor: what it is, its position and its flags."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            info = Path(f"/proc/self/fdinfo/{name}").read_text()
        except OSError:  # the descriptor of the listing itself
            continue
        flags = next(line for line in info.splitlines() if line.startswith("flags:"))
        found[int(name)] = f"{target} {flags}"
    return found


def surroundings() -> dict[str, Any]:
    """All that a start must leave as it was in the launcher, and around it."""
    status = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    return {
        "status": {k: fields[k] for k in ("Umask", "SigBlk", "SigIgn", "SigCgt", "Uid", "Gid")},
        "cwd": os.getcwd(),
        "handlers": [repr(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "open": open_files(),
        "streams": [repr(s) for s in (sys.stdin, sys.stdout, sys.stderr)],
        "limits": [resource.getrlimit(number) for number in range(16)],
        "exit handlers": atexit._ncallbacks(),
        "excepthook": repr(sys.excepthook),
        "group": [os.getpgrp(), os.getsid(0)],
        "files": sorted(os.listdir()),
        "children": _children(),
        "environ": dict(os.environ),
    }


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def settled() -> list[int]:
    """What is left of a failed start; a killed process may need a moment to be gone."""
    box = Sandbox(Path.cwd())
    box.mark = os.environ[MARK]
    deadline = time.monotonic() + 5
    while (left := box.processes()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return sorted(left)


def attempt(context: DaemonContext) -> dict[str, Any]:
    """Open a context that can't be opened; the error, and what has changed in the launcher."""
    launcher = os.getpid()
    before = surroundings()
    begin = time.monotonic()
    facts: dict[str, Any] = {}
    try:
        context.open()
    except BaseException as error:
        facts = describe(error)
    seconds = time.monotonic() - begin
    if os.getpid() != launcher:
        os._exit(99)  # the daemon must not get here: its start has failed
    after = surroundings()
    changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
    if left := settled():
        changed["processes"] = left
    return {**facts, "changed": changed, "seconds": seconds, "is_open": context.is_open}


def describe(error: BaseException) -> dict[str, Any]:
    """What an error says."""
    facts = error.facts() if isinstance(error, DaemonError) else {}
    kinds = [kind.__name__ for kind in type(error).__mro__]
    notes = list(getattr(error, "__notes__", []))
    return {"class": kinds[0], "kinds": kinds, "message": str(error), "notes": notes, **facts}


def report(name: str, value: object) -> None:
    """Leave a JSON file for the test."""
    Path(f"{name}.tmp").write_text(json.dumps(value))
    os.rename(f"{name}.tmp", name)
