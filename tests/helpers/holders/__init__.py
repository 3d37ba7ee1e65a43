"""Imported by the programs that tests start: objects that hold descriptors, opened before the
context and used after it, and a daemon made by hand to compare with.
"""

from . import files, kernel, libraries, logs
from .cases import CASES
from .examine import double_fork, examine, examine_all

__all__ = ["CASES", "double_fork", "examine", "examine_all", "files", "kernel", "libraries", "logs"]
