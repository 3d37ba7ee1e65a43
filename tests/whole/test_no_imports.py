"""From the first line of `open` on, session leader and daemon import nothing, whether the start
succeeds or fails; the launcher only to put a failure into words.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.helpers import support

#: A finder in front of all others, from the start of a start on: it notes and refuses everything;
#: in the launcher only until something has failed.
HEAD = """
import os, signal, sys, time
from daemon_context import DEFAULT_STEPS, Daemon, DaemonContext, DaemonError, Step
from daemon_context.steps import detach

here, launcher, failing = os.getcwd(), os.getpid(), []

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if os.getpid() == launcher and failing:
            return None
        with open(os.path.join(here, "imports"), "a") as file:
            print("launcher" if os.getpid() == launcher else "another", name, file=file)
        raise ImportError(f"{name}: nothing may be imported any more")

def refuse(context, *args, **kwargs):
    sys.meta_path.insert(0, Refusing())
    return begin(context, *args, **kwargs)
begin, DaemonContext._begin = DaemonContext._begin, refuse

def failed(payload):
    failing.append(1)
from daemon_context.report import launcher as waiting
decoded = waiting.Launcher._decoded
waiting.Launcher._decoded = lambda self, payload: (failing.append(1), decoded(self, payload))[1]

class Fail(Step):
    def apply(self, walk):
        try:
            raise KeyError("the first")
        except KeyError as error:
            raise OSError(5, "the second", "/x") from error

def note(text):
    with open(os.path.join(here, "notes"), "a") as file:
        print(text, file=file)
