"""A start, seen from outside."""

from __future__ import annotations

import os
import signal

from . import support


def test_first_daemon(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", stdout="d.log", detach_process=True) as daemon:
            print("hello")
            daemon.sleep()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int((box.path / "d.pid").read_text())
    assert support.alive(pid)
    assert box.text("d.log") == "hello\n"
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert not (box.path / "d.pid").exists()
