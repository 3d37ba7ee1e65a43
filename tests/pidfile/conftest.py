"""Fixtures for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import support
from tests.helpers.pidfiles import (
    Innocent,
)


@pytest.fixture
def innocent(box: support.Sandbox) -> Iterator[Innocent]:
    process = Innocent(box)
    yield process
    assert process.end() == ""
