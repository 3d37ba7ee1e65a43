"""Namespaces that end with the test, also when that is killed: processes, mounts, cgroups."""

from __future__ import annotations

import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from tests.helpers import support

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
UNSHARE = [
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", "--mount-proc"),
    *("--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--propagation", "private"),
]
LOOPBACK = """
import fcntl, socket, struct
with socket.socket() as any: # netdevice(7): SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
    fcntl.ioctl(any, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
"""
T = TypeVar("T", bound="Jail")
# It outlives the test by a moment, in a session of its own: empty cgroups end with nobody.
KEEPER = """
mkdir -p "$1/cgroup"
own="$1/cgroup/$2"
mount -t cgroup2 none "$1/cgroup" && mkdir "$own" || exit
shift 2
{ sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$own" "$@" </dev/null; echo $? > status; } &
read -r _ # until the test closes the pipe, or is gone
child() { cat "/proc/$1/task/$1/children" 2>&-; }
unshare=$(child $!)
first=$(child $unshare)
kill -KILL ${first:-$unshare} 2>&- # whom its parent reaps; nobody may do so for an orphan
wait $!
for _ in $(seq 500); do
    find "$own" -depth -type d -exec rmdir {} + 2>&- && exit
    sleep 0.02
done
"""


class Jail:
    """Process 1 of namespaces of their own, and what runs below it.

    :ivar outside: a directory of the test
    :ivar inside: the same, as it is called inside
    """

    def __init__(self, box: support.Sandbox, inside: Path | None = None) -> None:
        self.box, self.outside = box, box.path / "shared"
        self.inside = inside or self.outside
        self.keeper: subprocess.Popen[str] | None = None
        self.terminal: support.Terminal | None = None
        self.outside.mkdir()

    def begin(self, script: str, *, terminal: bool = False) -> None:
        """Start process 1, which runs the script; `terminal`: as `docker run -t` would."""
        up = f"{sys.executable} -c {shlex.quote(LOOPBACK)}"
        name = f"daemon-context-{self.box.mark}-{uuid.uuid4().hex[:8]}"
        keep = ["unshare", "--mount", "--propagation", "private", "sh", "-c", KEEPER, "keeper"]
        if terminal:
            self.terminal = support.Terminal()
            own = f"<> {self.terminal.name}"
            script = f"exec setsid --ctty sh -ec {shlex.quote(script)} {own}"
        with (self.box.path / "said").open("a") as said:
            self.keeper = subprocess.Popen(
                [*keep, str(self.box.path), name, *UNSHARE, "sh", "-ec", f"{up}\n{script}"],
                stdin=subprocess.PIPE, stdout=said, stderr=said, text=True, cwd=self.box.path,
                env=self.environ, start_new_session=True,
            )  # fmt: skip

    @property
    def environ(self) -> dict[str, str]:
        """What a machine's own programs have: nothing of who runs the tests."""
        own = (support.MARK, "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        return {"PATH": SYSTEM, "LANG": "C.UTF-8", **{k: self.box.environ[k] for k in own}}

    @property
    def said(self) -> str:
        """What was printed by whatever runs inside."""
        return (self.box.path / "said").read_text(errors="replace")

    @property
    def ended(self) -> str:
        """How process 1 has ended, as a shell says it; '' as long as it lives."""
        path = self.box.path / "status"
        return path.read_text() if path.exists() else ""

    @property
    def status(self) -> int:
        """How process 1 has ended, as soon as it has."""
        return int(support.until(lambda: self.ended, what="an end"))

    @property
    def first(self) -> int:
        """Process 1 of the namespaces, as it is called outside."""
        return support.until(self._first, what=f"a first process; {self.said}")

    def _first(self) -> int:
        assert self.keeper is not None
        for pid in below(self.keeper.pid):
            if namespaced(pid)[-1:] == [1]:
                return pid
        assert self.keeper.poll() is None, self.said
        return 0

    def host_pid(self, inner: int) -> int:
        """A process inside, as it is called outside; 0: there is none."""
        assert self.keeper is not None
        for pid in below(self.keeper.pid):
            if namespaced(pid)[-1:] == [inner] and len(namespaced(pid)) > 1:
                return pid
        return 0

    def enter(self, *command: str) -> list[str]:
        """The command that runs this one inside."""
        return ["nsenter", "--target", str(self.first), "--all", *command]

    def ask(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside, to its end."""
        return subprocess.run(
            self.enter(*command), capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL, env=self.environ,
        )  # fmt: skip

    def end(self) -> None:
        """End it as the death of the test would: all that is inside is killed."""
        if self.keeper is not None and self.keeper.stdin is not None:
            self.keeper.stdin.close()
            self.keeper.wait()
        if self.terminal is not None:
            self.terminal.hang_up()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


def below(pid: int) -> Iterable[int]:
    """All processes below this one, nearest first."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):  # of each of its threads
            try:
                found += map(int, children.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found[1:]


def namespaced(pid: int) -> list[int]:
    """The numbers of a process, from the outermost pid namespace to its own."""
    try:
        return list(map(int, support.status(pid)["NSpid"].split()))
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return []
