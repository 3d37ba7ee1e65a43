"""What arguments of a command line mean."""

from __future__ import annotations

from argparse import ArgumentTypeError

LONGEST = 1e9


def seconds(text: str) -> float:
    """A number of seconds."""
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not 0 <= found < LONGEST:
        raise ArgumentTypeError(f"{text!r} is no number of seconds from 0 to {LONGEST:g}")
    return found
