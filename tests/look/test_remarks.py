"""What explain() remarks on: each surprise is named with its remedy, and nothing else is."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest

from daemon_context.look.remarks import mount_of
from tests.helpers import support

HEAD = """
import json, logging, os, signal, sys, threading
from daemon_context import DaemonContext

def options(**given):
    return dict(umask=0o022, detach_process=True, stdout="log") | given

def say(**given):
    explanation = DaemonContext(**options(**given)).explain()
    assert all(remark in str(explanation) for remark in explanation.remarks)
    with open("said", "w") as file:
        json.dump(explanation.remarks, file)

"""


def said(box: support.Sandbox, body: str, *args: str, **kwargs: Any) -> list[str]:
    """The remarks that a program gets."""
    done = box.run(box.script(HEAD + textwrap.dedent(body)), *args, **kwargs)
    assert (done.returncode, done.stderr) == (0, "")
    return list(json.loads(box.text("said")))


def only(remarks: list[str], *words: str) -> None:
    """There is one remark, and it has the words."""
    assert len(remarks) == 1, remarks
    assert [word for word in words if word not in remarks[0]] == []


def test_an_ordinary_start_gets_none(box: support.Sandbox) -> None:
    assert said(box, """
        logging.basicConfig(filename="records.log")
        say()
    """) == []  # fmt: skip


# --- log handlers


def test_a_log_handler_on_a_pipe_is_named(box: support.Sandbox) -> None:
    only(
        said(
            box,
            """
        logging.basicConfig()
        logging.getLogger("twice").addHandler(logging.StreamHandler())
        say()
    """,
        ),
        "a log handler writes to a pipe (descriptor 2)",
        "/dev/null",
        "log to a file",
    )


def test_a_log_handler_on_what_can_not_say_its_descriptor_is_none(box: support.Sandbox) -> None:
    assert said(box, """
        class Proxy:
            def fileno(self):
                raise NotImplementedError
        logging.basicConfig(stream=Proxy())
        say()
    """) == []  # fmt: skip


def test_a_log_handler_on_another_pipe_is_closed(box: support.Sandbox) -> None:
    only(
        said(
            box,
            """
        logging.basicConfig(stream=open(os.pipe()[1], "w"))
        say()
    """,
        ),
        "a pipe",
        "is closed",
        "log to a file or to syslog",
    )


def test_a_log_handler_on_a_terminal_is_named(box: support.Sandbox) -> None:
    with support.Terminal() as terminal:
        script = box.script(HEAD + "logging.basicConfig()\nsay()\n")
        assert box.popen(script, **terminal.streams).wait(support.DEADLINE) == 0
    only(json.loads(box.text("said")), "a terminal (descriptor 2)", "goes to /dev/null")


def test_a_log_handler_on_a_redirected_stderr_is_named(box: support.Sandbox) -> None:
    with (box.path / "errors").open("w") as errors:
        script = box.script(HEAD + "logging.basicConfig()\nsay()\n")
        assert box.popen(script, stderr=errors).wait(support.DEADLINE) == 0
    only(json.loads(box.text("said")), "a regular file (descriptor 2)", "goes to /dev/null")


@pytest.mark.parametrize(
    "body",
    [
        'logging.basicConfig(); say(stderr="log")',
        "logging.basicConfig(); say(stderr=sys.stderr)",
        'logging.basicConfig(filename="records.log"); say()',
        "pipe = open(os.pipe()[1], 'w')\n"
        "logging.basicConfig(stream=pipe)\n"
        "say(files_preserve=[pipe])",
        "import io; logging.basicConfig(stream=io.StringIO()); say()",
        "logging.basicConfig(handlers=[logging.NullHandler()]); say()",
        "logging.basicConfig(stream=open(os.devnull, 'w')); say()",
    ],
)
def test_a_log_handler_that_goes_on_is_not_named(box: support.Sandbox, body: str) -> None:
    assert said(box, body) == []


def test_a_log_file_that_is_not_preserved_is_named(box: support.Sandbox) -> None:
    only(
        said(
            box,
            """
        logging.basicConfig(filename="records.log")
        say(preserve_logging=False)
    """,
        ),
        "a regular file",
        "is closed",
    )


# --- umask, threads, children


@pytest.mark.root
@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize(
    ("umask", "remarked"), [(0, True), (0o020, True), (0o022, False), (None, False)]
)
def test_an_open_umask_is_named(
    box: support.Sandbox, umask: int | None, remarked: bool, user: str
) -> None:
    remarks = said(box, f"say(umask={umask}, uid={user!r})")
    if remarked:
        only(remarks, f"{umask:03o}", "writable by everybody", "umask=0o022")
    else:
        assert remarks == []


def test_live_threads_are_named(box: support.Sandbox) -> None:
    only(
        said(
            box,
            """
        go_on = threading.Event()
        threading.Thread(target=go_on.wait, name="poller").start()
        say()
        go_on.set()
    """,
        ),
        "threads run",
        "poller",
        "start them after open()",
    )


NATIVE = """
import ctypes
body = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
pause = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p)
thread = ctypes.c_ulong()
assert ctypes.CDLL(None).pthread_create(ctypes.byref(thread), None, pause, None) == 0
"""


def test_native_threads_are_named(box: support.Sandbox) -> None:
    only(said(box, f"{NATIVE}\nsay()\nos._exit(0)\n"), "threads run", "(native)")


def test_threads_are_no_surprise_in_the_foreground(box: support.Sandbox) -> None:
    assert said(box, """
        go_on = threading.Event()
        threading.Thread(target=go_on.wait).start()
        say(detach_process=False)
        go_on.set()
    """) == []  # fmt: skip


@pytest.mark.parametrize(
    ("body", "remarked"),
    [
        ("signal.signal(signal.SIGCHLD, signal.SIG_IGN); say()", True),
        ("say(signal_map={signal.SIGCHLD: None})", True),
        ("say(signal_map={signal.SIGCHLD: signal.SIG_IGN})", True),
        ("say(signal_map={signal.SIGCHLD: lambda *args: None})", False),
        ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
         "say(signal_map={signal.SIGCHLD: signal.SIG_DFL})", False),
    ],
)  # fmt: skip
def test_an_ignored_sigchld_is_named(box: support.Sandbox, body: str, remarked: bool) -> None:
    remarks = said(box, body)
    if remarked:
        only(remarks, "SIGCHLD is ignored", "subprocess", "status 0")
    else:
        assert remarks == []


# --- the working directory


OVERLAY = """
    import subprocess
    root = os.getcwd()
    for name in "lower", "upper", "work", "over laid":
        os.makedirs(f"stage/{name}")
    subprocess.run(["mount", "-t", "tmpfs", "none", "stage"], check=True)
    for name in "lower", "upper", "work", "over laid":
        os.mkdir(f"stage/{name}")
    layers = "lowerdir=stage/lower,upperdir=stage/upper,workdir=stage/work"
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", layers, "stage/over laid"], check=True)
    os.makedirs("stage/over laid/srv")
    os.symlink("stage/over laid/srv", "link")
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("directory", "overlaid"),
    [("stage/over laid/srv", True), ("stage/over laid", True), ("link", True), ("stage", False)],
)
def test_a_working_directory_on_an_overlay_is_named(
    box: support.Sandbox, directory: str, overlaid: bool
) -> None:
    remarks = said(
        box, OVERLAY + f"    say(working_directory={directory!r})\n", prefix=["unshare", "-m"]
    )
    if overlaid:
        where = "stage/over laid" if directory == "stage/over laid" else "stage/over laid/srv"
        only(remarks, str(box.path / where), "overlay", "can't be unmounted")
    else:
        assert remarks == []


