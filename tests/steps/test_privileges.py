"""Privileges, where several things come together: chroot, foreground, threads, spawn, capabilities.

What a plain change of owner does is in test_owner.py.
"""

from __future__ import annotations

import ast
import pwd
from typing import Any

import pytest

from daemon_context import PidFile
from tests.helpers import support

pytestmark = pytest.mark.root

NOBODY = pwd.getpwnam("nobody")
AS_ROOT = ["setpriv", "--groups=0,4,24,27"]
PROGRAM = """
    import os, sys
    from pathlib import Path
    from daemon_context import DaemonContext
    from tests.helpers.support import preload
    preload()
    STATUS = os.open("/proc", os.O_PATH | os.O_DIRECTORY)

    def tried():
        found = {}
        for name, call in {
            "setuid": lambda: os.setuid(0), "seteuid": lambda: os.seteuid(0),
            "setreuid": lambda: os.setreuid(0, 0), "setgid": lambda: os.setgid(0),
            "setresgid": lambda: os.setresgid(0, 0, 0), "setgroups": lambda: os.setgroups([0]),
            "chroot": lambda: os.chroot("/"), "0600": lambda: open("/secret"),
            "0640": lambda: open("/group-secret"), "nice": lambda: os.nice(-5),
        }.items():
            try:
                call()
                found[name] = "worked"
            except OSError as error:
                found[name] = type(error).__name__
        return found

    def say(log):
        status = os.open(f"{os.getpid()}/status", os.O_RDONLY, dir_fd=STATUS)
        fields = dict(line.split(":\\t", 1) for line in open(status) if ":\\t" in line)
        environ = {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")}
        log.write(repr([fields, tried(), environ]))
        log.close()

    options = eval(sys.argv[1])
    log = open("said", "w")
"""
OPENS = (
    PROGRAM
    + """
    with DaemonContext(pidfile="d.pid", files_preserve=[log, STATUS], **options) as daemon:
        say(log)
"""
)
SPAWNS = (
    PROGRAM
    + """
    before = Path("/proc/self/status").read_text().partition("voluntary")[0]
    home = os.environ.get("HOME")
    context = DaemonContext(pidfile="d.pid", files_preserve=[log, STATUS], **options)
    context.spawn(say, log).wait()
    def ids():
        return os.getresuid(), os.getresgid(), os.getgroups(), os.environ.get("HOME")
    assert ids() == ((0, 0, 0), (0, 0, 0), [0, 4, 24, 27], home), ids()
    assert open("jail/secret").read()  # the launcher is root as before
"""
)
POWERLESS = dict.fromkeys(
    ("setuid", "seteuid", "setreuid", "setgid", "setresgid", "setgroups", "chroot", "0600", "0640",
     "nice"), "PermissionError"
)  # fmt: skip


def jail(box: support.Sandbox) -> None:
    """A root directory without a user database, but with root's secrets."""
    (box.path / "jail").mkdir()
    for name, mode in (("secret", 0o600), ("group-secret", 0o640)):
        (box.path / "jail" / name).write_text("root's")
        (box.path / "jail" / name).chmod(mode)


def dropped(
    box: support.Sandbox,
    options: str,
    program: str = OPENS,
    prefix: list[str] = AS_ROOT,
    **kwargs: Any,
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """What the kernel says about the daemon, what it tried in vain, and its environment."""
    jail(box)
    done = box.run(program, f"dict(chroot_directory='jail', {options})", prefix=prefix, **kwargs)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    status, tried, environ = ast.literal_eval(box.text("said"))
    return {key: value.strip() for key, value in status.items()}, tried, environ


def require(status: dict[str, str], uid: int, gid: int, groups: set[int]) -> None:
    """All four ids, the groups, and no capability that the process could use."""
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(gid)] * 4
    assert {int(group) for group in status["Groups"].split()} == groups
    for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[field], 16) == 0


USER_DATABASE = [
    "unshare", "--mount", "sh", "-c",
    "mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec \"$@\"", "sh",
    *AS_ROOT,
]  # fmt: skip


@pytest.mark.parametrize("program", [OPENS, SPAWNS], ids=["open", "spawn"])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("user", ["'feed'", "4001"])
def test_everything_of_roots_is_gone_in_a_chroot_without_a_user_database(
    open_box: support.Sandbox, user: str, detach: bool, program: str
) -> None:
    (open_box.path / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nfeed:x:4001:4002::/srv/feed:/bin/sh\n"
    )
    (open_box.path / "group").write_text("root:x:0:\nfeed:x:4002:\nlogs:x:4010:feed\nadm:x:4:\n")
    options = f"uid={user}, initgroups=True, detach_process={detach}"
    status, tried, environ = dropped(open_box, options, program, USER_DATABASE)
    require(status, 4001, 4002, {4002, 4010})
    assert tried == POWERLESS
    assert environ == {"HOME": "/srv/feed", "USER": "feed", "LOGNAME": "feed"}


