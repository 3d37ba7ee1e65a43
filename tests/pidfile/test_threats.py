"""Whoever has been taken over, and whatever rights the one who asks has: only the daemon is ever
signalled, and nobody else is in the way (the threat model is in docs/security.md).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon_context import AlreadyRunning, PidFile
from tests.helpers import support
from tests.helpers.pidfiles import (
    IDLE,
    NOBODY,
    Innocent,
    Starter,
    end,
    held,
    kernel_owner,
    lock_of,
)

DOCKER = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,"
    "sys_chroot,mknod,audit_write,setfcap"
)


def with_capabilities(names: str) -> list[str]:
    """Root with these capabilities, and no others."""
    allowed = "".join(f",+{name}" for name in names.split(","))
    return ["setpriv", f"--bounding-set=-all{allowed}", "--inh-caps=-all"]


def verb(
    box: support.Sandbox, path: Path, name: str, *args: str, caps: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    prefix = with_capabilities(caps) if caps else None
    return box.run(box.script(IDLE, "served.py"), path, name, *args, prefix=prefix, timeout=timeout)


# --- whatever rights the one who asks has


@pytest.mark.root
def test_root_with_dockers_capabilities_does_all_verbs(box: support.Sandbox, public: Path) -> None:
    path = public / "d.pid"
    for name in ("start", "status", "reload", "restart", "status", "stop"):
        done = verb(box, path, name, caps=DOCKER)
        assert (done.returncode, done.stderr) == (0, ""), (name, done)
    assert verb(box, path, "status", caps=DOCKER).returncode == 3
    assert [entry.name for entry in public.iterdir()] in ([], ["d.pid.status"])


@pytest.mark.root
def test_root_with_nothing_but_cap_kill_asks_and_stops(box: support.Sandbox, public: Path) -> None:
    path = public / "d.pid"
    assert verb(box, path, "start").returncode == 0
    pid = int(path.read_text())
    done = verb(box, path, "status", "--json", caps="kill")
    assert (done.returncode, json.loads(done.stdout)["pid"]) == (0, pid)
    done = verb(box, path, "reload", caps="kill,dac_read_search")
    assert (done.returncode, done.stdout) == (0, f"Idle: reloaded, pid {pid}\n"), done
    done = verb(box, path, "stop", caps="kill")
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"Idle: stopped (pid {pid}")
    assert not support.alive(pid)
    assert not path.exists()
    assert not lock_of(path).exists()


AMBIENT = """
    import ctypes, os, shutil, struct, sys
    from daemon_context import Daemon
    from tests.helpers.support import preload

    class Idle(Daemon):
        def run(self):
            self.sleep()

    preload()
    from daemon_context.daemon import verbs
    libc = ctypes.CDLL(None, use_errno=True)
    raised = sys.argv.pop(1) == "ambient"
    assert not raised or not libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    if raised:
        one = 1 << 10  # CAP_NET_BIND_SERVICE
        data = struct.pack("6I", one, one, one, 0, 0, 0)
        assert not libc.capset(struct.pack("Ii", 0x20080522, 0), data)
        assert not libc.prctl(47, 2, 10, 0, 0)  # PR_CAP_AMBIENT_RAISE
    Idle(sys.argv.pop(1)).main()
