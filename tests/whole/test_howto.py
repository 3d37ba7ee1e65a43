"""What a how-to page says of another program is done with that program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers import support, tools
from tests.helpers.docs import regenerate

LOGS = support.ROOT / "docs/howto/logs.md"


def rotate(box: support.Sandbox) -> None:
    """Have logrotate do at once what the page's stanza says."""
    program = tools.find("logrotate")
    found = re.search(r"<!-- logrotate: .* -->\n```text\n(.*?)```\n", LOGS.read_text(), re.S)
    assert found
    stanza = box.path / "stanza"
    text = found[1].replace(regenerate.PLACE, str(box.path))
    stanza.write_text(text.replace(" python ", f" {sys.executable} "))
    stanza.chmod(0o644)
    command = [program, "--force", "--state", box.path / "state", stanza]
    subprocess.run(command, check=True, env=box.environ, cwd=box.path)


def test_logrotate_rotates_as_the_page_says(box: support.Sandbox) -> None:
    text = LOGS.read_text()
    regenerate.write_files(regenerate.files(text, len(text)), box)
    started = regenerate.run([sys.executable, str(box.path / "ticker.py"), "start"], box)
    assert started.returncode == 0, started.stderr
    pid = box.pid("ticker.pid")
    assert os.readlink(f"/proc/{pid}/fd/2") == str(box.path / "ticker.err")
    box.text("ticker.log")
    with open(f"/proc/{pid}/fd/2", "ab") as file:  # as the daemon would, by its own opening
        file.write(b"before\n")
    rotate(box)
    assert box.text("ticker.log.1").startswith("tick\n")
    assert box.text("ticker.log").startswith("tick\n")  # a new file, by itself
    assert (box.path / "ticker.err.1").read_text() == "before\n"
    assert (box.path / "ticker.err").read_text() == ""
    assert os.readlink(f"/proc/{pid}/fd/2") == str(box.path / "ticker.err")
    flags = re.search(r"flags:\s+(\d+)", Path(f"/proc/{pid}/fdinfo/2").read_text())
    assert flags
    assert int(flags[1], 8) & os.O_APPEND


def test_systemd_understands_the_unit_of_the_first_service(box: support.Sandbox) -> None:
    page = (support.ROOT / "docs/tutorials/first-service.md").read_text()
    found = re.search(r"^```ini\n(.*?)```$", page, re.S | re.M)
    assert found
    unit = box.path / "poller.service"
    unit.write_text(found[1].replace("/srv/app/venv/bin/python", sys.executable))
    program = tools.find("systemd-analyze")
    # Without these flags an unknown key is no error.
    verify = [program, "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
