"""The unit that `export systemd` writes, below a real systemd, with every line of its hardening."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.helpers import support

from .machine import Machine
from .subject import PROGRAM, Subject

LOOSE = ("PrivateTmp", "ProtectHome")


def exported(machine: Machine, subject: Subject, *arguments: str, verb: bool, uid: int = 0) -> str:
    """The unit of the program, as somebody would have it written on that machine."""
    done = machine.ask(
        *as_user(uid), *machine.settings, machine.python, "-B", "-m", "daemon_context", "export",
        "systemd", *arguments, f"{machine.inside}/project/{PROGRAM.relative_to(support.ROOT)}",
        "--", str(subject.inside), *(["class"] if verb else []),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def as_user(uid: int) -> list[str]:
    """The beginning of a command of that user."""
    owner = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *owner, "env", f"XDG_RUNTIME_DIR=/run/user/{uid}"]


def checked(machine: Machine, name: str, text: str, *user: str) -> None:
    """By systemd's own tools."""
    path = str(machine.inside / name)
    (machine.outside / name).write_text(text)
    of_user = ["--user"] if user else []
    verify = ["verify", "--man=no", "--recursive-errors=no", path]
    done = machine.ask(*user, "systemd-analyze", *of_user, *verify)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (done, text)
    security = ["security", "--offline=true", "--threshold=30", "--no-pager", path]
    done = machine.ask("systemd-analyze", *security)
    assert done.returncode == 0, done.stdout


class Unit:
    """The unit of a subject, of the system's manager or of a user's.

    :param ctl: the command that speaks to the manager
    """

    def __init__(self, machine: Machine, subject: Subject, text: str, *ctl: str) -> None:
        self.machine, self.subject, self.ctl = machine, subject, ctl
        self.name = f"{subject.name}.service"
        path = machine.outside / self.name
        path.write_text(f"{text}\n[Service]\nEnvironment={machine.settings[1]}\n")
        self.run("link", "--runtime", str(machine.inside / self.name))

    def run(self, *verb: str, status: int = 0) -> str:
        done = self.machine.ask(*self.ctl, *verb)
        assert done.returncode == status, (done, self.machine.journal())
        return done.stdout.strip()

    def lives(self, *, reload_verb: bool) -> dict[str, Any]:
        """From its start to its stop; with reloads, and past what the watchdog allows."""
        self.run("start", self.name)
        begun = time.monotonic()
        found = self.subject.found()
        assert not found["detached"]
        self.subject.reloads("good", lambda: self.run("reload", self.name))
        if reload_verb:
            self.subject.config("bad")
            self.run("reload", self.name, status=1)
        support.until(lambda: time.monotonic() > begun + 2.3)
        assert self.run("is-active", self.name) == "active"
        self.owner = support.status(self.subject.pid)
        self.run("stop", self.name)
        shown = self.run("show", self.name, "-p", "Result,ExecMainStatus,NRestarts")
        assert set(shown.splitlines()) == {"Result=success", "ExecMainStatus=0", "NRestarts=0"}
        return found

    def record(self, launcher: str, reload: str) -> None:
        status = "Result=success, status 0"
        self.subject.record(launcher, ready="READY=1", reload=reload, status=status)


@pytest.mark.parametrize("verb", [True, False], ids=["class", "context"])
@pytest.mark.parametrize("uid", [0, 1])
def test_the_exported_unit_runs_with_all_of_its_hardening(
    machine: Machine, uid: int, verb: bool
) -> None:
    kind = "class" if verb else "context"
    options: dict[str, Any] = {"uid": uid} if uid else {}
    subject = Subject(machine, f"exported-{uid}-{kind}", **options)
    subject.outside.chmod(0o777)
    text = exported(machine, subject, "--watchdog", "1", verb=verb)
    checked(machine, f"{subject.name}.service", text)
    for line in LOOSE:
        assert f"{line}=yes" in text, text
    unit = Unit(machine, subject, text, "systemctl")
    unit.lives(reload_verb=verb)
    assert unit.owner["Uid"].split() == [str(uid)] * 4
    assert unit.owner["CapBnd"].strip("0") == ""
    assert unit.owner["Seccomp"] == "2"
    reload = "ExecReload=PROG reload" if verb else "SIGHUP"
    unit.record(f"systemd, uid={uid}, exported unit of a {kind}", reload)


@pytest.mark.parametrize("uid", [0, 1])
def test_the_exported_unit_of_a_user_runs_with_all_of_its_hardening(
    machine: Machine, uid: int
) -> None:
    machine.ctl("start", f"user@{uid}")
    subject = Subject(machine, f"exported-user-{uid}")
    subject.outside.chmod(0o777)
    text = exported(machine, subject, "--user", "--watchdog", "1", verb=True, uid=uid)
    name = f"{subject.name}.service"
    (machine.outside / name).write_text(text)
    checked(machine, name, text, *as_user(uid))
    unit = Unit(machine, subject, text, *as_user(uid), "systemctl", "--user")
    unit.lives(reload_verb=False)
    assert unit.owner["CapBnd"].strip("0") == ""
    unit.record(f"systemd --user, uid {uid}, exported unit of a class", "SIGHUP")
