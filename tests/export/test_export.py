"""`python -m daemon_context export systemd`: a unit from what a script really uses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support

SERVED = """
    import atexit, os, signal, sys
    from daemon_context import Daemon, DaemonContext

    print("noise")
    atexit.register(print, "noise at the exit")
    {body}
"""
CLOCK = """
    class Clock(Daemon):
        "A clock that is 100% right.\\n\\nMore of it."
        def run(self):
            self.sleep()
        def on_reload(self):
            pass
    try:
        Clock(**OPTIONS).main()
    except BaseException:
        print("caught")
    finally:
        print("noise at the end")
"""
CONTEXT = "with DaemonContext(**OPTIONS): print('noise')"


def export(
    box: support.Sandbox, body: str, *arguments: str, script: tuple[str, ...] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    text = SERVED.format(body=body.replace("**OPTIONS", f"**{options!r}"))
    box.script(text, "the script.py")
    return command(box, "the script.py", *arguments, *(["--", *script] if script else []))


def command(box: support.Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_context", "export", "systemd", *arguments],
        capture_output=True, text=True, timeout=60, cwd=box.path, env=box.environ, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def unit(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The settings; the last one of each name."""
    assert done.returncode == 0, done.stderr
    assert "noise" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if "=" in line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def test_of_a_class(box: support.Sandbox) -> None:
    done = export(
        box,
        CLOCK,
        pidfile="/run/clock/c.pid",
        umask=0o027,
        stdout="log/%n.log",
        foreground_streams=True,
    )
    found = unit(done)
    line = f'{sys.executable} "{box.path}/the script.py"'
    assert found["Description"] == "A clock that is 100%% right"
    assert found["Type"] == "notify"
    assert found["ExecStart"] == f"{line} run"
    assert found["ExecReload"] == f"{line} reload"
    assert found["UMask"] == "0027"
    assert found["RuntimeDirectory"] == "clock"
    assert found["ReadWritePaths"] == f"{box.path}/log"
    assert found["WorkingDirectory"] == str(box.path)
    assert found["TimeoutStopSec"] == "15"
    assert found["Restart"] == "on-failure"
    assert found["WantedBy"] == "multi-user.target"
    assert not {"WatchdogSec", "PrivateTmp"} & set(found)
    assert "noise\n" in done.stderr
    assert "at the e" not in done.stderr  # nothing of the script runs after its start
    assert not (box.path / "log").exists()


def test_of_a_context_with_arguments(box: support.Sandbox) -> None:
    body = f"assert sys.argv[1:] == ['$5', '-x']\n    {CONTEXT}"
    done = export(box, body, "--watchdog", "2.5", script=("$5", "-x"), pidfile="/srv/a b/c.pid")
    found = unit(done)
    assert found["ExecStart"].endswith('the script.py" "$$5" -x')
    assert "ExecReload" not in found
    assert found["WatchdogSec"] == "2.5"
    assert found["ReadWritePaths"] == '"/srv/a b"'
    assert found["Description"] == "the script.py"


def test_a_context_that_takes_sighup_reloads_by_it(box: support.Sandbox) -> None:
    found = unit(export(box, CONTEXT.replace("**OPTIONS", (
        "**OPTIONS, signal_map={signal.SIGHUP: print, signal.SIGTERM: 'terminate'}"
    ))))  # fmt: skip
    assert found["ExecReload"] == "/bin/kill -HUP $MAINPID"
    found = unit(export(box, CONTEXT.replace("**OPTIONS", "signal_map={signal.SIGHUP: None}")))
    assert "ExecReload" not in found


@pytest.mark.root
def test_whom_it_becomes(box: support.Sandbox) -> None:
    found = unit(export(box, CONTEXT, uid="daemon"))
    assert (found["User"], found["Group"]) == ("daemon", "daemon")
    assert "User" not in unit(export(box, CONTEXT))
    done = export(box, CONTEXT, "--user", uid="daemon")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the manager of a user can't change uid or gid" in done.stderr


@pytest.mark.root
def test_lines_that_the_options_need_looser_say_so(box: support.Sandbox) -> None:
    done = export(box, CONTEXT, uid="daemon", chroot_directory="/srv")
    found = unit(done)
    assert "User" not in found
    assert "CAP_SYS_CHROOT CAP_SETUID CAP_SETGID" in found["CapabilityBoundingSet"]
    assert "chroot @setuid" in found["SystemCallFilter"]
    assert "PrivateUsers" not in found
    assert "# chroot_directory= needs CAP_SYS_CHROOT" in done.stdout


def test_for_the_manager_of_a_user(box: support.Sandbox) -> None:
    box.environ["XDG_RUNTIME_DIR"] = "/run/user/4711"
    found = unit(export(box, CLOCK, "--user", pidfile="/run/user/4711/clock/c.pid"))
    assert found["WantedBy"] == "default.target"
    assert found["RuntimeDirectory"] == "clock"
    assert found["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert found["ProtectHome"] == "read-only"  # the notify socket is below /run/user
    assert not {"User", "Group"} & set(found)


FAILURES = {
    "nothing": ("pass", "starts no daemon"),
    "exit": ("sys.exit(2)", r"starts no daemon.*ended with 2"),
    "raises": ("raise ValueError('a\\nb')", r"starts no daemon.*ValueError: a b"),
    "forks": ("os.fork(); DaemonContext().open()", "forks by itself"),
    "detaches": ("DaemonContext(detach_process=True).open()", "give detach_process=None"),
    "spawns": ("DaemonContext().spawn(print)", "detaches whoever starts it"),
    "starts": ("type('D', (Daemon,), {'run': print})('d.pid').start()", r"call main\(\)"),
    "option": ("DaemonContext(umask=-1).open()", "umask"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_can_have_no_unit_is_one_line_of_error(box: support.Sandbox, what: str) -> None:
    body, said = FAILURES[what]
    done = export(box, body)
    assert (done.returncode, done.stdout) == (1, "")
    noise, *lines = done.stderr.splitlines()
    assert noise == "noise"
    (line,) = (one for one in lines if one.startswith("daemon_context: "))
    assert re.search(said, line), line
    assert len([one for one in lines if "exit" not in one]) == 1, lines


def test_a_script_that_is_not_there(box: support.Sandbox) -> None:
    done = command(box, "nope.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"daemon_context: nope.py: .*No such file.*\n", done.stderr)


def test_the_script_finds_its_modules(box: support.Sandbox) -> None:
    (box.path / "lib").mkdir()
    (box.path / "lib" / "own.py").write_text("OPTIONS = {'pidfile': '/run/own/own.pid'}\n")
    box.script(
        "from own import OPTIONS\nfrom daemon_context import DaemonContext\n"
        "if __name__ == '__main__':\n    DaemonContext(**OPTIONS).open()\n", "lib/main.py",
    )  # fmt: skip
    done = command(box, "lib/main.py")
    assert unit(done)["RuntimeDirectory"] == "own"
    assert not list(Path(box.path).rglob("*.pid"))
