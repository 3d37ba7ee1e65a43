"""Fixtures for the tests of this room."""

from __future__ import annotations

import pytest

from tests.helpers import support
from tests.helpers.habits import MODULE


@pytest.fixture
def box(box: support.Sandbox) -> support.Sandbox:
    box.script(MODULE, "daemon.py")
    return box
