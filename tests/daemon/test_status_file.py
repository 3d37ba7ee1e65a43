"""The words of a daemon, and the file that has them for others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon_context.control.lastend import record
from daemon_context.control.statusfile import StatusFile, read
from tests.helpers import support
from tests.helpers.daemons import log


def test_words_that_can_not_be_shown_here_leave_the_exit_status_as_it_is(
    box: support.Sandbox,
) -> None:
    script = box.script("""
        from daemon_context import Daemon

        class Zähler(Daemon):
            def run(self):
                self.tell("fünf → sechs")
                self.sleep()

        Zähler("d.pid").main()
    """)
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = box.run(script, "start", env=ascii_only)
    pid = box.pid()
    assert (done.returncode, done.stdout) == (0, f"Z\\xe4hler: started, pid {pid}\n")

    def status() -> str:
        done = box.run(script, "status", env=ascii_only)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    support.until(lambda: f"pid {pid}: f\\xfcnf \\u2192 sechs" in status(), what="its words")
    assert box.run(script, "stop", env=ascii_only).returncode == 0


def test_words_of_a_child_that_run_forks_are_not_the_daemons(box: support.Sandbox) -> None:
    """It knows of no later reload, nor of the daemon's end."""
    script = box.script("""
        import os, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                if os.fork() == 0:
                    for number in 1, 2:
                        while not os.path.exists(f"tell {number}"):
                            time.sleep(0.01)
                        self.tell("words of a child")
                        open(f"told {number}", "w").close()
                    os._exit(0)
                while True:
                    time.sleep(0.01)
            def on_reload(self):
                if os.path.exists("conf"):
                    open("reloading", "w").close()
                    while not os.path.exists("go on"):
                        time.sleep(0.01)
                    raise ValueError("bad configuration")
        D("d.pid", working_directory=".").main()
    """)

    def told(number: int) -> None:
        (box.path / f"tell {number}").touch()
        support.until((box.path / f"told {number}").exists)

    assert box.run(script, "start").returncode == 0
    assert box.run(script, "reload").returncode == 0
    told(1)
    (box.path / "conf").touch()
    reload = box.popen(script, "reload")
    support.until((box.path / "reloading").exists)
    (box.path / "go on").touch()
    assert "bad configuration" in reload.communicate(timeout=20)[1]
    assert box.run(script, "stop").returncode == 0
    told(2)
    box.settled()
    assert support.only_its_end(box.path)


OWN_WAYS = {
    "daemonize": "daemonize = lambda self: None",
    "steps": "steps = DEFAULT_STEPS.remove('write-pidfile').remove('lock-pidfile')",
}


@pytest.mark.parametrize("way", OWN_WAYS)
def test_where_nobody_has_begun_the_status_file_there_is_none(
    box: support.Sandbox, way: str
) -> None:
    done = box.run(f"""
        import os
        from daemon_context import DEFAULT_STEPS, Daemon
        class D(Daemon):
            steps = None
            {OWN_WAYS[way]}
            def run(self):
                self.tell("hello")
                with open("files", "w") as file:
                    file.write("\\n".join(os.listdir()))
        D("d.pid", working_directory=".", steps=D.steps).start()
    """)
    assert done.returncode == 0, done
    box.settled()
    assert {*box.text("files").split()} == {"program.py", "files"}


INTERRUPTED = """
    import os, signal, sys, time
    from daemon_context import Daemon
    class D(Daemon):
        def run(self):
            rename = os.rename
            def interrupted(*args):
                os.rename = rename
                os.kill(os.getpid(), signal.{signal})
                rename(*args)
            os.rename = interrupted
            self.tell("before")
            while True:
                time.sleep(1)
        def on_reload(self):
            self.tell("after")
    D("d.pid", stdout="d.log", stderr="d.log").main()
"""


def test_a_reload_in_the_middle_of_tell(box: support.Sandbox) -> None:
    script = box.script(INTERRUPTED.format(signal="SIGHUP"))
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "after" in box.run(script, "status").stdout)
    said = json.loads(box.text("d.pid.status"))
    assert (said["reloads"], said["text"]) == (1, "after")
    assert box.run(script, "stop").returncode == 0
    assert log(box) == []
    assert support.only_its_end(box.path)
    assert {path.name for path in box.path.iterdir()} == {"program.py", "d.log", "d.pid.status"}


