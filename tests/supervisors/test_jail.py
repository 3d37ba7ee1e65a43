"""Nothing of the namespaces is left on the machine, also when the test that made them is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.helpers import support

KILLED = """
    import sys, time
    from pathlib import Path
    from tests.helpers import support
    from tests.supervisors.jail import Jail
    from tests.supervisors.machine import Machine

    box = support.Sandbox(Path(sys.argv[1]))
    box.mark = sys.argv[2]
    box.environ[support.MARK] = box.mark
    if sys.argv[3] == "machine":
        Machine(box)
    else:
        jail = Jail(box)
        jail.begin("setsid sleep 1000 & setsid sleep 1000")
        support.until(lambda: len(box.processes()) > 5)
    print("up", flush=True)
    time.sleep(1000)
"""


def left(box: support.Sandbox) -> list[str]:
    """What names the sandbox among mounts and cgroups, and its processes."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if box.mark in line]
    found = [*mounts, *map(str, box.processes())]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            cgroup = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue
        if box.mark in cgroup:
            found.append(f"{pid} in {cgroup}")
    found += [str(path) for path in cgroups() if box.mark in path.name]
    return found


def cgroups() -> list[Path]:
    """Of the hierarchy that the jails use, wherever it is mounted."""
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    tops = [Path(point) for _, point, kind, *_ in lines if kind == "cgroup2"]
    return [path for top in tops for path in top.iterdir() if path.is_dir()]


@pytest.mark.parametrize("what", ["jail", "machine"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_test_that_is_killed(
    open_box: support.Sandbox, what: str, how: signal.Signals
) -> None:
    if what == "machine" and not Path("/lib/systemd/systemd").exists():
        pytest.skip("systemd is not installed; `.ci/run supervisors` installs it")
    program = open_box.popen(KILLED, open_box.path, open_box.mark, what, stderr=sys.stderr)
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    assert len(left(open_box)) > 2
    program.send_signal(how)
    program.wait()
    support.until(lambda: not left(open_box), what=f"left behind: {left(open_box)}")
