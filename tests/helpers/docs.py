"""For the tests of pages: the scripts of docs/, as modules."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.helpers import support


def script(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, support.ROOT / f"docs/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


regenerate = script("regenerate")
