"""daemonocle."""

import sys

import stage

stage.begin()
from daemonocle import Daemon  # noqa: E402

stage.imported()
verb = sys.argv[1] if len(sys.argv) > 1 else "start"
daemon = Daemon(
    worker=stage.running, pid_file=stage.pidfile, close_open_files=bool(stage.kept), name="bench"
)
stage.before_open()
if verb == "stop":
    import time

    began = time.monotonic_ns()
    daemon.do_action("stop")
    stage.stopped(began)
else:
    daemon.do_action("start")
