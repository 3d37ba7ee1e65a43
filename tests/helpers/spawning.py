"""For the tests of spawn: programs that tell what they have seen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.helpers import support

#: The start of every program: what tests.helpers.launching tells about a process, and a few words.
HEAD = """
import json, os, signal, sys, threading, time
from pathlib import Path
from daemon_context import AlreadyRunning, DaemonContext, DaemonError
from tests.helpers.launching import describe, report, surroundings

PLACE = Path.cwd()

def wait_for(name):
    while not (PLACE / name).exists():
        time.sleep(0.005)

def write(name, *words):
    with open(PLACE / name, "a") as file:
        print(*words, file=file)

def caught(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except BaseException as error:
        return describe(error)
    return {"class": None}

"""
REAPING = """
import ctypes
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
"""


def program(box: support.Sandbox, body: str, *, reaping: bool = False) -> Path:
    """A program that spawns."""
    import textwrap

    head = HEAD + (REAPING if reaping else "")
    return box.script(head + textwrap.dedent(body))


def run(
    box: support.Sandbox, body: str, *args: str, reaping: bool = False, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run it; it must succeed, and say nothing on stderr."""
    done = box.run(program(box, body, reaping=reaping), *args, **kwargs)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done


def told(box: support.Sandbox, body: str, *args: str, reaping: bool = False, **kwargs: Any) -> Any:
    """Run it, and return what it reports as ``told``."""
    run(box, body, *args, reaping=reaping, **kwargs)
    return json.loads(box.text("told"))
