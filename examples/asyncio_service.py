#!/usr/bin/env python3
"""An asyncio service: it answers each line with the same in capitals.

    asyncio_service.py start [DIRECTORY]     prints the port on 127.0.0.1
    asyncio_service.py status [DIRECTORY]    0: running, 3: not running
    asyncio_service.py stop [DIRECTORY]

The context is opened first, and `asyncio.run` is called in it: a loop that was made before the
fork has descriptors that the daemon does not have, and `open()` refuses to be called in one. From
a program that has a loop already, use `spawn("package.module:function")`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from daemon_context import Daemon, DaemonContext, DaemonError
from daemon_context.embedding import running


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # What it raises asyncio only shows as an error: that the client is gone, or that we stop.
    with suppress(ConnectionError, asyncio.CancelledError):
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
    writer.close()


async def serve(context: DaemonContext, listener: socket.socket, caller: TextIO | None) -> None:
    # Until here the context's own handler ends the daemon; from here the loop ends by itself.
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # Not by `async with`: since Python 3.12 its end waits until the last client has gone.
    server = await asyncio.start_server(shout, sock=listener)
    print(listener.getsockname()[1], file=caller)
    if caller:
        caller.close()  # or a caller that reads our output would wait for the daemon's end
    context.ready()
    await stop.wait()
    server.close()  # and asyncio.run() cancels what still talks to clients
    print("the loop has ended")


def start(directory: Path) -> int:
    # Bound before: so a port that is taken would be an error here.
    listener = socket.create_server(("127.0.0.1", 0))
    # For the daemon's word to whoever starts it, as its own stdout is the log.
    caller = open(os.dup(1), "w") if sys.stdout else None  # noqa: SIM115
    log = directory / "asyncio-service.log"
    context = DaemonContext(
        pidfile=directory / "asyncio-service.pid",
        stdout=log,
        stderr=log,
        umask=0o022,
        files_preserve=[listener, caller],
        readiness="explicit",
    )
    with context:
        asyncio.run(serve(context, listener, caller))
    return 0


def status(directory: Path) -> int:
    found = Daemon(directory / "asyncio-service.pid").status()
    print(found)
    return 0 if found.is_running else 3


def stop(directory: Path) -> int:
    running(str(directory / "asyncio-service.pid")).stop()
    return 0


def main() -> int:
    verbs = {"start": start, "status": status, "stop": stop}
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in verbs:
        print(__doc__ or "usage: start|status|stop [DIRECTORY]", file=sys.stderr)  # python -OO
        return 2
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else ".").absolute()
    try:
        return verbs[sys.argv[1]](directory)
    except DaemonError as error:
        print(f"asyncio_service: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
