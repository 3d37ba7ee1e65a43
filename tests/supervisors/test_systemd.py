"""systemd as process 1 of its own namespaces, with the same program as units of all kinds."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import pytest

from tests.helpers import support

from .conftest import which
from .machine import Machine
from .subject import Subject
from .units import HANGUP, ended, started, unit, version

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


def test_a_bad_reload_is_told_to_systemctl_in_the_status_and_the_journal(
    machine: Machine,
) -> None:
    subject = Subject(machine, "badly")
    lines = f"ExecReload={subject.line('reload')}"
    machine.install("badly.service", unit(subject, "notify", lines, command=subject.line("run")))
    machine.ctl("start", "badly")
    subject.config("bad")
    done = machine.ask("systemctl", "reload", "badly")
    assert done.returncode == 1
    assert "the configuration is bad" in machine.show("badly", "StatusText")["StatusText"]
    assert machine.journal("badly").count("the configuration is bad") >= 2  # it, and the verb
    assert machine.ctl("is-active", "badly") == "active"
    subject.reloads("good", lambda: machine.ctl("reload", "badly"))
    assert machine.ctl("is-active", "badly") == "active"
    machine.ctl("stop", "badly")
    assert ended(machine, "badly")["Result"] == "success"
    subject.record(
        "systemd, Type=notify, ExecReload=PROG reload", ready="READY=1",
        reload="a bad one: status 1 and the reason", status="Result=success",
    )  # fmt: skip


# --- sockets


def listening(machine: Machine, name: str, *more: str) -> None:
    machine.install(
        f"{name}.socket",
        "\n".join(["[Socket]", f"ListenStream={machine.inside / name / 's'}", *more, ""]),
    )


def connected(machine: Machine, name: str) -> str:
    """What is said to whoever connects."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(support.DEADLINE)
        client.connect(str(machine.outside / name / "s"))
        return client.makefile().readline()  # systemd keeps its own copy open


def test_a_socket_unit_hands_its_sockets_over_with_their_names(machine: Machine) -> None:
    subject = Subject(machine, "listens")
    machine.install("listens.service", unit(subject, "notify"))
    listening(machine, "listens", "FileDescriptorName=web")
    machine.ctl("start", "listens.socket")
    assert connected(machine, "listens") == "hello\n"
    found = subject.found()
    assert (found["name"], found["detached"]) == ("systemd", False)
    assert found["sockets"] == [["web", "listening"]]
    milliseconds = subject.stop(lambda: machine.ctl("stop", "listens.socket", "listens"))
    subject.record(
        "systemd, socket unit", ready="READY=1", ms=milliseconds,
        status=f"Result={ended(machine, 'listens')['Result']}",
    )  # fmt: skip


def test_a_socket_unit_with_accept_hands_the_connection_over(machine: Machine) -> None:
    subject = Subject(machine, "accepts")
    machine.install("accepts@.service", unit(subject, "simple"))
    listening(machine, "accepts", "Accept=yes")
    machine.ctl("start", "accepts.socket")
    assert connected(machine, "accepts") == "hello\n"
    found = subject.found()
    assert (found["name"], found["detached"]) == ("systemd", False)
    assert found["sockets"] == [["connection", "connected"]]
    milliseconds = subject.stop(lambda: machine.ctl("stop", "accepts.socket", "accepts@*"))
    subject.record("systemd, socket unit, Accept=yes", ms=milliseconds, status="unit gone")


# --- the watchdog

WATCHDOG = ("WatchdogSec=700ms", "TimeoutAbortSec=2", "WatchdogSignal=SIGKILL")


def test_the_watchdog_spares_a_loop_that_beats_and_bites_one_that_is_stuck(
    machine: Machine,
) -> None:
    subject = started(machine, "watched", "notify", HANGUP, *WATCHDOG)
    begun = time.monotonic()
    assert "WATCHDOG_USEC" not in subject.found()["marks"]
    support.until(lambda: time.monotonic() > begun + 1.6)  # two intervals, and a bit
    assert machine.ctl("is-active", "watched") == "active"
    subject.config("stuck")
    stuck = time.monotonic()
    support.until(
        lambda: machine.ctl("is-active", "watched", check=False) == "failed",
        what="the watchdog's bite",
    )
    assert time.monotonic() - stuck > 0.3
    assert ended(machine, "watched")["Result"] == "watchdog"
    subject.record("systemd, WatchdogSec=", ready="READY=1", status="a stuck loop: Result=watchdog")


# --- the user's manager, scopes, wrappers


