"""systemd as process 1 of its own namespaces, with the same program as units of all kinds."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests import support

from .machine import Machine
from .subject import Subject


def version() -> int:
    """Of systemd here; 0: there is none."""
    if not shutil.which("systemctl"):
        return 0
    said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"systemd (\d+)", said.stdout)
    return int(found[1]) if found else 0


HANGUP = "ExecReload=kill -HUP $MAINPID"
# Type and more lines → whether the program detaches.
KINDS = {
    "simple": ("simple", HANGUP, False),
    "exec": ("exec", HANGUP, False),
    "notify": ("notify", HANGUP, False),
    "forking-pidfile": ("forking", f"PIDFile={{place}}/d.pid\n{HANGUP}", True),
    "forking": ("forking", HANGUP, True),
}
if version() >= 253:
    KINDS["notify-reload"] = ("notify-reload", "", False)


def unit(subject: Subject, kind: str = "simple", *lines: str, command: str = "") -> str:
    """The text of a service."""
    environ = subject.jail.environ
    settings = [f"Environment={name}={environ[name]}" for name in environ if name != "PATH"]
    text = "\n".join(["[Service]", f"Type={kind}", *settings, *lines])
    return f"{text}\nTimeoutStartSec=8\nTimeoutStopSec=8\nExecStart={command or subject.line()}\n"


def started(machine: Machine, name: str, kind: str, *lines: str, command: str = "") -> Subject:
    """A service that runs."""
    subject = Subject(machine, name)
    machine.install(f"{name}.service", unit(subject, kind, *lines, command=command))
    machine.ctl("start", name)
    return subject


def ended(machine: Machine, name: str) -> dict[str, str]:
    return machine.show(name, "Result", "ExecMainStatus", "ActiveState", "SubState")


@pytest.mark.parametrize("name", KINDS)
def test_a_unit_of_every_kind_starts_reloads_and_stops(machine: Machine, name: str) -> None:
    kind, lines, detached = KINDS[name]
    place = machine.inside / name
    subject = started(machine, name, kind, lines.format(place=place))
    found = subject.found()
    assert (found["name"], found["detached"]) == ("systemd", detached)
    assert found["reason"]
    shown = machine.show(name, "ActiveState", "MainPID", "StatusText")
    assert (shown["ActiveState"], shown["MainPID"]) == ("active", str(found["pid"]))
    ready = "not asked"
    if kind.startswith("notify"):
        assert shown["StatusText"] == "at work"
        assert "NOTIFY_SOCKET" not in found["marks"]
        ready = f"READY=1, status “{shown['StatusText']}”"
    subject.reloads("good", lambda: machine.ctl("reload", name))
    assert machine.ctl("is-active", name) == "active"
    milliseconds = subject.stop(lambda: machine.ctl("stop", name))
    state = ended(machine, name)
    assert (state["Result"], state["ExecMainStatus"]) == ("success", "0")
    subject.record(
        f"systemd, Type={kind}" + (", PIDFile=" if "PIDFile" in lines else ""),
        ready=ready, reload="SIGHUP" if lines else "notify-reload", ms=milliseconds,
        status=f"Result={state['Result']}, status {state['ExecMainStatus']}",
    )  # fmt: skip


def test_a_bad_reload_is_told_in_the_status_and_the_journal(machine: Machine) -> None:
    kind = "notify-reload" if version() >= 253 else "notify"
    subject = started(machine, "badly", kind, "" if version() >= 253 else HANGUP)
    subject.config("bad")
    machine.ctl("reload", "badly", check=False)

    def told() -> str:
        text = machine.show("badly", "StatusText", "ActiveState")
        return text["StatusText"] if "bad" in text["StatusText"] else ""

    assert "the configuration is bad" in support.until(told, 5, "the failure in the status")
    assert "the configuration is bad" in machine.journal("badly")
    subject.reloads("good", lambda: machine.ctl("reload", "badly"))
    assert machine.ctl("is-active", "badly") == "active"
    machine.ctl("stop", "badly")
