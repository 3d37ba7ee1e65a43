"""For the tests of failing starts: at which steps, and what is left."""

from __future__ import annotations

from tests.helpers import support

WAITING = """
    import os, pathlib, signal, subprocess, sys, time
    from daemon_context import DaemonContext
    if "child" in sys.argv:
        subprocess.Popen(["sleep", "1000"], start_new_session=False)
    with DaemonContext(pidfile="d.pid", stdout="d.log", detach_process=True,
                       readiness="explicit") as daemon:
        if "deaf" in sys.argv:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "program" in sys.argv:
            subprocess.Popen(["sleep", "1000"])
        daemon_pid = os.getpid()
        pathlib.Path(sys.argv[1], "waiting").write_text(str(daemon_pid))
        time.sleep(1000)
"""


def assert_nothing_left(box: support.Sandbox) -> None:
    box.settled()
    assert not (box.path / "d.log").exists()
    pidfile = box.path / "d.pid"
    assert not pidfile.exists() or pidfile.read_text() == ""
    done = box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    assert (done.returncode, done.stderr) == (0, "")
