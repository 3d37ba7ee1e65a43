"""`listen_fds`: sockets that a manager hands over, as sd_listen_fds(3) says."""

from __future__ import annotations

import sys

import pytest

from tests.helpers import support

ACTIVATE = """
import os, socket, sys
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
unix.bind("datagrams")
pipe = os.pipe()[0]
given = [tcp.fileno(), pipe, unix.fileno()]
kept = [os.dup(os.dup2(fd, 50 + n)) for n, fd in enumerate(given)]
for number, fd in enumerate(kept):
    os.dup2(fd, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), **eval(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""
PROGRAM = """
    import os, subprocess, sys
    from daemon_context import DaemonContext, listen_fds
    if sys.argv[1] == "before":
        listen_fds()
    with DaemonContext(detach_process=eval(sys.argv[2]), stdout="log", umask=0o022):
        found = listen_fds()
        for name, socket in found:
            print(name, socket.fileno(), socket.family.name, socket.type.name,
                  os.get_inheritable(socket.fileno()))
        assert all(one[1] is other[1] for one, other in zip(found, listen_fds()))
        if not os.fork():
            print(listen_fds(), flush=True)
            os._exit(0)
        os.wait()
"""


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("names", ["web:fifo:log", None])
def test_names_and_sockets_as_they_were_handed_over(
    box: support.Sandbox, detach: bool, when: str, names: str | None
) -> None:
    environ = {"LISTEN_FDS": "3", **({"LISTEN_FDNAMES": names} if names else {})}
    start = [sys.executable, "-c", ACTIVATE, repr(environ)]
    done = box.run(PROGRAM, when, detach, prefix=start)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    web, log = ("web", "log") if names else ("unknown", "unknown")
    assert box.text("log").splitlines() == [
        f"{web} 3 AF_INET SOCK_STREAM False",
        f"{log} 5 AF_UNIX SOCK_DGRAM False",
        "[]",  # of a child
    ]


@pytest.mark.parametrize("environ", [
    {}, {"LISTEN_FDS": "2"}, {"LISTEN_PID": "1", "LISTEN_FDS": "2"},
    {"LISTEN_PID": "me"}, {"LISTEN_PID": "me", "LISTEN_FDS": "x"},
    {"LISTEN_PID": "me", "LISTEN_FDS": "0"}, {"LISTEN_PID": "me", "LISTEN_FDS": "-3"},
    {"LISTEN_PID": "me", "LISTEN_FDS": "999999999"},
])  # fmt: skip
def test_what_is_not_handed_over_to_us_is_left_alone(
    box: support.Sandbox, environ: dict[str, str]
) -> None:
    done = box.run(
        """
        import os, sys
        if os.environ.get("LISTEN_PID") == "me":
            os.environ["LISTEN_PID"] = str(os.getpid())
        from daemon_context import listen_fds
        print(listen_fds())
        """,
        env=environ,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
