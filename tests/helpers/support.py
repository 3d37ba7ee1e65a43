"""Real programs, looked at from outside, and ended by pid whatever happens.

Every process that a test starts, and all that those start, carry a mark in their environment;
`Sandbox.end` finds them by it in ``/proc`` and kills them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
MARK = "DAEMON_CONTEXT_TEST"
DEADLINE = 20.0
T = TypeVar("T")
# A daemon as many are written: it keeps the streams that it got. It prints when nobody but a
# caller that waits for the end of its output can hear it.
NAIVE = """
    import os, time
    launcher = os.getpid()
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    while os.path.exists(f"/proc/{launcher}/exe"):  # which a zombie has no more
        time.sleep(0.01)
    print("the launcher is gone", flush=True)
    with open("d.pid", "w") as file:
        print(os.getpid(), file=file)
    time.sleep(1000)
"""


def until(probe: Callable[[], T], seconds: float = DEADLINE, what: str = "") -> T:
    """Poll until the probe returns something true; its value. Fails when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or probe}")
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """State letter of the process, as in ps; '' if there is none."""
    fields = stat(pid)
    return fields[0] if fields else ""


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on: state, ppid, pgrp, session, tty_nr, …"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status as a dictionary."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def descriptors(pid: int) -> dict[int, str]:
    """Open descriptors of the process, and what they are."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)
        except FileNotFoundError:
            pass
    return found


def gone(pid: int, seconds: float = DEADLINE) -> None:
    """Wait until the process is gone."""
    until(lambda: not alive(pid), seconds, f"pid {pid} still runs")


def only_its_end(directory: Path, name: str = "*.pid") -> bool:
    """Whether of all daemons there, nothing is left but how they ended."""
    left = set(directory.glob(f"{name}*"))
    return all(
        path.suffix == ".status" and b'"ended": {"how"' in path.read_bytes() for path in left
    )


class Sandbox:
    """A directory, and the programs that run in it.

    :ivar path: the directory; every user may look into it
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark = uuid.uuid4().hex
        self.started: list[subprocess.Popen[str]] = []
        self.environ = {
            # PYTHONUNBUFFERED, for one, would make every test of buffers pass.
            **{k: v for k, v in os.environ.items() if not k.startswith(("COV_", "PYTHON"))},
            MARK: self.mark,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def script(self, body: str, name: str = "program.py") -> Path:
        """Write a program; dedented."""
        path = self.path / name
        path.write_text(textwrap.dedent(body))
        path.chmod(0o755)
        return path

    def run(
        self,
        body: str | Path,
        *args: Any,
        timeout: float = 60,
        env: dict[str, str] | None = None,
        prefix: list[str] | None = None,
        **kwargs: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, with its output captured.

        That it returns at all, with pipes captured, is itself a check: a daemon that kept one
        would make it hang.
        """
        path = body if isinstance(body, Path) else self.script(body)
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [
                *(prefix or []),
                sys.executable,
                "-u" if kwargs.pop("unbuffered", False) else "-B",
                str(path),
                *map(str, args),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.path,
            env={**self.environ, **(env or {})},
            check=False,
            **kwargs,
        )

    def popen(
        self,
        body: str | Path,
        *args: Any,
        env: dict[str, str] | None = None,
        prefix: list[str] | None = None,
        **kwargs: Any,
    ) -> subprocess.Popen[str]:
        """Start a program and go on; output in pipes."""
        path = body if isinstance(body, Path) else self.script(body)
        for stream in ("stdin", "stdout", "stderr"):
            kwargs.setdefault(stream, subprocess.PIPE)
        program = subprocess.Popen(
            [*(prefix or []), sys.executable, "-B", str(path), *map(str, args)],
            text=True,
            cwd=self.path,
            env={**self.environ, **(env or {})},
            **kwargs,
        )
        self.started.append(program)
        return program

    def pid(self, name: str = "d.pid") -> int:
        """The pid in a file of the sandbox, as soon as it is there."""
        path = self.path / name
        return int(until(lambda: path.exists() and path.read_text().strip(), what=f"{path}"))

    def text(self, name: str) -> str:
        """Content of a file of the sandbox, as soon as there is some."""
        path = self.path / name
        return until(lambda: path.exists() and path.read_text(), what=f"{path}")

    def processes(self) -> set[int]:
        """All live processes that come from this sandbox."""
        wanted = f"{MARK}={self.mark}".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                marked = wanted in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if marked and alive(int(entry.name)):
                found.add(int(entry.name))
        return found

    def settled(self, seconds: float = DEADLINE) -> None:
        """Fail unless all processes of this sandbox end by themselves."""
        until(lambda: not self.processes(), seconds, f"left behind: {self.processes()}")

    def end(self) -> None:
        """Kill what is left, until nothing is."""
        deadline = time.monotonic() + DEADLINE
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
            assert time.monotonic() < deadline, f"can't be killed: {left}"
            time.sleep(0.005)
        for program in self.started:
            program.wait()
            for stream in (program.stdin, program.stdout, program.stderr):
                if stream is not None:
                    stream.close()


class Terminal:
    """A pseudo terminal; a program with ``setsid --ctty`` before it gets it as its own."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.name = os.ttyname(self.slave)

    @property
    def streams(self) -> dict[str, int]:
        """The arguments of `Sandbox.popen` that put the standard streams on it."""
        return {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}

    def type(self, text: str) -> None:
        r"""Type on its keyboard: ``\x03`` is Ctrl-C."""
        os.write(self.master, text.encode())

    def output(self) -> str:
        """What is on its screen and was not read yet."""
        os.set_blocking(self.master, False)
        chunks = []
        try:
            while chunk := os.read(self.master, 1 << 16):
                chunks.append(chunk)
        except OSError:  # nothing more for now, or nobody has it open any more
            pass
        return b"".join(chunks).decode()

    def hang_up(self) -> None:
        """Take the terminal away."""
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.hang_up()


def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """As a fixture: a sandbox whose processes end with the test."""
    box = Sandbox(tmp_path)
    try:
        yield box
    finally:
        box.end()


def snapshot() -> dict[str, Any]:
    """What a start may change in this process, by the words that steps use in `touches`."""
    import resource

    os.umask(umask := os.umask(0o077))
    table = {}
    for fd in range(256):  # and not by /proc, which may be out of reach
        try:
            found = os.fstat(fd)
        except OSError:
            continue
        table[fd] = (found.st_dev, found.st_ino, os.get_inheritable(fd))
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return {
        "pid": os.getpid(),
        "sid": os.getsid(0),
        "pgid": os.getpgid(0),
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": os.getgroups(),
        "environment": dict(os.environ),
        "root": os.stat("/").st_ino,
        "cwd": os.stat(".").st_ino,
        "umask": umask,
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "descriptors": table,
        "streams": [(id(s), getattr(s, "line_buffering", None)) for s in streams],
    }


def preload() -> None:
    """Import what a start may import: who is nobody in a moment may not be able to read it."""
    import pkgutil
    from importlib import import_module

    import daemon_context

    for module in pkgutil.walk_packages(daemon_context.__path__, "daemon_context."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in ("grp", "json", "pwd", "resource", "socket", "struct", "subprocess", "traceback"):
        import_module(name)


def become_nobody(*groups: int) -> None:
    """For a program: go on as an ordinary user, wherever Python is installed."""
    preload()
    os.setgroups(groups)
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
