#!/usr/bin/env python3
"""Serve a directory over HTTP as a daemon.

    file_server.py demo     start it, show what runs, and say how to stop it
    file_server.py start    [--directory DIR] [--port N] [--user NAME]
    file_server.py status
    file_server.py stop

The socket is bound before the context is opened: a port that is taken is an error on the terminal,
and root can bind port 80 and then become --user for good.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from daemon_context import DaemonContext, DaemonError, PidFile


def start(options: argparse.Namespace) -> int:
    handler = partial(SimpleHTTPRequestHandler, directory=str(options.directory))
    server = ThreadingHTTPServer(("127.0.0.1", options.port), handler)
    print(f"bound http://127.0.0.1:{server.server_port}/")
    context = DaemonContext(
        working_directory=options.directory,  # one that is not there is refused before the fork
        pidfile=options.pidfile,
        stdout=options.log,
        stderr=options.log,  # the handler writes a line there for each request
        umask=0o022,
        uid=options.user,
        initgroups=options.user is not None,
        detach_process=options.detach,
        files_preserve=[server.socket],
        readiness="explicit",
        start_timeout=30,
    )
    with context as daemon, server:
        print(f"pid {os.getpid()} serves {options.directory}")
        daemon.ready()  # only now the launcher exits 0
        server.serve_forever()  # until SIGTERM: see DaemonContext.terminate
    return 0


def stop(options: argparse.Namespace) -> int:
    """Signal the daemon that the kernel names as the owner of the pid file, and nobody else."""
    pidfile = PidFile(options.pidfile)
    pid = pidfile.owner()
    if pid is None:
        print("not running")
        return 0
    try:
        pidfd = os.pidfd_open(pid)
        # The same owner again: so the pidfd is the daemon's, whatever its number is used for later.
        if pidfile.owner() == pid:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        print(f"pid {pid} has just ended by itself")
        return 0
    if not select.select([pidfd], [], [], 30)[0]:
        print(f"pid {pid} still runs, 30 seconds after SIGTERM", file=sys.stderr)
        return 1
    print(f"pid {pid} is gone")
    return 0


def status(options: argparse.Namespace) -> int:
    holder = PidFile(options.pidfile).holder()
    print(holder)
    return 0 if holder.state == "running" else 3


def demo(options: argparse.Namespace) -> int:
    this = [sys.executable, os.path.abspath(__file__)]
    places = ["--state", str(options.state)]
    extras = ["--user", options.user] if options.user else []
    command = [*this, "start", "--detach", *places, "--directory", str(options.directory)]
    started = subprocess.run(
        [*command, "--port", str(options.port), *extras], stdout=subprocess.PIPE, text=True
    )
    if started.returncode:
        print(f"to stop one that runs already:\n  {' '.join([*this, 'stop', *places])}")
        return started.returncode
    print(f"The command has ended with status 0. It said:\n  {started.stdout.strip()}")

    pid = options.pidfile.read_text().strip()
    print(f"\nIts pid file, {options.pidfile}:\n  {pid}\n\nThe process:")
    show_process(pid)

    with urllib.request.urlopen(started.stdout.split()[-1]) as page:
        body = page.read().decode()
        print(f"\nA page fetched from it ({page.status} {page.reason}, {len(body)} bytes):")
    print("".join(f"  {line}\n" for line in body.splitlines()[:12]) + "  ...")
    print(f"\nWhat it logs: {options.log}")
    print(f"It goes on running. To stop it:\n  {' '.join([*this, 'stop', *places])}")
    return 0


def show_process(pid: str) -> None:
    """As ps shows it; a small container may not have ps."""
    if shutil.which("ps"):
        columns = "pid,ppid,pgid,sid,tty,user,stat,args"
        done = subprocess.run(["ps", "-p", pid, "-o", columns], capture_output=True, text=True)
        lines = done.stdout.splitlines()
    else:
        shown = ("Name", "State", "Pid", "PPid", "NSsid", "Uid")
        text = Path(f"/proc/{pid}/status").read_text()
        lines = [line for line in text.splitlines() if line.startswith(shown)]
    print("".join(f"  {line}\n" for line in lines), end="")


def state_directory() -> Path:
    """Where only we may write: never /tmp, where anybody could put a file first."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base, "file-server")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["demo", "start", "stop", "status"])
    parser.add_argument("--directory", type=Path, default=Path(), help="what to serve; default: .")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--user", help="started as root: whom to become")
    parser.add_argument(
        "--detach",
        action="store_const",
        const=True,
        help="detach in any case; default: as whoever started it needs it",
    )
    parser.add_argument("--state", type=Path, default=state_directory(), help="for pid file, log")
    options = parser.parse_args()
    options.directory = options.directory.absolute()
    options.state = options.state.absolute()
    options.pidfile = options.state / "file-server.pid"
    options.log = options.state / "file-server.log"
    verbs = {"demo": demo, "start": start, "stop": stop, "status": status}
    try:
        options.state.mkdir(parents=True, exist_ok=True)
        return verbs[options.verb](options)
    except (DaemonError, OSError, OverflowError) as error:  # the last: a port that can't be
        print(f"file_server: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
