"""Units with the program, and how they have ended."""

from __future__ import annotations

import re
import shutil
import subprocess

from .machine import Machine
from .subject import Subject

HANGUP = "ExecReload=kill -HUP $MAINPID"


def version() -> int:
    """Of systemd here; 0: there is none."""
    if not shutil.which("systemctl"):
        return 0
    said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"systemd (\d+)", said.stdout)
    return int(found[1]) if found else 0


def unit(subject: Subject, kind: str = "simple", *lines: str, command: str = "") -> str:
    """The text of a service."""
    environ = subject.jail.environ
    settings = [f"Environment={name}={environ[name]}" for name in environ if name != "PATH"]
    text = "\n".join(["[Service]", f"Type={kind}", *settings, *lines])
    return f"{text}\nTimeoutStartSec=6\nTimeoutStopSec=6\nExecStart={command or subject.line()}\n"


def started(machine: Machine, name: str, kind: str, *lines: str, command: str = "") -> Subject:
    """A service that runs."""
    subject = Subject(machine, name)
    machine.install(f"{name}.service", unit(subject, kind, *lines, command=command))
    machine.ctl("start", name)
    return subject


def ended(machine: Machine, name: str) -> dict[str, str]:
    return machine.show(name, "Result", "ExecMainStatus", "ActiveState", "SubState")
