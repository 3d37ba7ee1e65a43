"""The benchmark command: it measures two contenders, finds the marks, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from . import support


def run(box: support.Sandbox, *options: str) -> subprocess.CompletedProcess[str]:
    """One round, without what needs the network or the extra: no peers, no tables."""
    environ = {**box.environ, "HOME": str(box.path)}  # the mark that contenders are given
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--rounds", "1", "--quick", "--no-peers", "--silent",
         "--environment", str(box.path / "environment"), *options],
        capture_output=True, text=True, timeout=120, cwd=support.ROOT, env=environ, check=False,
    )  # fmt: skip


def left_behind(box: support.Sandbox) -> list[Path]:
    """All that runs and has our home, the zombies excepted."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={box.path}".encode() in path.read_bytes().split(b"\0"):
                found.append(path)
        except OSError:
            pass
    return found


@pytest.mark.parametrize(
    ("scenario", "quantities"),
    [
        ("launch", {"launch", "ready", "launch-pidfile", "ready-signals"}),
        ("descriptors", {"descriptors-detach"}),
        ("race", {"race-winners"}),
    ],
)
def test_one_round_of_two_contenders_leaves_nothing_behind(
    scenario: str, quantities: set[str], box: support.Sandbox
) -> None:
    two = ("--contender", "daemon_context", "--contender", "bare double fork")
    done = run(box, "--only", scenario, *two, "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert not left_behind(box)
    tables = json.loads((box.path / "out.json").read_text())["tables"]
    assert quantities <= set(tables)
    for name in quantities:
        row = tables[name]["rows"]["daemon_context"]
        assert row["median"] > 0, row


def test_a_race_has_one_winner_and_marks_are_computed(box: support.Sandbox) -> None:
    done = run(box, "--only", "race", "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    marks = json.loads((box.path / "out.json").read_text())["marks"]
    verdicts = {mark["what"]: mark["verdict"] for mark in marks}
    assert verdicts["racing starts: one winner"] == "met"
    assert verdicts["racing starts: others without an error"] == "met"
    assert verdicts["import and construct"] == "not measured"


def test_an_unknown_contender_is_refused(box: support.Sandbox) -> None:
    done = run(box, "--contender", "nobody")
    assert done.returncode == 1
    assert "bare double fork" in done.stderr
