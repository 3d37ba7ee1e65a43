"""What the pictures show, observed at real daemons: who holds which lock, where output goes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.helpers import support

# After each step, in the process that did it: the locks of all three processes, as fdinfo has them
# (proc_pid_fdinfo(5)).
LOCKS = """
import glob, json, os, sys
from daemon_context import DEFAULT_STEPS, DaemonContext, Step

LAUNCHER = os.getpid()

def holders():
    me, parent = os.getpid(), os.getppid()
    roles = {"launcher": LAUNCHER}
    if me != LAUNCHER:
        roles |= {"daemon": me, **({"session leader": parent} if look.started else {})}
    return {role: locks(pid) for role, pid in roles.items()}

def locks(pid):
    found = set()
    for info in glob.glob(f"/proc/{pid}/fdinfo/*"):
        try:
            lines = open(info).read().splitlines()
            path = os.readlink(info.replace("fdinfo", "fd"))
        except OSError:
            continue
        for line in lines:
            if line.startswith("lock:"):
                kind, _, access = line.split()[2:5]
                found.add((os.path.basename(path), kind, access))
    return sorted(found)

def look(moment):
    with open("locks", "a") as file:
        print(json.dumps([moment, holders()]), file=file)

class Look(Step):
    def __init__(self, behind):
        self.name, self.behind = f"look-{behind}", behind

    def apply(self, walk):
        look(self.behind)

steps = DEFAULT_STEPS
for step in DEFAULT_STEPS:
    steps = steps.insert_after(step.name, Look(step.name))
look.started = True
context = DaemonContext(
    pidfile="app.pid", steps=steps, working_directory=os.getcwd(), detach_process=True
)
with context as daemon:
    look.started = False
    while os.path.exists(f"/proc/{LAUNCHER}/exe"):  # which a zombie has no more
        daemon.sleep(0.01)
    look("ready")
look("closed")
open("done", "w").close()
"""
STREAMS = """
import logging, os, sys
from daemon_context import DaemonContext

logging.basicConfig(filename="own.log")
own = open("given.log", "a")
given = {"None": None, "path": "app.log", "file": own}[sys.argv[1]]
context = DaemonContext(detach_process=True, working_directory=os.getcwd(), stdout=given)
with context:
    log = logging.getLogger().handlers[0].stream.fileno()
    text = " ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in (1, log))
with open("answer.part", "w") as file:
    file.write(text)
os.rename("answer.part", "answer")
"""


@cache
def locks() -> list[tuple[str, dict[str, list[list[str]]]]]:
    """After which moment who held which locks: (file, kind, access), where that had changed."""
    lines = _daemon(LOCKS, "done", "locks").splitlines()
    found: list[tuple[str, dict[str, list[list[str]]]]] = []
    for moment, holders in map(json.loads, lines):
        held = {role: held for role, held in holders.items() if held}
        if not found or found[-1][1] != held:
            found.append((moment, held))
    return found


@cache
def streams(given: str) -> tuple[str, str]:
    """Where standard output, and a log handler that was there before, go.

    :param given: what the option was given: None, path or file
    """
    stdout, log = _daemon(STREAMS, "answer", "answer", given).split()
    return _name(stdout), _name(log)


def _name(path: str) -> str:
    return path if path == "/dev/null" else Path(path).name


def _daemon(program: str, until: str, result: str, *args: str) -> str:
    """Run the program until its daemon has made a file; the text of another."""
    with tempfile.TemporaryDirectory() as directory:
        for box in support.sandbox(Path(directory)):
            path = box.script(program)
            command = [sys.executable, str(path), *args]
            subprocess.run(command, cwd=box.path, env=box.environ, check=True, timeout=60)
            support.until(lambda: (box.path / until).exists(), what=until)  # noqa: B023
            return (box.path / result).read_text()
    raise AssertionError("a sandbox is made once")