@pytest.mark.root
def test_a_working_directory_inside_an_overlaid_root_is_named(box: support.Sandbox) -> None:
    body = OVERLAY + '    say(chroot_directory="stage/over laid", working_directory="srv")\n'
    only(said(box, body, prefix=["unshare", "-m"]), "stage/over laid/srv", "overlay")


@pytest.mark.root
@pytest.mark.parametrize("directory", ["/", "/srv"])
def test_the_root_of_an_overlaid_system_is_not_named(box: support.Sandbox, directory: str) -> None:
    # A container's root is an overlay: every process in it keeps that one mounted.
    body = f"""
    say()  # loads what the new root does not have
    os.mkdir("stage/over laid/proc")
    subprocess.run(["mount", "-t", "proc", "proc", "stage/over laid/proc"], check=True)
    os.chroot("stage/over laid")
    os.chdir("/")
    os.mkdir("dev")
    os.mknod("dev/null")
    assert " / / " in open("/proc/self/mountinfo").read().partition(" - overlay ")[0]
    say(working_directory={directory!r})
    print(open("/said").read())
    """
    done = box.run(box.script(HEAD + textwrap.dedent(OVERLAY + body)), prefix=["unshare", "-m"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
25 22 0:23 / /proc rw,nosuid shared:5 - proc proc rw
40 22 8:17 / /media/usb rw,nosuid,nodev shared:90 master:3 - vfat /dev/sdb1 rw,uid=1000
41 22 11:0 / /media/cd\040rom ro - iso9660 /dev/sr0 ro
42 40 0:50 / /media/usb/inner rw - tmpfs tmpfs rw
43 22 0:51 / /media/usb2 rw - tmpfs none rw
44 22 0:52 / /srv/a\134b rw - overlay overlay rw
45 22 0:53 / /srv/twice rw - ext4 /dev/vdb rw
46 22 0:54 / /srv/twice rw - exfat /dev/sdc1 rw
47 22 0:55 / /srv/line""" + "\x0b\x85" + r"""feed rw - tmpfs none rw
""".lstrip("\n")  # fmt: skip


@pytest.mark.parametrize(
    ("path", "kind", "device"),
    [
        ("/", "ext4", "254:0"),
        ("/home/you", "ext4", "254:0"),
        ("/media/usb", "vfat", "8:17"),
        ("/media/usb/photos", "vfat", "8:17"),
        ("/media/usb/inner/x", "tmpfs", "0:50"),
        ("/media/usb2", "tmpfs", "0:51"),
        ("/media/usb3", "ext4", "254:0"),
        ("/media/cd rom/x", "iso9660", "11:0"),
        ("/srv/a\\b", "overlay", "0:52"),
        ("/srv/twice/x", "exfat", "0:54"),
        ("/srv/line\x0b\x85feed/x", "tmpfs", "0:55"),
    ],
)
def test_the_file_system_of_a_path_is_found(path: str, kind: str, device: str) -> None:
    assert mount_of(path, MOUNTS.lstrip("\n"))[1:] == (kind, device)


def test_without_proc_no_file_system_is_found() -> None:
    assert mount_of("/", "") == ("", "", "")


@pytest.mark.root
def test_a_working_directory_on_a_removable_device_is_named(box: support.Sandbox) -> None:
    """With a tmpfs in the place of the device: it is the mount table that is read."""
    body = """
    import subprocess
    os.mkdir("stick")
    mounts = open("/proc/self/mountinfo").read()
    with open("mounts", "w") as file:
        file.write(mounts + f"999 1 8:17 / {os.getcwd()}/stick rw - vfat /dev/sdb1 rw\\n")
    subprocess.run(["mount", "--bind", "mounts", f"/proc/{os.getpid()}/mountinfo"], check=True)
    say(working_directory="stick")
    """
    remarks = said(box, body, prefix=["unshare", "-m"])
    only(remarks, str(box.path / "stick"), "removable file system (vfat)", "can't be unmounted")


# --- files


@pytest.mark.parametrize(
    ("opened", "given"),
    [
        ('open("notes", "w")', ""),
        ('open("notes", "r+b", 0)', ""),
        ('open("notes", "a")', "preserve_logging=False"),
    ],
)
def test_a_file_that_is_closed_while_it_is_written_is_named(
    box: support.Sandbox, opened: str, given: str
) -> None:
    (box.path / "notes").touch()
    remarks = said(box, f"notes = {opened}; say({given})")
    only(remarks, "the file 'notes'", "open for writing", "files_preserve")


@pytest.mark.parametrize(
    ("opened", "given"),
    [
        ('open("notes", "a")', ""),
        ('open("notes", "w")', "files_preserve=[notes]"),
        ('open("notes", "w")', "stderr=notes"),
        ('open("notes")', ""),
        ('open("/dev/null", "w")', ""),
        ('logging.FileHandler("notes", "w")', ""),
    ],
)
def test_a_file_that_is_kept_or_only_read_gets_no_remark(
    box: support.Sandbox, opened: str, given: str
) -> None:
    (box.path / "notes").touch()
    assert said(box, f"notes = {opened}; say({given})") == []
