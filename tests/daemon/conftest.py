"""Fixtures for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import support
from tests.helpers.daemons import HEARTBEAT


@pytest.fixture
def heartbeat(box: support.Sandbox) -> Path:
    """A script with all the verbs."""
    (box.path / "conf").write_text("good")
    return box.script(HEARTBEAT, "heartbeat.py")
