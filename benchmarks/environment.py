"""What the contenders need: an environment of their own with the peers, small C programs, tools."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).resolve().parent / "programs"
PEERS = (
    "python-daemon==3.1.2",
    "daemonocle==1.2.3",
    "daemonize==2.5.0",
    "daemons==1.3.2",
    "zdaemon==5.2.1",
)
PACKAGES = {  # Debian's, for the tools that are looked for
    "daemon": "daemon",
    "daemonize": "daemonize",
    "start-stop-daemon": "dpkg",
    "strace": "strace",
    "valgrind": "valgrind",
    "gcc": "gcc libc6-dev",
}


class Environment:
    """Where the contenders run. Made once, used by every later run.

    :ivar python: the interpreter of the environment; the library is linked into it, so that it
        is found where the peers are
    :ivar tools: path of each tool that is here
    :ivar missing: the tools that are not here
    :ivar remarks: what readers of the figures must know of it
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory = directory.absolute()  # contenders run elsewhere
        self.python = directory / "bin" / "python"
        self.tools: dict[str, str] = {}
        self.missing: list[str] = []
        self.remarks: list[str] = []
        self.peers: tuple[str, ...] = ()
        self.limit = self.nofile = ""

    def prepare(self, *, install: bool = False, peers: bool = True) -> None:
        """Install the peers if they aren't there; Debian's packages only if asked."""
        self._find_tools()
        if install and self.missing:
            # Only what is not here: apt-get would replace the rest by newer versions.
            _install_packages([name for tool in self.missing for name in PACKAGES[tool].split()])
            self._find_tools()
        self.remarks = [
            f"{tool} is not here (--install, as root on a Debian)" for tool in self.missing
        ]
        self.peers = PEERS if peers else ()
        if not self._is_prepared():
            self._make()
        if not self.has_ours():
            self._link().unlink(missing_ok=True)
            self._link().symlink_to(ROOT / "daemon_context")
        self._compile_modules()
        self.limit = self._compile("limit.c", "limit")
        self.nofile = self._compile("nofile.c", "nofile.so", "-shared", "-fPIC")

    def describe(self) -> dict[str, str]:
        """The machine and the versions, for whoever reads the figures."""
        model = next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.machine(),
        )
        version = subprocess.run(
            [self.python, "-V"], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        return {
            "cpu": f"{os.cpu_count()} × {model}",
            "kernel": platform.release(),
            "python": version,
            "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
            "peers": ", ".join(self.peers),
        }

    def has_ours(self) -> bool:
        """Whether the library that contenders find is this one: the environment may be shared by
        several checkouts, and the last one to prepare it is linked.
        """
        return self._link().is_symlink() and self._link().resolve() == ROOT / "daemon_context"

    def _link(self) -> Path:
        return self._site_packages() / "daemon_context"

    def sources(self) -> tuple[Path, ...]:
        """Where the sources of modules are that contenders load."""
        return (self._site_packages(), Path(sysconfig.get_path("stdlib")))

    def _site_packages(self) -> Path:
        return next((self.directory / "lib").glob("python3.*/site-packages"))

    def _stamp(self) -> Path:
        return self.directory / "peers.txt"

    def _contents(self) -> str:
        return "\n".join((*self.peers, sys.version, str(Path(sys.executable).resolve())))

    def _is_prepared(self) -> bool:
        if not self._stamp().exists():
            return False
        found = self._stamp().read_text()
        # Peers that nobody asks for this time may stay.
        return found == self._contents() or (not self.peers and found.endswith(self._contents()))

    def _make(self) -> None:
        there = self.directory.exists() and any(self.directory.iterdir())
        if there and not self._stamp().exists():
            sys.exit(f"{self.directory} is not empty, and none of ours: it would be emptied")
        # Without pip and setuptools in it, whose .pth file would slow down every interpreter.
        run = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(self.directory)]
        subprocess.run(run, check=True)
        self._stamp().touch()  # ours from here on, though not complete
        if self.peers:
            self._install_peers()
        self._stamp().write_text(self._contents())

    def _install_peers(self) -> None:
        print(f"installing {', '.join(self.peers)} into {self.directory}", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
        subprocess.run(
            [
                *pip,
                "--python",
                str(self.python),
                "install",
                "--no-warn-script-location",
                *self.peers,
            ],
            check=True,
        )

    def _find_tools(self) -> None:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        found = {tool: shutil.which(tool, path=path) for tool in PACKAGES}
        self.tools = {tool: path for tool, path in found.items() if path}
        self.missing = [tool for tool, path in found.items() if not path]

    def _compile_modules(self) -> None:
        # As the peers' are since their installation: else the first start would pay for ours.
        sources = (str(ROOT / "daemon_context"), str(PROGRAMS))
        command = [str(self.python), "-I", "-m", "compileall", "-q", *sources]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            self.remarks.append("our modules can't be kept compiled here: each start compiles them")

    def _compile(self, source: str, name: str, *options: str) -> str:
        compiler = self.tools.get("gcc")
        target = self.directory / name
        origin = PROGRAMS / source
        if target.exists() and target.stat().st_mtime > origin.stat().st_mtime:
            return str(target)
        if compiler is None:
            return ""
        subprocess.run([compiler, "-O2", *options, "-o", target, origin], check=True)
        return str(target)


def _install_packages(packages: list[str]) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit("--install needs root and apt-get")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], check=True, env=quiet)
    subprocess.run(
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
        check=True,
        env=quiet,
        stdout=subprocess.DEVNULL,
    )
