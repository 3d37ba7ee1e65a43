"""Fixtures for the tests of this room."""

from __future__ import annotations

import pytest

from tests.helpers import support


@pytest.fixture
def clean(box: support.Sandbox) -> support.Sandbox:
    """Without the marks of whoever runs the tests."""
    for name in ("INVOCATION_ID", "SYSTEMD_EXEC_PID", "PIDFILE", "NOTIFY_SOCKET", "LISTEN_PID"):
        box.environ.pop(name, None)
    return box
