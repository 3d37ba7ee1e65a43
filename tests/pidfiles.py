"""For the tests of pid files: a program that starts daemons fast, and some that get in the way."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import support

NOBODY = 65534

# Forks a launcher for each start, so that a start costs no start of Python; each ends as a
# program would, and sends its error, if there was one, back as JSON.
STARTER = """
    import json, os, subprocess, sys
    import resource, daemon_context.failures, daemon_context.lockerrors, daemon_context.stopping
    from daemon_context import DEFAULT_STEPS, DaemonContext, PidFile, Step
    from daemon_context.pidfile import TimeoutPIDLockFile

    DaemonContext(detach_process=True, pidfile="/").explain()  # imports what a start needs

    class Fail(Step):
        def apply(self, walk):
            raise OSError("failed on request")

    def launch(job):
        os.umask(job.get("umask", 0o077))
        if "cwd" in job:
            os.chdir(job["cwd"])
        if "uid" in job:
            os.setgroups([])
            os.setgid(job["uid"])
            os.setuid(job["uid"])
        options = {"detach_process": True, **job["options"]}
        if "timeout" in job:
            options["pidfile"] = TimeoutPIDLockFile(options["pidfile"], job["timeout"])
        if "fail_after" in job:
            options["steps"] = DEFAULT_STEPS.insert_after(job["fail_after"], Fail())
        with DaemonContext(**options) as daemon:
            daemon.sleep()

    def launcher(job, gate, answer):
        status = 0
        try:
            os.close(gate[1])
            os.read(gate[0], 1)
            launch(job)
        except BaseException as error:
            status = 0 if isinstance(error, SystemExit) and not error.code else 1
            facts = {name: getattr(error, name, None) for name in ("path", "pid", "errno", "step")}
            kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]
            text = str(error)
            os.write(answer, json.dumps({**facts, "text": text, "kinds": kinds}).encode())
        finally:
            os._exit(status)

    def start(job):
        gate = os.pipe()
        launchers = []
        for _ in range(job.get("count", 1)):
            reader, writer = os.pipe()
            pid = os.fork()
            if not pid:
                launcher(job, gate, writer)
            os.close(writer)
            launchers.append((pid, reader))
        os.close(gate[1])
        os.close(gate[0])
        results = []
        for pid, reader in launchers:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.set_blocking(reader, False)
            try:
                text = os.read(reader, 1 << 20)
            except BlockingIOError:
                text = b""
            os.close(reader)
            results.append({"status": status, **json.loads(text or b"{}")})
        return results

    for line in sys.stdin:
        job = json.loads(line)
        if "run" in job:
            answer = subprocess.run(job["run"], check=True).returncode
        elif "owner" in job:
            try:
                holder = PidFile(job["owner"]).holder()
                answer = [holder.state, holder.pid, str(holder)]
            except Exception as error:
                answer = ["error", None, str(error)]
        else:
            answer = start(job)
        print(json.dumps(answer), flush=True)
"""

# Holds the lock of a pid file until its stdin ends.
HOLDER = """
    import os, sys
    from daemon_context import PidFile
    with PidFile(sys.argv[1]):
        print(os.getpid(), flush=True)
        sys.stdin.read()
"""

# Holds a lock that a reader can get: a record lock, or one of the open file description.
READER = """
    import fcntl, os, struct, sys
    path, kind, start, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    fd = os.open(path, os.O_RDONLY)
    if kind == "record":
        fcntl.lockf(fd, fcntl.LOCK_SH, length, start)
    else:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


class Starter:
    """Starts daemons on request; as a context manager, which ends it but not the daemons."""

    def __init__(self, box: support.Sandbox, prefix: list[str] | None = None) -> None:
        self.box = box
        self.program = box.popen(
            box.script(STARTER, "starter.py"), prefix=prefix, stderr=None, bufsize=1
        )

    def ask(self, **job: Any) -> Any:
        """The answer to one request; fails if there is none in time."""
        stdin, stdout = self.program.stdin, self.program.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], 4 * support.DEADLINE)
        assert ready, f"no answer to {job}"
        return json.loads(stdout.readline())

    def start(self, pidfile: str | os.PathLike[str], **job: Any) -> dict[str, Any]:
        """Start one daemon: the launcher's exit status, and its error."""
        (result,) = self.start_many(1, pidfile, **job)
        return result

    def start_many(self, count: int, pidfile: Any, **job: Any) -> list[dict[str, Any]]:
        """Start many at once."""
        options = {"pidfile": os.fspath(pidfile), **job.pop("options", {})}
        result: list[dict[str, Any]] = self.ask(options=options, count=count, **job)
        return result

    def holder(self, pidfile: str | os.PathLike[str]) -> list[Any]:
        """State, pid and words of the holder, as another process sees them."""
        answer: list[Any] = self.ask(owner=os.fspath(pidfile))
        return answer

    @property
    def daemons(self) -> set[int]:
        """All processes of the sandbox but this program."""
        return self.box.processes() - {self.program.pid}

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *error: object) -> None:
        self.program.communicate()


@contextmanager
def held(
    box: support.Sandbox, program: str, *args: Any, name: str = "holder.py"
) -> Iterator[subprocess.Popen[str]]:
    """A program that holds a lock; it has it when this is entered."""
    process = box.popen(box.script(program, name), *args, stderr=None)
    assert process.stdout is not None
    try:
        assert int(process.stdout.readline()) == process.pid
        yield process
    finally:
        process.communicate()


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's ``tmp_path`` is not for root."""
    path = Path(tempfile.mkdtemp())
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


def kernel_owner(path: Path) -> int | None:
    """Who owns the pid file's lock, asked without the library: fcntl(2), F_GETLK on byte 1."""
    with path.open("rb") as file:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid
