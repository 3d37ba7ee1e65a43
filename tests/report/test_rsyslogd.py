"""Last words as Debian's rsyslogd writes them."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.helpers import support, tools
from tests.helpers.syslog import WAITING, is_traceback, prefix, start

pytestmark = pytest.mark.root

RSYSLOG = """
module(load="imuxsock" SysSock.RateLimit.Interval="0")
template(name="plain" type="string" string="%programname%|%procid%|%syslogpriority-text%|%msg%\\n")
action(type="omfile" file="{place}/syslog" template="plain")
"""


def begin_rsyslogd(box: support.Sandbox) -> subprocess.Popen[str]:
    """In the foreground, in a mount namespace; its /dev/log is in the sandbox."""
    conf, log = box.path / "rsyslog.conf", box.path / "dev" / "log"
    conf.write_text(RSYSLOG.format(place=box.path))
    log.unlink(missing_ok=True)  # a former one's, which nobody would read
    program = tools.find("rsyslogd")
    daemon = subprocess.Popen(
        [*prefix(box), program, "-n", "-f", str(conf), "-i", f"{box.path}/rsyslog.pid"],
        env=box.environ, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    box.started.append(daemon)
    support.until(lambda: log.is_socket() or daemon.poll() is not None)
    assert daemon.poll() is None, daemon.communicate()
    return daemon


def logged(box: support.Sandbox, pid: int, last: str) -> list[str]:
    """The lines that rsyslogd has written, as soon as the last one is there."""
    path = box.path / "syslog"
    support.until(lambda: path.exists() and path.read_text().endswith(f"{last}\n"))
    rows = [line.split("|", 3) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row[0] != "rsyslogd"]  # it tells that it has started
    assert {(row[0], row[1], row[2]) for row in rows} == {("program.py", str(pid), "err")}
    return [row[3].removeprefix(" ") for row in rows]


def test_rsyslogd_writes_them(devices: support.Sandbox) -> None:
    """Whole, in order, from a chroot, and as a user without privileges."""
    begin_rsyslogd(devices)
    (devices.path / "jail").mkdir()
    (devices.path / "jail").chmod(0o777)
    body = """
        context.chroot_directory = place / "jail"
        context.working_directory = "/"
        with context:
            say_pid()
            raise RuntimeError("first\\n" + "é☃" * 3000 + "\\nlast")
    """
    pid = start(devices, body, "uid='nobody'", pidfile="jail/pid")
    texts = logged(devices, pid, "last")
    assert texts[0] == "Traceback (most recent call last):"
    begin = texts.index("RuntimeError: first")
    assert texts[-1] == "last"
    assert "".join(texts[begin + 1 : -1]) == "é☃" * 3000


def test_a_restarted_rsyslogd_writes_them(devices: support.Sandbox) -> None:
    rsyslogd = begin_rsyslogd(devices)
    pid = start(devices, WAITING, "signal_map={signal.SIGTERM: 'request_stop'}")
    rsyslogd.terminate()
    rsyslogd.wait(support.DEADLINE)
    begin_rsyslogd(devices)
    os.kill(pid, signal.SIGTERM)
    texts = logged(devices, pid, "RuntimeError: out of luck")
    assert is_traceback(texts, "RuntimeError: out of luck"), texts
