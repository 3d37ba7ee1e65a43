"""The names that users see: what the package shows, what objects say of themselves, what is old."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import lockfile
import pytest

import daemon_context
from daemon_context import Daemon, DaemonContext, DaemonError
from daemon_context.control.status import Status
from tests.helpers import support

# --- the package


def test_dir_shows_the_public_names_and_nothing_else(box: support.Sandbox) -> None:
    done = box.run("""
        import daemon_context
        print(dir(daemon_context) == sorted(daemon_context.__all__))
        import daemon_context.steps; daemon_context.PidFile
        print(dir(daemon_context) == sorted(daemon_context.__all__))
        from daemon_context import *
        print(DaemonContext, LockTimeout, running)
    """)
    assert done.stdout.splitlines()[:2] == ["True", "True"], done
    assert done.stderr == ""


def test_what_callers_catch_and_ask_is_at_the_top() -> None:
    assert issubclass(daemon_context.LockTimeout, lockfile.LockTimeout)
    assert issubclass(daemon_context.PidFileError, lockfile.LockFailed)
    assert {"LockTimeout", "PidFileError", "running"} <= {*dir(daemon_context)}


def test_running_gives_the_handle_of_a_pid_files_daemon(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import DaemonContext, DaemonError, running
        handle = DaemonContext(pidfile="d.pid").spawn(__import__("time").sleep, 60)
        print(running("d.pid").pid == handle.pid)
        handle.stop()
        try:
            running("d.pid")
        except DaemonError as error:
            print(type(error).__name__)
    """)
    assert done.stdout.splitlines() == ["True", "DaemonError"], done


# --- what objects say of themselves


class Poller(Daemon):
    """A daemon."""

    def run(self) -> None:
        """Nothing."""


class Own(DaemonContext):
    """A subclass that has not called our __init__ yet."""

    def __init__(self) -> None:
        self.first = repr(self)


def test_reprs() -> None:
    assert repr(DaemonContext()) == "<DaemonContext, not open>"
    assert repr(DaemonContext(pidfile="/run/a.pid")) == (
        "<DaemonContext, not open, pid file '/run/a.pid'>"
    )
    pidfile = daemon_context.PidFile("/run/a.pid")
    assert repr(DaemonContext(pidfile=pidfile)) == (
        "<DaemonContext, not open, pid file '/run/a.pid'>"
    )
    assert Own().first == "<Own, not open>"
    assert repr(Poller("a.pid")) == "<Poller, pid file 'a.pid'>"
    assert repr(Poller(pidfile)) == "<Poller, pid file '/run/a.pid'>"
    assert repr(Status("stopped", "not running")) == "<Status stopped: not running>"


