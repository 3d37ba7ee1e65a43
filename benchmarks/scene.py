"""One start: what the programs find, and what they tell."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from pathlib import Path

from . import limb
from .contenders import INTERPRETER, Contender
from .figures import Sample
from .limb import Failed, Setup


@dataclass(frozen=True)
class Scene:
    """What a start finds: each field but the last two is told to the programs by BENCH_…"""

    pidfile: bool = False
    signals: bool = False
    descriptors: int = 0
    heap: tuple[int, int] = (0, 0)
    stage: str = ""
    then: str = ""
    preload: str = ""
    nofile: int = 0
    race: int = 0
    race_from: str = ""
    setups: tuple[Setup, ...] = ()
    prefix: tuple[str, ...] = ()

    def environ(self) -> dict[str, str]:
        """For the programs; words only where something is asked for."""
        values = {
            "SIGNALS": self.signals,
            "DESCRIPTORS": self.descriptors,
            "HEAP": ",".join(map(str, self.heap)) if any(self.heap) else "",
            "STAGE": self.stage,
            "THEN": self.then,
            "PRELOAD": self.preload,
            "NOFILE": self.nofile,
            "RACE": self.race,
            "RACE_FROM": self.race_from,
        }
        return {f"BENCH_{name}": str(value) for name, value in values.items() if value}


class Place:
    """In a limb: the directory and the FIFO of one start."""

    def __init__(self, directory: str, environ: dict[str, str]) -> None:
        self.directory = directory
        self.pidfile = f"{directory}/bench.pid"
        self.fifo = f"{directory}/fifo"
        os.mkfifo(self.fifo)
        # Open for both, so that neither end ever waits for the other.
        self.fd = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.environ = {**environ, "BENCH_FIFO": self.fifo}
        self.received = b""

    def spawn(self, arguments: list[str], *, pidfile: bool = False) -> int:
        """Start a program with stdin and stdout at /dev/null, stderr in a file."""
        environ = {**self.environ, **({"BENCH_PIDFILE": self.pidfile} if pidfile else {})}
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(
            arguments[0],
            arguments,
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, f"{self.directory}/stderr", append, 0o600),
            ],
        )

    def words(self, seconds: float = 50) -> list[str]:
        """The words that a program tells by the FIFO."""
        while b"\n" not in self.received:
            if not select.select([self.fd], [], [], seconds)[0]:
                raise Failed(f"its body does not run{self._complaint()}")
            self.received += os.read(self.fd, 1 << 16)
        line, _, self.received = self.received.partition(b"\n")
        return line.decode().split()

    def pending(self) -> bool:
        """Whether there are words to be had at once."""
        return b"\n" in self.received or bool(select.select([self.fd], [], [], 0)[0])

    def numbers(self) -> list[int]:
        return [int(word) for word in self.words()]

    def said(self) -> str:
        """What was written to stderr."""
        path = Path(self.directory, "stderr")
        return path.read_text(errors="replace") if path.exists() else ""

    def require(self, status: int) -> None:
        if status:
            raise Failed(f"it ended with {status}{self._complaint()}")

    def _complaint(self) -> str:
        said = self.said()[-2000:].strip()
        return f"; it said:\n{said}" if said else ""


def start(place: Place, contender: Contender, scene: Scene) -> Sample:
    pidfile = scene.pidfile or contender.pidfile == "must"
    arguments = contender.arguments(place.directory, place.pidfile if pidfile else None)
    spawned = limb.now()
    launcher = place.spawn([*scene.prefix, *arguments], pidfile=pidfile)
    _, status, usage = os.wait4(launcher, 0)
    reaped = limb.now()
    place.require(os.waitstatus_to_exitcode(status))
    pid, begun, opening, running = place.numbers()
    if pid == launcher and contender.name != INTERPRETER:
        raise Failed("it did not detach")
    sample = {
        "launch": (reaped - spawned) / 1e6,
        "ready": (running - spawned) / 1e6,
        "inside": (running - begun) / 1e6,
        "detach": (running - opening) / 1e6,
        "back": (reaped - opening) / 1e6,
        "both": (max(reaped, running) - opening) / 1e6,
        "cpu": 1e3 * (usage.ru_utime + usage.ru_stime),
    }
    if not scene.then:
        limb.end(pid)
    return sample
