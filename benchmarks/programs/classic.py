"""The class of 2007, as tutorials have it: stop polls every 0.1 s."""

import os
import sys
import time

sys.path.append(os.path.join(os.path.dirname(__file__), "../../examples"))

import stage
from classic_class import Daemon


class Program(Daemon):
    def run(self):
        stage.running()


program = Program(stage.pidfile)
if sys.argv[1] == "stop":
    began = time.monotonic_ns()
    program.stop()
    stage.stopped(began)
else:
    program.start()
