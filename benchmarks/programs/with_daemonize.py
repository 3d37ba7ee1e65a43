"""daemonize, from PyPI."""

import stage

stage.begin()
from daemonize import Daemonize  # noqa: E402

stage.imported()
daemon = Daemonize(app="bench", pid=stage.pidfile, action=stage.running, keep_fds=stage.kept)
stage.before_open()
daemon.start()
