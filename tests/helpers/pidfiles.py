"""For the tests of pid files: a program that starts daemons fast, and some that get in the way."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers import support

NOBODY = 65534

# Forks a launcher for each start, so that a start costs no start of Python; each ends as a
# program would, and sends its error, if there was one, back as JSON.
STARTER = """
    import atexit, ctypes, fcntl, json, os, signal, subprocess, sys, time
    import lockfile, resource, daemon_context.loop, daemon_context.pidfile.refusals
    import daemon_context.report.failures
    from daemon_context import DEFAULT_STEPS, Daemon, DaemonContext, PidFile, Step
    from daemon_context.pidfile import TimeoutPIDLockFile

    DaemonContext(detach_process=True, pidfile="/").explain()  # imports what a start needs

    class Fail(Step):
        def apply(self, walk):
            raise OSError("failed on request")

    libc = ctypes.PyDLL(None)

    def have_child(fork):
        if not fork():
            while True:
                signal.pause()

    WITNESSED = {
        signal.SIGTERM: "request_stop",
        signal.SIGUSR1: lambda number, frame: have_child(os.fork),
        signal.SIGUSR2: lambda number, frame: have_child(libc.fork),
    }

    def alone(path):
        # The kernel drops the lock with the process, so whoever holds it is a live daemon.
        witness = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.write(witness, b"two daemons at a time")
        return witness

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
        if "witness" in job:
            options["signal_map"] = WITNESSED
        with DaemonContext(**options) as daemon:
            witness = alone(job["witness"]) if "witness" in job else None
            daemon.sleep()
            if witness is not None:
                os.close(witness)

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
            try:
                atexit._run_exitfuncs()  # a signal may come before the context is entered
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
        if "kill" in job:
            pid, number, delay = job["kill"]
            time.sleep(delay)
            os.kill(pid, number)
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

    def stop(job):
        try:
            daemon = Daemon(job["stop"])
            daemon.stop(job["schedule"])
            return {"pid": daemon.did.pid}
        except Exception as error:
            return {"error": str(error)}

    for line in sys.stdin:
        job = json.loads(line)
        if "run" in job:
            answer = subprocess.run(job["run"], check=True).returncode
        elif "stop" in job:
            answer = stop(job)
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