def test_under_the_manager_of_a_user(machine: Machine) -> None:
    machine.ctl("start", "user@0")
    user = ("env", "XDG_RUNTIME_DIR=/run/user/0", "systemctl", "--user")
    subject = Subject(machine, "users")
    text = unit(subject, "notify", HANGUP)
    place = machine.outside / "user.service"
    place.write_text(text)
    done = machine.ask(*user, "link", "--runtime", str(machine.inside / "user.service"))
    assert done.returncode == 0, done.stderr
    done = machine.ask(*user, "start", "user")
    assert done.returncode == 0, (done.stderr, machine.journal())
    found = subject.found()
    assert (found["name"], found["detached"]) == ("systemd", False)
    subject.reloads("good", lambda: machine.ask(*user, "reload", "user"))
    milliseconds = subject.stop(lambda: machine.ask(*user, "stop", "user"))
    done = machine.ask(*user, "show", "user", "-p", "Result", "--value")
    assert done.stdout == "success\n"
    subject.record(
        "systemd --user, Type=notify", ready="READY=1", reload="SIGHUP", ms=milliseconds,
        status="Result=success",
    )  # fmt: skip


def test_in_a_scope_it_detaches_as_below_any_shell(machine: Machine) -> None:
    subject = Subject(machine, "scope")
    line = f"systemd-run --quiet --scope {subject.line()}; exit $?"
    done = machine.ask("script", "-qec", line, str(machine.inside / "typescript"))
    assert done.returncode == 0, done
    found = subject.found()
    assert found["detached"], found
    milliseconds = subject.stop(lambda: machine.ask("kill", str(found["pid"])))
    subject.record("systemd-run --scope", ms=milliseconds, status="the command: 0")


# What is before the program's command in ExecStart=.
WRAPPERS = {
    "sh -c": "sh -c '{}; exit $?'",
    "sh -c, two deep": "sh -c 'sh -c \"{}; exit $?\"; exit $?'",
    "flock in sh -c": "sh -c 'flock /run/lock.{name} {}; exit $?'",
    "timeout": "timeout 60 {}",
    "runuser": "runuser -u root -- {}",
}


# These wait for whatever they have started, so that no unit of Type=forking can have them.
WAITING = {
    "sudo": "{sudo} -E {}",
    "strace": "{strace} -f -o /dev/null {}",
    "uv run": "{uv} run --offline --no-project --no-config -- {}",
}


@pytest.mark.parametrize(
    ("wrapper", "kind"),
    [*((name, kind) for name in WRAPPERS for kind in ("simple", "forking")),
     *((name, "simple") for name in WAITING)],
)  # fmt: skip
def test_wrappers_are_seen_through(machine: Machine, wrapper: str, kind: str) -> None:
    paths = {wrapper.split()[0]: which(wrapper.split()[0])} if wrapper in WAITING else {}
    name = re.sub(r"\W+", "-", f"{wrapper} {kind}")
    subject = Subject(machine, name)
    subject.outside.chmod(0o777)
    line = {**WRAPPERS, **WAITING}[wrapper].format(subject.line(), name=name, **paths)
    command = line.replace("$", "$$")
    # Its own SIGTERM only, which it passes on: of two at once uv may make a failure.
    lines = ["KillMode=mixed"] if wrapper == "uv run" else []
    machine.install(f"{name}.service", unit(subject, kind, *lines, command=command))
    machine.ctl("start", name)
    found = subject.found()
    assert (found["name"], found["detached"]) == ("systemd", kind == "forking"), found
    milliseconds = subject.stop(lambda: machine.ctl("stop", name))
    assert ended(machine, name)["Result"] == "success"
    subject.record(f"systemd, Type={kind}, {wrapper}", ms=milliseconds, status="Result=success")


def test_a_forking_unit_without_any_environment_detaches(machine: Machine) -> None:
    subject = Subject(machine, "bare")
    path = subject.jail.environ["PYTHONPATH"]
    machine.install("bare.service", unit(
        subject, "forking", command=f"/usr/bin/env -i PYTHONPATH={path} {subject.line()}"
    ))  # fmt: skip
    machine.ctl("start", "bare")
    found = subject.found()
    assert (found["name"], found["detached"]) == ("systemd", True), found
    milliseconds = subject.stop(lambda: machine.ctl("stop", "bare"))
    subject.record("systemd, Type=forking, env -i", ms=milliseconds, status="Result=success")


# --- what the unit has set

SETTINGS = ("UMask=0027", "WorkingDirectory=/var", "LimitCORE=4096:8192")


def test_the_settings_of_a_unit_survive(machine: Machine) -> None:
    kept = Subject(machine, "kept", umask=None, working_directory=None, prevent_core=False)
    klass = Subject(machine, "class")
    for subject, verb in ((kept, ()), (klass, ("run",))):
        machine.install(
            f"{subject.name}.service",
            unit(subject, "notify", *SETTINGS, command=subject.line(*verb)),
        )
        machine.ctl("start", subject.name)
        found = subject.found()
        assert (found["umask"], found["directory"]) == ("0027", "/var"), subject.name
        limits = (Path("/proc") / str(subject.pid) / "limits").read_text()
        assert re.search(r"core file size +4096 +8192", limits), limits
        machine.ctl("stop", subject.name)
