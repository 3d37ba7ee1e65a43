"""The end of a daemon: of its children, threads and exit handlers too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers import support
from tests.helpers.daemons import STUBBORN, log


def test_daemon_and_child_that_ignore_sigterm_are_killed(box: support.Sandbox) -> None:
    script = box.script(STUBBORN)
    assert box.run(script, "start").returncode == 0
    child = int(box.text("d.log"))
    pid = box.pid()
    done = box.run(script, "stop")
    assert done.returncode == 0, done
    assert f"killed pid {pid}, " in done.stdout
    assert not support.alive(pid)
    support.gone(child)


def test_a_dead_daemon_whose_child_holds_its_lock_does_not_run(box: support.Sandbox) -> None:
    script = box.script("""
        import ctypes, signal
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                if not ctypes.PyDLL(None).fork():  # as a library does it: no hook of Python's runs
                    while True:
                        signal.pause()
                self.tell("forked")
                self.sleep()
        D("d.pid").main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "forked" in box.run(script, "status").stdout)
    pid = box.pid()
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)
    (child,) = box.processes()
    done = box.run(script, "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the daemon is dead, but its child (pid {child}) still holds its lock" in done.stderr
    assert "end that process" in done.stderr
    os.kill(child, signal.SIGKILL)
    support.gone(child)
    assert "started" in box.run(script, "start").stdout


def test_a_child_of_a_daemon_that_does_not_end_restarts_it(box: support.Sandbox) -> None:
    """It is of the group that is killed with the daemon, and has to start the next one."""
    script = box.script("""
        import os, signal, subprocess, sys, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self.tell("deaf")
                while True:
                    time.sleep(0.05)
                    if os.path.exists(asked):
                        os.unlink(asked)
                        subprocess.Popen([sys.executable, "-B", script, "restart"])
        script = os.path.abspath(sys.argv[0])
        place = os.path.dirname(script)
        asked = os.path.join(place, "asked")
        D(os.path.join(place, "d.pid")).main()
    """)
    assert box.run(script, "start").returncode == 0
    old = box.pid()
    support.until(lambda: "deaf" in box.run(script, "status").stdout)
    (box.path / "asked").touch()
    support.gone(old)
    support.until(lambda: "deaf" in box.run(script, "status").stdout)
    assert box.pid() != old


def test_a_child_that_run_forks_does_not_end_the_daemon(box: support.Sandbox) -> None:
    """It may leave by sys.exit(), as forked children do: status and reload go on working."""
    script = box.script("""
        import os, sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                child = os.fork()
                if child == 0:
                    sys.exit(3)
                self.tell(f"child {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
                self.sleep()
            def cleanup(self):
                print("cleanup by", os.getpid(), flush=True)
        D("d.pid", stdout="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    pid = box.pid()
    support.until(lambda: "child 3" in box.run(script, "status").stdout)
    assert box.run(script, "reload").returncode == 0
    assert box.run(script, "stop").returncode == 0
    assert log(box) == [f"cleanup by {pid}"]


def test_descriptors_that_run_closes_are_nobody_elses_afterwards(box: support.Sandbox) -> None:
    """What the program opens under the status file's number stays its own."""
    script = box.script("""
        import os
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                os.closerange(3, 64)
                files = [open(f"data-{number}", "a+") for number in range(8)]
                self.tell("to nobody")
                for file in files:
                    print("precious", file=file, flush=True)
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log", stderr="d.log", working_directory=".").main()
    """)
    assert box.run(script, "start").returncode == 0
    box.settled()
    assert [(box.path / f"data-{n}").read_text() for n in range(8)] == ["precious\n"] * 8
    assert log(box) == ["cleanup"]


def test_a_stop_that_runs_out_of_descriptors_leaves_none(
    box: support.Sandbox, heartbeat: Path
) -> None:
    assert box.run(heartbeat, "start").returncode == 0
    done = box.run("""
        import os, resource
        from daemon_context import Daemon, DaemonError
        from daemon_context.pidfile import refusals
        daemon = Daemon("d.pid")
        free = os.dup(0)
        os.close(free)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        for _ in range(2):
            try:
                daemon.stop()
            except DaemonError as error:
                print(error)
        print(os.dup(0) == free)
    """)
    assert done.stdout.count("Too many open files; close some files") == 2, done
    assert done.stdout.endswith("True\n")
    assert box.run(heartbeat, "stop").returncode == 0


def test_ctrl_c_ends_a_daemon_in_the_foreground_quietly(box: support.Sandbox) -> None:
    program = box.popen("""
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                print("runs", flush=True)
                self.sleep()
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid").main()
    """, "run")  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "runs\n"
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=20) == ("cleanup\n", "")
    assert program.returncode == 130
    assert support.only_its_end(box.path)


@pytest.mark.parametrize("verb", ["run", "start"])
def test_sigterm_ends_what_run_has_left_behind(box: support.Sandbox, verb: str) -> None:
    """A thread that goes on for ever, after the loop of run() has ended by itself."""
    program = box.popen("""
        import os, threading, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.sleep(0.01)
                threading.Thread(target=time.sleep, args=[1000]).start()
            def cleanup(self):
                with open("left", "w") as file:
                    print(os.getpid(), file=file)
        D("d.pid", working_directory=".").main()
    """, verb)  # fmt: skip
    pid = box.pid("left")

    def ended() -> bool:  # by the first one, unless that came before the end of the end
        if support.alive(pid):
            os.kill(pid, signal.SIGTERM)
        return not support.alive(pid)

    support.until(ended)
    program.wait(20)


@pytest.mark.parametrize("end", ["pass", "raise RuntimeError('no luck')"])
def test_who_works_in_threads_behind_run_is_the_daemon(box: support.Sandbox, end: str) -> None:
    """As recipes whose run() starts threads, and returns: there would be a second one soon."""
    script = box.script(f"""
        import threading, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.tell("well")
                self.sleep(0)
                threading.Thread(target=time.sleep, args=[1000]).start()
                {end}
            def cleanup(self):
                print("cleanup", flush=True)
        D("d.pid", stdout="d.log", stderr="d.log", settle=0).main()
    """)
    assert box.run(script, "start").returncode == 0
    box.text("d.log")
    support.until(lambda: "raise" not in end or log(box)[-1] == "RuntimeError: no luck")
    pid = box.pid()
    assert box.run(script, "start").stdout == f"D: runs already, pid {pid}\n"
    assert f"running with pid {pid}: well" in box.run(script, "status").stdout
    assert "stopped" in box.run(script, "stop").stdout
    assert not support.alive(pid)
    assert support.only_its_end(box.path)


@pytest.mark.parametrize("verb", ["run", "start"])
@pytest.mark.parametrize("end", ["pass", "raise RuntimeError('no luck')", "sys.exit(3)"])
def test_a_daemon_ends_as_a_program_does(box: support.Sandbox, verb: str, end: str) -> None:
    """Threads are waited for, then exit handlers run, however run() ends: those of the daemon."""
    program = box.popen(f"""
        import atexit, os, sys, threading, time
        from daemon_context import Daemon
        def note(text, name="notes"):
            with open(name, "a") as file:
                file.write(text + "\\n")
        class D(Daemon):
            def setup(self):
                atexit.register(note, "exit handler")
            def run(self):
                threading.Thread(target=self.work).start()
                {end}
            def work(self):
                while not os.path.exists("go-on"):
                    time.sleep(0.01)
                note("work is done")
            def cleanup(self):
                note("cleanup")
        if sys.argv[1] == "start":
            atexit.register(note, "exit handler", "notes of the launcher")
        D("d.pid", working_directory=".", stderr="d.log", settle=0).main()
    """, verb)  # fmt: skip
    support.until(lambda: box.text("notes") == "cleanup\n")
    if verb == "start":
        assert program.wait(20) == 0
    (box.path / "go-on").touch()
    box.settled()
    assert box.text("notes") == "cleanup\nwork is done\nexit handler\n"
    if verb == "start":
        assert box.text("notes of the launcher") == "exit handler\n"


@pytest.mark.parametrize("way", ["start", "spawn"])
def test_logging_and_multiprocessing_end_what_the_daemon_has_and_nothing_of_the_launcher(
    box: support.Sandbox, way: str
) -> None:
    """Their exit handlers are registered when they are imported: before the start."""
    program = box.popen("""
        import logging.handlers, multiprocessing, os, sys, time, warnings
        from daemon_context import Daemon, DaemonContext
        from tests.helpers.launching import report
        warnings.filterwarnings("ignore", ".*child process")
        fork = multiprocessing.get_context("fork")
        def live(name):
            report(name, os.getpid())
            time.sleep(1000)
        def child(name):
            process = fork.Process(target=live, args=[name], daemon=True)
            process.start()
            while not os.path.exists(name):  # a signal during the fork would be lost
                time.sleep(0.01)
            return process
        def work():
            memory = logging.handlers.MemoryHandler(100, target=logging.FileHandler("records"))
            logging.getLogger().addHandler(memory)
            logging.warning("one record")
            child("child")
        class D(Daemon):
            def run(self):
                work()
        launchers = child("child of the launcher")
        options = dict(pidfile="d.pid", working_directory=".", threads="ignore")
        if sys.argv[1] == "start":
            D(**options).start()
        else:
            DaemonContext(**options).spawn(work)
        while not os.path.exists("go-on"):
            time.sleep(0.01)
        print(launchers.is_alive())
    """, way)  # fmt: skip
    support.gone(int(box.text("child")))
    support.until(lambda: len(box.processes()) == 2)
    (box.path / "go-on").touch()
    assert program.communicate(timeout=20) == ("True\n", "")
    assert box.text("records") == "one record\n"


@pytest.mark.parametrize("way", ["start", "spawn"])
def test_finalizers_run_at_the_end_of_whose_they_are(box: support.Sandbox, way: str) -> None:
    """They are registered at exit once, with the first of all: in the launcher."""
    done = box.run("""
        import os, sys, tempfile, weakref
        from daemon_context import Daemon, DaemonContext
        class Thing:
            pass
        def note():
            with open(PLACE, "a") as file:
                print(os.getpid(), file=file)
        def work():
            global directory
            directory = tempfile.TemporaryDirectory(dir=".", prefix="temporary-")
        class D(Daemon):
            def run(self):
                work()
        PLACE = os.path.abspath("notes")
        thing = Thing()
        weakref.finalize(thing, note)
        if sys.argv[1] == "start":
            D("d.pid", working_directory=".").start()
        else:
            DaemonContext(working_directory=".").spawn(work)
        print(os.getpid())
    """, way)  # fmt: skip
    box.settled()
    assert box.text("notes") == done.stdout
    assert not list(box.path.glob("temporary-*"))


def test_a_child_that_run_forks_ends_nothing_of_the_daemons(box: support.Sandbox) -> None:
    box.run("""
        import atexit, multiprocessing, os, sys, time
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                atexit.register(lambda: print("exit handler of", os.getpid(), flush=True))
                context = multiprocessing.get_context("fork")
                worker = context.Process(target=time.sleep, args=[1000], daemon=True)
                worker.start()
                child = os.fork()
                if child == 0:
                    sys.exit()
                os.waitpid(child, 0)
                worker.join(0.1)
                print("worker lives:", worker.is_alive(), os.getpid(), flush=True)
        D("d.pid", stdout="d.log", stderr="d.log").main()
    """, "start")  # fmt: skip
    box.settled()
    lives, handler = log(box)
    assert lives.startswith("worker lives: True ")
    assert handler == f"exit handler of {lives.split()[-1]}"


@pytest.mark.parametrize("forks", [True, False])
def test_exit_handlers_where_daemonize_is_of_the_programs_own_making(
    box: support.Sandbox, forks: bool
) -> None:
    """They are all its own, as those of the recipe are."""
    box.run(f"""
        import atexit, os
        from daemon_context import Daemon
        class D(Daemon):
            def daemonize(self):
                if {forks} and os.fork():
                    os._exit(0)
                atexit.register(print, "of daemonize")
            def run(self):
                atexit.register(print, "of run")
        os.dup2(os.open("d.log", os.O_CREAT | os.O_WRONLY), 1)
        atexit.register(print, "of the program")
        D("d.pid").start()
    """)
    box.settled()
    assert log(box) == ["of run", "of daemonize", "of the program"]


@pytest.mark.parametrize("verb", ["start", "run"])
def test_a_daemon_replaces_itself(box: support.Sandbox, verb: str) -> None:
    script = box.script("""
        import os, sys
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                self.tell("anew" if os.path.exists("d.old") else "")
                if not os.path.exists("d.old"):
                    with open("d.old", "w") as file:
                        file.write(str(os.getpid()))
                    os.execv(sys.executable, [sys.executable, __file__, sys.argv[1]])
                self.sleep()
        D("d.pid", working_directory=".").main()
    """)
    box.popen(script, verb)
    support.until(lambda: "anew" in box.run(script, "status").stdout)
    assert (box.text("d.old") == str(box.pid())) == (verb == "run")
    assert box.run(script, "stop").returncode == 0
    box.settled()
    assert support.only_its_end(box.path)


def test_a_child_of_the_daemon_starts_it_anew(box: support.Sandbox) -> None:
    script = box.script("""
        import os
        from daemon_context import AlreadyRunning, Daemon
        class D(Daemon):
            def run(self):
                if not os.path.exists("d.old"):
                    with open("d.old", "w") as file:
                        file.write(str(os.getpid()))
                    if os.fork() == 0:
                        os.setsid()
                        try:
                            self.start()
                        except AlreadyRunning as error:
                            print("refused", flush=True)
                        self.restart()
                        print("anew", self.status().pid, flush=True)
                        os._exit(0)
                self.sleep()
        D("d.pid", stdout="d.log", working_directory=".").main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "anew" in box.text("d.log"))
    assert log(box) == ["refused", f"anew {box.pid()}"]
    assert box.text("d.old") != str(box.pid())
    assert box.run(script, "stop").returncode == 0
    assert support.only_its_end(box.path)


@pytest.mark.parametrize("kind", ["fork", "forkserver", "spawn"])
def test_workers_run_a_method_of_the_daemon(box: support.Sandbox, kind: str) -> None:
    script = box.script(f"""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from daemon_context import Daemon
        class D(Daemon):
            def setup(self):
                self.base = 10
            def run(self):
                context = multiprocessing.get_context("{kind}")
                with ProcessPoolExecutor(2, context) as pool:
                    print(list(pool.map(self.work, range(3))), flush=True)
            def work(self, number):
                self.tell("at work")
                return self.base + number
        if __name__ == "__main__":
            D("d.pid", stdout="d.log", stderr="d.log").main()
    """)
    assert box.run(script, "start").returncode == 0
    box.settled()
    assert log(box) == ["[10, 11, 12]"]


@pytest.mark.parametrize("ready", [False, True])
def test_an_override_of_daemonize_that_fails_in_the_daemon_unwinds_no_frame_of_the_launcher(
    box: support.Sandbox, ready: bool
) -> None:
    done = box.run(
        """
        import os, sys, time
        from daemon_context import Daemon
        class D(Daemon):
            run = lambda self: None
            def daemonize(self):
                super().daemonize()
                if sys.argv[1] == "True":
                    self.ready()
                raise RuntimeError("no luck")
        try:
            D("d.pid", working_directory=".", stderr="d.log").start()
        finally:
            with open("unwound", "a") as file:
                print(os.getpid(), file=file)
        """,
        ready,
    )
    assert done.returncode == (0 if ready else 1)
    assert ("RuntimeError before it was ready: no luck" in done.stderr) == (not ready)
    box.settled()
    assert not ready or "RuntimeError: no luck" in box.text("d.log")
    assert box.text("unwound").count("\n") == 1
    assert support.only_its_end(box.path)
