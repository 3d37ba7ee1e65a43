"""The `Daemon` class of daemon_context: start and stop."""

import sys
import time

import stage

from daemon_context import Daemon


class Program(Daemon):
    def run(self):
        stage.running(self.sleep)


program = Program(stage.pidfile)
if sys.argv[1] == "stop":
    began = time.monotonic_ns()
    program.stop()
    stage.stopped(began)
else:
    program.start()