def test_a_daemon_that_is_ended_in_the_middle_of_tell_leaves_its_end(box: support.Sandbox) -> None:
    box.run(INTERRUPTED.format(signal="SIGTERM"), "start")
    box.settled()
    assert log(box) == []
    assert support.only_its_end(box.path)
    assert {path.name for path in box.path.iterdir()} == {"program.py", "d.log", "d.pid.status"}


def test_threads_that_tell_at_once(box: support.Sandbox) -> None:
    script = box.script("""
        import threading
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                def work(number):
                    for count in range(300):
                        self.tell(f"{number}: {count}")
                threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.tell("done")
                self.sleep()
        D("d.pid", stdout="d.log", stderr="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "done" in box.run(script, "status").stdout)
    assert log(box) == []
    assert box.run(script, "stop").returncode == 0


REFUSED = """
    import os, signal, sys
    from daemon_context import Daemon
    from tests.helpers.launching import surroundings
    def interrupted(*args):
        os.fchmod = fchmod
        os.kill(os.getpid(), signal.SIGINT)
        fchmod(*args)
    fchmod = os.fchmod
    class D(Daemon):
        def run(self):
            pass
    if sys.argv[1] == "interrupted":
        os.fchmod = interrupted
    before = surroundings()
    try:
        D("d.pid", uid=65534).start()
    except BaseException as error:
        print(type(error).__name__, getattr(error, "step", None))
    os.fchmod = fchmod
    after = surroundings()
    print({key: [before[key], after[key]] for key in before if before[key] != after[key]})
"""


@pytest.mark.root
def test_a_status_file_that_can_not_be_given_away_is_not_left(box: support.Sandbox) -> None:
    prefix = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown"]
    done = box.run(REFUSED, "refused", prefix=prefix)
    assert done.stdout.splitlines() == ["DaemonOSEnvironmentError open-status", "{}"], done


@pytest.mark.root
def test_an_interrupt_while_the_status_file_is_made_leaves_none(box: support.Sandbox) -> None:
    done = box.run(REFUSED, "interrupted")
    assert done.stdout.splitlines() == ["KeyboardInterrupt None", "{}"], done


def test_what_is_no_file_in_the_status_files_place(box: support.Sandbox) -> None:
    """It is not read, and a program that asks again and again does not run out of descriptors."""
    done = box.run("""
        import os
        from daemon_context import Daemon
        def numbers():
            return len(os.listdir("/proc/self/fd"))
        daemon = Daemon("d.pid")
        for make, remove in ((os.mkdir, os.rmdir), (os.mkfifo, os.unlink)):
            make("d.pid.status")
            writer = os.open("d.pid.status", os.O_RDWR) if make is os.mkfifo else -1
            before = numbers()
            print({daemon.status().state for _ in range(10)}, numbers() - before)
            remove("d.pid.status")
    """)
    assert done.stdout.splitlines() == ["{'stopped'} 0"] * 2, done


WORDY = """
    import os
    from daemon_context import Daemon
    class Silent(Exception):
        def __str__(self):
            raise ValueError("no text")
    ERRORS = {
        "huge": ValueError("x" * 200_000),
        "silent": Silent(),
        "rude": ValueError("\\x1b[2J"),
    }
    class D(Daemon):
        def on_reload(self):
            with open("error") as file:
                raise ERRORS[file.read()]
        def run(self):
            self.tell("\\x1b[2J \\udcff" + "y" * 200_000)
            self.sleep()
    D("d.pid", working_directory=".", stdout="d.log", stderr="d.log").main()
"""


def test_words_of_any_size_and_kind_reach_those_who_ask(box: support.Sandbox) -> None:
    """None that a terminal would obey."""
    script = box.script(WORDY)
    assert box.run(script, "start").returncode == 0
    box.text("d.pid.status")

    def told() -> str:
        done = box.run(script, "status", env={"PYTHONIOENCODING": "utf-8:strict"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = support.until(lambda: found if "yyy" in (found := told()) else "")
    assert r": \x1b[2J \udcffyyy" in said
    for error, words in (
        ("huge", "ValueError: xxx"),
        ("silent", "Silent: (its text can't be made)"),
        ("rude", r"ValueError: \x1b[2J"),
    ):
        (box.path / "error").write_text(error)
        done = box.run(script, "reload")
        assert f"on_reload() raised {words}" in done.stderr
        assert "\x1b" not in done.stderr
        assert "characters left out" in done.stderr or error != "huge"
    assert box.run(script, "stop").returncode == 0
    refused = [line for line in log(box) if line.startswith("D: reload failed")]
    assert len(refused) == 3
    assert "\x1b" not in box.text("d.log")


def test_a_status_file_that_is_overwritten_in_place_is_never_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shorter words leave no moment with the end of longer ones behind them."""
    path = str(tmp_path / "d.pid.status")
    file = StatusFile(path)
    options: Any = SimpleNamespace(chroot_directory="/", owner_changes=False)
    file.begin(options)
    told = []
    pwrite = os.pwrite

    def writing(*args: Any) -> int:
        written = pwrite(*args)
        told.append(read(path))
        return written

    monkeypatch.setattr(os, "pwrite", writing)
    for text in ("long" * 100, "short"):
        file.tell(text=text)
    file.end(record("exit", 1))
    texts = ["long" * 100, "short", "short"]
    assert [said and said["text"] for said in told] == texts
    assert told[-1]["ended"]["how"] == "exit"


@pytest.mark.root
@pytest.mark.parametrize("what", ["tell", "reload"])
def test_a_daemon_goes_on_where_its_status_file_has_no_room(
    box: support.Sandbox, what: str
) -> None:
    place = box.path / "full"
    place.mkdir()
    done = box.run("""
        import os, signal, sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                with open("full/rest", "wb", buffering=0) as rest:
                    try:
                        while rest.write(bytes(4096)):
                            pass
                    except OSError as error:
                        print(error.strerror)
                if sys.argv[2] == "tell":
                    self.tell("x" * 16384)
                else:
                    os.kill(os.getpid(), signal.SIGHUP)
                    self.sleep(0.01)
                os.unlink("full/rest")
                self.tell("goes on")
                print(self.status())
            def on_reload(self):
                print("reloads")
                raise ValueError("x" * 16384)
        D("full/d.pid", working_directory=".").main(sys.argv[1:2])
    """, "run", what, prefix=[
        "unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o size=64k none full; exec "$@"', "sh",
    ])  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("D: reload failed" if what == "reload" else "")
    assert what == "reload" or not done.stderr
    first, *reload, last = done.stdout.splitlines()
    assert first == "No space left on device"
    assert reload == ["reloads"] * (what == "reload")
    assert last.endswith(": goes on")


def test_a_reload_of_a_daemon_without_a_status_file_says_so(
    box: support.Sandbox, heartbeat: Path
) -> None:
    box.run("""
        from daemon_context import DaemonContext
        with DaemonContext(pidfile="d.pid", detach_process=True) as daemon:
            daemon.sleep()
    """)
    done = box.run(heartbeat, "reload")
    assert done.returncode == 1
    assert "there is no" in done.stderr
    assert "d.pid.status" in done.stderr
    assert "only root" not in done.stderr


def test_words_of_a_step_leave_the_status_file_in_place(box: support.Sandbox) -> None:
    """Whatever closes descriptors afterwards."""
    script = box.script("""
        import threading, time
        from daemon_context import DEFAULT_STEPS, Daemon, Step
        class Tell(Step):
            def apply(self, walk):
                daemon.tell("in a step")
        class D(Daemon):
            def run(self):
                self.tell("in run()")
                self.sleep()
        # Beside a thread, what is open is looked up in the daemon.
        threading.Thread(target=time.sleep, args=[1000], daemon=True).start()
        steps = DEFAULT_STEPS.insert_after("detach", Tell())
        daemon = D("d.pid", steps=steps, threads="ignore")
        daemon.main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "in run()" in box.run(script, "status").stdout)
    assert box.run(script, "stop").returncode == 0
    assert support.only_its_end(box.path)
