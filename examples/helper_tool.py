#!/usr/bin/env python3
"""A command line tool that has a helper in the background, as gpg has gpg-agent.

    helper_tool.py next [DIRECTORY]      print the next number
    helper_tool.py stop [DIRECTORY]      stop the helper

Whoever needs the helper first starts it, and goes on: `spawn` returns in the tool, once the helper
listens. It keeps the number, answers on a socket, and ends when nobody has asked for a while.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from pathlib import Path

from daemon_context import AlreadyRunning, DaemonContext, DaemonError
from daemon_context.embedding import Handle, running

IDLE = 600.0  # seconds without a question, after which the helper ends


def helper(context: DaemonContext, place: Path) -> None:
    """In the daemon: answer until nobody asks any more. SIGTERM ends it anywhere in here."""
    place.unlink(missing_ok=True)  # of one that was killed: there is no other, the pid file is ours
    number = 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        listener.settimeout(IDLE)
        context.ready()
        try:
            while True:
                connection, _ = listener.accept()
                with connection, suppress(ConnectionError):  # it may be gone by now
                    number += 1
                    connection.sendall(str(number).encode())
        except TimeoutError:
            pass
        finally:
            place.unlink(missing_ok=True)


def ensure(directory: Path) -> Handle:
    """The helper's handle; started unless it runs."""
    context = DaemonContext(
        pidfile=directory / "helper.pid",
        stderr=directory / "helper.log",
        umask=0o077,  # the socket is for its owner alone
        readiness="explicit",
    )
    try:
        return context.spawn(helper, context, directory / "helper.socket")
    except AlreadyRunning as error:
        return error.handle


def ask(directory: Path, helper: Handle) -> str:
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(directory / "helper.socket"))
                if answer := connection.recv(64).decode():
                    return answer
        except (FileNotFoundError, ConnectionError):
            pass
        # Another tool is just starting it; or it has ended a moment ago, of idleness or stopped.
        if helper.wait(0.01):
            helper = ensure(directory)


def main() -> int:
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in ("next", "stop"):
        print(__doc__ or "usage: next|stop [DIRECTORY]", file=sys.stderr)  # python -OO
        return 2
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else ".").absolute()
    try:
        if sys.argv[1] == "next":
            print(ask(directory, ensure(directory)))
        else:
            running(str(directory / "helper.pid")).stop()
    except DaemonError as error:
        print(f"helper_tool: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