"""


@pytest.mark.root
def test_a_daemon_with_ambient_capabilities_asked_by_its_own_plain_user(
    box: support.Sandbox, public: Path
) -> None:
    """Who may look at its descriptors must have them as well."""
    os.chown(public, NOBODY, NOBODY)
    path = public / "d.pid"
    program = box.script(AMBIENT)
    assert box.run(program, "ambient", path, "start").returncode == 0
    pid = int(path.read_text())
    assert int(support.status(pid)["CapAmb"], 16) == 1 << 10
    for name in ("status", "reload", "stop"):
        done = box.run(program, "plain", path, name)
        assert (done.returncode, done.stderr) == (0, ""), (name, done)
        assert f"pid {pid}" in done.stdout
    assert support.only_its_end(public)
    assert not path.exists()


@pytest.mark.root
def test_where_proc_has_the_numbers_of_outside(box: support.Sandbox, public: Path) -> None:
    """A pid namespace without a mount of its own; who has the daemon's number there, is nobody."""
    command = 'for verb in start status reload restart stop; do "$@" $verb || exit; done'
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", command, "sh"]
    done = box.run(box.script(IDLE, "served.py"), public / "d.pid", prefix=prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"running with pid \d+$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.root
def test_another_user_is_told_what_is_known(box: support.Sandbox, public: Path) -> None:
    path = public / "d.pid"
    assert verb(box, path, "start").returncode == 0
    pid = int(path.read_text())
    asking = box.script(AMBIENT, "asking.py")
    done = box.run(asking, "plain", path, "status", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["state"], said["pid"]) == (0, "ready", pid)
    assert "says its pid file" in said["reason"]
    done = box.run(asking, "plain", path, "stop")
    assert (done.returncode, "can prove it" in done.stderr) == (4, True), done
    assert support.alive(pid)
    end(pid)
    done = box.run(asking, "plain", path, "status", "--json")
    assert json.loads(done.stdout)["state"] == "dead"


# --- a daemon that was taken over


@pytest.mark.root
def test_the_daemon_of_another_user_can_write_neither_file(starter: Starter, public: Path) -> None:
    path = public / "d.pid"
    assert starter.start(path, options={"uid": NOBODY, "gid": NOBODY}) == {"status": 0}
    pid = int(path.read_text())
    opened = {fd: name for fd, name in support.descriptors(pid).items() if str(path) in name}
    assert sorted(opened.values()) == [str(path), str(lock_of(path))]
    for fd in opened:
        flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
        assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
    for file, mode in ((path, 0o100644), (lock_of(path), 0o100600)):
        assert (file.stat().st_uid, file.stat().st_mode) == (0, mode)
    end(pid)


# What a daemon does that has been taken over: it hands its descriptors on, writes all that it can,
# lets go of every lock, and stays.
HOSTILE = """
    import array, fcntl, os, socket, struct, sys
    from daemon_context import DaemonContext

    def attempt(call, *args):
        try:
            call(*args)
        except OSError:
            pass

    path, innocent, friend = sys.argv[1], sys.argv[2].encode(), sys.argv[3]
    helper = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    helper.connect(friend)
    with DaemonContext(pidfile=path, uid=65534, gid=65534, detach_process=True,
                       readiness="explicit", files_preserve=[helper]) as daemon:
        daemon.ready()
        files = sorted(daemon._walk.options.pidfile.descriptors)
        assert len(files) == 2
        forged = b"pid " + innocent + b"\\n"
        for fd in files:
            attempt(os.pwrite, fd, forged, 0)
            attempt(os.ftruncate, fd, 0)
            for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                attempt(os.open, f"/proc/self/fd/{fd}", flags)
            attempt(fcntl.lockf, fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        for name in (path, path + ".lock"):
            attempt(os.unlink, name)
            attempt(os.open, name, os.O_RDWR)
        helper.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        helper.recv(1)
        if sys.argv[4] == "lets go":
            for fd in files:
                free = struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 0, 0, 0)
                attempt(fcntl.fcntl, fd, fcntl.F_OFD_SETLK, free)
                attempt(fcntl.lockf, fd, fcntl.LOCK_UN)
                attempt(fcntl.flock, fd, fcntl.LOCK_UN)
            helper.send(b"y")
            daemon.sleep()
        helper.send(b"y")
        os.kill(os.getpid(), 9)
"""

# The process that gets them, of the same user; it notices signals.
FRIEND = """
    import array, os, signal, socket, sys
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(sys.argv[1])
    server.listen()
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    signal.signal(signal.SIGTERM, lambda *_: print("signalled", flush=True))
    print(os.getpid(), flush=True)
    connection, _ = server.accept()
    _, control, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(400))
    assert len(control) == 1
    connection.send(b"x")
    connection.recv(1)
    print("has them", flush=True)
    sys.stdin.read()
"""


@contextmanager
def taken_over(
    box: support.Sandbox, path: Path, innocent: Innocent, how: str
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The pid of the daemon, and the process that has its descriptors."""
    with held(box, FRIEND, path.parent / "socket", name="friend.py") as friend:
        (path.parent / "socket").chmod(0o666)
        done = box.run(HOSTILE, path, innocent.process.pid, path.parent / "socket", how)
        assert (done.returncode, done.stderr) == (0, "")
        pid = int(path.read_text())
        assert friend.stdout is not None
        assert friend.stdout.readline() == "has them\n"
        yield pid, friend
        assert support.alive(friend.pid)
        assert friend.stdout.read(0) == ""


@pytest.mark.root
def test_a_hostile_daemon_that_dies_and_lives_on_in_another_process(
    box: support.Sandbox, public: Path, innocent: Innocent
) -> None:
    path = public / "d.pid"
    with taken_over(box, path, innocent, "dies") as (pid, friend):
        support.gone(pid)
        assert path.read_text() == f"{pid}\n"
        done = verb(box, path, "stop")
        assert done.returncode == 1
        words = f"the daemon is dead, but its child (pid {friend.pid}) still holds its lock"
        assert words in done.stderr
        with pytest.raises(AlreadyRunning, match=r"still holds its lock .*; end that process"):
            PidFile(path).acquire()
    assert verb(box, path, "restart").returncode == 0
    assert verb(box, path, "stop").returncode == 0


@pytest.mark.root
def test_a_hostile_daemon_that_lets_go_of_its_locks(
    box: support.Sandbox, public: Path, innocent: Innocent
) -> None:
    path = public / "d.pid"
    with taken_over(box, path, innocent, "lets go") as (pid, _):
        support.until(lambda: kernel_owner(path) is None)
        done = verb(box, path, "stop")
        assert done.returncode == 1
        assert f"pid {pid}, which was started as the daemon, runs, but has let go" in done.stderr
        assert support.alive(pid)
        assert verb(box, path, "status").returncode == 4
        assert verb(box, path, "start").returncode == 0  # nobody can be in the way of a start
        assert verb(box, path, "stop").returncode == 0
        assert support.alive(pid)


@pytest.mark.root
def test_records_that_change_their_places(
    box: support.Sandbox, starter: Starter, public: Path
) -> None:
    """Who may write the directory may exchange two daemons' files, and write some of its own."""
    os.chown(public, NOBODY, NOBODY)
    one, two = public / "one.pid", public / "two.pid"
    for path in (one, two):
        assert starter.start(path, options={"uid": NOBODY, "gid": NOBODY}) == {"status": 0}
    pids = {int(path.read_text()) for path in (one, two)}
    lock_of(one).rename(public / "x")
    lock_of(two).rename(lock_of(one))
    (public / "x").rename(lock_of(two))
    for path in (one, two):
        done = verb(box, path, "stop")
        assert done.returncode == 1
        assert "is locked, and has no record of a daemon" in done.stderr
    assert all(map(support.alive, pids))
    for pid in pids:
        end(pid)


FORGER = """
    import fcntl, os, sys
    path, pid = sys.argv[1], int(sys.argv[2])
    from tests.helpers.pidfiles import take_lock
    record = open(path + ".lock").read()
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    inode = os.fstat(os.pidfd_open(pid)).st_ino
    true = {"pid": pid, "started": fields[19], "inode": inode}
    lines = [line.split(" ", 1) for line in record.splitlines()]
    lines = [f"{name} {true.get(name, value)}" for name, value in lines]
    for name, text in ((path, f"{pid}\\n"), (path + ".lock", "\\n".join(lines) + "\\n")):
        os.unlink(name)
        with open(name, "w") as file:
            file.write(text)
    take_lock(path + ".lock", "ofd")
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.root
def test_a_stop_in_the_moment_before_the_owner_changes(box: support.Sandbox, public: Path) -> None:
    """The record names the user that the daemon becomes."""
    path = public / "d.pid"
    script = box.script("""
        import sys, time
        from daemon_context import DEFAULT_STEPS, Daemon, Step
        class Pause(Step):
            name = "pause"
            def apply(self, walk):
                open("before", "w").close()
                time.sleep(0.2)
        class Idle(Daemon):
            def run(self):
                self.sleep()
        steps = DEFAULT_STEPS.insert_after("write-pidfile", Pause())
        options = {"uid": 65534, "gid": 65534, "steps": steps, "working_directory": "."}
        Idle(sys.argv.pop(1), **options).main()
    """)
    launcher = box.popen(script, path, "start")
    support.until((box.path / "before").exists)
    pid = int(path.read_text())
    done = verb(box, path, "stop")
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"Idle: stopped (pid {pid}"), done
    launcher.wait(support.DEADLINE)
    box.settled()


@pytest.mark.root
def test_a_link_of_the_daemons_user_on_the_way_leads_to_no_other_daemon(
    box: support.Sandbox, public: Path
) -> None:
    """He may write above the directory of his pid file, and puts another's in its place."""
    for name in ("other", "app", "app/run"):
        (public / name).mkdir()
    other, path = public / "other" / "d.pid", public / "app" / "run" / "d.pid"
    assert verb(box, other, "start").returncode == 0
    assert verb(box, path, "start").returncode == 0
    pids = [int(file.read_text()) for file in (other, path)]
    os.chown(public / "app", NOBODY, NOBODY)
    (public / "app" / "run").rename(public / "app" / "moved")
    (public / "app" / "run").symlink_to(public / "other")
    os.chown(public / "app" / "run", NOBODY, NOBODY, follow_symlinks=False)
    for name in ("stop", "reload"):
        done = verb(box, path, name)
        assert done.returncode == 1, done
        assert "is locked, and has no record of a daemon" in done.stderr
    assert [support.alive(pid) for pid in pids] == [True, True]
    (public / "app" / "run").unlink()  # a link of root's own is only another name
    (public / "app" / "run").symlink_to(Path("../app") / "moved")
    (public / "name").symlink_to(public / "app" / "run")
    done = verb(box, public / "name" / "d.pid", "stop")
    assert (done.returncode, f"stopped (pid {pids[1]}" in done.stdout) == (0, True), done
    assert verb(box, other, "stop").returncode == 0


@pytest.mark.root
def test_a_forged_record_in_a_directory_of_the_daemons_user(
    box: support.Sandbox, starter: Starter, public: Path, innocent: Innocent
) -> None:
    os.chown(public, NOBODY, NOBODY)
    path = public / "d.pid"
    assert starter.start(path, options={"uid": NOBODY, "gid": NOBODY}) == {"status": 0}
    pid = int(path.read_text())
    with held(box, FORGER, path, innocent.process.pid):
        asked = PidFile(path).holder()
        assert (asked.state, asked.proven, PidFile(path).owner()) == ("running", False, None)
        done = verb(box, path, "stop")
        assert (done.returncode, f"a file of uid {NOBODY}" in done.stderr) == (4, True), done
        assert innocent.is_unharmed
    end(pid)
    assert verb(box, path, "start").returncode == 0  # root's own files take their place
    assert (path.stat().st_uid, lock_of(path).stat().st_uid) == (0, 0)
    assert verb(box, path, "stop").returncode == 0


# --- any other user

# Takes every lock that it can get on all that it can open, as fast as it can; until its stdin ends.
GREEDY = """
    import itertools, os, select, sys
    from tests.helpers.pidfiles import take_lock
    from tests.helpers.support import become_nobody
    become_nobody()
    print(os.getpid(), flush=True)
    taken = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        fds = []
        for name, kind in itertools.product(
            (sys.argv[1], sys.argv[1] + ".lock", sys.argv[1] + ".status"),
            ("flock", "flock exclusive", "ofd", "record"),
        ):
            try:
                fd = os.open(name, os.O_RDONLY)
            except OSError:
                continue
            fds.append(fd)
            try:
                take(fd, kind)
                taken += 1
            except OSError:
                pass
        for fd in fds[:-60]:
            os.close(fd)
    print(taken > 0)
"""
TAKE = """
    import fcntl, struct
    def take(fd, kind):
        if kind.startswith("flock"):
            how = fcntl.LOCK_EX if kind.endswith("exclusive") else fcntl.LOCK_SH
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        elif kind == "ofd":
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
        else:
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
"""


@pytest.mark.root
def test_any_user_may_lock_what_he_can_open_and_is_not_in_the_way(
    box: support.Sandbox, public: Path
) -> None:
    path = public / "d.pid"
    path.write_text("1\n")
    with held(box, TAKE + GREEDY, path, name="greedy.py") as greedy:
        for name in ("start", *["restart"] * 6, "status", "stop", "start", "stop"):
            done = verb(box, path, name)
            assert (done.returncode, done.stderr) == (0, ""), (name, done)
        path.write_text("1\n")
        assert greedy.poll() is None
        assert greedy.stdin is not None
        greedy.stdin.close()
        greedy.stdin = None
        assert greedy.stdout is not None
        assert greedy.stdout.read() == "True\n"


@pytest.mark.parametrize("which", ["pid file", "lock file"])
def test_a_record_lock_that_a_child_with_shared_descriptors_has_left(
    box: support.Sandbox, which: str
) -> None:
    """It belongs to the descriptor table, and goes by the number of a process that has ended."""
    path = box.path / "d.pid"
    done = box.run("""
        import ctypes, fcntl, os, sys
        from daemon_context import DaemonContext
        libc = ctypes.CDLL(None)
        with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit") as daemon:
            lock = daemon._walk.options.pidfile
            fd = lock._fd if sys.argv[1] == "pid file" else lock._lock_fd
            child = libc.syscall(56, 0x400 | 17, 0, 0, 0, 0)  # clone: CLONE_FILES, SIGCHLD
            if not child:
                fcntl.lockf(fd, fcntl.LOCK_SH)
                os._exit(0)
            os.waitpid(child, 0)
            daemon.ready(str(child))
            daemon.sleep()
    """, which)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid()
    mine = [line for line in Path("/proc/locks").read_text().splitlines() if "POSIX" in line]
    file = path if which == "pid file" else lock_of(path)
    assert any(f":{file.stat().st_ino} " in line for line in mine)
    assert PidFile(path).owner() == pid
    assert verb(box, path, "status").returncode == 0
    assert verb(box, path, "stop").stdout.startswith(f"Idle: stopped (pid {pid}")
    assert not path.exists()


# --- a file system that stands still


@pytest.mark.root
@pytest.mark.needs("umount")
def test_a_daemon_whose_log_lies_on_a_file_system_that_stands_still(
    box: support.Sandbox, public: Path
) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse")
    path, mount = public / "d.pid", public / "mnt"
    mount.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.fuse", str(mount)],
        stdout=subprocess.PIPE, text=True, cwd=support.ROOT, env=box.environ,
    )  # fmt: skip
    box.started.append(server)
    assert server.stdout is not None
    try:
        if not server.stdout.readline():
            pytest.skip("FUSE can't be mounted here")
        options = json.dumps({"uid": NOBODY, "gid": NOBODY, "stdout": str(mount / "log")})
        box.environ["OPTIONS"] = options
        assert verb(box, path, "start").returncode == 0
        pid = int(path.read_text())
        assert str(mount / "log") in support.descriptors(pid).values()
        server.send_signal(signal.SIGUSR1)
        assert server.stdout.readline() == "still\n"
        del box.environ["OPTIONS"]
        done = verb(box, path, "status", "--json", timeout=20)
        assert json.loads(done.stdout)["pid"] == pid
        done = verb(box, path, "reload", timeout=40)  # which opens the log anew
        assert done.returncode == 1
        assert "within 30 seconds" in done.stderr
        assert "runs already" in verb(box, path, "start", timeout=20).stdout
        done = verb(box, path, "stop", timeout=40)
        assert done.returncode == 0, done
        assert verb(box, path, "status", timeout=20).returncode == 3
    finally:
        server.kill()
        server.wait()
        subprocess.run(["umount", "-l", str(mount)], check=False)