def test_the_repr_of_an_open_context(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        context = DaemonContext(pidfile="d.pid", detach_process=False, stdout=1, stderr=2)
        with context:
            print(repr(context).replace(str(os.getpid()), "N"), flush=True)
        print(context)
    """)
    path = str(box.path / "d.pid")
    assert done.stdout.splitlines() == [
        f"<DaemonContext, open in pid N, pid file {path!r}>".replace(path, "d.pid"),
        "<DaemonContext, not open, pid file 'd.pid'>",
    ], done


# --- the old name


def test_closed_is_closed_descriptors_by_now() -> None:
    context = DaemonContext()
    assert context.closed_descriptors == ()
    with pytest.warns(DeprecationWarning, match="closed_descriptors") as caught:
        assert context.closed == ()
    assert [warning.filename for warning in caught] == [__file__]


# --- explain


EXPLAINED = """
    from daemon_context import Daemon, DaemonContext

    class Poller(Daemon):
        def run(self):
            self.sleep()

    poller = Poller("poller.pid", stdout="poller.log", umask=0o077)
    nothing = 5
    if __name__ == "__main__":
        print(poller.explain())
"""


def test_a_daemon_explains_itself(box: support.Sandbox) -> None:
    script = box.script(EXPLAINED, "poller.py")
    done = box.run(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"lock the pid file {str(box.path / 'poller.pid')!r}" in done.stdout
    assert "set the umask to 077" in done.stdout
    assert "fork, setsid, fork" in done.stdout
    assert [path.name for path in box.path.iterdir()] == ["poller.py"]


def explained(box: support.Sandbox, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_context", "explain", *words],
        cwd=box.path,
        env=box.environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_m_explain_takes_a_daemon(box: support.Sandbox) -> None:
    box.script(EXPLAINED, "poller.py")
    done = explained(box, "poller:poller", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["set-umask"]["text"] == "set the umask to 077"
    assert rows["detach"]["process"] == "all three"
    for name in ("nothing", "Poller"):
        done = explained(box, f"poller:{name}")
        assert done.returncode == 1
        assert "is no DaemonContext and no Daemon, but" in done.stderr
    assert [path.name for path in box.path.iterdir()] == ["poller.py"]


# --- options by name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stdot": "x"}, "there is no option 'stdot'; did you mean 'stdout'?"),
        ({"work_directory": "x"}, "no option 'work_directory'; did you mean 'working_directory'?"),
        ({"qqqqqq": 1}, "there is no option 'qqqqqq'; the options are chroot_directory, "),
        ({"detach_process": False}, "detach_process can't be given: a Daemon decides it itself"),
    ],
)
def test_an_unknown_option_is_refused_at_construction(given: dict[str, Any], words: str) -> None:
    with pytest.raises(daemon_context.OptionError) as caught:
        Poller("a.pid", **given)
    assert words in str(caught.value)


def test_an_unknown_option_that_is_given_later_is_refused_by_the_verb(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        from daemon_context import Daemon
        class D(Daemon):
            def __init__(self):
                self.pidfile = "d.pid"
                self.options = {"stdot": 1}
            def run(self):
                pass
        D().main(["start"])
    """)
    assert done.returncode == 6
    assert done.stderr == "D: there is no option 'stdot'; did you mean 'stdout'?\n"


# --- subclasses of the recipe

