"""A plugin for pytest: the tests most likely to fail first, and a line for each that is begun.

In the environment: MUTATION_ORDER, a file of test ids, one a line, the others are left out; and
MUTATION_LOG, the file to write to: ``begin ID``, ``end ID seconds``, ``fail ID``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _log(*words: object) -> None:
    with open(os.environ["MUTATION_LOG"], "a") as file:
        print(*words, sep="\t", file=file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if path := os.environ.get("MUTATION_ORDER"):
        places = {name: n for n, name in enumerate(Path(path).read_text().splitlines())}
        items[:] = sorted(
            (item for item in items if item.nodeid in places), key=lambda item: places[item.nodeid]
        )
    _log("collected", len(items))


def pytest_runtest_logstart(nodeid: str) -> None:
    _log("begin", nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _log("fail", report.nodeid)
    _log("end", report.nodeid, report.duration)
