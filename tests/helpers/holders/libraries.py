# ruff: noqa: SIM115 - that the files stay open is what this is about
"""Descriptors that libraries hold."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from pathlib import Path

from tests.helpers.holders.cases import EARLY, LATE, Made, _file, holder, opened
from tests.helpers.holders.files import numbers_only


def _row(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("insert into lines values (?)", (text,))
    connection.commit()


def _sqlite(journal: str) -> Made:
    connection = sqlite3.connect("old.db")
    connection.execute(f"pragma journal_mode={journal}")
    connection.execute("create table lines (text)")
    _row(connection, EARLY)

    def use() -> None:
        _row(connection, LATE)

    return opened("/old.db"), use


@holder(None, None)
def sqlite() -> Made:
    return _sqlite("delete")


@holder(None, None)
def sqlite_wal() -> Made:
    return _sqlite("wal")


@holder(None, None)
def event_loop() -> Made:
    import asyncio  # which, from 3.12 on, resets the wake-up descriptor in every forked process

    loop = asyncio.new_event_loop()
    parts = [loop._selector, loop._ssock, loop._csock]  # type: ignore[attr-defined]

    def use() -> None:
        loop.call_later(0, loop.call_soon_threadsafe, print)
        loop.run_until_complete(asyncio.sleep(0.001))

    return parts, use


@holder()
def program_fed_by_a_pipe() -> Made:
    with open("old", "w") as old:
        program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=old, text=True)
    return _file(program.stdin)


@holder(None, None)
def program_read_by_a_pipe() -> Made:
    program = subprocess.Popen(["echo", "late"], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    stdout = program.stdout

    def use() -> None:
        assert stdout.read() == LATE

    return [stdout], use


@holder(None, None)
def wakeup() -> Made:
    reader, writer = os.pipe()
    for fd in (reader, writer):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGUSR1, lambda *_: None)

    def use() -> None:
        signal.raise_signal(signal.SIGUSR1)
        assert os.read(reader, 10) == bytes([signal.SIGUSR1])

    return [reader, writer], use


def _crash() -> None:
    import faulthandler

    pid = os.fork()
    if not pid:
        faulthandler._sigsegv()  # type: ignore[attr-defined]
    os.waitpid(pid, 0)


@holder(None, None, "always")
def crash_dump_to_a_file() -> Made:
    import faulthandler

    crashes = open("old", "w")
    faulthandler.enable(file=crashes)

    def use() -> None:
        _crash()
        assert Path("old").read_text().startswith("Fatal Python error: Segmentation fault")

    return [], use


@holder("", "", "always")
def crash_dump_to_a_number() -> Made:
    """Reserved: the dump goes nowhere, rather than into data."""
    import faulthandler

    fd = os.open("old", os.O_WRONLY | os.O_CREAT)
    faulthandler.enable(file=fd)

    return [], _crash


@holder(None, None, "always")
def dump_on_demand() -> Made:
    import faulthandler

    dumps = open("old", "w")
    faulthandler.register(signal.SIGUSR1, file=dumps)

    def use() -> None:
        signal.raise_signal(signal.SIGUSR1)
        assert "most recent call first" in Path("old").read_text()

    return [], use


@holder(None, None)
def crash_dump_to_stderr() -> Made:
    import faulthandler

    faulthandler.enable()
    made = numbers_only()

    def use() -> None:
        _crash()
        made[1]()

    return made[0], use


@holder(None, None)
def crash_dump_off() -> Made:
    import faulthandler

    faulthandler.enable()
    faulthandler.disable()
    made = numbers_only()

    def use() -> None:
        _crash()
        made[1]()

    return made[0], use
