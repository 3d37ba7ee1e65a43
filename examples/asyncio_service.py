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
import signal
import socket
import sys
from pathlib import Path

from daemon_context import DaemonContext, DaemonError, PidFile
from daemon_context.embedding import running


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for line in reader:
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def serve(context: DaemonContext, listener: socket.socket) -> None:
    # Until here the context's own handler ends the daemon; from here the loop ends by itself.
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with await asyncio.start_server(shout, sock=listener):
        context.ready()
        await stop.wait()
    print("the loop has ended")


def start(directory: Path) -> int:
    # Bound before: so a port that is taken would be an error here, and the port can be told.
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1])
    log = directory / "asyncio-service.log"
    context = DaemonContext(
        pidfile=directory / "asyncio-service.pid",
        stdout=log,
        stderr=log,
        umask=0o022,
        files_preserve=[listener],
        readiness="explicit",
    )
    with context:
        asyncio.run(serve(context, listener))
    return 0


def status(directory: Path) -> int:
    holder = PidFile(directory / "asyncio-service.pid").holder()
    print(holder)
    return 0 if holder.state == "running" else 3


def stop(directory: Path) -> int:
    running(str(directory / "asyncio-service.pid")).stop()
    return 0


def main() -> int:
    verbs = {"start": start, "status": status, "stop": stop}
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in verbs:
        print(__doc__, file=sys.stderr)
        return 2
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else ".").absolute()
    try:
        return verbs[sys.argv[1]](directory)
    except DaemonError as error:
        print(f"asyncio_service: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
