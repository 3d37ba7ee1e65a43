#!/usr/bin/env python3
"""A heartbeat: a log file, syslog where there is one, and a configuration that SIGHUP reloads.

    heartbeat.py [DIRECTORY]    pid file, log and heartbeat.json are there; default: .

The log file is opened before the context, so that an error is seen, and goes on working in the
daemon: log handlers on regular files and sockets are preserved.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from daemon_context import DaemonContext, DaemonError, default_signal_map

SYSLOG = "/dev/log"
SHORTEST, LONGEST = 0.01, 86400.0
DEFAULTS: dict[str, Any] = {"seconds": 1.0, "message": "alive"}
log = logging.getLogger("heartbeat")


def configuration(path: Path) -> dict[str, Any]:
    config = {**DEFAULTS, **json.loads(path.read_text())} if path.exists() else dict(DEFAULTS)
    seconds = float(config["seconds"])
    if not SHORTEST <= seconds <= LONGEST:  # also NaN; 0 would fill the disk
        raise ValueError(f"seconds={seconds} is not from {SHORTEST} to {LONGEST}")
    return {**config, "seconds": seconds}


def set_up_logging(path: Path) -> None:
    # WatchedFileHandler opens the file again when logrotate has moved it.
    handlers: list[logging.Handler] = [logging.handlers.WatchedFileHandler(path)]
    if os.path.exists(SYSLOG):
        handlers.append(logging.handlers.SysLogHandler(SYSLOG))
    logging.basicConfig(
        level=logging.INFO, format="heartbeat[%(process)d]: %(message)s", handlers=handlers
    )


def main() -> None:
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__ or "usage: heartbeat.py [DIRECTORY]", file=sys.stderr)  # python -OO
        sys.exit(2)
    state = Path(sys.argv[1] if len(sys.argv) > 1 else ".").absolute()
    place, logfile = state / "heartbeat.json", state / "heartbeat.log"
    try:
        config = configuration(place)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"heartbeat: cannot use {str(place)!r}: {error}; mend or remove it")
    try:
        set_up_logging(logfile)
    except OSError as error:
        why = f"{error.strerror}; give another directory"
        sys.exit(f"heartbeat: cannot write {str(logfile)!r}: {why}")

    def reload(number: int, frame: FrameType | None) -> None:
        try:
            config.update(configuration(place))
            log.info("configuration reloaded")
        except (OSError, TypeError, ValueError) as error:
            log.error("configuration kept: %s", error)  # a typing error must not end the daemon

    signals = {**default_signal_map(), signal.SIGTERM: "request_stop", signal.SIGHUP: reload}
    context = DaemonContext(pidfile=state / "heartbeat.pid", umask=0o022, signal_map=signals)
    try:
        context.open()
    except DaemonError as error:
        sys.exit(f"heartbeat: {error}")
    with context as daemon:
        log.info("started")
        while daemon.sleep(config["seconds"]):
            log.info(config["message"])
        log.info("stopped")


if __name__ == "__main__":
    main()
