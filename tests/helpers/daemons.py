"""For the tests of `Daemon`: scripts, and what they leave to be read."""

from __future__ import annotations

from tests.helpers import support

HEARTBEAT = """
    import os, signal, subprocess, sys, time
    from daemon_context import Daemon

    class Heartbeat(Daemon):
        \"\"\"A heart that beats.\"\"\"
        def setup(self):
            print("setup", flush=True)
            if os.path.exists(CONF + "-fails"):
                raise RuntimeError("no blood")
        def run(self):
            for number in self.every(0.05):
                self.tell(f"beat {number}")
            print("loop ended", flush=True)
        def cleanup(self):
            print("cleanup", flush=True)
        def on_reload(self):
            with open(CONF) as file:
                if file.read() == "bad":
                    raise ValueError("bad configuration")
            print("reloaded", flush=True)

    CONF = os.path.abspath("conf")
    if __name__ == "__main__":
        Heartbeat("d.pid", stdout="d.log", stderr="d.log").main()
"""


def log(box: support.Sandbox) -> list[str]:
    return (box.path / "d.log").read_text().splitlines()


STUBBORN = """
    import os, signal, subprocess, sys, time
    from daemon_context import Daemon
    class D(Daemon):
        def run(self):
            child = subprocess.Popen([sys.executable, "-c",
                "import signal, time; signal.signal(15, signal.SIG_IGN);"
                "print(1, flush=True); time.sleep(600)"],
                stdout=subprocess.PIPE)
            child.stdout.readline()
            print(child.pid, flush=True)
            while True:
                try: time.sleep(600)
                except BaseException: pass
    d = D("d.pid", stdout="d.log", signal_map={signal.SIGTERM: None})
    if sys.argv[1] == "stop":
        assert d.stop(schedule=(("TERM", 0.2), ("KILL", 5))) is None
        print(d.did)
    else:
        d.main()
"""
