"""python-daemon; with a pid file its TimeoutPIDLockFile."""

import stage

stage.begin()
from daemon import DaemonContext  # noqa: E402

if stage.pidfile:
    from daemon.pidfile import TimeoutPIDLockFile
stage.imported()
options = {}
if stage.pidfile:
    options["pidfile"] = TimeoutPIDLockFile(stage.pidfile, acquire_timeout=0)
if stage.signals:
    options["signal_map"] = stage.signal_map()
if stage.kept:
    options["files_preserve"] = stage.kept
context = DaemonContext(**options)
stage.before_open()
context.open()
stage.running()
