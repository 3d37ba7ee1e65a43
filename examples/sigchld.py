#!/usr/bin/env python3
"""A daemon that maps SIGCHLD, and reaps only its own children.

    sigchld.py [DIRECTORY]      pid file and log go there; default: .

A handler that waits for *any* child, os.waitpid(-1, ...), takes the exit statuses away from
everything else in the program: subprocess.run(["false"]) would then report success. Ignoring
SIGCHLD (mapping it to None) does the same. So the handler asks only for the children it knows.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from daemon_context import DaemonContext, DaemonError, default_signal_map

workers: dict[int, subprocess.Popen[bytes]] = {}


def reap(number: int, frame: FrameType | None) -> None:
    """Several children that end at once can cause a single signal: look at all of them."""
    for pid, worker in list(workers.items()):
        status = worker.poll()  # waitpid() for this child alone
        if status is not None:
            del workers[pid]
            print(f"worker {pid} ended with status {status}")


def hire(command: str) -> None:
    # Blocked meanwhile: a worker that ends at once must be in the dictionary before the handler.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        worker = subprocess.Popen(["sh", "-c", command])
        workers[worker.pid] = worker
        print(f"worker {worker.pid} works: {command}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def main() -> None:
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__ or "usage: sigchld.py [DIRECTORY]", file=sys.stderr)  # python -OO
        sys.exit(2)
    state = Path(sys.argv[1] if len(sys.argv) > 1 else ".").absolute()
    signals = {**default_signal_map(), signal.SIGTERM: "request_stop", signal.SIGCHLD: reap}
    context = DaemonContext(
        pidfile=state / "sigchld.pid", stdout=state / "sigchld.log", umask=0o022, signal_map=signals
    )
    try:
        context.open()
    except DaemonError as error:
        sys.exit(f"sigchld: {error}")
    with context as daemon:
        for status in (0, 3):
            hire(f"exit {status}")
        while workers and daemon.sleep(0.05):
            pass
        print(f"false ended with status {subprocess.run(['false'], check=False).returncode}")
        daemon.sleep()  # until a stop is requested


if __name__ == "__main__":
    main()
