#!/usr/bin/env python3
"""The double fork, by hand, as every tutorial teaches it; and what it gets wrong.

    double_fork.py [DIRECTORY]      log and pid file go there; default: .

Each line shows the process at that moment: watch pid, parent, process group and session change.
The comments marked WRONG say what happens in practice; `DaemonContext` does the same steps without.
"""

from __future__ import annotations

import os
import sys
import time


def show(moment: str) -> None:
    pid, ppid, group, session = os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)
    # flush, because os._exit() below throws away what is buffered: WRONG in most tutorials, where
    # a piped print() before the fork is lost or appears twice.
    print(f"{moment:26} pid={pid} ppid={ppid} pgid={group} sid={session}", flush=True)


def daemonize(log: str, pidfile: str) -> None:
    show("at the start")

    # The first fork. The child is surely no leader of a process group, so that it may call
    # setsid(). WRONG: the parent leaves at once with status 0, so whoever started us hears
    # "success" before anything has been tried; every later error is seen by nobody.
    if os.fork() > 0:
        os._exit(0)
    # WRONG: if the parent led a terminal's session (ssh -t, docker run -t), its exit has just sent
    # SIGHUP to us, and we may be dead before the next line.
    show("after the first fork")

    # A new session, a new process group, no controlling terminal.
    os.setsid()
    show("after setsid")

    # The second fork. A session leader without a terminal gets the next one that it opens as its
    # controlling terminal; the child is no leader and never does.
    if os.fork() > 0:
        os._exit(0)
    show("after the second fork")

    # No file system is kept from being unmounted. WRONG with a relative log path: opened below,
    # it would be created in / now; this is why `log` and `pidfile` are made absolute in main().
    os.chdir("/")
    # WRONG: from now on every file is created writable for everybody, the log below included.
    os.umask(0)

    # WRONG: only 0, 1 and 2 are taken care of. Every other open descriptor stays: a caller that
    # reads a pipe of ours to its end hangs. Closing all of them in a loop up to the limit takes
    # minutes where the limit is large, and takes log files and sockets away from objects that
    # still use their numbers.
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY)] + 2 * [(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)]
    ):
        descriptor = os.open(path, flags, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)

    # WRONG: no lock. Two starts at the same time give two daemons; after kill -9 the file names a
    # process that is gone, and later one that belongs to somebody else.
    with open(pidfile, "w") as file:
        file.write(f"{os.getpid()}\n")
    show("the daemon")


def main() -> None:
    directory = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
    log = os.path.join(directory, "double-fork.log")
    pidfile = os.path.join(directory, "double-fork.pid")
    daemonize(log, pidfile)
    # WRONG: SIGTERM ends the process here and now: no exit handler runs, the pid file stays.
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
