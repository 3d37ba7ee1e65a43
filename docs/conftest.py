"""Options of the tests of the site."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the site is, and where pictures of its pages shall go."""
    parser.addoption("--site", help="the directory with the built site")
    parser.addoption("--screenshots", help="a directory for pictures of the pages")
