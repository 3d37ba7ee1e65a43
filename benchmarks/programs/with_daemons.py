"""daemons."""

import stage

stage.begin()
from daemons.prefab.run import RunDaemon  # noqa: E402

stage.imported()


class Program(RunDaemon):
    def run(self):
        stage.running()


daemon = Program(pidfile=stage.pidfile)
stage.before_open()
daemon.start()
