"""For the tests of managers: processes that look like theirs."""

from __future__ import annotations

from tests.helpers import support

UNIT = "0::/system.slice/feed.service\n"

# Takes another name, as /proc has it, and runs a command as its child.
NAMED = """
import subprocess, sys
with open("/proc/self/comm", "w") as file:
    file.write(sys.argv[1])
own = sys.argv[2] == "own"
sys.exit(subprocess.run(sys.argv[3:], start_new_session=own).returncode)
"""
NEW_PIDS = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def as_main_process(box: support.Sandbox, body: str, tail: str = "") -> list[str]:
    """A prefix that makes a program the main process of a service, with a systemctl of ours."""
    box.script(f"#!/bin/sh\necho asked >> {box.path}/times\n{body}\n", "systemctl")
    if not body:
        (box.path / "systemctl").chmod(0o644)
        (box.path / "times").write_text("no\n")
    (box.path / "cgroup").write_text(UNIT)
    command = (
        "mount --bind cgroup /proc/$$/cgroup; mount --bind systemctl /usr/bin/systemctl; "
        "export SYSTEMD_EXEC_PID=$$ INVOCATION_ID=8c; " + (tail or 'exec "$@"')
    )
    return ["unshare", "--mount", "sh", "-ec", command, "sh"]
