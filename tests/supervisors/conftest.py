"""Which programs are there, and the machine that boots once for all of its tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import support

from .jail import SYSTEM, Jail
from .machine import Machine

SYSTEMD = "/lib/systemd/systemd"


def which(program: str) -> str:
    """Its path; the tests that need it are skipped where it isn't."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM}")
    if not path:
        pytest.skip(f"{program} is not installed; `.ci/run supervisors` installs it")
    return path


@pytest.fixture(scope="session")
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What every test here needs."""
    if os.geteuid():
        pytest.skip("needs root, for namespaces")
    which("setpriv")
    with Jail(support.Sandbox(tmp_path_factory.mktemp("namespaces"))) as jail:
        jail.begin("exec true")
        assert jail.keeper is not None
        support.until(lambda: jail.ended or jail.keeper.poll() is not None, what="an end")
        if not jail.ended:
            pytest.skip(f"no namespaces: {jail.said.strip()}")


@pytest.fixture(scope="module")
def place(namespaces: None) -> Iterator[support.Sandbox]:
    """A sandbox for a whole module; every user may look into it."""
    with tempfile.TemporaryDirectory(prefix="daemon-context-") as name:
        Path(name).chmod(0o755)
        yield from support.sandbox(Path(name))


@pytest.fixture(scope="module")
def machine(place: support.Sandbox) -> Iterator[Machine]:
    """A booted systemd."""
    which(SYSTEMD)
    which("systemctl")
    with Machine(place) as machine:
        yield machine


@pytest.fixture
def open_box(namespaces: None, open_box: support.Sandbox) -> support.Sandbox:
    return open_box
