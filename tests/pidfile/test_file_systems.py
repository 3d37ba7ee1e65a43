"""Pid files on file systems that are full or read-only."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import support
from tests.helpers.pidfiles import (
    SERVED,
    Starter,
    end,
    picture,
    refused,
)


@pytest.fixture
def mounting(box: support.Sandbox) -> Iterator[Starter]:
    """Starts daemons in a mount namespace of its own."""
    (box.path / "mnt").mkdir()
    with Starter(box, prefix=["unshare", "--mount", "--propagation", "private"]) as starter:
        yield starter


def mounted(starter: Starter, options: str) -> tuple[str, Path]:
    """Mount a tmpfs: its path in there, and the way to it from here."""
    place = starter.box.path / "mnt"
    starter.ask(run=["mount", "-t", "tmpfs", "-o", options, "none", str(place)])
    return str(place / "d.pid"), Path(f"/proc/{starter.program.pid}/root{place}")


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_on_a_read_only_file_system(mounting: Starter, there: bool) -> None:
    path, seen = mounted(mounting, "size=1m")
    if there:
        (seen / "d.pid").write_text("1\n")
    mounting.ask(run=["mount", "-o", "remount,ro", str(mounting.box.path / "mnt")])
    before = picture(seen)
    result = refused(mounting, path, "; give a path on a file system that")
    assert "': Read-only file system" in result["text"]
    assert result["errno"] == 30
    assert picture(seen) == before


@pytest.mark.root
def test_where_inodes_are_used_up(mounting: Starter) -> None:
    path, seen = mounted(mounting, "nr_inodes=2")
    (seen / "file").touch()
    result = refused(mounting, path, "No space left on device; make room there: blocks or inodes")
    assert result["errno"] == 28
    assert [entry.name for entry in seen.iterdir()] == ["file"]


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_where_blocks_are_used_up(mounting: Starter, there: bool) -> None:
    path, seen = mounted(mounting, f"size={2 * resource.getpagesize()}")
    if there:
        (seen / "d.pid").touch()
    (seen / "file").write_bytes(b"x" * 2 * resource.getpagesize())
    result = mounting.start(path)
    assert (result["status"], result["errno"], result["step"]) == (1, 28, "write-pidfile")
    assert "No space left on device; make room there" in result["text"]
    assert [entry.name for entry in seen.iterdir()] == ["file"]
    assert mounting.daemons == set()
    (seen / "file").unlink()
    assert mounting.start(path) == {"status": 0}
    end(int((seen / "d.pid").read_text()))


@pytest.mark.root
def test_where_blocks_are_used_up_in_a_chroot(mounting: Starter) -> None:
    """What the error needs must have been loaded before."""
    path, seen = mounted(mounting, f"size={resource.getpagesize()}")
    (seen / "file").write_text("x")
    (mounting.box.path / "root").mkdir()
    options = {"chroot_directory": str(mounting.box.path / "root")}
    result = mounting.start(path, options=options)
    assert (result["status"], result["errno"], result["step"]) == (1, 28, "write-pidfile")
    assert [entry.name for entry in seen.iterdir()] == ["file"]
    assert mounting.daemons == set()


def test_a_name_that_is_too_long_for_the_status_file_beside_it(box: support.Sandbox) -> None:
    name = "n" * 250
    done = box.run(SERVED, name, "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"create the status file '{box.path / name}.status': File name too long" in done.stderr
    assert "; give the pid file a path beside which" in done.stderr
    assert {path.name for path in box.path.iterdir()} == {"program.py"}
    box.settled()


@pytest.mark.root
def test_where_there_is_room_for_the_pid_file_but_not_for_the_status_file_beside_it(
    box: support.Sandbox,
) -> None:
    (box.path / "mnt").mkdir()
    script = f"""
        mount -t tmpfs -o size={2 * resource.getpagesize()} none mnt
        "$@" start && exit 99
        ls mnt
        mount -o remount,size={3 * resource.getpagesize()} mnt
        "$@" start && "$@" stop && ls mnt
    """
    done = box.run(SERVED, "mnt/d.pid", prefix=["unshare", "--mount", "sh", "-c", script, "sh"])
    assert done.returncode == 0, done
    assert done.stderr.splitlines()[0].endswith(
        f"No space left on device: '{box.path}/mnt/d.pid.status'"
    )
    assert re.fullmatch(
        r"Idle: started, pid \d+\nIdle: stopped \(pid \d+\)\nd.pid.status\n", done.stdout
    )
    box.settled()
