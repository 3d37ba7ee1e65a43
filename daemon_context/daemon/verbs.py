"""The verbs of a script: start, stop, restart, reload, status, run; with the LSB's exit statuses.

Linux Standard Base Core, 20.2 "Init Script Actions".
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
from datetime import datetime

from ..control import NotRunning, NotTold
from ..embedding import SCHEDULE
from ..errors import DaemonError, OptionError, SequenceError, lock_class

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Daemon

GENERIC, NO_PERMISSION, NOT_CONFIGURED, NOT_RUNNING = 1, 4, 6, 7
LINE_LARGEST = 1 << 15
INTERRUPTED = 128 + 2  # as a shell says it of SIGINT
STATES = {"ready": 0, "running": 0, "starting": 0, "stopping": 0}
STATES |= {"dead": 1, "stopped": 3, "unknown": 4}


def main(daemon: Daemon, argv: list[str] | None) -> int:
    """Run one verb. Returns the exit status; never in the daemon."""
    options = _parser(daemon).parse_args(argv)
    name = type(daemon).__name__
    daemon.on_wait = _waiting(name) if sys.stderr.isatty() else None
    try:
        return _VERBS[options.verb](daemon, options)
    except DaemonError as error:
        print(f"{name}: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        return _status_of(error)
    except KeyboardInterrupt:  # Ctrl-C: nobody needs to be told where
        return INTERRUPTED


def _parser(daemon: Daemon) -> argparse.ArgumentParser:
    described = (type(daemon).__doc__ or "").strip().partition("\n")[0]
    parser = argparse.ArgumentParser(description=described or None)
    parser.add_argument("verb", choices=tuple(_VERBS), help="what to do")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop and restart: how long the daemon may take to end before it is killed",
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise ValueError(text)
    return seconds


def _schedule(options: argparse.Namespace) -> tuple[tuple[str, float], ...] | None:
    """None: the daemon's own."""
    return None if options.timeout is None else (("TERM", options.timeout), SCHEDULE[-1])


def _status_of(error: DaemonError) -> int:
    if isinstance(error, NotRunning):
        return NOT_RUNNING
    if error.errno in (errno.EACCES, errno.EPERM):
        return NO_PERMISSION
    if isinstance(error, (OptionError, SequenceError)):
        return NOT_CONFIGURED
    return GENERIC


def _start(daemon: Daemon, options: argparse.Namespace) -> int:
    try:
        _say(daemon, f"started, pid {daemon.start()}")
    except lock_class("AlreadyRunning") as error:
        if error.errno:  # it is another library's
            raise
        how = "is being started" if daemon.status().state == "starting" else "runs already"
        _say(daemon, f"{how}{f', pid {error.pid}' if error.pid else ''}")
    return 0


def _stop(daemon: Daemon, options: argparse.Namespace) -> int:
    _say(daemon, str(daemon.stop(_schedule(options))))
    return 0


def _restart(daemon: Daemon, options: argparse.Namespace) -> int:
    _say(daemon, f"restarted, pid {daemon.restart(_schedule(options))}")
    return 0


def _reload(daemon: Daemon, options: argparse.Namespace) -> int:
    try:
        _say(daemon, f"reloaded, pid {daemon.reload()}")
    except NotTold as sent:
        _say(daemon, str(sent))
    return 0


def _status(daemon: Daemon, options: argparse.Namespace) -> int:
    status = daemon.status()
    if options.json:
        print(json.dumps(status.as_dict()))
    else:
        since = f", since {datetime.fromtimestamp(status.since):%F %T}" if status.since else ""
        _say(daemon, f"{status}{since}")
    return STATES[status.state]


def _run(daemon: Daemon, options: argparse.Namespace) -> int:
    return daemon.run_foreground()


_VERBS: dict[str, Callable[[Daemon, argparse.Namespace], int]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "reload": _reload,
    "status": _status,
    "run": _run,
}


def _say(daemon: Daemon, text: str) -> None:
    from ..system.text import shown

    line = shown(f"{type(daemon).__name__}: {text}", LINE_LARGEST)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    # The exit status must tell how it went, and not that a word can't be shown here.
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def _waiting(name: str) -> Callable[[str, float], None]:
    def show(what: str, seconds: float) -> None:
        print(f"{name}: waiting for {what}, {seconds:.0f} s", file=sys.stderr, flush=True)

    return show
