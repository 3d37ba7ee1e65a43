"""Privileges are dropped for good, seen from outside; and the root directory is changed."""

from __future__ import annotations

import ast
import grp
import os
import pwd
import signal
from typing import Any

import pytest

from daemon_context import PidFile
from tests.helpers import support

pytestmark = pytest.mark.root

NOBODY = pwd.getpwnam("nobody")
# Root's groups, as a login of root has them.
AS_ROOT = ["setpriv", "--groups=0,4,24,27"]
PROGRAM = """
    import os, sys
    from daemon_context import DaemonContext

    options = eval(sys.argv[1])
    with DaemonContext(detach_process=True, pidfile="d.pid", stdout="log", **options) as daemon:
        tried = {}
        if os.geteuid() == 0:
            print([tried, dict(os.environ), os.getcwd()], flush=True)
            daemon.sleep()
        for name, path in (("0600", "secret"), ("0640", "group-secret")):
            try:
                open(os.path.join(sys.argv[2], path)).close()
                tried[name] = "opened"
            except OSError as error:
                tried[name] = type(error).__name__
        for call in ("setuid", "setgid", "seteuid", "setegid"):
            try:
                getattr(os, call)(0)
                tried[call] = "worked"
            except OSError as error:
                tried[call] = type(error).__name__
        try:
            os.setgroups([0])
            tried["setgroups"] = "worked"
        except OSError as error:
            tried["setgroups"] = type(error).__name__
        environ = {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")}
        print([tried, environ, os.getcwd()], flush=True)
        daemon.sleep()
"""
REFUSED = "PermissionError"
POWERLESS = {
    "0600": REFUSED, "0640": REFUSED, "setuid": REFUSED, "setgid": REFUSED, "seteuid": REFUSED,
    "setegid": REFUSED, "setgroups": REFUSED,
}  # fmt: skip


class Started:
    """What a running daemon is, from outside and from inside."""

    def __init__(self, box: support.Sandbox, options: str, **kwargs: Any) -> None:
        for name, mode in (("secret", 0o600), ("group-secret", 0o640)):
            (box.path / name).write_text("root's")
            (box.path / name).chmod(mode)
        kwargs.setdefault("prefix", AS_ROOT)
        done = box.run(kwargs.pop("program", PROGRAM), options, box.path, **kwargs)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        self.box = box
        self.pid = box.pid()
        self.tried, self.environ, self.cwd = ast.literal_eval(box.text("log"))
        self.status = support.status(self.pid)

    def ids(self, field: str) -> list[int]:
        """Real, effective, saved, and of the file system."""
        return [int(number) for number in self.status[field].split()]

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        support.gone(self.pid)

    def require(self, uid: int, gid: int, groups: set[int]) -> None:
        """All of it is that user's, and nothing of root's is left."""
        assert self.ids("Uid") == [uid] * 4
        assert self.ids("Gid") == [gid] * 4
        assert set(self.ids("Groups")) == groups
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(self.status[capabilities], 16) == 0
        assert self.tried == POWERLESS
        log = (self.box.path / "log").stat()
        assert (log.st_uid, log.st_gid, log.st_mode & 0o777) == (uid, gid, 0o640)
        self.stop()


