"""What s6 hears: a newline on its descriptor (s6's notifywhenup)."""

from __future__ import annotations

import sys

import pytest

from tests.helpers import support

SUPERVISE = """
import fcntl, os, subprocess, sys
with open("/proc/self/comm", "w") as file:
    file.write("s6-supervise")
reader, writer = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in os.pipe())
os.closerange(3, 20)
number = int(sys.argv[1])
os.makedirs("service", exist_ok=True)
print(number, file=open("service/notification-fd", "w"))
if sys.argv[2] == "s6":
    os.dup2(writer, number)
command = sys.argv[3:]
child = os.fork()
if not child:
    if sys.argv[2] != "s6":  # a pipe of the program's own has that number
        os.dup2(os.pipe()[1], number)
    os.setsid()
    os.execv(command[0], command)
os.close(writer)
os.closerange(3, 20)
os.chdir("service")
first = os.read(reader, 100)
open("heard", "w").close()
print(repr(first), repr(os.read(reader, 100)), flush=True)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("which", ["s6", "another"])
@pytest.mark.parametrize("number", [3, 9])
def test_s6_gets_its_newline(box: support.Sandbox, which: str, number: int) -> None:
    prefix = [sys.executable, "-c", SUPERVISE, str(number), which]
    done = box.run(
        """
        import os, sys
        from daemon_context import DaemonContext
        from tests.helpers.support import until
        with DaemonContext(readiness="explicit", stderr=2) as daemon:
            assert daemon.supervisor.name == "s6-supervise"
            daemon.ready()
            until(lambda: os.path.exists(sys.argv[1]))  # and not with the end
        """,
        box.path / "service" / "heard",
        prefix=prefix,
    )
    said = "b'\\n' b''\n" if which == "s6" else "b'' b''\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


@pytest.mark.root
def test_s6_gets_its_newline_from_another_user(box: support.Sandbox) -> None:
    done = box.run(
        """
        import ctypes, os
        from daemon_context import DaemonContext
        from tests.helpers import support
        os.chdir("service")
        support.become_nobody()
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, as after an exec by s6-setuidgid
        with DaemonContext(umask=0o022, stderr=2) as daemon:
            assert (daemon.supervisor.name, os.getuid()) == ("s6-supervise", 65534)
        """,
        prefix=[sys.executable, "-c", SUPERVISE, "3", "s6"],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'\\n' b''\n", "")


def test_s6_of_a_daemon_that_is_never_ready(box: support.Sandbox) -> None:
    prefix = [sys.executable, "-c", SUPERVISE, "3", "s6"]
    body = """
        from daemon_context import DaemonContext
        with DaemonContext(readiness="explicit", detach_process=False):
            pass
    """
    done = box.run(body, prefix=prefix)
    assert (done.returncode, done.stdout) == (0, "b'' b''\n")