# Holds a lock that anybody who may open the file can get: a record lock, or one of the open file
# description, or flock's; a shared one unless the last argument is there.
READER = """
    import os, sys
    from tests.helpers.pidfiles import take_lock
    path, kind, start, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    take_lock(path, kind, start, length, exclusive=len(sys.argv) > 5)
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def take_lock(
    path: str, kind: str, start: int = 0, length: int = 0, *, exclusive: bool = False
) -> int:
    """Lock the file as somebody who has nothing to do with the daemon; the descriptor.

    :raises BlockingIOError: somebody else holds it
    """
    fd = os.open(path, os.O_RDWR if exclusive else os.O_RDONLY)
    try:
        if kind == "ofd":
            type_ = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
            lock = struct.pack("hhqqi4x", type_, os.SEEK_SET, start, length, 0)
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
        else:
            how = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB
            if kind == "flock":
                fcntl.flock(fd, how)
            else:
                fcntl.lockf(fd, how, length, start)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Innocent:
    """A process that notices every signal it gets, and a daemon must never signal."""

    def __init__(self, box: support.Sandbox) -> None:
        self.process = box.popen("""
            import signal, sys
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, lambda number, frame: print(number, flush=True))
            print("ready", flush=True)
            sys.stdin.read()
        """)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    @property
    def is_unharmed(self) -> bool:
        """Whether it runs, and was not sent anything until now."""
        told, _, _ = select.select([self.process.stdout], [], [], 0)
        return not told and support.state(self.process.pid) in ("S", "R", "D")

    def end(self) -> str:
        """What it was sent, at its end."""
        assert support.alive(self.process.pid)
        return self.process.communicate()[0]


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
    """Who the daemon is, asked without the library: the record, if the kernel shows a read lock."""
    lock = lock_of(path)
    if ofd_locks(lock) != {"READ"}:
        return None
    (line,) = (line for line in lock.read_text().splitlines() if line.startswith("pid "))
    pid = int(line.split()[1])
    return pid if support.alive(pid) else None


def is_excluded(path: Path) -> bool:
    """Whether a start or a daemon, or a child of one, excludes others."""
    return bool(ofd_locks(lock_of(path)))


def lock_of(path: Path) -> Path:
    """The lock file beside a pid file."""
    return path.with_name(f"{path.name}.lock")


def ofd_locks(path: Path) -> set[str]:
    """``READ`` and ``WRITE``: the open-file-description locks on a file (proc_locks(5))."""
    if not path.exists():
        return set()
    found = path.stat()
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    # More than once: in one reading a lock may be missing while others come and go.
    texts = [Path("/proc/locks").read_text() for _ in range(5)]
    lines = [line.split() for text in texts for line in text.splitlines()]
    return {line[3] for line in lines if line[1] == "OFDLCK" and line[5] == device}


def started(starter: Starter, path: Path, **job: Any) -> int:
    """Start a daemon, which must work; its pid."""
    result = starter.start(path, **job)
    assert result == {"status": 0}, result
    pid = int(path.read_text())
    assert support.alive(pid)
    return pid


def end(pid: int, number: int = signal.SIGTERM) -> None:
    os.kill(pid, number)
    support.gone(pid)


def picture(directory: Path) -> dict[str, Any]:
    """All that is in a directory, with content, owner, mode and links."""
    found = {}
    for path in sorted(directory.rglob("*")):
        facts = path.lstat()
        content: Any = path.read_bytes() if stat.S_ISREG(facts.st_mode) else None
        if stat.S_ISLNK(facts.st_mode):
            content = os.readlink(path)
        found[str(path)] = (facts.st_mode, facts.st_uid, facts.st_nlink, facts.st_ino, content)
    return found


def refused(starter: Starter, path: Path | str, words: str, **job: Any) -> dict[str, Any]:
    """A start that must fail in the launcher, with these words and nothing else; its error."""
    running = starter.daemons
    result = starter.start(path, **job)
    assert result["status"] == 1
    assert result["step"] == "lock-pidfile"
    assert result["path"] == os.path.abspath(path)
    assert {"lockfile.LockFailed", "builtins.OSError"} <= set(result["kinds"])
    text = result["text"]
    assert text.startswith(f"cannot lock the pid file {os.path.abspath(path)!r}: "), text
    assert words in text
    assert re.search(r"; [a-z ]+.* \(step 2 of 15, lock-pidfile\)$", text), "no remedy in: " + text
    assert "\n" not in text
    assert starter.daemons == running
    return result


SERVED = """
    import sys
    from daemon_context import Daemon

    class Idle(Daemon):
        def run(self):
            self.sleep()

    Idle(sys.argv.pop(1)).main()
"""


def starts(starter: Starter, path: Path) -> None:
    """Started, refused a second time, and stopped: all as if the file had not been there."""
    known = starter.daemons
    assert starter.start(path) == {"status": 0}
    daemon = int(path.read_text())
    assert path.read_text() == f"{daemon}\n"
    assert starter.daemons == known | {daemon}
    assert f"already running with pid {daemon} (" in starter.start(path)["text"]
    end(daemon)
    assert not path.exists()


# A daemon of the class that becomes nobody; or the options that come behind its pid file.
IDLE = """
    import json, os, sys
    from daemon_context import Daemon

    class Idle(Daemon):
        def run(self):
            self.sleep()

    options = {"uid": 65534, "gid": 65534}
    if "OPTIONS" in os.environ:
        options = json.loads(os.environ["OPTIONS"])
    Idle(sys.argv.pop(1), **options).main()
"""
