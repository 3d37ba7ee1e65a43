"""systemd as process 1 of a machine of its own, which boots in a second.

The root is an overlay of the real one, whose upper half is in memory. In the place of
`/etc/systemd/system` are the test's units, so that none of the real machine's own start.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.helpers import support

from .jail import Jail

# A system of its own for systemd: what it changes is on a tmpfs.
NEW_ROOT = """
mount -t tmpfs none {root}
mkdir {root}/upper {root}/work {root}/new
mount -t overlay none -o lowerdir=/,upperdir={root}/upper,workdir={root}/work {root}/new
cd {root}/new
for place in {seen}; do mkdir -p ./$place; mount --rbind $place ./$place; done
mkdir -p ./{shared}
mount --bind {outside} ./{shared}
for name in python project packages; do mkdir -p ./{shared}/$name; done
mount --bind {prefix} ./{shared}/python
mount --bind {project} ./{shared}/project
mount --bind {packages} ./{shared}/packages
mount -t proc none proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro none sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none run
mount -t tmpfs none tmp
mount --bind {outside}/units etc/systemd/system
mount -t tmpfs none dev
for node in null zero full random urandom tty; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 none dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs none dev/shm
mkdir -p run/old
pivot_root . run/old
umount -l /run/old
cd /
{command}
"""


# What would reach into the real machine's kernel.
MASKED = (
    *("systemd-journald-audit.socket", "systemd-modules-load.service", "systemd-sysctl.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount"),
    *("dev-hugepages.mount", "kmod-static-nodes.service", "proc-sys-fs-binfmt_misc.automount"),
)


class Machine(Jail):
    """A machine whose units the test writes."""

    def __init__(self, box: support.Sandbox) -> None:
        super().__init__(box, Path("/srv") / f"daemon-context-{box.mark}")
        (box.path / "root").mkdir()
        self.units = self.outside / "units"
        self.units.mkdir()
        for name in MASKED:
            (self.units / name).symlink_to(os.devnull)
        self.begin(NEW_ROOT.format(
            root=box.path / "root", shared=self.inside, outside=self.outside, seen=_elsewhere(),
            prefix=sys.base_prefix, project=support.ROOT, packages=_packages(),
            command="exec env -i container=test /lib/systemd/systemd --unit=multi-user.target",
        ))  # fmt: skip
        support.until(self._runs, what="a running systemd")

    @property
    def python(self) -> str:
        """A Python that every user can run, wherever the tests' own is installed."""
        executable = Path(os.path.realpath(sys.executable)).relative_to(sys.base_prefix)
        return f"{self.inside}/python/{executable}"

    @property
    def settings(self) -> list[str]:
        """What that Python needs in its environment."""
        path = f"{self.inside}/project:{self.inside}/packages"
        return [f"PYTHONPATH={path}", f"LD_LIBRARY_PATH={self.inside}/python/lib"]

    def _runs(self) -> bool:
        state = self.ctl("is-system-running", check=False)
        return state in ("running", "degraded")

    def ctl(self, *arguments: str, check: bool = True) -> str:
        """What systemctl says."""
        done = self.ask("systemctl", *arguments)
        assert not check or done.returncode == 0, (arguments, done.stderr, self.journal())
        return done.stdout.strip()

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of the unit."""
        lines = self.ctl("show", unit, "-p", ",".join(names)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def install(self, name: str, text: str) -> None:
        """Write a unit and have systemd read it."""
        (self.units / name).write_text(text)
        self.ctl("daemon-reload")

    def journal(self, unit: str = "*") -> str:
        """What a unit has written, and systemd about it."""
        return self.ask("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout


def _packages() -> Path:
    packages = Path(shutil.__file__).parent / "site-packages"
    return Path(sys.prefix) / packages.relative_to(sys.base_prefix)


def _elsewhere() -> str:
    """What an overlay of the root does not show, since it is mounted below it."""
    root = os.stat("/").st_dev
    wanted = (support.ROOT, sys.prefix, sys.base_prefix)
    return " ".join(str(place) for place in wanted if os.stat(place).st_dev != root)
