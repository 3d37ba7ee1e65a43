"""Process managers: the same program below each, started, reloaded and stopped by its own tools."""

from __future__ import annotations

import pytest

from tests.helpers import support

from .jail import Jail
from .managers import MANAGERS, Honcho
from .subject import Subject

# What /proc/PID/comm has of the one who tracks the program.
NAMES = {
    "s6": "s6-supervise", "runit": "runsv", "daemontools": "supervise", "circus": "circusd",
    "pm2": "PM2",
}  # fmt: skip


def _settled(status: str) -> str:
    """The program is gone a moment before its manager has noticed."""
    return "" if "stopping" in status.lower() else status


@pytest.mark.parametrize("name", MANAGERS)
def test_below_a_manager_it_stays_reloads_and_ends(open_box: support.Sandbox, name: str) -> None:
    manager = MANAGERS[name](open_box.path / "where", open_box.environ["PYTHONPATH"])
    with Jail(open_box) as jail:
        subject = Subject(jail, "program")
        jail.begin(f"{manager.launch(subject)} & while :; do wait; sleep 0.01; done")
        found = subject.found()
        assert found["name"].startswith(NAMES.get(name, name)), found
        assert not found["detached"]
        manager.await_ready(jail)
        reload = "it has none"
        if name != Honcho.name:
            subject.reloads("good", lambda: manager.reload(jail))
            reload = "SIGHUP"
        milliseconds = subject.stop(lambda: manager.stop(jail))
        status = support.until(lambda: _settled(manager.status(jail, subject)), what="an end")
        subject.record(
            manager.name, ready=manager.ready, reload=reload, ms=milliseconds, status=status
        )
    assert subject.wrote("ended") == "0"
    assert any(word in status for word in ("0", "down", "stopped")), status


@pytest.mark.parametrize("name", ["supervisord", "runit", "honcho"])
def test_below_a_manager_in_a_terminal_it_stays(open_box: support.Sandbox, name: str) -> None:
    manager = MANAGERS[name](open_box.path / "where", open_box.environ["PYTHONPATH"])
    with Jail(open_box) as jail:
        subject = Subject(jail, "program")
        line = open_box.path / "line"
        line.write_text(f"#!/bin/sh\nexec {manager.launch(subject)}\n")
        line.chmod(0o755)
        jail.begin(f"script -qec {line} {open_box.path}/typescript & while :; do wait; done")
        found = subject.found()
        assert not found["detached"], found
        milliseconds = subject.stop(lambda: manager.stop(jail))
        subject.record(f"{name} in a terminal", ms=milliseconds)