@pytest.mark.parametrize(
    "options",
    ["dict(uid=65534)", "dict(uid='nobody')", "dict(uid='nobody', gid='nogroup')"],
)
def test_a_user_by_number_or_name(open_box: support.Sandbox, options: str) -> None:
    started = Started(open_box, options)
    assert started.environ == {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
    started.require(NOBODY.pw_uid, NOBODY.pw_gid, {NOBODY.pw_gid})
    assert not PidFile(open_box.path / "d.pid").is_locked()


def test_a_user_with_another_group(open_box: support.Sandbox) -> None:
    started = Started(open_box, "dict(uid='nobody', gid='daemon')")
    daemon = grp.getgrnam("daemon").gr_gid
    started.require(NOBODY.pw_uid, daemon, {daemon})


def test_a_number_without_a_name(open_box: support.Sandbox) -> None:
    started = Started(open_box, "dict(uid=54321, gid=54322)")
    assert started.environ == {"HOME": "/", "USER": "54321", "LOGNAME": "54321"}
    started.require(54321, 54322, {54322})


def test_a_group_alone_keeps_the_user_and_drops_roots_groups(open_box: support.Sandbox) -> None:
    started = Started(open_box, "dict(gid=1)")
    assert started.ids("Uid") == [0] * 4
    assert started.ids("Gid") == [1] * 4
    assert started.ids("Groups") == [1]
    started.stop()


def test_without_a_change_nothing_is_dropped(open_box: support.Sandbox) -> None:
    started = Started(open_box, "dict(uid=0, gid=0)", env={"USER": "me"})
    assert started.ids("Groups") == [0, 4, 24, 27]
    assert started.environ["USER"] == "me"
    started.stop()


def test_initgroups_gives_the_users_own_groups(open_box: support.Sandbox) -> None:
    # A user database of the test's own, mounted over the system's for this program alone.
    (open_box.path / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nfeed:x:4001:4001::/srv/feed:/bin/sh\n"
    )
    (open_box.path / "group").write_text(
        "root:x:0:\nfeed:x:4001:\nmail:x:4008:feed,other\nlogs:x:4010:feed\nadm:x:4:other\n"
    )
    over = ["unshare", "--mount", "sh", "-c",
            'mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec "$@"',
            "sh", *AS_ROOT]  # fmt: skip
    started = Started(open_box, "dict(uid='feed', initgroups=True)", prefix=over)
    assert started.environ == {"HOME": "/srv/feed", "USER": "feed", "LOGNAME": "feed"}
    started.require(4001, 4001, {4001, 4008, 4010})
    for name in ("d.pid", "log"):
        (open_box.path / name).unlink(missing_ok=True)
    Started(open_box, "dict(uid='feed')", prefix=over).require(4001, 4001, {4001})


def test_initgroups_refreshes_the_groups_of_an_unchanged_user(open_box: support.Sandbox) -> None:
    started = Started(open_box, "dict(initgroups=True)", prefix=["setpriv", "--groups=4,27"])
    assert set(started.ids("Groups")) == set(os.getgrouplist("root", 0))
    started.stop()


SETUID = """
    import os, sys
    from daemon_context import DaemonContext
    from tests.helpers.support import preload
    preload()
    os.setgroups([4, 27])
    os.setresgid(65534, 0, 0)
    os.setresuid(65534, 0, 0)
    assert DaemonContext().uid == 65534
    with DaemonContext(detach_process=True, pidfile="d.pid") as daemon:
        daemon.sleep()
"""


def test_a_setuid_program_drops_what_it_was_given(open_box: support.Sandbox) -> None:
    done = open_box.run(SETUID)
    assert (done.returncode, done.stderr) == (0, "")
    found = support.status(open_box.pid())
    assert found["Uid"].split() == ["65534"] * 4
    assert found["Gid"].split() == ["65534"] * 4
    assert found["Groups"].split() == ["65534"]
    assert int(found["CapPrm"], 16) == int(found["CapEff"], 16) == 0


@pytest.mark.parametrize("field", ["effective", "saved"])
def test_one_id_that_is_still_roots_is_enough_to_drop(
    open_box: support.Sandbox, field: str
) -> None:
    ids = "65534, 0, 65534" if field == "effective" else "65534, 65534, 0"
    program = SETUID.replace("os.setresuid(65534, 0, 0)", f"os.setresuid({ids})")
    done = open_box.run(program.replace("65534, 0, 0", "65534, 65534, 0"))
    assert (done.returncode, done.stderr) == (0, "")
    found = support.status(open_box.pid())
    assert found["Uid"].split() == found["Gid"].split() == ["65534"] * 4


# --- what can't be dropped, or may not be taken


def test_a_process_that_could_regain_root_is_refused(open_box: support.Sandbox) -> None:
    keep = ["setpriv", "--securebits", "+no_setuid_fixup"]
    done = open_box.run(PROGRAM, "dict(uid='nobody')", open_box.path, prefix=keep)
    assert done.returncode == 1
    assert "uid 0 could be regained" in done.stderr
    assert "securebits" in done.stderr
    assert "change-owner" in done.stderr
    open_box.settled()
    assert not (open_box.path / "d.pid").exists()
    assert not (open_box.path / "log").exists()


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ("dict(uid='nobody')", "setuid"),
        ("dict(uid='nobody')", "setgid"),
        ("dict(gid=1)", "setgid"),
        ("dict(uid='nobody', gid=0)", "setgid"),  # root's other groups would survive
        ("dict(chroot_directory='.')", "sys_chroot"),
    ],
)
def test_root_without_the_capability_is_refused_in_preflight(
    open_box: support.Sandbox, options: str, missing: str
) -> None:
    less = [*AS_ROOT, f"--bounding-set=-{missing}", f"--inh-caps=-{missing}"]
    done = open_box.run(PROGRAM, options, open_box.path, prefix=less)
    assert done.returncode == 1
    assert f"CAP_{missing.upper()}" in done.stderr
    assert "not permitted" in done.stderr
    open_box.settled()
    assert not (open_box.path / "d.pid").exists()


