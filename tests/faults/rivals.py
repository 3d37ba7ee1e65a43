"""The rivals, which the same runs must convict: python-daemon, and the double fork of 2007."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from . import campaign
from .verdict import Verdict

NAMES = {"python-daemon": "python-daemon 3.1.2", "naive": "a naive double fork"}
OUR_WORDS = {"not ours", "unnamed error", "unnamed step"}
REQUIREMENTS = Path(__file__).with_name("rivals.txt")


def make_importable(directory: Path) -> None:
    """Install them there, out of the way of everything else, where they are not to be found."""
    try:
        distribution("python-daemon")
        return
    except PackageNotFoundError:
        pass
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(directory)]
    subprocess.run([*command, "-r", str(REQUIREMENTS)], check=True)
    paths = (str(directory), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def verdicts(rival: str) -> list[Verdict]:
    """Every fault and every death, for one of them."""
    known = campaign.references([rival])
    plans = (campaign.every_fault, campaign.every_death)
    return [
        v for plan in plans for v in campaign.judged(campaign.cases_of(plan, [rival], known), known)
    ]


def convictions(found: Iterable[Verdict]) -> Counter[str]:
    """How many runs went wrong in which way; the words of our errors are not asked of others."""
    return Counter(kind for verdict in found for kind in verdict.kinds - OUR_WORDS)


def convicted(found: Iterable[Verdict]) -> int:
    """How many runs went wrong."""
    return sum(bool(verdict.kinds - OUR_WORDS) for verdict in found)