def test_a_number_without_a_name_has_no_groups_to_get(open_box: support.Sandbox) -> None:
    options = "uid=54321, gid=54322, initgroups=True, detach_process=True"
    status, tried, environ = dropped(open_box, options)
    require(status, 54321, 54322, {54322})
    assert tried == POWERLESS
    assert environ == {"HOME": "/", "USER": "54321", "LOGNAME": "54321"}


def test_the_naive_way_fails_this_test(open_box: support.Sandbox) -> None:
    """What the tests above are worth: setuid alone, as in many recipes, keeps root's groups."""
    naive = (
        PROGRAM
        + """
    os.chroot("jail")
    os.setgid(65534)
    os.setuid(65534)
    say(log)
    """
    )
    status, tried, _ = dropped(open_box, "", naive)
    assert {int(group) for group in status["Groups"].split()} > {0, 4}
    assert tried["0640"] == "worked"


def test_a_group_alone_leaves_the_users_environment(open_box: support.Sandbox) -> None:
    env = {"HOME": "/somewhere", "USER": "me", "LOGNAME": "me"}
    status, _, environ = dropped(open_box, "gid=1, detach_process=True", env=env)
    assert status["Uid"].split() == ["0"] * 4
    assert status["Gid"].split() == ["1"] * 4
    assert status["Groups"].split() == ["1"]
    assert environ == env


def test_in_the_foreground_every_thread_is_dropped(open_box: support.Sandbox) -> None:
    done = open_box.run(
        """
        import os, threading
        from pathlib import Path
        from daemon_context import DaemonContext
        go_on = threading.Event()
        thread = threading.Thread(target=go_on.wait)
        thread.start()
        with DaemonContext(uid="nobody", detach_process=False, stdout=os.dup(1)):
            tasks = list(Path("/proc/self/task").iterdir())
            assert len(tasks) == 2
            for task in tasks:
                lines = (task / "status").read_text().splitlines()
                print([line.split()[1:] for line in lines if line[:4] in ("Uid:", "Gid:", "Grou")])
        go_on.set()
    """,
        prefix=AS_ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    uid, gid = [str(NOBODY.pw_uid)] * 4, [str(NOBODY.pw_gid)] * 4
    assert done.stdout == f"{[uid, gid, gid[:1]]}\n" * 2


def test_what_root_has_opened_goes_on_if_it_is_preserved(open_box: support.Sandbox) -> None:
    secret = open_box.path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    done = open_box.run("""
        import os
        from daemon_context import DaemonContext
        kept, left = os.open("secret", os.O_RDONLY), os.open("secret", os.O_RDONLY)
        with DaemonContext(uid="nobody", detach_process=True, stdout="log", files_preserve=[kept]):
            print(os.read(kept, 9))
            try:
                print(os.read(left, 9))
            except OSError as error:
                print(error.strerror)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    open_box.settled()
    assert open_box.text("log") == 'b"root\'s"\nBad file descriptor\n'


KEEPING = """
    import ctypes, os, sys, threading, time
    from daemon_context import DaemonContext

    def keep():
        PR_SET_KEEPCAPS = 8
        assert ctypes.CDLL(None).prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
        kept.set()

    kept, end = threading.Event(), threading.Event()
    if sys.argv[1] == "another thread":
        threading.Thread(target=lambda: (keep(), end.wait()), daemon=True).start()
        kept.wait()
    else:
        keep()
    options = eval(sys.argv[2])
    DaemonContext(uid="nobody", pidfile="d.pid", stdout="log", **options).open()
    CAP_SETUID, both = 1 << 7, (ctypes.c_uint32 * 6)()
    libc, both[0], both[1] = ctypes.CDLL(None), CAP_SETUID, CAP_SETUID
    assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), both) == 0
    os.setuid(0)
    print("root again")
