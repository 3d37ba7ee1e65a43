"""Fixtures for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import support
from tests.helpers.syslog import Log


@pytest.fixture
def devices(open_box: support.Sandbox) -> support.Sandbox:
    """A sandbox with a directory that becomes /dev where programs run with `prefix`."""
    (open_box.path / "dev").mkdir()
    for name in ("null", "zero", "urandom"):
        (open_box.path / "dev" / name).touch()
    return open_box


@pytest.fixture
def log(devices: support.Sandbox) -> Iterator[Log]:
    log = Log(devices.path / "dev" / "log")
    yield log
    log.socket.close()