BECOME_NOBODY = """
    from tests.helpers.support import become_nobody
    become_nobody(1, 65534)
"""


@pytest.mark.parametrize("options", ["dict(uid=0)", "dict(uid='daemon')", "dict(gid=0)"])
def test_an_ordinary_user_can_not_become_another(open_box: support.Sandbox, options: str) -> None:
    done = open_box.run(BECOME_NOBODY + PROGRAM, options, open_box.path)
    assert done.returncode == 1
    assert "not permitted" in done.stderr
    assert "change-owner" in done.stderr
    open_box.settled()


def test_an_ordinary_user_stays_what_it_is(open_box: support.Sandbox) -> None:
    started = Started(open_box, "dict(uid='nobody', gid=65534)", program=BECOME_NOBODY + PROGRAM)
    assert started.ids("Uid") == started.ids("Gid") == [65534] * 4
    assert started.ids("Groups") == [1, 65534]  # its own
    started.stop()
    assert not (open_box.path / "d.pid").exists()


# --- change-root


def jail(box: support.Sandbox) -> None:
    (box.path / "jail" / "srv").mkdir(parents=True)
    (box.path / "jail" / "srv" / "here").write_text("inside")


CHROOTED = """
    import os, sys
    from daemon_context import DaemonContext
    options = eval(sys.argv[1])
    with DaemonContext(
        chroot_directory="jail", detach_process=True, pidfile="d.pid", stdout="log", **options
    ) as daemon:
        print(os.getcwd(), os.listdir("/"), os.listdir("."), os.path.exists("/etc/passwd"),
              flush=True)
        daemon.sleep()
"""


@pytest.mark.parametrize("directory", ["/srv", "srv", "./x/../srv", "/../../srv"])
@pytest.mark.parametrize("user", ["", "uid='nobody'"])
def test_the_working_directory_is_in_the_new_root(
    open_box: support.Sandbox, directory: str, user: str
) -> None:
    jail(open_box)
    options = f"dict(working_directory={directory!r}, {user})"
    done = open_box.run(CHROOTED, options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = open_box.pid()
    # A link to a process's own directories shows where they really are.
    assert os.readlink(f"/proc/{pid}/root") == str(open_box.path / "jail")
    assert os.readlink(f"/proc/{pid}/cwd") == str(open_box.path / "jail" / "srv")
    assert open_box.text("log") == "/srv ['srv'] ['here'] False\n"
    outside = {
        path
        for path in support.descriptors(pid).values()
        if os.path.isdir(path) and not path.startswith(str(open_box.path / "jail"))
    }
    assert not outside  # a directory's descriptor would be a way out
    expected = NOBODY.pw_uid if user else 0
    assert support.status(pid)["Uid"].split() == [str(expected)] * 4
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert (open_box.path / "d.pid").read_text() == f"{pid}\n"  # unlocked
    assert not PidFile(open_box.path / "d.pid").is_locked()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("dict(working_directory='/nope')", ["'/nope'", "No such file", "change-directory"]),
        ("dict(working_directory='/srv/here')", ["'/srv/here'", "Not a directory"]),
        ("dict(working_directory='/etc')", ["'/etc'", "No such file"]),
    ],
)
def test_a_root_without_what_is_needed_is_refused(
    open_box: support.Sandbox, options: str, words: list[str]
) -> None:
    jail(open_box)
    done = open_box.run(CHROOTED, options)
    assert done.returncode == 1
    assert all(word in done.stderr for word in words), done.stderr
    open_box.settled()
    assert not (open_box.path / "d.pid").exists()
    assert not (open_box.path / "log").exists()


def test_an_error_in_the_root_reaches_the_launcher(open_box: support.Sandbox) -> None:
    # As another user, behind a root that has neither Python nor a user database.
    jail(open_box)
    done = open_box.run("""
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step
        class Fail(Step):
            def apply(self, walk):
                [open("/etc/passwd") for _ in "x"] + [1]
        DaemonContext(
            chroot_directory="jail", uid="nobody", detach_process=True, pidfile="d.pid",
            steps=DEFAULT_STEPS.insert_after("change-owner", Fail()),
        ).open()
    """)
    assert done.returncode == 1
    assert "cannot fail: No such file or directory: '/etc/passwd' (step 11 of 16, fail)" in (
        done.stderr
    )
    assert "in apply" in done.stderr
    open_box.settled()
    assert "ModuleNotFoundError" not in done.stderr
    assert not (open_box.path / "d.pid").exists()