"""


@pytest.mark.parametrize(
    ("thread", "options"),
    [
        ("this thread", "dict(detach_process=True)"),
        ("this thread", "dict(detach_process=True, chroot_directory='jail')"),
        ("this thread", "dict(detach_process=False, chroot_directory='jail')"),
        ("another thread", "dict(detach_process=False)"),
        ("another thread", "dict(detach_process=False, chroot_directory='jail')"),
    ],
)
def test_capabilities_that_would_be_kept_are_refused(
    open_box: support.Sandbox, thread: str, options: str
) -> None:
    # setuid(0) fails then, but any capability can be taken up again: capset(2).
    jail(open_box)
    done = open_box.run(KEEPING, thread, options)
    assert done.returncode == 1
    assert "capabilities are kept" in done.stderr
    assert "PR_SET_KEEPCAPS" in done.stderr
    assert "change-owner" in done.stderr
    open_box.settled()
    if "False" not in options:
        assert not (open_box.path / "d.pid").exists()
        assert not (open_box.path / "log").exists()


INHERITING = ["setpriv", "--groups=0,4,24,27", "--inh-caps=+chown,+kill,+setuid"]


@pytest.mark.parametrize("detach", [True, False])
def test_no_program_inherits_what_root_could_have_had_inherited(
    open_box: support.Sandbox, detach: bool
) -> None:
    options = f"uid=4001, gid=4001, detach_process={detach}"
    status, tried, _ = dropped(open_box, options, prefix=INHERITING)
    require(status, 4001, 4001, {4001})
    assert tried == POWERLESS


def test_inheritable_capabilities_of_another_thread_are_refused(open_box: support.Sandbox) -> None:
    """Only a thread itself can clear them."""
    done = open_box.run(
        """
        import threading
        from daemon_context import DaemonContext
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        DaemonContext(uid="nobody", detach_process=False).open()
        """,
        prefix=INHERITING,
    )
    assert done.returncode == 1
    assert "root's capabilities are kept (CapInh" in done.stderr
    assert "clear them, in all threads (capset(2)) before the start" in done.stderr


def test_where_nobody_can_tell_what_root_has_left_the_owner_is_not_changed(
    open_box: support.Sandbox,
) -> None:
    program = """
        import os, sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step

        class Jail(Step):
            after = {"close-descriptors": "it lists them"}
            def apply(self, walk):
                os.chroot("jail")

        steps = DEFAULT_STEPS
        if sys.argv[1] == "own step":
            steps = steps.insert_before("change-owner", Jail()).remove("change-directory")
        with DaemonContext(uid="nobody", detach_process=True, steps=steps, stdout="log"):
            print("started")
    """
    jail(open_box)
    hidden = 'mount -t tmpfs none /proc && exec "$@"'
    done = open_box.run(program, "", prefix=["unshare", "--mount", "sh", "-c", hidden, "sh"])
    assert done.returncode == 1
    assert "without /proc nobody can tell whether root's capabilities survive it" in done.stderr
    assert "mount /proc" in done.stderr
    done = open_box.run(program, "own step")
    assert done.returncode == 1
    assert "can't be told, as /proc is out of reach (No such file or directory)" in done.stderr
    assert not (open_box.path / "log").exists()


HELD = """
    import os, stat
    from daemon_context import DaemonContext, PidFile

    def ways_out():
        found = []
        for fd in range(3, 256):
            try:
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    os.fchdir(fd)
                    found.append([fd, os.listdir()])
            except OSError:
                pass
        return found

    held = PidFile("held.pid")
    held.acquire()
    with DaemonContext(detach_process=False, pidfile="outer.pid", working_directory=".",
                       stdout=os.dup(1), stderr=os.dup(2)):
        assert not ways_out()
        with DaemonContext(chroot_directory="jail", uid="nobody", detach_process=False,
                           pidfile="inner.pid", stdout=os.dup(1), stderr=os.dup(2)):
            print(ways_out(), held.i_am_locking(), flush=True)
    held.release()
"""


def test_a_chroot_in_the_foreground_leaves_no_directory_of_other_pid_files_open(
    open_box: support.Sandbox,
) -> None:
    jail(open_box)
    done = open_box.run(HELD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] True\n", "")
    for name in ("held", "outer", "inner"):  # out of reach, so they stay, and in nobody's way
        assert not PidFile(open_box.path / f"{name}.pid").is_locked()


KEYS = """
    import ctypes, os, sys
    from daemon_context import DEFAULT_STEPS, DaemonContext, NewSessionKeyring

    keyctl, add_key = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
    call = ctypes.CDLL(None).syscall
    JOIN, SEARCH, READ, SESSION, MISSING = 1, 10, 11, -3, -1
    call(keyctl, JOIN, None)
    assert call(add_key, b"user", b"secret", b"root's", 6, SESSION) > 0

    def read():
        key = call(keyctl, SEARCH, SESSION, b"user", b"secret", 0)
        words = ctypes.create_string_buffer(9)
        return key if key == MISSING else (call(keyctl, READ, key, words, 9), words.value)

    steps = DEFAULT_STEPS
    if sys.argv[1] == "new":
        steps = steps.insert_after("change-owner", NewSessionKeyring())
    with DaemonContext(uid="nobody", detach_process=True, stdout="log", steps=steps):
        print(read())
