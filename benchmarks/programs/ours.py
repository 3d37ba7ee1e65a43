"""daemon_context, as its users write it."""

import stage

stage.begin()
from daemon_context import DaemonContext  # noqa: E402

stage.imported()
options = {}
if stage.pidfile:
    options["pidfile"] = stage.pidfile
if stage.signals:
    options["signal_map"] = stage.signal_map()
if stage.kept:
    options["files_preserve"] = stage.kept
context = DaemonContext(**options)
stage.before_open()
context.open()
stage.running(context.sleep)