def test_a_log_that_is_there_keeps_its_owner(open_box: support.Sandbox) -> None:
    log = open_box.path / "log"
    log.write_text("")
    log.chmod(0o600)
    os.chown(log, 2, 2)
    done = open_box.run(PROGRAM, "dict(uid='nobody')", open_box.path)
    assert (done.returncode, done.stderr) == (0, "")
    open_box.pid()
    found = log.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (2, 2, 0o600)


def test_privileged_logs_follow_no_symlink(open_box: support.Sandbox) -> None:
    (open_box.path / "target").write_text("")
    (open_box.path / "log").symlink_to("target")
    done = open_box.run(PROGRAM, "dict(uid='nobody')", open_box.path)
    assert done.returncode == 1
    assert "/log' as stdout" in done.stderr
    open_box.settled()
    assert (open_box.path / "target").read_text() == ""


def test_nothing_is_imported_from_the_new_root(open_box: support.Sandbox) -> None:
    # The root holds what Python might look for late, at the places where it would look.
    jail(open_box)
    done = open_box.run("""
        import os, sys, sysconfig
        from pathlib import Path
        from daemon_context import DEFAULT_STEPS, DaemonContext, Step

        trap = "open('/trapped', 'w').close()"
        for place in (sysconfig.get_path("stdlib"), str(Path(sys.argv[0]).parent)):
            inside = Path("jail" + place)
            inside.mkdir(parents=True, exist_ok=True)
            for name in ("ast", "tokenize", "token", "traceback", "json", "struct", "linecache",
                         "resource", "socket", "syslog", "warnings", "unicodedata", "_colorize"):
                (inside / f"{name}.py").write_text(trap)

        class Fail(Step):
            def apply(self, walk):
                raise ValueError("é", len("x") + int("no"))

        DaemonContext(
            chroot_directory="jail", detach_process=True, pidfile="d.pid", stdout="log",
            steps=DEFAULT_STEPS.insert_before("report-ready", Fail()),
        ).open()
    """)
    assert done.returncode == 1
    assert "cannot fail: ValueError" in done.stderr
    assert not (open_box.path / "jail" / "trapped").exists()
    open_box.settled()


@pytest.mark.root
def test_a_working_directory_behind_a_symlink_of_the_new_root(box: support.Sandbox) -> None:
    """From outside, an absolute one leads to another place, or to none."""
    (box.path / "jail/real/data").mkdir(parents=True)
    (box.path / "jail/srv").symlink_to("/real")
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext, DaemonError

        def start(directory):
            try:
                DaemonContext(chroot_directory="jail", working_directory=directory, stdout=1,
                              detach_process=False, prevent_core=False).open()
            except DaemonError as error:
                print(type(error).__name__, error)
            else:
                print(os.getcwd())
        for directory in "/srv/none", "srv/data":
            if os.fork() == 0:
                start(directory)
                sys.exit()
            os.wait()
    """)
    refused, there = done.stdout.splitlines()
    assert "'/srv/none' in the new root: No such file or directory" in refused
    assert there == "/real/data"


@pytest.mark.root
def test_a_change_in_a_user_namespace_without_root(box: support.Sandbox) -> None:
    """A sandbox maps the user and one group; the others are seen as the overflow group."""
    done = box.run("""
        import ctypes, os, struct
        from daemon_context import DaemonContext
        from tests.helpers.support import preload

        preload()
        libc = ctypes.CDLL(None, use_errno=True)
        mapped, unshared = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setgroups([1, 2]); os.setresgid(1, 1, 1); os.setresuid(1, 1, 1)
            assert libc.unshare(0x10000000) == 0, ctypes.get_errno()  # CLONE_NEWUSER
            libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, or /proc/PID is root's
            os.write(unshared[1], b"x")
            os.read(mapped[0], 1)
            assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
            assert set(os.getgroups()) - {1}
            DaemonContext(initgroups=True, detach_process=False, stdout=1).open()
            print("open", os.getuid(), flush=True)
            os._exit(0)
        os.close(unshared[1])
        os.read(unshared[0], 1)
        for what in "uid", "gid":
            with open(f"/proc/{pid}/{what}_map", "w") as file:
                file.write("1 1 1")
        os.write(mapped[1], b"x")
        os.wait()
    """)
    assert done.stdout == "open 1\n", done
