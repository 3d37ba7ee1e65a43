#!/usr/bin/env python3
"""Serve a directory over HTTP as a daemon.

    file_server.py demo     start it on the examples, show what runs, and say how to stop it
    file_server.py start    [--directory DIR] [--port N] [--user NAME]
    file_server.py status
    file_server.py stop

The socket is bound before the context is opened: a port that is taken is an error on the terminal,
and root can bind port 80 and then become --user for good.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from daemon_context import Daemon, DaemonContext, DaemonError, PidFile
from daemon_context.embedding import running


@contextmanager
def trying(what: str, instead: str) -> Iterator[None]:
    """Say what could not be done, and what to do: the system's words alone don't."""
    try:
        yield
    except (OSError, OverflowError, RuntimeError) as error:  # a port that can't be; no home
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        sys.exit(f"file_server: cannot {what}: {why}; {instead}")


def start(options: argparse.Namespace) -> int:
    with trying(f"use {str(options.state)!r}", "give another directory with --state"):
        options.state.mkdir(parents=True, exist_ok=True)
    with trying(f"serve {str(options.directory)!r}", "give another directory with --directory"):
        os.scandir(options.directory).close()
    handler = partial(SimpleHTTPRequestHandler, directory=str(options.directory))
    with trying(f"listen on port {options.port}", "give another one with --port"):
        server = ThreadingHTTPServer(("127.0.0.1", options.port), handler)
    # For the daemon's word to whoever starts it, as its own stdout is the log.
    caller = open(os.dup(1), "w") if sys.stdout else None  # noqa: SIM115
    context = DaemonContext(
        working_directory=options.directory,
        pidfile=options.pidfile,
        stdout=options.log,
        stderr=options.log,  # the handler writes a line there for each request
        umask=0o022,
        uid=options.user,
        initgroups=options.user is not None,
        detach_process=options.detach,
        files_preserve=[server.socket, caller],
        readiness="explicit",
        start_timeout=30,
    )
    with context as daemon, server:
        print(f"pid {os.getpid()} serves {options.directory}")
        print(f"http://127.0.0.1:{server.server_port}/", file=caller)
        if caller:
            caller.close()  # or a caller that reads our output would wait for the daemon's end
        daemon.ready()  # only now the launcher exits 0
        server.serve_forever()  # until SIGTERM: see DaemonContext.terminate
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stop the daemon that the kernel names as the owner of the pid file, and nobody else."""
    if PidFile(options.pidfile).holder().state == "free":
        print("not running")
        return 0
    server = running(str(options.pidfile))
    server.stop()
    print(f"pid {server.pid} is gone")
    return 0


def status(options: argparse.Namespace) -> int:
    found = Daemon(options.pidfile).status()
    print(found)
    return 0 if found.is_running else 3


def demo(options: argparse.Namespace) -> int:
    this = [sys.executable, os.path.abspath(__file__)]
    places = ["--state", str(options.state)]
    extras = ["--user", options.user] if options.user else []
    command = [*this, "start", "--detach", *places, "--directory", str(options.directory)]
    started = subprocess.run(
        [*command, "--port", str(options.port), *extras], stdout=subprocess.PIPE, text=True
    )
    stopping = shlex.join([*this, "stop", *places])
    if started.returncode:
        if Daemon(options.pidfile).status().is_running:
            print(f"To stop the one that runs:\n  {stopping}")
        return started.returncode
    print(f"The command has ended with status 0. It said:\n  {started.stdout.strip()}")

    pid = options.pidfile.read_text().strip()
    print(f"\nIts pid file, {options.pidfile}:\n  {pid}\n\nThe process:")
    show_process(pid)

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(started.stdout.split()[-1]) as page:
        body = page.read()
        print(f"\nA page fetched from it ({page.status} {page.reason}, {len(body)} bytes):")
    shown = body.decode("ascii", "backslashreplace").splitlines()[:12]  # on any terminal
    print("".join(f"  {line}\n" for line in shown) + "  ...")
    print(f"\nWhat it logs: {options.log}")
    print(f"It goes on running. To stop it:\n  {stopping}")
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
    parser.add_argument("--directory", type=Path, help="what to serve; default: ., or the examples")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--user", help="started as root: whom to become")
    parser.add_argument(
        "--detach",
        action="store_const",
        const=True,
        help="detach in any case; default: as whoever started it needs it",
    )
    parser.add_argument("--state", type=Path, help="directory for pid file and log")
    options = parser.parse_args()
    served = Path(__file__).parent if options.verb == "demo" else Path()  # a clone has a .git
    options.directory = (options.directory or served).absolute()
    with trying("find a place for pid file and log", "give a directory with --state"):
        options.state = (options.state or state_directory()).absolute()
    options.pidfile = options.state / "file-server.pid"
    options.log = options.state / "file-server.log"
    verbs = {"demo": demo, "start": start, "stop": stop, "status": status}
    try:
        return verbs[options.verb](options)
    except (DaemonError, OSError) as error:
        print(f"file_server: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
