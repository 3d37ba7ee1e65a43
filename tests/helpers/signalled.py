"""For the tests of signals: programs that wait for one."""

from __future__ import annotations

import textwrap
from typing import Any

from tests.helpers import support

FOREGROUND = """
    import os, signal, subprocess, sys, threading, time
    from daemon_context import DaemonContext
    from tests.helpers.launching import report
    context = DaemonContext(detach_process=False, working_directory=".", stdout=sys.stdout,
                            stderr=sys.stderr, {options})
    {before}
    with context as daemon:
        report("started", os.getpid())
    {body}
"""


def foreground(
    box: support.Sandbox, options: str = "", body: str = "daemon.sleep()", before: str = ""
) -> Any:
    """A program in the foreground, so that its exit status is seen; returns once it is open."""
    started = run(box, options, body, before)
    support.until(lambda: (box.path / "started").exists() or started.poll() is not None)
    assert started.poll() is None, started.communicate()
    return started


def run(box: support.Sandbox, options: str = "", body: str = "", before: str = "") -> Any:
    """The same, without waiting for it to be open."""
    program = textwrap.dedent(FOREGROUND).format(
        options=options,
        body=textwrap.indent(textwrap.dedent(body), "    "),
        before=textwrap.dedent(before),
    )
    return box.popen(program)


def ended(program: Any) -> tuple[int, str, str]:
    """Exit status, output and errors of the program."""
    out, err = program.communicate(timeout=support.DEADLINE)
    return program.returncode, out, err


def daemon(box: support.Sandbox, options: str = "", body: str = "daemon.sleep()") -> int:
    """A daemon; its pid."""
    done = box.run(
        f"""
        import os, signal, subprocess, sys, threading, time
        from daemon_context import DaemonContext
        from tests.helpers.launching import report
        with DaemonContext(pidfile="d.pid", stdout="log", stderr="log", working_directory=".",
                           detach_process=True, {options}) as daemon:
            {body}
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    return box.pid()
