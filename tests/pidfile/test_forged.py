"""What the daemon's user puts in the place of the files, where he may: a start goes on with files
of its own, and nothing of another daemon's is lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon_context import PidFile, PidFileError
from daemon_context.control import stop
from daemon_context.control.status import status_of
from daemon_context.pidfile import files
from daemon_context.pidfile.holder import Holder
from daemon_context.pidfile.record import written
from tests.helpers.pidfiles import NOBODY, lock_of, take_lock

pytestmark = pytest.mark.root

IMPOSSIBLE = {
    "pid": b"99999999999999999999",
    "started": b"-1",
    "inode": b"99999999999999999999",
    "path": b"/x\0y",
}


def given_to_nobody(path: Path, record: bytes) -> None:
    """A pid file and a lock file of the daemon's user, in a directory of his."""
    for file, content in ((path, b"1\n"), (lock_of(path), record)):
        file.write_bytes(content)
        os.chown(file, NOBODY, NOBODY)
    os.chown(path.parent, NOBODY, NOBODY)


@contextmanager
def begun(path: Path) -> Iterator[PidFile]:
    """What the launcher does, as root, for a daemon of that user."""
    pidfile = PidFile(path)
    pidfile.begin(NOBODY)
    try:
        yield pidfile
    finally:
        pidfile.abandon()


@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.parametrize("locked", [False, True])
def test_a_record_of_what_no_process_has_is_none(public: Path, name: str, locked: bool) -> None:
    path = public / "d.pid"
    lines = [line.split(b" ", 1) for line in written(str(path), NOBODY, 0).splitlines()]
    forged = [key + b" " + IMPOSSIBLE.get(name, b"") for key, _ in lines if key == name.encode()]
    true = [key + b" " + value for key, value in lines if key != name.encode()]
    lines = [*true, *forged] if name == "path" else [*forged, *true]
    given_to_nobody(path, b"\n".join(lines) + b"\n")
    fd = take_lock(f"{path}.lock", "ofd") if locked else -1
    if locked:
        assert status_of(PidFile(path)).state == "unknown"
        assert "has no record of a daemon" in str(PidFile(path).holder())
    else:
        assert status_of(PidFile(path)).state == "dead"
        assert stop(PidFile(path)).pid is None
    with begun(path):
        assert lock_of(path).stat().st_uid == 0
    if locked:
        os.close(fd)


def moments(monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[], None]) -> None:
    """Let something happen as a start looks at what it is going to remove."""
    real = getattr(files, name)

    def looks(*args: Any) -> Any:
        found = real(*args)
        monkeypatch.setattr(files, name, real)
        swap()
        return Holder("orphan") if name == "holder_of" else found

    monkeypatch.setattr(files, name, looks)


@pytest.mark.parametrize("name", ["holder_of", "is_named", "older"])
def test_a_link_in_the_place_of_the_directory_loses_no_other_daemon_its_files(
    public: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """He may write above that, and does it while a start is about to remove what was his."""
    app, other = public / "app", public / "other"
    for place in (app, app / "run", other):
        place.mkdir()
    given_to_nobody(app / "run" / "d.pid", b"none")
    fd = -1 if name != "holder_of" else take_lock(f"{app}/run/d.pid.lock", "ofd")
    if name == "older":
        lock_of(app / "run" / "d.pid").unlink()

    def swap() -> None:
        (app / "run").rename(app / "moved")
        (app / "run").symlink_to(other)
        os.chown(app / "run", NOBODY, NOBODY, follow_symlinks=False)

    with PidFile(other / "d.pid") as daemon:
        there = {entry.name: entry.stat().st_ino for entry in other.iterdir()}
        moments(monkeypatch, name, swap)
        with pytest.raises(PidFileError), begun(app / "run" / "d.pid"):
            pass
        assert {entry.name: entry.stat().st_ino for entry in other.iterdir()} == there
        assert daemon.is_locked()
    if fd >= 0:
        os.close(fd)
