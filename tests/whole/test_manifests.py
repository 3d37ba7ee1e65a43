"""The unit, the manifest and the crontab of the docs, by who reads such files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import support

HOWTO = support.ROOT / "docs" / "howto"
PAGE = "".join((HOWTO / f"{name}.md").read_text() for name in ("supervisors", "containers"))


def block(mark: str) -> str:
    """The text of the block behind a mark."""
    found = re.search(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```$", PAGE, re.M | re.S)
    assert found, mark
    return found[1]


def validator() -> list[str]:
    """The command of kubernetes-validate, which need not be installed."""
    beside = Path(sys.executable).with_name("kubernetes-validate")
    program = str(beside) if beside.exists() else shutil.which("kubernetes-validate")
    if program is None:
        pytest.skip("kubernetes-validate is not installed")
    return [program]


def test_the_manifest_is_one(tmp_path: Path) -> None:
    path = tmp_path / "feed.yaml"
    path.write_text(block("manifest"))
    done = subprocess.run(
        [*validator(), "--strict", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done


def test_its_grace_is_the_stop_schedule() -> None:
    from daemon_context.embedding import SCHEDULE

    seconds = round(sum(seconds for _, seconds in SCHEDULE))
    assert f"terminationGracePeriodSeconds: {seconds} " in block("manifest")
    assert f"TimeoutStopSec={seconds}\n" in block("unit: feed.service")


def test_the_unit_is_one(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "feed.py"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "feed.service"
    unit.write_text(block("unit: feed.service").replace("/opt/feed/feed.py", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_crontab_is_one(tmp_path: Path) -> None:
    if not shutil.which("crontab"):
        pytest.skip("crontab is not installed")
    path = tmp_path / "crontab"
    path.write_text(block("crontab"))
    done = subprocess.run(["crontab", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
