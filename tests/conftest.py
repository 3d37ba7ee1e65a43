"""Fixtures and rules for all tests."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import support, tools
from tests.helpers.pidfiles import Starter, public_directory


@pytest.fixture(scope="session", autouse=True)
def own_options() -> None:
    """Those of this run aren't for the pytest that a test runs.

    A fixture, as it runs where tests do: xdist's workers take the variable from their master.
    """
    os.environ.pop("PYTEST_ADDOPTS", None)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[support.Sandbox]:
    """A sandbox for real programs; nothing of it survives the test."""
    yield from support.sandbox(tmp_path)


@pytest.fixture
def open_box() -> Iterator[support.Sandbox]:
    """A sandbox that every user can reach and write to: pytest's are for their owner only."""
    with tempfile.TemporaryDirectory(prefix="daemon-context-") as name:
        path = Path(name)
        path.chmod(0o1777)
        yield from support.sandbox(path)


@pytest.fixture
def starter(box: support.Sandbox) -> Iterator[Starter]:
    with Starter(box) as starter:
        yield starter


@pytest.fixture
def public() -> Iterator[Path]:
    with public_directory() as path:
        yield path


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: needs root")
    config.addinivalue_line("markers", "slow: takes seconds")
    config.addinivalue_line(
        "markers", "needs(program): runs it where nobody sees that it is missing"
    )
    os.environ["no_proxy"] = "*"  # what the tests fetch is on this machine
    # Under nohup, and in the background of a script, they are ignored: by all that the tests start.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="needs root")
    for item in items:
        if "root" in item.keywords and os.geteuid() != 0:
            item.add_marker(skip)
        for mark in item.iter_markers("needs"):
            if tools.is_missing(mark.args[0]):
                item.add_marker(pytest.mark.skip(reason=f"needs {mark.args[0]}"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test whose program is not here is skipped; where the CI run has installed all, it fails."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    program = tools.missing_behind(call.excinfo.value) if call.excinfo else ""
    if program and report.failed:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: needs {program}")
    if report.skipped and os.environ.get("NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped because a program is not here, and how to get it."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    known = tools.packages()
    found = {word for reason in reasons for word in re.findall(r"[\w-]+", reason) if word in known}
    if found:
        terminalreporter.section("programs that some tests need")
        terminalreporter.line(tools.how_to_install(found))
