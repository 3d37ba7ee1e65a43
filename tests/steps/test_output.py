"""Where the output of a daemon goes: into the log that was given, or onto the terminal; through
rotation; and what a verb does whose own output can't be written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.helpers import support, tools
from tests.helpers.support import until

CLASS = """
import os, sys, time
from daemon_context import Daemon

class D(Daemon):
    def run(self):
        print("out", flush=True)
        print("err", file=sys.stderr, flush=True)
        {body}

D("d.pid", {options}).main()
"""


def shell(box: support.Sandbox, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        cwd=box.path,
        env=box.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(box: support.Sandbox, body: str = "pass", options: str = "stdout='d.log'") -> str:
    return str(box.script(CLASS.format(body=body, options=options)))


# --- which file


@pytest.mark.parametrize("path", ["'d.log'", "b'd.log'", "__import__('pathlib').Path('d.log')"])
def test_a_traceback_lands_where_the_output_goes(box: support.Sandbox, path: str) -> None:
    script = program(box, "raise ValueError('no such feed')", f"stdout={path}, settle=0")
    assert box.run(box.path / script, "start").returncode == 0
    box.settled()
    said = (box.path / "d.log").read_text()
    assert said.startswith("out\nerr\nTraceback")
    assert "no such feed" in said


@pytest.mark.parametrize(
    ("options", "log"),
    [
        ("stdout='d.log', stderr=os.devnull", "out\n"),
        ("stdout='d.log', stderr='e.log'", "out\n"),
        ("stdout=open('d.log', 'w')", "out\n"),
    ],
)
def test_a_stderr_that_is_given_stays_apart(box: support.Sandbox, options: str, log: str) -> None:
    assert box.run(box.path / program(box, options=options), "start").returncode == 0
    box.settled()
    assert (box.path / "d.log").read_text() == log


def test_run_shows_its_output(box: support.Sandbox) -> None:
    done = box.run(box.path / program(box), "run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
    assert not (box.path / "d.log").exists()


def test_run_writes_into_paths_where_that_is_wanted(box: support.Sandbox) -> None:
    options = "stdout='d.log', foreground_streams=True"
    done = box.run(box.path / program(box, options=options), "run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (box.path / "d.log").read_text() == "out\nerr\n"


def test_run_with_a_closed_stdout_writes_into_the_path(box: support.Sandbox) -> None:
    """There is nobody whom the output could be shown."""
    line = f"exec {sys.executable} {program(box)} run >&-"
    done = shell(box, line)
    assert (done.returncode, done.stderr) == (0, "err\n")
    assert (box.path / "d.log").read_text() == "out\n"


# --- logs that are not those of `logging`

LOGGERS = {
    "loguru": """
        from loguru import logger
        logger.remove()
        logger.add("app.log", format="{message}")
        say = logger.info""",
    "structlog": """
        import structlog
        structlog.configure(
            processors=[structlog.processors.KeyValueRenderer()],
            logger_factory=structlog.WriteLoggerFactory(file=open("app.log", "a")))
        say = structlog.get_logger().info""",
    "logbook": """
        import logbook
        logbook.FileHandler("app.log").push_application()
        say = logbook.Logger("app").info""",
    "eliot": """
        import eliot
        eliot.to_file(open("app.log", "ab"))
        say = lambda text: eliot.log_message(message_type=text)""",
    "twisted": """
        from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
        observer = textFileLogObserver(open("app.log", "a"))
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        say = lambda text: Logger("app").info(text)""",
    None: """
        log = open("app.log", "a")
        say = lambda text: print(text, file=log, flush=True)""",
    "sys": """
        sys.stdout = open("app.log", "a")
        say = lambda text: print(text, flush=True)""",
    "os": """
        log = os.fdopen(os.open("app.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w")
        say = lambda text: print(text, file=log, flush=True)""",
}


def logged(
    box: support.Sandbox, logger: str | None, options: str = "", body: str = "pass"
) -> tuple[str, str]:
    """What is in a program's log after it has become a daemon; and what its launcher said."""
    program = f"""
import os, sys
from daemon_context import DaemonContext
{textwrap.dedent(LOGGERS[logger])}
say("before")
with DaemonContext(detach_process=True, working_directory=".", {options}):
    fresh = open("fresh", "w")  # gets the number of a log that was closed
    try:
        say("in the daemon")
    finally:
        {body}
"""
    done = box.run(program)
    assert done.returncode == 0
    box.settled()
    assert not (box.path / "fresh").read_text()
    return (box.path / "app.log").read_text(), done.stderr


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_log_of_whichever_library_goes_on(box: support.Sandbox, logger: str | None) -> None:
    if logger not in (None, "sys", "os"):
        pytest.importorskip(logger)
    said, complaints = logged(box, logger)
    assert (said.count("before"), said.count("in the daemon"), complaints) == (1, 1, "")


@pytest.mark.parametrize("logger", [None, "os"])
def test_logs_are_closed_where_that_is_asked_for(box: support.Sandbox, logger: str | None) -> None:
    said, _ = logged(box, logger, "preserve_logging=False, stderr='errors'")
    assert (said, "closed file" in box.text("errors")) == ("before\n", True)


def test_the_thread_of_a_log_is_named(box: support.Sandbox) -> None:
    pytest.importorskip("loguru")
    done = box.run("""
        from daemon_context import DaemonContext
        from loguru import logger
        logger.remove()
        logger.add("app.log", enqueue=True)
        DaemonContext(detach_process=True).open()
        """)
    box.settled()
    assert "1 other thread(s) run: loguru" in done.stderr


@pytest.mark.parametrize("how", ["open", "launch", "foreground"])
def test_what_a_log_has_buffered_is_written_once(box: support.Sandbox, how: str) -> None:
    done = box.run("""
        import sys
        from daemon_context import DaemonContext
        log = open("app.log", "a")
        log.write("before\\n")
        context = DaemonContext(detach_process=sys.argv[1] != "foreground")
        if sys.argv[1] != "launch":
            context.open()
            log.write("daemon\\n")
        elif (handle := context.launch()) is None:
            log.write("daemon\\n")
        else:
            handle.wait()
            log.write("launcher\\n")
        """, how)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    expected = ["before", "daemon", *(["launcher"] if how == "launch" else [])]
    assert (box.path / "app.log").read_text().split() == expected


def test_a_log_on_a_full_disk_does_not_abort_the_start(box: support.Sandbox) -> None:
    """No more than that of a `logging` handler does; it is no regular file here."""
    done = box.run("""
        from daemon_context import DaemonContext
        log = open("/dev/full", "a")
        log.write("before\\n")
        DaemonContext(detach_process=True, files_preserve=[log]).open()
        """)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_is_given_takes_what_went_into_a_log(
    box: support.Sandbox, stream: str
) -> None:
    done = box.run(f"""
        import sys
        from daemon_context import DaemonContext
        sys.{stream} = open("app.log", "a")
        print("before", file=sys.{stream}, flush=True)
        DaemonContext(detach_process=True, {stream}="given.log").open()
        print("daemon", file=sys.{stream})
        """)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert (box.path / "app.log").read_text() == "before\n"
    assert (box.path / "given.log").read_text() == "daemon\n"


@pytest.mark.parametrize(
    ("stream", "mode", "options", "warned"),
    [
        ("stdout", "w", "", True),
        ("stderr", "w", "", True),
        ("stderr", "w+", "", True),
        ("stdout", "a", "", False),
        ("stdout", "w", "stdout='given.log'", False),
        ("stdout", "w", "files_preserve=[sys.stdout]", False),
        ("stdout", "a", "preserve_logging=False", True),
    ],
)
def test_a_stream_that_is_a_file_which_is_closed_is_warned_about(
    box: support.Sandbox, stream: str, mode: str, options: str, warned: bool
) -> None:
    done = box.run(f"""
        import sys, warnings
        from daemon_context import DaemonContext
        warnings.showwarning = lambda *a, **k: print("warned:", a[0], file=sys.__stderr__)
        sys.{stream} = open("out.txt", {mode!r})
        DaemonContext(detach_process=True, {options}).open()
        """)
    assert done.returncode == 0
    assert ("warned: " in done.stderr) == warned, done.stderr
    assert not warned or f"sys.{stream} is the file 'out.txt'" in done.stderr


def test_a_log_that_has_got_the_number_of_a_stream_is_refused(box: support.Sandbox) -> None:
    script = box.script("""
        import sys
        log = open("app.log", "a")
        assert log.fileno() == 1
        from daemon_context import DaemonContext
        DaemonContext(detach_process=True).open()
        """)
    line = f"exec {sys.executable} {script} >&-"
    done = shell(box, line)
    assert done.returncode == 1
    assert "a file that is to stay open has descriptor 1" in done.stderr


# --- the output of the verbs

VERBS = ["start", "start", "status --json", "reload", "stop", "status"]
STATUSES = [0, 0, 0, 0, 0, 3]


@pytest.mark.parametrize(
    ("closed", "flag"),
    [
        ("<&-", ""), (">&-", ""), ("2>&-", ""), ("<&- >&- 2>&-", ""), (">/dev/full", ""),
        (">/dev/full 2>/dev/full", "-u"), (">$PIPE", ""), (">$PIPE 2>&1", "-u"),
    ],
)  # fmt: skip
def test_a_verb_does_its_work_whatever_its_streams_are(
    box: support.Sandbox, closed: str, flag: str
) -> None:
    script = program(box, "while self.sleep(60): pass")
    reader, writer = os.pipe()
    os.close(reader)
    os.set_inheritable(writer, True)
    line = f"exec {sys.executable} {flag} {script} %s " + closed
    statuses = []
    try:
        for verb in VERBS:
            done = subprocess.run(
                ["bash", "-c", (line % verb).replace("$PIPE", f"&{writer}")],
                cwd=box.path, env=box.environ, capture_output=True, text=True, timeout=60,
                pass_fds=[writer], check=False,
            )  # fmt: skip
            statuses.append(done.returncode)
            assert "Traceback" not in done.stderr
            assert "Exception ignored" not in done.stderr
            assert len(box.processes()) == ("stop" not in VERBS[: len(statuses)])
    finally:
        os.close(writer)
    assert statuses == STATUSES


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_a_verb_that_fails_says_so_by_its_status(box: support.Sandbox, closed: str) -> None:
    script = program(box, options="stdout='/no/such/directory/d.log'")
    assert shell(box, f"exec {sys.executable} {script} start {closed}").returncode == 1
    assert shell(box, f"exec {sys.executable} {script} nonsense {closed}").returncode == 2
    assert not box.processes()


# --- rotation


WRITER = """
import os, sys, time
from daemon_context import Daemon

class D(Daemon):
    def run(self):
        count = 0
        while self.sleep(0.002):
            count += 1
            print(count)
            if count % 10 == 0:
                print(f"error {count}", file=sys.stderr, flush=True)
    def on_reload(self):
        print("reloaded")
        self.tell("reloaded")

D("d.pid", stdout=os.path.abspath("d.log"), options).main()
"""


def writer(box: support.Sandbox, options: str = "umask=0o022") -> Path:
    return box.script(WRITER.replace("options", options))


def test_a_reload_opens_the_log_anew(box: support.Sandbox) -> None:
    script, log = writer(box), box.path / "d.log"
    assert box.run(script, "start").returncode == 0
    box.text("d.log")
    log.rename(box.path / "old.log")
    done = box.run(script, "reload")
    assert (done.returncode, done.stderr) == (0, "")
    new = box.text("d.log")
    assert "reloaded" in new.split("\n")[:3]
    assert log.stat().st_mode & 0o777 == 0o640
    found = support.descriptors(box.pid())
    assert [found[number] for number in (1, 2)] == [str(log)] * 2
    assert len(found) == len(support.descriptors(box.pid()))
    again = box.run(script, "reload")  # with nothing to open
    assert (again.returncode, support.descriptors(box.pid())) == (0, found)


def test_children_write_into_the_new_log(box: support.Sandbox) -> None:
    script = box.script(WRITER.replace("options", "umask=0o022").replace(
        'print("reloaded")', 'os.system("echo from a child")'))  # fmt: skip
    box.run(script, "start")
    box.text("d.log")
    (box.path / "d.log").rename(box.path / "old.log")
    assert box.run(script, "reload").returncode == 0
    assert "from a child" in box.text("d.log")


STANZA = """
%(log)s {
    rotate 9
    create 0640
    postrotate
        %(reload)s
    endscript
}
"""


def test_logrotate_loses_nothing(box: support.Sandbox) -> None:
    script = writer(box)
    program = tools.find("logrotate")
    stanza = box.path / "stanza"
    reload = f"cd {box.path} && {sys.executable} {script} reload"
    stanza.write_text(STANZA % {"log": box.path / "d.log", "reload": reload})
    stanza.chmod(0o644)
    assert box.run(script, "start").returncode == 0
    for _ in range(3):
        before = box.text("d.log")
        assert before
        rotate = [program, "--force", "--state", str(box.path / "state"), str(stanza)]
        done = subprocess.run(rotate, env=box.environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    box.text("d.log")
    assert box.run(script, "stop").returncode == 0
    logs = [box.path / f"d.log.{number}" for number in (3, 2, 1)] + [box.path / "d.log"]
    lines = [line for log in logs for line in log.read_text().splitlines()]
    numbers = [int(line) for line in lines if line.isdigit()]
    assert numbers == list(range(1, numbers[-1] + 1))
    errors = [int(line.split()[1]) for line in lines if line.startswith("error")]
    assert errors == list(range(10, numbers[-1] + 1, 10))
    assert lines.count("reloaded") == 3
    assert all("reloaded" in log.read_text() for log in logs[1:])


@pytest.mark.root
@pytest.mark.parametrize("gone", ["removed", "of root"])
def test_a_log_that_the_daemons_user_may_not_open_fails_the_reload(
    open_box: support.Sandbox, gone: str
) -> None:
    box = open_box
    (box.path / "log").mkdir(0o755)
    script = box.script(WRITER.replace("options", "uid='nobody'").replace('"d.log"', '"log/d.log"'))
    assert box.run(script, "start").returncode == 0
    log = box.path / "log" / "d.log"
    until(log.read_text)
    log.rename(box.path / "log" / "old.log")
    if gone == "of root":
        log.touch(0o600)
    done = box.run(script, "reload")
    assert done.returncode == 1
    assert (
        f"has reloaded, but cannot reopen '{log}' as stdout: Permission denied; its output goes on"
        in done.stderr
    )
    assert "reloaded" in (box.path / "log" / "old.log").read_text()
    assert box.run(script, "status").stdout.count("reloaded") == 1
    log.unlink(missing_ok=True)
    log.touch()
    os.chown(log, 65534, 65534)
    assert box.run(script, "reload").returncode == 0
    until(log.read_text)


@pytest.mark.root
@pytest.mark.parametrize("inside", [True, False])
def test_a_log_in_a_new_root(open_box: support.Sandbox, inside: bool) -> None:
    box = open_box
    root = box.path / "root"
    root.mkdir()
    (root / "var").mkdir()
    log = root / "var" / "d.log" if inside else box.path / "d.log"
    options = f"chroot_directory={str(root)!r}"
    script = box.script(WRITER.replace("options", options).replace('"d.log"', repr(str(log))))
    assert box.run(script, "start").returncode == 0
    until(log.read_text)
    log.rename(box.path / "old.log")
    done = box.run(script, "reload")
    assert (done.returncode == 0) == inside, done.stderr
    if inside:
        until(log.read_text)
    else:
        assert f"it is outside the new root '{root}'" in done.stderr
        assert "copytruncate" in done.stderr


def test_a_context_opens_its_streams_anew(box: support.Sandbox) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext, DaemonError
        context = DaemonContext(
            detach_process=True, stdout="d.log", stderr="d.log", working_directory=".")
        try:
            context.reopen_streams()
        except DaemonError as error:
            assert "not open" in str(error)
        with context:
            sys.stdout.write("before, and no line")
            os.rename("d.log", "old.log")
            context.reopen_streams()
            print("after")
            print("error", file=sys.stderr)
        """)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert (box.path / "old.log").read_text() == "before, and no line"
    assert (box.path / "d.log").read_text() == "after\nerror\n"


def test_a_signal_opens_the_streams_anew(box: support.Sandbox) -> None:
    """By its name in the signal map; what fails is said in the old file, and the daemon goes on."""
    done = box.run("""
        import os, signal, sys, time
        from daemon_context import DaemonContext
        context = DaemonContext(
            detach_process=True, stdout="d.log", stderr="d.log", working_directory=".",
            signal_map={signal.SIGHUP: "reopen_streams"})
        with context:
            for name in ("first.log", "second.log"):
                print("before", name)
                os.rename("d.log", name)
                if name == "second.log":
                    os.mkdir("d.log")
                os.kill(os.getpid(), signal.SIGHUP)
            print("after")
        """)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert (box.path / "first.log").read_text() == "before first.log\n"
    said = (box.path / "second.log").read_text().splitlines()
    assert (said[0], said[-1], len(said)) == ("before second.log", "after", 3)
    assert "as stdout: Is a directory; its output goes on into the old file" in said[1]


def test_a_class_with_a_handler_of_its_own_opens_them_itself(box: support.Sandbox) -> None:
    script = box.script("""
        import os, signal
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                os.rename("d.log", "old.log")
                os.kill(os.getpid(), signal.SIGHUP)
                print("after")
            def hangup(self, number, frame):
                self.reopen_streams()
        signals = {signal.SIGHUP: "hangup"}
        D("d.pid", stdout="d.log", working_directory=".", signal_map=signals).start()
        """)  # fmt: skip
    assert box.run(script).returncode == 0
    box.settled()
    assert (box.path / "d.log").read_text() == "after\n"


def test_what_is_no_path_stays_as_it_is(box: support.Sandbox) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext
        log = open("d.log", "w")
        with DaemonContext(detach_process=True, stdout=log, working_directory=".") as context:
            os.rename("d.log", "old.log")
            context.reopen_streams()
            print("after")
        """)
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert (box.path / "old.log").read_text() == "after\n"
    assert not (box.path / "d.log").exists()
