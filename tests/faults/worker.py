"""Runs cases, one after the other, and prints what was seen as JSON lines.

``python -m tests.faults.worker DIRECTORY CASES.json [--keep]``, with ``--keep`` all in one
directory, where each start finds what the one before has left. Each program is forked from this
process, which has imported everything already, and returns from `main` to the interpreter, as any
program does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable

from . import programs
from .run import Case, Run, clear

SET_CHILD_SUBREAPER = 36


def main() -> Callable[[], None] | None:
    """In the worker: run all cases. In each program: what it runs."""
    directory, path, *keep = sys.argv[1:]
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(path) as file:
        cases = [Case(*fields) for fields in json.load(file)]
    programs.preload()
    os.umask(0o027)
    for n, case in enumerate(cases):
        if not (keep and n):
            clear(directory)
            programs.prepare(case.variant)
        sys.stdout.flush()
        run = Run(case)
        program = run.start()
        if program is not None:
            return program
        seen = run.observe()
        if case.action == "kill":
            run = Run(Case(case.variant, action="none"))
            program = run.start()
            if program is not None:
                return program
            seen["next"] = run.observe()
        print(json.dumps(seen), flush=True)
    return None


if __name__ == "__main__":
    program = main()
    if program is not None:
        program()
