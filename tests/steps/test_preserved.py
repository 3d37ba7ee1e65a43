"""Objects that hold descriptors: closed, they raise and spoil nothing; preserved, they work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support
from tests.helpers.holders import CASES

Outcome = Callable[[str, str], dict[str, Any]]
PROGRAM = (
    "import sys; from tests.helpers import holders; holders.examine_all(sys.argv[1], sys.argv[2:])"
)

#: What a double fork by hand does; each is a row of what goes wrong in daemons.
CONVICTED = {
    "text": {"spoilt", "silent", "lost"},
    "file_handler": {"spoilt", "silent"},
    "borrowed_from_a_file": {"spoilt", "silent"},
    "deleter": {"spoilt", "silent"},
    "memory_map": {"spoilt", "silent"},
    "sqlite": {"spoilt"},
    "epoll": {"spoilt"},
    "scandir": {"spoilt"},
    "event_loop": {"spoilt"},
    "socket_pair": {"spoilt"},
    "wakeup": {"spoilt"},
    "crash_dump_to_a_file": {"spoilt"},
    "dump_on_demand": {"spoilt"},
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """What became of the objects of one case, in a daemon made one way; all run at once."""
    boxes: dict[str, support.Sandbox] = {}

    def look(name: str, how: str) -> dict[str, Any]:
        if how not in boxes:
            boxes[how] = support.Sandbox(tmp_path_factory.mktemp(how))
            names = CONVICTED if how == "naive" else CASES
            done = boxes[how].run(PROGRAM, how, *names)
            assert (done.returncode, done.stderr) == (0, "")
            boxes[how].settled(20)
        return _read(boxes[how].path / name)

    yield look
    for box in boxes.values():
        box.end()


def _read(place: Path) -> dict[str, Any]:
    assert ((place / "status").read_text(), (place / "stderr").read_text()) == ("0", "")
    result: dict[str, Any] = json.loads((place / "result").read_text())
    # Something may have been written only when the interpreter ended.
    spoilt = {path.name for path in place.glob("fresh-*") if path.stat().st_size}
    result["spoilt"] = sorted(spoilt.union(result["spoilt"]))
    old = place / "old"
    result["old"] = old.read_text() if old.exists() else None
    return result


def faults(name: str, result: dict[str, Any]) -> set[str]:
    """What is wrong with objects that were not preserved: new files are ``spoilt`` (written to, or
    closed), late use is ``silent`` (does not raise), buffers are ``lost`` or written twice.
    """
    case = CASES[name]
    found = {
        "spoilt": result["spoilt"],
        "silent": not result["used"] and case.kind != "always",
        "lost": case.early is not None and result["old"] != case.early,
    }
    return {word for word, is_so in found.items() if is_so}


@pytest.mark.parametrize("name", CONVICTED)
def test_a_double_fork_by_hand_fails(outcome: Outcome, name: str) -> None:
    result = outcome(name, "naive")
    assert CONVICTED[name] <= faults(name, result), result


@pytest.mark.parametrize("name", CASES)
def test_closed_objects_raise_and_spoil_nothing(outcome: Outcome, name: str) -> None:
    result = outcome(name, "closed")
    assert faults(name, result) == set(), result
    assert not result["used"].startswith("AssertionError"), result["used"]


@pytest.mark.parametrize("name", CASES)
def test_preserved_objects_work(outcome: Outcome, name: str) -> None:
    result = outcome(name, "preserved")
    assert (result["used"], result["spoilt"]) == ("", [])
    assert CASES[name].late is None or result["old"] == CASES[name].late


def test_crash_dumps_are_kept_where_core_dumps_are_forbidden_for_good(box: support.Sandbox) -> None:
    """As ``ulimit -c 0``, ``LimitCORE=0`` of systemd, and an earlier daemon do."""
    done = box.run("""
        import faulthandler, resource, sys
        from daemon_context import DaemonContext
        crashes = open("crashes", "w")
        faulthandler.enable(file=crashes)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with DaemonContext(detach_process=False, working_directory=".", stdout=sys.stdout):
            data = open("data", "w")
            faulthandler._sigsegv()
    """)
    assert done.stderr == ""
    assert (box.path / "data").read_text() == ""
    assert "Segmentation fault" in (box.path / "crashes").read_text()


def test_the_programs_own_handler_behind_faulthandlers_is_not_run_to_find_the_file(
    box: support.Sandbox,
) -> None:
    """Nor does its wake-up descriptor, which has a lower number, pass for the file."""
    done = box.run("""
        import faulthandler, os, signal, sys
        from daemon_context import DaemonContext
        def handle(number, frame):
            print("handled in", os.getpid(), flush=True)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGUSR1, handle)
        dumps = open("dumps", "w")
        faulthandler.register(signal.SIGUSR1, file=dumps, chain=True)
        assert writer < dumps.fileno()
        with DaemonContext(detach_process=False, stdout=sys.stdout, stderr=sys.stderr):
            print("opened in", os.getpid(), flush=True)
            signal.raise_signal(signal.SIGUSR1)
    """)
    said = done.stdout.splitlines()
    assert (len(said), done.stderr) == (2, ""), done
    assert said[0].startswith("opened in")
    assert said[1] == said[0].replace("opened", "handled")
    assert "most recent call first" in (box.path / "dumps").read_text()
