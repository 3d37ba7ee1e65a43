"""Every system call of a start fails once, and every process dies at each of them: the quick form.

The full form, with all variants, is ``python -m tests.faults --full``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults import campaign, programs, rivals
from tests.faults.verdict import Verdict, judge

SAMPLE = 4  # one in so many cases of the variants other than the main one


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, Any]]:
    """An undisturbed start of each variant that this user may run."""
    return campaign.references(campaign.ours())


def wrong(verdicts: list[Verdict]) -> list[str]:
    assert verdicts
    reached = [verdict for verdict in verdicts if verdict.outcome != "not reached"]
    assert len(reached) > 0.9 * len(verdicts)
    return [f"{v.case}: {v.problems}" for v in reached if v.outcome == "wrong"]


def test_start_makes_calls_in_all_three_processes(known: dict[str, dict[str, Any]]) -> None:
    calls = {(role, call) for role, call, _, _ in known["pidfile"]["points"]}
    assert {("launcher", "fork"), ("session leader", "setsid"), ("session leader", "fork"),
            ("daemon", "pwrite64"), ("launcher", "waitid")} <= calls  # fmt: skip


@pytest.mark.root
def test_undisturbed_daemon_has_its_owner_only(known: dict[str, dict[str, Any]]) -> None:
    found = known["owner"]["marks"]["ready"]
    nobody = [str(programs.NOBODY)]
    assert (found["Uid"], found["Gid"], found["Groups"]) == (nobody * 4, nobody * 4, nobody)


def test_failing_call_is_tolerated_or_told(known: dict[str, dict[str, Any]]) -> None:
    cases = campaign.cases_of(campaign.every_fault, ["pidfile"], known)
    others = known.keys() - {"pidfile"}
    cases += campaign.cases_of(campaign.every_fault, sorted(others), known)[::SAMPLE]
    assert wrong(campaign.judged(cases, known)) == []


def test_death_leaves_nothing_in_the_way(known: dict[str, dict[str, Any]]) -> None:
    cases = campaign.cases_of(campaign.every_death, ["pidfile"], known)
    assert wrong(campaign.judged(cases, known)) == []


def test_signal_to_the_waiting_launcher_cancels(known: dict[str, dict[str, Any]]) -> None:
    cases = campaign.cases_of(campaign.every_signal, ["pidfile"], known)
    assert wrong(campaign.judged(cases, known)) == []


def test_random_deaths_never_block_the_next_start(known: dict[str, dict[str, Any]]) -> None:
    assert wrong(campaign.random_cycles(40, 1, known)) == []


@pytest.mark.parametrize("rival", programs.RIVALS)
def test_rivals_are_convicted(rival: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # restored afterwards
    rivals.make_importable(tmp_path)
    found = rivals.convictions(rivals.verdicts(rival))
    assert found["silent"] > 20
    assert found["next start"] > 3


def test_daemon_that_differs_is_convicted(known: dict[str, dict[str, Any]]) -> None:
    seen = known["plain"]
    ready = {**seen["marks"]["ready"], "Groups": ["0", "4"]}
    other = {**seen, "marks": {**seen["marks"], "ready": ready}}
    assert judge(seen, seen).outcome == "tolerated"
    assert judge(seen, other).kinds == {"daemon differs"}
