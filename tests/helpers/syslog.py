"""For the tests of last words: a /dev/log, and daemons that die."""

from __future__ import annotations

import os
import re
import socket
import textwrap
from pathlib import Path

from tests.helpers import support

#: In a mount namespace of its own, /dev is a directory of the sandbox, where a test can put `log`.
DEVICES = """
    for name in null zero urandom; do mount --bind /dev/$name dev/$name; done
    mount --rbind dev /dev
    exec "$@"
"""
RECORD = re.compile(r"<27>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d ([^ ]+)\[(\d+)\]: (.*)", re.DOTALL)


class Log:
    """A syslog daemon, as far as one has to be one here."""

    def __init__(self, path: Path, kind: int = socket.SOCK_DGRAM) -> None:
        self.path, self.kind = path, kind
        self.begin()

    def begin(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, self.kind)
        directory = os.open(self.path.parent, os.O_PATH)
        try:
            # The path of a socket must be short.
            self.socket.bind(f"/proc/self/fd/{directory}/{self.path.name}")
        finally:
            os.close(directory)
        if self.kind == socket.SOCK_STREAM:
            self.socket.listen()
        self.socket.settimeout(support.DEADLINE)
        self.path.chmod(0o666)

    def end(self) -> None:
        self.socket.close()
        self.path.unlink()

    def records(self, pid: int) -> list[str]:
        """All that arrives until the process is gone."""
        self.socket.setblocking(False)
        found: list[str] = []

        def gone() -> bool:
            is_gone = not support.alive(pid)  # first, because what it sent before is here
            try:
                while True:
                    record = self.socket.recv(1 << 16).decode()
                    assert record.endswith("\0")
                    found.append(record.removesuffix("\0"))
            except BlockingIOError:
                return is_gone

        support.until(gone)
        return found


def prefix(box: support.Sandbox) -> list[str]:
    return ["unshare", "--mount", "sh", "-ec", f"cd {box.path}; {textwrap.dedent(DEVICES)}", "sh"]


def start(
    box: support.Sandbox, body: str, options: str = "", *, pidfile: str = "pid", status: int = 0
) -> int:
    """Run a program that becomes a daemon, and ends with that status; its pid."""
    code = f"""
import os, signal, sys
from pathlib import Path
from daemon_context import DaemonContext
place = Path.cwd()
settings = dict(detach_process=True, working_directory={str(box.path)!r})
context = DaemonContext(**{{**settings, **dict({options})}})
def say_pid():
    Path("pid.tmp").write_text(str(os.getpid()))
    os.rename("pid.tmp", "pid")
{textwrap.dedent(body)}
"""
    done = box.run(code, prefix=prefix(box))
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    return box.pid(pidfile)


def lines(records: list[str], pid: int, ident: str = "program.py") -> list[str]:
    """The texts of the records, after a look at their headers."""
    texts = []
    for record in records:
        match = RECORD.fullmatch(record)
        assert match, record
        assert (match[1], match[2]) == (ident, str(pid))
        texts.append(match[3])
    return texts


def told(box: support.Sandbox, log: Log, pid: int) -> list[str]:
    """The lines that arrived from a daemon until it was gone."""
    texts = lines(log.records(pid), pid)
    box.settled()
    return texts


def is_traceback(texts: list[str], last: str) -> bool:
    """Whether the lines are one traceback, from its first line to its last, and nothing else."""
    heads = [text for text in texts if text.startswith("Traceback (most recent call last):")]
    return texts[0] in heads and len(heads) == 1 and texts[-1] == last


WITH = """
    with context:
        say_pid()
        {}
"""
BARE = """
    context.open()
    say_pid()
    {}
"""
SPAWN = """
    def target():
        say_pid()
        {}
    context.spawn(target)
"""

WAYS = {"with": WITH, "open": BARE, "spawn": SPAWN}

WAITING = """
    with context:
        say_pid()
        context.sleep()
        raise RuntimeError("out of luck")
"""
