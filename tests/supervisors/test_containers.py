"""Process 1 of a pid namespace, and its inits: what a container's command is below."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.helpers import support
from tests.helpers.servers import children

from .conftest import which
from .jail import Jail
from .subject import Subject

# Each line is what process 1 becomes.
COMMANDS = {
    "pid 1": "exec {}",
    "tini": "exec tini -- {}",
    "tini -g, sh -c": "exec tini -g -- sh -c '{}; exit $?'",
    "tini, timeout": "exec tini -- timeout 60 {}",
    "dumb-init": "exec dumb-init {}",
    "dumb-init, sh -c": "exec dumb-init sh -c '{}; exit $?'",
}
DETECTED = {"pid 1": "container"}


def needed(name: str) -> None:
    which("setsid")
    for program in ("tini", "dumb-init"):
        if program in name:
            which(program)


@pytest.mark.parametrize("terminal", ["", "in a terminal"])
@pytest.mark.parametrize("name", COMMANDS)
def test_in_a_container_it_stays(open_box: support.Sandbox, name: str, terminal: str) -> None:
    needed(name)
    with Jail(open_box) as jail:
        subject = Subject(jail, "program")
        # As `docker run -t` gives process 1 a terminal; `script` is outside in both.
        jail.begin(COMMANDS[name].format(subject.line()), terminal=bool(terminal))
        found = subject.found()
        assert found["name"] == DETECTED.get(name, "init"), found
        assert not found["detached"], found
        # A shell that gets it ends at once, and the container with it: the program gets its own.
        whom = subject.pid if "sh -c" in name else jail.first
        milliseconds = subject.stop(lambda: os.kill(whom, signal.SIGTERM))
        status = jail.status
        subject.record(
            f"container: {name}{f', {terminal}' * bool(terminal)}", ms=milliseconds,
            status=f"status {status}",
        )  # fmt: skip
    # timeout(1) passes SIGTERM on twice; the second may find Python's handlers gone already.
    assert status in ((0, 143) if "timeout" in name else (0,)), jail.said
    assert subject.wrote("ended") == "0"


@pytest.mark.parametrize("reap", [False, True])
def test_orphans_of_a_container_without_an_init(open_box: support.Sandbox, reap: bool) -> None:
    with Jail(open_box) as jail:
        subject = Subject(jail, "program", **({"reap": True} if reap else {}))
        jail.begin(f"exec {subject.line()}")
        subject.found()
        for _ in range(5):
            jail.ask("sh", "-c", "sleep 0.1 &")
        adopted = children(jail.first) - {subject.pid}
        if reap:
            support.until(lambda: not children(jail.first) - {subject.pid}, what="no orphans")
        else:
            assert len(adopted) == 5
            support.until(lambda: {support.state(pid) for pid in adopted} == {"Z"})
        milliseconds = subject.stop(lambda: os.kill(jail.first, signal.SIGTERM))
        assert jail.status == 0
        if reap:
            subject.record("container: pid 1, ReapChildren", ms=milliseconds, status="status 0")


@pytest.mark.parametrize("what", ["class", "context"])
@pytest.mark.parametrize("name", ["pid 1", "tini", "dumb-init"])
def test_a_command_that_detaches_is_refused(
    open_box: support.Sandbox, name: str, what: str
) -> None:
    needed(name)
    with Jail(open_box) as jail:
        options = {"detach_process": True} if what == "context" else {}
        subject = Subject(jail, "program", **options)
        verb = ["start"] if what == "class" else []
        jail.begin(COMMANDS[name].format(subject.line(*verb)))
        status = jail.status
        said = jail.said
    assert status != 0, said
    assert re.search("use .*run" if what == "class" else "detach_process", said), said
    assert not subject.wrote("found")


def test_below_a_shell_that_is_process_1_a_start_is_not_refused(
    open_box: support.Sandbox,
) -> None:
    with Jail(open_box) as jail:
        subject = Subject(jail, "program", detach_process=True)
        jail.begin(f"{subject.line()}; while :; do sleep 1; done")
        assert subject.found()["detached"]


def test_force_detaches_even_process_1(open_box: support.Sandbox) -> None:
    with Jail(open_box) as jail:
        subject = Subject(jail, "program", detach_process="force")
        jail.begin(f"exec {subject.line()}")
        assert jail.status == 0
