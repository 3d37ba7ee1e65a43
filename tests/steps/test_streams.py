"""The standard streams: where they go, whatever they were, and what was in their buffers."""

from __future__ import annotations

import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support

DAEMON = """
    import io, os, sys
    from daemon_context import DaemonContext
    from tests.helpers.launching import report
    with DaemonContext(pidfile="d.pid", working_directory=".", detach_process=True,
                       {options}) as daemon:
        {body}
        daemon.sleep()
"""


def start(box: support.Sandbox, options: str, body: str = "pass", **kwargs: Any) -> int:
    """Start a daemon with these options; its pid."""
    done = box.run(DAEMON.format(options=options, body=body), **kwargs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return box.pid()


def standard(pid: int) -> list[str]:
    """What descriptors 0, 1 and 2 of the process are."""
    found = support.descriptors(pid)
    return [found.get(fd, "closed") for fd in range(3)]


def test_none_is_dev_null(box: support.Sandbox) -> None:
    pid = start(box, "", "report('read', sys.stdin.read()); print('lost', flush=True)")
    assert standard(pid) == ["/dev/null"] * 3
    assert json.loads(box.text("read")) == ""


def test_an_output_path_is_appended_to(box: support.Sandbox) -> None:
    for name in ("out", "err"):
        (box.path / name).write_text("old\n")
        (box.path / name).chmod(0o604)
    start(box, "stdout='out', stderr='err'", "print('new'); print('bad', file=sys.stderr)")
    support.until(lambda: (box.path / "err").read_text() == "old\nbad\n")
    assert (box.path / "out").read_text() == "old\nnew\n"
    assert stat.S_IMODE((box.path / "out").stat().st_mode) == 0o604


def test_both_outputs_can_share_a_path(box: support.Sandbox) -> None:
    body = "[print(n, file=(sys.stdout, sys.stderr)[n % 2], flush=True) for n in range(100)]"
    start(box, "stdout='log', stderr='log'", body)
    expected = "".join(f"{n}\n" for n in range(100))
    support.until(lambda: (box.path / "log").read_text() == expected)


@pytest.mark.parametrize("umask", ["0", "0o777"])
def test_a_new_log_file_has_mode_0640_whatever_the_umask(box: support.Sandbox, umask: str) -> None:
    start(box, f"stdout='log', umask={umask}", "print('x', flush=True)")
    assert stat.S_IMODE((box.path / "log").stat().st_mode) == 0o640
    done = box.run(
        """
        import os, sys
        from daemon_context import DaemonContext
        os.umask(int(sys.argv[1], 8))
        DaemonContext(stdout="second", detach_process=True).open()
        """,
        umask[-3:],
    )
    assert done.returncode == 0, done
    assert stat.S_IMODE((box.path / "second").stat().st_mode) == 0o640


def test_a_path_is_relative_to_the_directory_of_the_launcher(box: support.Sandbox) -> None:
    (box.path / "in").write_text("from the file")
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext
        context = DaemonContext(stdin="in", stdout="log", detach_process=True)
        with context:
            print(os.getcwd(), sys.stdin.read())
    """)
    assert done.returncode == 0, done
    assert box.text("log") == "/ from the file\n"


@pytest.mark.root
def test_a_new_log_file_belongs_to_the_user_of_the_daemon(open_box: support.Sandbox) -> None:
    start(open_box, "stdout='log', uid=65534", "print('x', flush=True)")
    found = (open_box.path / "log").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (65534, 0o640)


def test_a_line_printed_to_a_log_is_there_at_once(box: support.Sandbox) -> None:
    start(box, "stdout='log'", "print('a line')")
    support.until(lambda: (box.path / "log").read_text() == "a line\n")


BAD = {
    "missing directory": ("no/log", "No such file or directory"),
    "directory": (".", "Is a directory"),
    "below a file": ("program.py/log", "Not a directory"),
    "fifo without reader": ("fifo", "No such device or address"),
    "socket": ("socket", "No such device or address"),
    "read-only file system": (
        "/proc/log",
        "No such file or directory" if os.geteuid() == 0 else "Permission denied",
    ),
    "name too long": ("x" * 300, "File name too long"),
}


@pytest.mark.parametrize("option", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", BAD)
def test_a_path_that_cannot_be_opened_is_an_error(
    box: support.Sandbox, kind: str, option: str
) -> None:
    import socket

    path, text = BAD[kind]
    os.mkfifo(box.path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        where = os.open(box.path, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{where}/socket")
        os.close(where)
    before = set(box.path.iterdir())
    done = box.run(DAEMON.format(options=f"{option}={path!r}", body="pass"))
    assert done.returncode == 1
    assert text in done.stderr
    assert f"as {option}" in done.stderr
    assert os.path.abspath(box.path / path) in done.stderr
    assert set(box.path.iterdir()) - before == {box.path / "program.py"}
    box.settled()


def test_a_missing_input_is_an_error(box: support.Sandbox) -> None:
    done = box.run(DAEMON.format(options="stdin='missing'", body="pass"))
    assert done.returncode == 1
    assert "as stdin: No such file or directory" in done.stderr
    assert not (box.path / "missing").exists()


def test_a_fifo_is_opened_without_waiting_for_its_other_end(box: support.Sandbox) -> None:
    for name in ("in", "out"):
        os.mkfifo(box.path / name)
    reader = os.open(box.path / "out", os.O_RDONLY | os.O_NONBLOCK)
    try:
        pid = start(box, "stdin='in', stdout='out'", "print('through', flush=True)")
        os.set_blocking(reader, True)
        assert os.read(reader, 100) == b"through\n"
    finally:
        os.close(reader)
    for fd in (0, 1):  # blocking again: programs expect it
        flags = support.until(lambda fd=fd: Path(f"/proc/{pid}/fdinfo/{fd}").read_text())
        assert not int(flags.split("flags:")[1].split()[0], 8) & os.O_NONBLOCK


@pytest.mark.root
@pytest.mark.parametrize("target", ["there", "not there"])
def test_the_privileged_follow_no_symlink(box: support.Sandbox, target: str) -> None:
    if target == "there":
        (box.path / "there").write_text("precious")
    (box.path / "log").symlink_to(target)
    done = box.run(DAEMON.format(options="stdout='log'", body="print('x', flush=True)"))
    assert done.returncode == 1
    assert "log" in done.stderr
    assert not (box.path / "not there").exists()
    if target == "there":
        assert (box.path / "there").read_text() == "precious"
    box.settled()


@pytest.mark.root
def test_a_symlink_is_followed_for_an_ordinary_user(open_box: support.Sandbox) -> None:
    (open_box.path / "there").write_text("")
    (open_box.path / "there").chmod(0o666)
    (open_box.path / "log").symlink_to("there")
    done = open_box.run("""
        from daemon_context import DaemonContext
        from tests.helpers.support import become_nobody
        become_nobody()
        with DaemonContext(stdout="log", detach_process=True):
            print("x", flush=True)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert open_box.text("there") == "x\n"


# --- objects


def test_file_objects_and_descriptors_are_duplicated(box: support.Sandbox) -> None:
    start(
        box,
        "stdin=open('program.py'), stdout=open('out', 'a'), stderr=os.open('err', 65, 0o600)",
        "report('first', sys.stdin.readline()); print('o'); print('e', file=sys.stderr)",
    )
    assert json.loads(box.text("first")) == "\n"
    assert (box.text("out"), box.text("err")) == ("o\n", "e\n")


@pytest.mark.parametrize("mode", ["a", "w"])  # the first looks like a log, which stays anyway
def test_a_given_file_object_stays_usable(box: support.Sandbox, mode: str) -> None:
    start(
        box,
        f"stdout=(log := open('log', {mode!r}, buffering=1))",
        "log.write('by the object\\n'); print('by the stream')",
    )
    assert box.text("log") == "by the object\nby the stream\n"


def test_an_object_without_a_descriptor_is_what_the_name_is_bound_to(box: support.Sandbox) -> None:
    pid = start(
        box,
        "stdin=io.StringIO('a text'), stdout=(out := io.StringIO())",
        "print('kept'); report('seen', [sys.stdin.read(), out.getvalue(), sys.stdout is out])",
    )
    assert json.loads(box.text("seen")) == ["a text", "kept\n", True]
    assert standard(pid) == ["/dev/null"] * 3


def test_an_object_of_which_only_the_method_is_known_works(box: support.Sandbox) -> None:
    body = "print('x'); report('seen', sys.stdout.seen)"
    program = DAEMON.format(options="stdout=Writer()", body=body).replace(
        "with DaemonContext",
        "class Writer:\n        seen = ''\n"
        "        def write(self, text):\n            self.seen += text\n"
        "    with DaemonContext",
    )
    done = box.run(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(box.text("seen")) == "x\n"


def test_stdout_and_stderr_change_places(box: support.Sandbox) -> None:
    body = "os.write(1, b'one'); os.write(2, b'two')"
    with open(box.path / "out", "w") as out, open(box.path / "err", "w") as err:
        import subprocess
        import sys

        program = box.script(
            DAEMON.format(options="stdout=sys.stderr, stderr=sys.stdout", body=body)
        )
        done = subprocess.run(
            [sys.executable, program], stdout=out, stderr=err, cwd=box.path, env=box.environ,
            stdin=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert (box.text("out"), box.text("err")) == ("two", "one")


def test_the_streams_of_the_launcher_can_be_kept(box: support.Sandbox) -> None:
    launcher = box.popen(
        DAEMON.format(
            options="stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr",
            body="print(sys.stdin.readline(), end='', flush=True)",
        )
    )
    assert launcher.wait(support.DEADLINE) == 0
    assert launcher.stdin
    assert launcher.stdout
    launcher.stdin.write("hello\n")
    launcher.stdin.flush()
    assert launcher.stdout.readline() == "hello\n"


# --- descriptors 0, 1 and 2 of the launcher are closed

CLOSED = [c for n in range(4) for c in itertools.combinations((0, 1, 2), n)]
PROGRAMS = """
    import os, subprocess, sys
    from tests.helpers.launching import *

    before = open_files()
    steps = DEFAULT_STEPS.insert_after("redirect-streams", Fail("RuntimeError"))
    failed = {}
    try:
        DaemonContext(pidfile="d.pid", stdout="log", detach_process=True, steps=steps).open()
    except DaemonError as error:
        failed = describe(error)
    changed = [before, open_files()] if before != open_files() else []
    options = {"stdout": "log", "stderr": "log"} if "log" in sys.argv else {}
    with DaemonContext(pidfile="d.pid", working_directory=".", detach_process=True,
                       **options) as daemon:
        print("printed")
        print("complained", file=sys.stderr, flush=True)
        nothing = sys.stdin.read()
        # A program that the daemon runs: its first file must not become a standard stream.
        child = subprocess.run(["sh", "-c", "readlink /proc/self/fd/0 >&2; echo out; echo err >&2;"
                                " exec 9<program.py; readlink /proc/$$/fd/9"])
        listed = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True).stdout
        report("facts", {"failed": failed, "changed": changed, "status": child.returncode,
                         "inherited": listed.split(), "read": nothing})
        daemon.sleep()
"""


@pytest.mark.parametrize("closed", CLOSED, ids=lambda c: "".join(map(str, c)) or "none")
@pytest.mark.parametrize("log", ["log", ""])
def test_a_launcher_may_be_started_with_standard_streams_closed(
    box: support.Sandbox, closed: tuple[int, ...], log: str
) -> None:
    redirects = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    done = box.run(PROGRAMS, log, prefix=["sh", "-c", f'exec "$@" {redirects}', "sh"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    facts = json.loads(box.text("facts"))
    assert "out of luck" in facts["failed"]["message"]
    assert facts["changed"] == []
    # 3 is the directory that is being listed: no more was inherited, and no less.
    assert (facts["status"], facts["inherited"], facts["read"]) == (0, ["0", "1", "2", "3"], "")
    pid = box.pid()
    if log:
        log = str(box.path / "log")
        lines = box.text("log").splitlines()
        assert sorted(lines) == sorted(
            ["printed", "complained", "/dev/null", "out", "err", str(box.path / "program.py")]
        )
    assert standard(pid) == ["/dev/null", log or "/dev/null", log or "/dev/null"]


def test_a_file_that_got_the_number_of_a_closed_stream_is_written_out(
    box: support.Sandbox,
) -> None:
    """Nothing but that file is open, which was taken for the standard stream."""
    program = """
        from daemon_context import DaemonContext
        file = open("notes", "w")
        assert file.fileno() == 1
        file.write("early")
        with DaemonContext(detach_process=True):
            pass
    """
    done = box.run(program, prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert (done.returncode, done.stderr) == (0, "")
    assert (box.path / "notes").read_text() == "early"


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ("files_preserve=[handler.stream], preserve_logging=False", True),
        ("", True),
        ("preserve_logging=False", False),
        ("stdout=handler.stream", False),
    ],
)
def test_a_preserved_file_that_got_the_number_of_a_closed_stream_is_not_redirected(
    box: support.Sandbox, options: str, refused: bool
) -> None:
    """A log went to /dev/null without a word, although it was to stay open."""
    program = f"""
        import logging
        from daemon_context import DaemonContext, DaemonError
        handler = logging.FileHandler("log")
        logging.getLogger().addHandler(handler)
        assert handler.stream.fileno() == 1
        try:
            with DaemonContext(detach_process=True, pidfile="d.pid", {options}):
                logging.warning("late")
        except DaemonError as error:
            logging.warning(error)
    """
    done = box.run(program, prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    written = (box.path / "log").read_text()
    if refused:
        assert "cannot redirect stdout to '/dev/null': a file that is to stay open" in written
    else:
        assert written == ("late\n" if "stdout" in options else "")


@pytest.mark.parametrize("names", ["stdin", "stdout", "stderr", "stdin stdout stderr"])
def test_names_in_sys_may_be_none_or_closed(box: support.Sandbox, names: str) -> None:
    for value in ("None", "closed"):
        done = box.run(
            """
            import sys
            from daemon_context import DaemonContext
            for name in sys.argv[2].split():
                if sys.argv[1] == "None":
                    setattr(sys, name, None)
                else:
                    getattr(sys, name).close()
            with DaemonContext(stdout="log", stderr="log", detach_process=True):
                print("printed", sys.stdin.read())
                print("complained", file=sys.stderr)
            """,
            value,
            names,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
        box.settled()
        assert sorted(box.text("log").splitlines()) == ["complained", "printed "]
        (box.path / "log").unlink()


# --- buffers


def test_what_was_printed_before_the_start_is_written_once_by_the_launcher(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        import sys
        from daemon_context import DaemonContext
        sys.stderr.reconfigure(line_buffering=False)
        print("before", end="")
        print("complaint", end="", file=sys.stderr)
        with DaemonContext(stdout="log", stderr="log", detach_process=True):
            print("after")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "before", "complaint")
    box.settled()
    assert box.text("log") == "after\n"


def test_what_was_printed_before_a_start_that_fails_is_written_once(box: support.Sandbox) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        for name in ("set-umask", "write-pidfile"):
            print(name, end=" ")
            steps = DEFAULT_STEPS.insert_after(name, Fail("RuntimeError"))
            try:
                DaemonContext(detach_process=True, steps=steps).open()
            except DaemonError:
                print("failed", end=" ")
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "set-umask failed write-pidfile failed "


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_buffer_that_cannot_be_written_aborts_the_start(box: support.Sandbox, name: str) -> None:
    done = box.run(
        """
        import os, sys
        from tests.helpers.launching import *
        name = sys.argv[1]
        full = open("/dev/full", "w")
        setattr(sys, name, full)
        full.write("will be lost")
        outcome = attempt(DaemonContext(pidfile="d.pid", detach_process=True))
        report("outcome", outcome)
        os._exit(0)
        """,
        name,
    )
    assert done.returncode == 0, done
    outcome = json.loads(box.text("outcome"))
    assert outcome["class"] == "DaemonOSEnvironmentError"
    assert f"sys.{name}" in outcome["message"]
    assert "No space left on device" in outcome["message"]
    assert (outcome["errno"], outcome["step"], outcome["changed"]) == (28, "flush-streams", {})


@pytest.mark.root
def test_a_full_disk_below_the_standard_output_aborts_the_start(box: support.Sandbox) -> None:
    (box.path / "small").mkdir()
    mount = 'mount -t tmpfs -o size=4096 none small && exec "$@" >small/output'
    done = box.run(
        """
        import os, sys
        from tests.helpers.launching import *
        print("x" * 6000, end="")
        try:
            DaemonContext(pidfile="d.pid", detach_process=True).open()
        except OSError as error:
            report("outcome", describe(error))
            os._exit(3)
        """,
        prefix=["unshare", "-m", "sh", "-c", mount, "sh"],
    )
    assert done.returncode == 3, done
    outcome = json.loads(box.text("outcome"))
    assert "No space left on device" in outcome["message"]
    assert (outcome["errno"], outcome["step"]) == (28, "flush-streams")
    assert not (box.path / "d.pid").exists()
    box.settled()


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_a_log_on_a_read_only_file_system(box: support.Sandbox, there: bool) -> None:
    (box.path / "fixed").mkdir()
    make = "touch fixed/app.log &&" if there else ""
    mount = f'mount -t tmpfs none fixed && {make} mount -o remount,ro fixed && exec "$@"'
    done = box.run(
        """
        from daemon_context import DaemonContext
        DaemonContext(stdout="fixed/app.log", detach_process=True).open()
        """,
        prefix=["unshare", "-m", "sh", "-c", mount, "sh"],
    )
    assert done.returncode == 1
    assert (
        "fixed/app.log' as stdout: Read-only file system; set stdout to a path on a" in done.stderr
    )
    box.settled()


def test_a_log_for_which_no_descriptor_is_left(box: support.Sandbox) -> None:
    done = box.run("""
        import os, resource
        from daemon_context import DaemonContext
        context = DaemonContext(stdout="app.log", stderr="app.log", detach_process=True)
        context.explain()
        resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
        context.open()
    """)
    assert done.returncode == 1
    assert "as stderr: Too many open files; close some files, or raise the limit" in done.stderr
    assert not (box.path / "app.log").exists()
    box.settled()


def test_a_reader_that_is_gone_aborts_the_start_too(box: support.Sandbox) -> None:
    done = box.run("""
        import os, sys
        from tests.helpers.launching import *
        reader, writer = os.pipe()
        os.close(reader)
        sys.stdout = os.fdopen(writer, "w")
        print("nobody reads this")
        report("outcome", attempt(DaemonContext(pidfile="d.pid", detach_process=True)))
        os._exit(0)
    """)
    assert done.returncode == 0, done
    outcome = json.loads(box.text("outcome"))
    assert "Broken pipe" in outcome["message"]
    assert (outcome["errno"], outcome["step"], outcome["changed"]) == (32, "flush-streams", {})
