"""Detaching where systemd tracks the process: refused, with the remedy; and where that is right."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers import support

from .machine import Machine
from .subject import Subject
from .units import ended, unit

REMEDIES = {"class": "run", "context": "detach_process"}


@pytest.mark.parametrize("kind", ["simple", "exec", "notify", "idle", "dbus"])
@pytest.mark.parametrize("what", REMEDIES)
def test_detaching_where_systemd_tracks_the_process_is_refused(
    machine: Machine, kind: str, what: str
) -> None:
    name = f"wrong-{what}-{kind}"
    subject = Subject(machine, name, **({} if what == "class" else {"detach_process": True}))
    command = subject.line(*["start"] if what == "class" else [])
    lines = [f"BusName=org.example.{what}"] if kind == "dbus" else []
    machine.install(f"{name}.service", unit(subject, kind, *lines, command=command))
    machine.ctl("start", name, check=False)
    support.until(lambda: ended(machine, name)["ActiveState"] == "failed", what=f"{name} fails")
    state = ended(machine, name)
    assert (state["Result"], state["ExecMainStatus"] != "0") == ("exit-code", True), state
    said = machine.journal(f"{name}.service")
    assert f"Type={kind}" in said
    assert REMEDIES[what] in said
    assert not subject.wrote("found")


@pytest.mark.parametrize("how", ["ExecStartPre", "ExecStartPost", "oneshot"])
def test_detaching_is_not_refused_where_systemd_does_not_track(machine: Machine, how: str) -> None:
    name = f"right-{how.lower()}"
    subject = Subject(machine, name, detach_process=True)
    if how == "oneshot":
        text = unit(subject, "oneshot", "RemainAfterExit=yes")
    else:
        text = unit(subject, "simple", f"{how}={subject.line()}", command="/bin/sleep 1000")
    machine.install(f"{name}.service", text)
    machine.ctl("start", name)
    assert subject.found()["detached"]
    machine.ctl("stop", name)


def test_force_detaches_all_the_same(machine: Machine) -> None:
    subject = Subject(machine, "force", detach_process="force")
    machine.install("force.service", unit(subject, "exec", "RemainAfterExit=yes", "KillMode=none"))
    machine.ctl("start", "force")
    assert subject.found()["detached"]
    os.kill(subject.pid, signal.SIGTERM)
    assert subject.text("ended") == "0"
    machine.ctl("stop", "force")
