"""The unit that `export systemd` writes, below a real systemd, with every line of its hardening."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests import support

from .machine import Machine
from .subject import PROGRAM, Subject

LOOSE = ("PrivateTmp", "ProtectHome")


def exported(machine: Machine, subject: Subject, *arguments: str, verb: bool) -> str:
    """The unit of the program, as somebody would have it written on that machine."""
    done = machine.ask(
        "env", *machine.settings, machine.python, "-B", "-m", "daemon_context", "export",
        "systemd", *arguments, f"{machine.inside}/project/{PROGRAM.relative_to(support.ROOT)}",
        "--", str(subject.inside), *(["class"] if verb else []),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def checked(machine: Machine, name: str, text: str) -> None:
    """By systemd's own tools."""
    path = machine.inside / name
    (machine.outside / name).write_text(text)
    verify = machine.ask(
        "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)
    )
    assert (verify.returncode, verify.stdout, verify.stderr) == (0, "", ""), (verify, text)
    security = machine.ask(
        "systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(path)
    )
    assert security.returncode == 0, security.stdout


@pytest.mark.parametrize("verb", [True, False], ids=["class", "context"])
@pytest.mark.parametrize("uid", [None, "daemon"])
def test_the_exported_unit_runs_with_all_of_its_hardening(
    machine: Machine, uid: str | None, verb: bool
) -> None:
    name = f"exported-{uid}-{'class' if verb else 'context'}"
    options: dict[str, Any] = {"uid": uid} if uid else {}
    subject = Subject(machine, name, **options)
    if uid:
        subject.outside.chmod(0o777)
    text = exported(machine, subject, "--watchdog", "1", verb=verb)
    checked(machine, f"{name}.service", text)
    for line in LOOSE:
        assert f"{line}=yes" in text, text
    machine.install(f"{name}.service", f"{text}\n[Service]\nEnvironment={machine.settings[1]}\n")
    machine.ctl("start", name)
    begun = time.monotonic()
    found = subject.found()
    assert not found["detached"]
    owner = "1" if uid else "0"
    assert support.status(subject.pid)["Uid"].split() == [owner] * 4
    assert support.status(subject.pid)["CapBnd"].strip("0") == ""
    subject.reloads("good", lambda: machine.ctl("reload", name))
    if verb:
        subject.config("bad")
        done = machine.ask("systemctl", "reload", name)
        assert done.returncode == 1
    support.until(lambda: time.monotonic() > begun + 2.3)  # the watchdog would have bitten
    assert machine.ctl("is-active", name) == "active"
    pid = subject.pid
    machine.ctl("stop", name)
    support.gone(pid)
    shown = machine.show(name, "Result", "ExecMainStatus", "NRestarts")
    assert shown == {"Result": "success", "ExecMainStatus": "0", "NRestarts": "0"}
    subject.record(
        f"systemd, exported unit of a {'class' if verb else 'context'}, uid={uid}",
        ready="READY=1", reload="ExecReload=PROG reload" if verb else "SIGHUP",
        status=f"Result={shown['Result']}, status 0",
    )  # fmt: skip