"""

STARTS = {
    "plain": "DaemonContext(detach_process=True).open(); note('open')",
    "pid file": """
        context = DaemonContext(detach_process=True, pidfile="d.pid", stdout="d.log")
        context.open()
        note("open")
        context.close()""",
    "assigned": """
        context = DaemonContext()
        context.detach_process, context.pidfile, context.stderr = True, "d.pid", "d.log"
        with context:
            note("open")""",
    "loop": """
        context = DaemonContext(detach_process=True, signal_map={signal.SIGTERM: "request_stop"})
        with context as daemon:
            for count in daemon.every(0.01):
                if count == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
            note(f"open {daemon.sleep(5)} {daemon.stop_requested} {daemon.closed_descriptors}")""",
    "terminated": """
        with DaemonContext(detach_process=True, pidfile="d.pid"):
            note("open")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)""",
    "explicit": """
        with DaemonContext(detach_process=True, readiness="explicit") as daemon:
            daemon.ready("up")
            note("open")""",
    "settling": """
        with DaemonContext(detach_process=True, settle=0.2) as daemon:
            daemon.sleep(0.4)
            note("open")""",
    "foreground": "DaemonContext(detach_process=False, pidfile='d.pid').open(); note('open')",
    "launch": """
        handle = DaemonContext(detach_process=True).launch()
        if handle is None:
            note("open")
        else:
            handle.wait()""",
    "spawn": """
        DaemonContext().spawn(note, "open").wait()""",
    "open files": """
        file, listing = open("data", "w"), os.scandir(".")
        file.write("buffered")
        DaemonContext(detach_process=True).open(); note("open")""",
    "traced": """
        DaemonContext(detach_process=True, record_trace=True).open(); note("open")""",
    "owner": """
        DaemonContext(detach_process=True, uid="nobody", pidfile="d.pid").open(); note("open")""",
    "chroot": """
        DaemonContext(detach_process=True, chroot_directory=here, working_directory="/").open()
        here = "/"
        note("open")""",
    "class": """
        class Work(Daemon):
            def setup(self):
                self.tell("busy")
            def run(self):
                os.kill(os.getpid(), signal.SIGHUP)
                self.sleep(0.01)
                os.kill(os.getpid(), signal.SIGTERM)
                while self.sleep(60):
                    pass
                note("open")
            def on_reload(self):
                note("reloaded")
            def cleanup(self):
                note("cleaned up")
        Work("d.pid").start()""",
    "class, a bad reload": """
        class Work(Daemon):
            def run(self):
                os.kill(os.getpid(), signal.SIGHUP)
                self.sleep(0.01)
                note("open")
            def on_reload(self):
                raise ValueError("no")
        Work("d.pid").start()""",
}  # fmt: skip
NEEDS_ROOT = {"owner", "chroot"}


def run(box: support.Sandbox, body: str) -> support.subprocess.CompletedProcess[str]:
    import textwrap

    done = box.run(HEAD + textwrap.dedent(body).lstrip("\n"))
    box.settled()
    return done


def imports(box: support.Sandbox) -> str:
    path = box.path / "imports"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    "way", [pytest.param(w, marks=pytest.mark.root) if w in NEEDS_ROOT else w for w in STARTS]
)
def test_a_start_imports_nothing(open_box: support.Sandbox, way: str) -> None:
    box = open_box
    done = run(box, STARTS[way])
    assert (done.returncode, done.stderr, imports(box)) == (0, "", "")
    assert "open" in box.text("notes")


FAILURES = {
    "step": ("Fail()", "pass", "cannot fail: the second: '/x'"),
    "exit": ("Exit()", "pass", "cannot exit: it called sys.exit('enough')"),
    "dies": ("Die()", "pass", "was killed by SIGKILL"),
    "body": ("Nothing()", "raise OSError(5, 'the second', '/x')", "the daemon's body raised"),
    "group": ("Nothing()", "raise ExceptionGroup('all', [KeyError('one')])", "KeyError: 'one'"),
    "unready": ("Nothing()", "pass", "ended without saying ready()"),
    "second fork": ("Poor()", "pass", "the second fork failed"),
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("options", ["", ", pidfile='d.pid', stdout='d.log'"])
def test_a_failing_start_imports_in_the_launcher_alone(
    box: support.Sandbox, how: str, options: str
) -> None:
    step, body, words = FAILURES[how]
    done = run(box, f"""
        class Exit(Step):
            def apply(self, walk):
                sys.exit("enough")
        class Die(Step):
            def apply(self, walk):
                os.kill(os.getpid(), signal.SIGKILL)
        class Nothing(Step):
            def apply(self, walk):
                pass
        class Poor(Step):
            def apply(self, walk):
                pass
            def check(self, walk):
                fork = detach.fork
                def second():
                    if os.getpid() != launcher:
                        raise OSError(11, "no more")
                    return fork()
                detach.fork = second

        steps = DEFAULT_STEPS.insert_after("close-descriptors", {step})
        context = DaemonContext(detach_process=True, steps=steps, readiness="explicit"{options})
        with context:
            {body}
        """)  # fmt: skip
    assert (done.returncode, imports(box)) == (1, ""), done.stderr
    assert words in done.stderr
    if how in ("step", "group"):
        assert "KeyError: 'the first'" in done.stderr or how == "group"
        assert "raise " in done.stderr, "the source line is the launcher's to read"


def test_the_package_goes_while_the_daemon_runs(box: support.Sandbox) -> None:
    """As in an upgrade: with all of its environment, the interpreter's own library apart."""
    shutil.copytree(support.ROOT / "daemon_context", box.path / "site" / "daemon_context")
    script = box.script("""
        import os, sys
        from daemon_context import Daemon

        class Work(Daemon):
            def run(self):
                while self.sleep(60):
                    pass
            def on_reload(self):
                raise ValueError("a bad configuration")
            def cleanup(self):
                with open("cleaned", "w"):
                    pass

        Work("d.pid", working_directory=os.getcwd(), stderr="d.log").main()
        """)
    environ = {"PYTHONPATH": str(box.path / "site")}
    done = box.run(script, "start", env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid()
    shutil.rmtree(box.path / "site")
    refused = box.run(script, "reload")
    assert refused.returncode == 1
    assert "a bad configuration" in refused.stderr
    assert support.alive(pid)
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert (box.path / "cleaned").exists()
    assert not (box.path / "d.pid").exists()
    log = (box.path / "d.log").read_text()
    assert "a bad configuration" in log
    assert "Import" not in log
    assert "ModuleNotFound" not in log