"""


@pytest.mark.parametrize(("keyring", "found"), [("old", '(6, b"root\'s")'), ("new", "-1")])
def test_roots_keys_are_out_of_reach_behind_a_new_session_keyring(
    open_box: support.Sandbox, keyring: str, found: str
) -> None:
    """What a key's owner allows a possessor, whoever has the keyring has: root's daemon too."""
    done = open_box.run(KEYS, keyring)
    assert (done.returncode, done.stderr) == (0, "")
    assert open_box.text("log") == f"{found}\n"


def test_a_user_that_keeps_the_right_to_become_root_is_refused(open_box: support.Sandbox) -> None:
    # Not root, but with root's capabilities for good: no change of owner is final then.
    done = open_box.run("""
        import ctypes, os
        from daemon_context import DaemonContext
        from tests.helpers.support import preload
        preload()
        PR_SET_SECUREBITS, NO_SETUID_FIXUP = 28, 4
        assert ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) == 0
        os.setgroups([])
        os.setresgid(4001, 4001, 4001)
        os.setresuid(4001, 4001, 4001)
        DaemonContext(uid="nobody", detach_process=True, pidfile="d.pid").open()
    """)
    assert done.returncode == 1
    assert "could be regained" in done.stderr
    open_box.settled()
    assert not (open_box.path / "d.pid").exists()


def test_spawn_imports_nothing_from_the_new_root(open_box: support.Sandbox) -> None:
    # What lies there, at the same places, would run as root.
    done = open_box.run("""
        import os, sys
        from pathlib import Path
        from daemon_context import DaemonContext
        context = DaemonContext(chroot_directory="jail", pidfile="d.pid", stderr="log")
        trap = "import os; os.write(2, b'it was imported')"
        for path in sys.path:
            place = Path("jail" + os.path.join("/", path))
            (place / "daemon_context").mkdir(parents=True, exist_ok=True)
            names = [f"daemon_context/{p.name}" for p in Path(path, "daemon_context").glob("*.py")]
            for name in [*names, "traceback.py", "linecache.py"]:
                (place / name).write_text(trap)
        def target():
            print("never written out but by us", end="")
        context.stdout = "out"
        context.spawn(target).wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    open_box.settled()
    assert open_box.text("out") == "never written out but by us"
    assert (open_box.path / "log").read_text() == ""


@pytest.mark.parametrize("how", ["time is over", "session leader is killed"])
def test_without_cap_kill_a_start_can_be_cancelled_after_the_owner_has_changed(
    open_box: support.Sandbox, how: str
) -> None:
    keep = "-all,+setuid,+setgid"
    done = open_box.run(
        """
        import os, signal, sys, time
        from daemon_context import DaemonContext, StartError
        from tests.helpers.support import preload
        preload()
        launcher = os.getpid()
        try:
            with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                               uid=65534, gid=65534, start_timeout=2):
                if os.fork() == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(1000)
        except StartError as error:
            assert os.getpid() == launcher
            print(error)
            print(os.getresuid())
        """
        if how == "time is over"
        else """
        import os, signal, sys, threading, time
        from pathlib import Path
        from daemon_context import DaemonContext, StartError
        from tests.helpers.support import preload, until
        preload()

        def kill_leader():
            until(lambda: Path("ready").exists())
            leader = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
            os.kill(int(leader), signal.SIGKILL)

        threading.Thread(target=kill_leader).start()
        try:
            with DaemonContext(pidfile="d.pid", detach_process=True, readiness="explicit",
                               uid=65534, gid=65534, threads="ignore") as daemon:
                os.close(os.open(sys.argv[1], os.O_CREAT))
                time.sleep(1000)
        except StartError as error:
            print(error)
            print(os.getresuid())
        """,
        open_box.path / "ready",
        prefix=["setpriv", f"--bounding-set={keep}", f"--inh-caps={keep}"],
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, users = done.stdout.splitlines()
    assert "its start was cancelled" in said
    assert users == "(0, 0, 0)"
    open_box.settled()
    assert not (open_box.path / "d.pid").exists()
