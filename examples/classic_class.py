#!/usr/bin/env python3
"""The Daemon class that tutorials have taught since 2007, rewritten from memory of its shape.

    classic_class.py start|stop|restart [DIRECTORY]

One overrides run() and calls start(), stop() or restart(). The shape is good, which is why it is
still copied. The comments marked FAULT say what is wrong inside.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time


class Daemon:
    """Subclass it and override run()."""

    def __init__(self, pidfile: str) -> None:
        self.pidfile = pidfile

    def daemonize(self) -> None:
        # FAULT: both parents exit 0 at once. If anything below fails, start() has "succeeded".
        if os.fork() > 0:
            sys.exit(0)  # FAULT: runs the exit handlers and finally blocks of the launching program
        os.chdir("/")
        os.setsid()
        os.umask(0)  # FAULT: the pid file and every log become writable for everybody
        if os.fork() > 0:
            sys.exit(0)

        sys.stdout.flush()  # FAULT: too late: three processes have had the buffered text by now
        sys.stderr.flush()
        for number in (0, 1, 2):  # FAULT: all other descriptors stay open, and callers hang
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)  # FAULT: an exception in run() is written to /dev/null
            os.close(null)

        atexit.register(
            self.delete_pidfile
        )  # FAULT: not run for a signal, which is how stop() ends it
        with open(
            self.pidfile, "w"
        ) as file:  # FAULT: follows a symlink that somebody has put there
            file.write(f"{os.getpid()}\n")

    def delete_pidfile(self) -> None:
        os.remove(self.pidfile)  # FAULT: also called by a child that run() forks, when it exits

    def read_pid(self) -> int | None:
        try:
            with open(self.pidfile) as file:
                return int(file.read().strip())
        except FileNotFoundError:
            return None  # FAULT: an empty file, as a crash leaves it, raises ValueError instead

    def start(self) -> None:
        # FAULT: two starts can both pass here before either has written the file.
        # FAULT: after kill -9 or a reboot the file is there, nothing runs, and somebody must rm it.
        if self.read_pid() is not None:
            sys.exit(f"pid file {self.pidfile} exists already; is it running?")
        self.daemonize()
        self.run()

    def stop(self) -> None:
        pid = self.read_pid()
        if pid is None:
            print(f"pid file {self.pidfile} does not exist; is it not running?", file=sys.stderr)
            return
        try:
            while True:  # FAULT: for ever, if it ignores SIGTERM
                os.kill(pid, signal.SIGTERM)  # FAULT: whoever has that number today gets it
                time.sleep(0.1)
        except ProcessLookupError:
            if os.path.exists(self.pidfile):
                os.remove(self.pidfile)

    def restart(self) -> None:
        self.stop()
        self.start()

    def run(self) -> None:
        raise NotImplementedError


class Clock(Daemon):
    def run(self) -> None:
        while True:
            time.sleep(1)


def main() -> None:
    verbs = ("start", "stop", "restart")
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in verbs:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(verbs)} [DIRECTORY]")
    directory = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else ".")
    clock = Clock(os.path.join(directory, "clock.pid"))
    getattr(clock, sys.argv[1])()


if __name__ == "__main__":
    main()
