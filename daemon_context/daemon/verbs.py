"""The verbs of a script: start, stop, restart, reload, status, run; what they print, and their exit
statuses, which are the LSB's.

Linux Standard Base Core, 20.2 "Init Script Actions".
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
from datetime import datetime

from ..control import NotRunning, NotTold
from ..control.waiting import STARTING, looks
from ..embedding import SCHEDULE
from ..errors import DaemonError, OptionError, SequenceError, SetupExit, lock_class
from ..system import ancestors
from ..system.arguments import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from . import Daemon

GENERIC, USAGE, NO_PERMISSION, NOT_CONFIGURED, NOT_RUNNING = 1, 2, 4, 6, 7
LINE_LARGEST = 1 << 15
INTERRUPTED = 128 + 2  # as a shell says it of SIGINT
STATES = {"ready": 0, "running": 0, "starting": 0, "stopping": 0}
STATES |= {"dead": 1, "stopped": 3, "unknown": 4}
REFUSED = {"starting": "is being started", "ready": "runs already", "running": "runs already"}


def main(
    daemon: Daemon, argv: list[str] | None, parser: argparse.ArgumentParser | None = None
) -> int:
    """Run one verb. Returns the exit status; never in the daemon."""
    options = daemon.arguments = _parsed(daemon, parser, argv)
    daemon.did = None
    name = type(daemon).__name__
    daemon.on_wait = _waiting(name) if sys.stderr is not None and sys.stderr.isatty() else None
    try:
        return _VERBS[options.verb](daemon, options)
    except DaemonError as error:
        words = [f"{name}: {_without_step(error)}", *getattr(error, "__notes__", ())]
        _write(sys.stderr, "\n".join(words))
        return _status_of(error)
    except KeyboardInterrupt:  # Ctrl-C: nobody needs to be told where
        return INTERRUPTED


def _parsed(
    daemon: Daemon, given: argparse.ArgumentParser | None, argv: list[str] | None
) -> argparse.Namespace:
    try:
        return _parser(daemon, given).parse_args(argv)
    except OSError:  # of its own words, in some releases of 3.11
        sys.exit(USAGE)
    except AttributeError:
        if sys.stderr is not None:
            raise
        sys.exit(USAGE)
    finally:  # what it has said of a wrong use
        _write(sys.stdout, "", end="")
        _write(sys.stderr, "", end="")


def _parser(daemon: Daemon, given: argparse.ArgumentParser | None) -> argparse.ArgumentParser:
    described = (type(daemon).__doc__ or "").strip().partition("\n")[0]
    parser = given or argparse.ArgumentParser(description=described or None)
    parser.add_argument("verb", choices=tuple(_VERBS), help="what to do")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="stop and restart: how long the daemon may take to end before it is killed",
    )
    return parser


def _without_step(error: DaemonError) -> str:
    """Who starts a daemon by a verb has not made the sequence, and needs no place in it."""
    step = re.escape(error.step or "")
    return re.sub(rf" \(step \d+ of \d+, {step}\)", "", str(error))


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
    for _ in looks(STARTING, "the start that is under way", daemon.on_wait):
        refused = _refused(daemon)
        if refused is None:
            break
    if refused is not None:
        raise refused
    return 0


def _refused(daemon: Daemon) -> DaemonError | None:
    """Start it. An error is worth trying again: another one is at the pid file, which starts, or
    clears away, or has failed and ended since.
    """
    try:
        daemon.start()
        _say(daemon, _done(daemon, "started"))
    except lock_class("AlreadyRunning") as error:
        # Another library's, or what a dead one left behind; or the daemon's own, whose program runs
        # once more in a child of it.
        if error.errno or (error.pid is not None and error.pid in ancestors()):
            raise
        state = daemon.status().state
        if state not in REFUSED or (state == "starting" and error.pid is None):
            return error
        _say(daemon, f"{REFUSED[state]}{f', pid {error.pid}' if error.pid else ''}")
    return None


def _stop(daemon: Daemon, options: argparse.Namespace) -> int:
    daemon.stop(_schedule(options))
    _say(daemon, str(daemon.did or "stopped"))
    return 0


def _restart(daemon: Daemon, options: argparse.Namespace) -> int:
    daemon.restart(_schedule(options))
    _say(daemon, _done(daemon, "restarted"))
    return 0


def _reload(daemon: Daemon, options: argparse.Namespace) -> int:
    try:
        daemon.reload()
        _say(daemon, _done(daemon, "reloaded"))
    except NotTold as sent:
        _say(daemon, str(sent))
    return 0


def _done(daemon: Daemon, word: str) -> str:
    """What the verb has come to; without a pid where the class has a way of its own."""
    did = daemon.did
    if isinstance(did, SetupExit):
        return f"had nothing to do: {did}"
    return f"{word}, pid {did}" if did else word


def _status(daemon: Daemon, options: argparse.Namespace) -> int:
    status = daemon.status()
    if options.json:
        _write(sys.stdout, json.dumps(status.as_dict()))
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
    _write(sys.stdout, line.encode(encoding, "backslashreplace").decode(encoding))


def _write(stream: TextIO | None, text: str, end: str = "\n") -> None:
    """The exit status must tell how it went, and not that the words can't be shown: the stream was
    closed by who started us, or is full, or nobody reads it any more.
    """
    if stream is None:
        return
    try:
        print(text, file=stream, end=end, flush=True)
    except (OSError, ValueError):
        _give_up(stream)


def _give_up(stream: TextIO) -> None:
    """The interpreter would write it once more at its end, and end with 120."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # it has no descriptor; or none is left
        pass


def _waiting(name: str) -> Callable[[str, float], None]:
    def show(what: str, seconds: float) -> None:
        _write(sys.stderr, f"{name}: waiting for {what}, {seconds:.0f} s")

    return show