RECIPES = {
    "only the pid file": "self.pidfile = 'd.pid'",
    "what the recipe sets": """
                self.stdin, self.stdout, self.stderr = '/dev/null', 'd.log', 'd.log'
                self.pidfile = 'd.pid'""",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_subclass_of_the_recipe_that_never_calls_ours(box: support.Sandbox, recipe: str) -> None:
    script = box.script(f"""
        import os
        from daemon_context import Daemon
        class D(Daemon):
            def __init__(self):
                {RECIPES[recipe]}
            def run(self):
                os.umask(umask := os.umask(0))
                self.tell(f"umask {{umask:03o}}")
                self.sleep()
        D().main()
    """)
    assert box.run(script, "start").returncode == 0
    support.until(lambda: "umask 022" in box.run(script, "status").stdout)
    assert box.run(script, "restart").returncode == 0
    assert box.run(script, "stop").returncode == 0
    assert not (box.path / "d.pid").exists()


def test_a_class_attribute_is_enough(box: support.Sandbox) -> None:
    script = box.script("""
        from daemon_context import Daemon
        class D(Daemon):
            pidfile = "d.pid"
            options = {"working_directory": "."}
            def __init__(self):
                pass
            def run(self):
                self.sleep()
        D().main()
    """)
    assert box.run(script, "start").returncode == 0
    assert os.readlink(f"/proc/{box.pid()}/cwd") == str(box.path)
    assert box.run(script, "stop").returncode == 0


def test_no_pid_file_at_all_is_said(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import Daemon
        class D(Daemon):
            def __init__(self):
                pass
            def run(self):
                pass
        D().main(["start"])
    """)
    assert done.returncode == 6
    assert done.stderr.startswith("D: pidfile=None can't be used: expected a path"), done


# --- a run() that a unit test calls


class Counting(Daemon):
    """Ten rounds."""

    def run(self) -> Any:
        rounds = []
        for number in self.every(0.001):
            rounds.append((number, self.sleep(0), self.stop_requested))
            self.tell("on the way")
            if number == 2:
                return rounds
        return None


def test_a_run_that_a_unit_test_calls_may_sleep() -> None:
    daemon = Counting("never.pid")
    assert daemon.run() == [(n, True, False) for n in range(3)]
    assert not os.path.exists("never.pid")


# --- a script's own options

OWN_OPTIONS = """
    import argparse
    from daemon_context import Daemon

    class D(Daemon):
        @property
        def pidfile(self):
            return f"{self.arguments.name}.pid"
        def __init__(self):
            pass
        def run(self):
            self.tell(f"polls {self.arguments.url}")
            self.sleep()

    parser = argparse.ArgumentParser(description="Own words.")
    parser.add_argument("--name", default="d")
    parser.add_argument("--url", required=True)
    D().main(parser=parser)
"""


def test_a_scripts_own_options(box: support.Sandbox) -> None:
    script = box.script(OWN_OPTIONS)
    own = ("--name", "one", "--url", "http://localhost")
    assert box.run(script, "start", *own).returncode == 0
    pid = box.pid("one.pid")
    support.until(lambda: "polls http://localhost" in box.run(script, *own, "status").stdout)
    done = box.run(script, "status", "--json", *own)
    assert json.loads(done.stdout)["pid"] == pid
    assert box.run(script, "status", "--url", "x").returncode == 3
    assert box.run(script, "start").returncode == 2
    assert "Own words." in box.run(script, "--help").stdout
    assert box.run(script, "stop", *own).returncode == 0


def test_arguments_are_there_without_a_parser_as_well(box: support.Sandbox) -> None:
    done = box.run("""
        from daemon_context import Daemon
        class D(Daemon):
            def status(self):
                print(self.arguments.verb)
                return super().status()
            def run(self):
                pass
        assert D("d.pid").arguments is None
        D("d.pid").main(["status"])
    """)
    assert done.stdout.splitlines() == ["status", "D: not running"], done


# --- the working directory


@pytest.mark.parametrize("detach", [True, False])
def test_the_working_directory_may_be_a_descriptor(box: support.Sandbox, detach: bool) -> None:
    (box.path / "work").mkdir()
    done = box.run(f"""
        import os
        from daemon_context import DaemonContext
        fd = os.open("work", os.O_RDONLY | os.O_DIRECTORY)
        context = DaemonContext(working_directory=fd, detach_process={detach}, stdout=1, stderr=2,
                                pidfile="d.pid")
        print(context.explain()["change-directory"].text == "change the working directory to "
              f"that of descriptor {{fd}}", flush=True)
        os.rename("work", "renamed")
        with context:
            print(os.getcwd(), flush=True)
    """)
    assert done.returncode == 0, done
    box.settled()
    said = done.stdout.splitlines()
    assert said[0] == "True"
    assert said[1:] in ([str(box.path / "renamed")], [])


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("99", "an open directory (descriptor 99 is not open)"),
        ("-1", "a path or the descriptor of an open directory"),
        ("True", "a path or the descriptor of an open directory"),
        ("os.open('/dev/null', 0)", "Not a directory"),
    ],
)
def test_a_descriptor_that_is_no_directory(
    box: support.Sandbox, directory: str, words: str
) -> None:
    done = box.run(f"""
        import os
        from daemon_context import DaemonContext
        DaemonContext(working_directory={directory}, detach_process=True).open()
    """)
    assert done.returncode == 1
    assert words in done.stderr
    box.settled()


@pytest.mark.root
def test_with_a_chroot_the_directory_is_a_path_in_it(box: support.Sandbox) -> None:
    """A descriptor of a directory outside the new root would be a way out."""
    with pytest.raises(DaemonError, match="a path: with a chroot"):
        DaemonContext(
            chroot_directory=box.path, working_directory=0, detach_process=False
        ).explain()
    context = DaemonContext(
        chroot_directory=box.path, working_directory="/nope", detach_process=False
    )
    assert context.explain()["change-directory"].text == (
        "change the working directory to '/nope' in the new root"
    )
    with pytest.raises(DaemonError, match=r"to '/nope' in the new root: No such file"):
        context.check()


def test_a_spawn_by_name_keeps_the_directorys_descriptor(box: support.Sandbox) -> None:
    (box.path / "work").mkdir()
    box.script("import os\ndef note(): open('here', 'w').close()", "target.py")
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        fd = os.open("work", os.O_RDONLY | os.O_DIRECTORY)
        DaemonContext(working_directory=fd).spawn("target:note").wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert (box.path / "work/here").exists()
