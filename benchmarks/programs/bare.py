"""The double fork by hand, with a pid file and a lock before the fork: the limit in Python."""

import os
import sys

import stage

stage.begin()
if stage.pidfile:
    import fcntl
if stage.signals:
    import signal

    handlers = stage.signal_map()
stage.before_open()

if stage.pidfile:
    lock = os.open(stage.pidfile, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"{stage.pidfile} is locked")
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.umask(0)
null = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)
os.close(null)
if stage.signals:
    for number, handler in handlers.items():
        signal.signal(number, handler or signal.SIG_IGN)
if stage.pidfile:
    if os.fstat(lock).st_size:
        os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
stage.running()
