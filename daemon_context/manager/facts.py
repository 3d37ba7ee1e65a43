"""What the kernel, the environment and systemd tell about who started us."""

from __future__ import annotations

import os
import stat
import sys

from ..system import of_proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SHELLS = {"sh", "dash", "bash"}
# Each waits for the program that it runs, and ends with it. As /proc/PID/comm has them.
WRAPPERS = SHELLS | {
    "sudo", "runuser", "setpriv", "doas", "gosu", "su-exec", "flock", "timeout", "nice", "env",
    "uv", "strace",
}  # fmt: skip
ASK_TIMEOUT = 2.0
# Not by PATH, which may be an unprivileged user's, as it is after `sudo -E`.
SYSTEMCTL = ("/usr/bin/systemctl", "/bin/systemctl", "/run/current-system/sw/bin/systemctl")

_answers: dict[tuple[str, bool], dict[str, str]] = {}


class Facts:
    """What the rule asks about, read when it asks."""

    def __init__(self) -> None:
        self.environ: Mapping[str, str] = os.environ
        self.pid = os.getpid()
        self.ppid = os.getppid()
        self.session = os.getsid(0)
        self._stats: dict[int, str] = {}  # read once: the kernel takes its time to write one

    @property
    def has_tty(self) -> bool:
        """Whether there is a controlling terminal."""
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def session_of(self, pid: int) -> int | None:
        """Session of the process."""
        try:
            return os.getsid(pid)
        except OSError:
            return None

    def name_of(self, pid: int) -> str:
        """Name of the process, cut to 15 characters by the kernel."""
        return self._stat(pid).rpartition(")")[0].partition("(")[2]

    def parent_of(self, pid: int) -> int:
        """Parent of the process; 0: none, or not to be known."""
        fields = self._stat(pid).rpartition(")")[2].split()
        return int(fields[1]) if fields else 0

    def arguments_of(self, pid: int) -> list[str]:
        """What the process was started with, without its name."""
        return (of_proc(f"{pid}/cmdline") or "").split("\0")[1:-1]

    def _stat(self, pid: int) -> str:
        if pid not in self._stats:
            self._stats[pid] = of_proc(f"{pid}/stat") or ""
        return self._stats[pid]

    @property
    def stdin(self) -> str:
        """A socket that a superserver may have given: ``listening``, ``unconnected`` (of
        datagrams) or ``connected``; or ''.
        """
        if sys.__stdin__ is None:  # it was closed: what has its number now is the program's own
            return ""
        try:
            if not stat.S_ISSOCK(os.fstat(0).st_mode):
                return ""
        except OSError:  # closed; or no descriptor is free, which is no sign of a superserver
            return ""
        try:
            return _socket_kind()
        except (OSError, ImportError):  # no descriptor is free; what comes next will say so
            return ""

    def service(self, unit: str, *, user: bool) -> Mapping[str, str]:
        """What systemd says about the unit: ``Type`` and ``MainPID``; empty without an answer.

        Asked once in a process: it takes 10 milliseconds, and 2 seconds where it hangs.
        """
        if (unit, user) not in _answers:
            _answers[unit, user] = _asked(unit, user=user)
        return _answers[unit, user]

    @property
    def cgroup(self) -> str:
        """Content of ``/proc/self/cgroup``."""
        return of_proc("self/cgroup") or ""


def _asked(unit: str, *, user: bool) -> dict[str, str]:
    import subprocess

    program = next((path for path in SYSTEMCTL if os.access(path, os.X_OK)), None)
    if program is None:
        return {}
    manager = ["--user"] if user else []
    try:
        done = subprocess.run(
            [program, *manager, "show", "-p", "Type", "-p", "MainPID", unit],
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    found = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in found} if done.returncode == 0 else {}


def _socket_kind() -> str:
    import socket

    with socket.socket(fileno=os.dup(0)) as probe:
        if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listening"
        try:
            peer = probe.getpeername()
        except OSError:
            peer = None
        if probe.family == socket.AF_UNIX and not peer and not probe.getsockname():
            return ""
    return "unconnected" if peer is None else "connected"


def outermost(facts: Facts) -> int:
    """The process that who started us has started: this one, or the outermost of its wrappers."""
    pid = facts.pid
    parent = facts.ppid
    while parent > 1 and facts.session_of(parent) == facts.session and _wraps(facts, parent):
        pid, parent = parent, facts.parent_of(parent)
    return pid


def _wraps(facts: Facts, pid: int) -> bool:
    name = facts.name_of(pid)
    if name in SHELLS:  # not one that somebody types into
        return any(_is_command(argument) for argument in facts.arguments_of(pid))
    return name in WRAPPERS


def _is_command(argument: str) -> bool:
    """Whether a shell's argument is ``-c``, with others or alone, or a script."""
    return argument[:1] not in "-+" or (argument[:2] != "--" and "c" in argument)
