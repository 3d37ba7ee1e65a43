"""The one program that every launcher starts: it writes down what it finds, and lives on.

    program.py PLACE [class VERB]

PLACE is a directory of its own. In it, `options` (JSON) is for the context, with "reap"
for its step; `config` is read at a
reload: "bad" is refused, "stuck" leads into a loop that has no beat. With a verb it is
the class.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from daemon_context import DEFAULT_STEPS, Daemon, DaemonContext, ReapChildren

STARTED = os.getpid()
PLACE = Path(sys.argv[1])
MARKS = (
    *("INVOCATION_ID", "SYSTEMD_EXEC_PID", "PIDFILE", "NOTIFY_SOCKET", "WATCHDOG_USEC"),
    *("LISTEN_FDS", "LISTEN_PID"),
)


def write(name: str, text: str) -> None:
    """All of it at once."""
    (PLACE / f"{name}.{os.getpid()}").write_text(text)
    (PLACE / f"{name}.{os.getpid()}").rename(PLACE / name)


def option(name: str, default: str = "") -> str:
    path = PLACE / name
    return path.read_text().strip() if path.exists() else default


def found(supervisor: Any) -> None:
    """For the test."""
    facts = {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "session": os.getsid(0),
        "detached": STARTED not in (os.getpid(), os.getppid()),
        "name": supervisor.name,
        "reason": supervisor.reason,
        "marks": {name: os.environ[name] for name in MARKS if name in os.environ},
        "sockets": sockets(),
        "umask": umask(),
        "directory": os.getcwd(),
    }
    write("found", json.dumps(facts))


def umask() -> str:
    return Path("/proc/self/status").read_text().partition("Umask:\t")[2].partition("\n")[0]


def sockets() -> list[list[str]]:
    """Serve whoever connects to what was handed over, once."""
    try:
        from daemon_context import listen_fds
    except ImportError:
        return []
    return [[name, serve(handed)] for name, handed in listen_fds()]


def serve(handed: Any) -> str:
    import socket

    handed.settimeout(20)
    if handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        connection, kind = handed.accept()[0], "listening"
    else:
        connection, kind = handed, "connected"
    connection.sendall(b"hello\n")
    connection.close()
    return kind


def reload() -> None:
    text = option("config")
    if text == "bad":
        raise ValueError("the configuration is bad")
    with (PLACE / "reloads").open("a") as file:
        file.write(f"{text}\n")


def work(loop: Any) -> None:
    """As long as nobody wants it to end."""
    for _ in loop.every(0.05):
        if option("config") == "stuck":
            time.sleep(1000)


class Program(Daemon):
    """The program as a class."""

    def run(self) -> None:
        assert self._context is not None
        found(self._context.supervisor)
        work(self)
        write("ended", "0")

    def on_reload(self) -> None:
        reload()


def main() -> None:
    options = json.loads(option("options", "{}"))
    if options.pop("reap", False):
        options["steps"] = DEFAULT_STEPS.insert_after("install-signals", ReapChildren())
    if sys.argv[2:]:
        Program(PLACE / "d.pid", **options).main(sys.argv[3:])

    def on_terminate(number: int, frame: FrameType | None) -> None:
        if not context.stop_requested:  # timeout(1), for one, sends it twice
            now = str(time.monotonic())
            context.request_stop(number)
            write("terminated", now)

    signals = {signal.SIGTERM: on_terminate, signal.SIGHUP: lambda *args: reload()}
    context = DaemonContext(
        pidfile=PLACE / "d.pid", signal_map=signals, readiness="explicit",
        **{"umask": 0o022, **options},
    )  # fmt: skip
    with context:
        context.ready("at work")
        found(context.supervisor)
        work(context)
    write("ended", "0")


main()
