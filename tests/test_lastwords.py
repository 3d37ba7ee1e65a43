"""What ends a daemon without stderr arrives in syslog: whole, once, one record a line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import support, tools

pytestmark = pytest.mark.root

#: In a mount namespace of its own, /dev is a directory of the sandbox, where a test can put `log`.
DEVICES = """
    for name in null zero urandom; do mount --bind /dev/$name dev/$name; done
    mount --rbind dev /dev
    exec "$@"
"""
RECORD = re.compile(r"<27>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d ([^ ]+)\[(\d+)\]: (.*)", re.DOTALL)


class Log:
    """A syslog daemon, as far as one has to be one here."""

    def __init__(self, path: Path, kind: int = socket.SOCK_DGRAM) -> None:
        self.path, self.kind = path, kind
        self.begin()

    def begin(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, self.kind)
        directory = os.open(self.path.parent, os.O_PATH)
        try:
            # The path of a socket must be short.
            self.socket.bind(f"/proc/self/fd/{directory}/{self.path.name}")
        finally:
            os.close(directory)
        if self.kind == socket.SOCK_STREAM:
            self.socket.listen()
        self.socket.settimeout(support.DEADLINE)
        self.path.chmod(0o666)

    def end(self) -> None:
        self.socket.close()
        self.path.unlink()

    def records(self, pid: int) -> list[str]:
        """All that arrives until the process is gone."""
        self.socket.setblocking(False)
        found: list[str] = []

        def gone() -> bool:
            is_gone = not support.alive(pid)  # first, because what it sent before is here
            try:
                while True:
                    record = self.socket.recv(1 << 16).decode()
                    assert record.endswith("\0")
                    found.append(record.removesuffix("\0"))
            except BlockingIOError:
                return is_gone

        support.until(gone)
        return found


@pytest.fixture
def devices(open_box: support.Sandbox) -> support.Sandbox:
    """A sandbox with a directory that becomes /dev where programs run with `prefix`."""
    (open_box.path / "dev").mkdir()
    for name in ("null", "zero", "urandom"):
        (open_box.path / "dev" / name).touch()
    return open_box


@pytest.fixture
def log(devices: support.Sandbox) -> Iterator[Log]:
    log = Log(devices.path / "dev" / "log")
    yield log
    log.socket.close()


def prefix(box: support.Sandbox) -> list[str]:
    return ["unshare", "--mount", "sh", "-ec", f"cd {box.path}; {textwrap.dedent(DEVICES)}", "sh"]


def start(
    box: support.Sandbox, body: str, options: str = "", *, pidfile: str = "pid", status: int = 0
) -> int:
    """Run a program that becomes a daemon, and ends with that status; its pid."""
    code = f"""
import os, signal, sys
from pathlib import Path
from daemon_context import DaemonContext
place = Path.cwd()
settings = dict(detach_process=True, working_directory={str(box.path)!r})
context = DaemonContext(**{{**settings, **dict({options})}})
def say_pid():
    Path("pid.tmp").write_text(str(os.getpid()))
    os.rename("pid.tmp", "pid")
{textwrap.dedent(body)}
"""
    done = box.run(code, prefix=prefix(box))
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    return box.pid(pidfile)


def lines(records: list[str], pid: int, ident: str = "program.py") -> list[str]:
    """The texts of the records, after a look at their headers."""
    texts = []
    for record in records:
        match = RECORD.fullmatch(record)
        assert match, record
        assert (match[1], match[2]) == (ident, str(pid))
        texts.append(match[3])
    return texts


def told(box: support.Sandbox, log: Log, pid: int) -> list[str]:
    """The lines that arrived from a daemon until it was gone."""
    texts = lines(log.records(pid), pid)
    box.settled()
    return texts


def is_traceback(texts: list[str], last: str) -> bool:
    """Whether the lines are one traceback, from its first line to its last, and nothing else."""
    heads = [text for text in texts if text.startswith("Traceback (most recent call last):")]
    return texts[0] in heads and len(heads) == 1 and texts[-1] == last


WITH = """
    with context:
        say_pid()
        {}
"""
BARE = """
    context.open()
    say_pid()
    {}
"""
SPAWN = """
    def target():
        say_pid()
        {}
    context.spawn(target)
"""
FRESH = """
    lines = ["import os", "def target():", "    open('pid', 'w').write(str(os.getpid()))", "    {}"]
    Path("fresh_target.py").write_text("\\n".join(lines))
    sys.path.insert(0, str(place))
    context.spawn("fresh_target:target")
"""
WAYS = {"with": WITH, "open": BARE, "spawn": SPAWN}


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_arrives_whole(devices: support.Sandbox, log: Log, way: str) -> None:
    pid = start(devices, WAYS[way].format('raise RuntimeError("out of luck")'))
    texts = told(devices, log, pid)
    assert is_traceback(texts, "RuntimeError: out of luck"), texts
    assert any('raise RuntimeError("out of luck")' in text for text in texts)


def test_an_exception_in_a_fresh_interpreter_arrives(devices: support.Sandbox, log: Log) -> None:
    pid = start(devices, FRESH.format("raise RuntimeError('out of luck')"))
    texts = lines(log.records(pid), pid, "-c")
    assert is_traceback(texts, "RuntimeError: out of luck"), texts


def test_a_chain_and_notes_arrive(devices: support.Sandbox, log: Log) -> None:
    pid = start(
        devices,
        """
        with context:
            say_pid()
            try:
                1 / 0
            except ZeroDivisionError as error:
                failure = LookupError("none left")
                failure.add_note("a note")
                failure.add_note("é\\nand ☃")
                raise failure from error
    """,
    )
    texts = told(devices, log, pid)
    assert [text for text in texts if not text.startswith(" ")] == [
        "Traceback (most recent call last):",
        "ZeroDivisionError: division by zero",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        "LookupError: none left",
        "a note",
        "é",
        "and ☃",
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["sys.exit(0)", "sys.exit(3)", "sys.exit()", "pass"])
def test_an_exit_on_purpose_says_nothing(
    devices: support.Sandbox, log: Log, way: str, end: str
) -> None:
    pid = start(devices, WAYS[way].format(end))
    assert told(devices, log, pid) == []


@pytest.mark.parametrize("way", ["with", "spawn"])
@pytest.mark.parametrize("message", ["'disk gone'", "OSError('disk gone')"])
def test_an_exit_with_a_message_arrives(
    devices: support.Sandbox, log: Log, way: str, message: str
) -> None:
    pid = start(devices, WAYS[way].format(f"sys.exit({message})"))
    texts = told(devices, log, pid)
    assert is_traceback(texts, "SystemExit: disk gone"), texts


def test_an_interrupt_arrives(devices: support.Sandbox, log: Log) -> None:
    pid = start(devices, WITH.format("raise KeyboardInterrupt"))
    assert is_traceback(told(devices, log, pid), "KeyboardInterrupt")


def test_a_requested_stop_says_nothing(devices: support.Sandbox, log: Log) -> None:
    pid = start(devices, WITH.format("context.sleep()"))
    os.kill(pid, signal.SIGTERM)
    assert told(devices, log, pid) == []


@pytest.mark.parametrize("way", WAYS)
def test_with_stderr_in_a_file_syslog_hears_nothing(
    devices: support.Sandbox, log: Log, way: str
) -> None:
    pid = start(devices, WAYS[way].format("raise RuntimeError('x')"), "stderr=place / 'errors'")
    assert told(devices, log, pid) == []
    assert (devices.path / "errors").read_text().count("RuntimeError: x\n") == 1


@pytest.mark.parametrize("options", ["", "uid='nobody'", "detach_process=False, uid='nobody'"])
def test_from_a_chroot(devices: support.Sandbox, log: Log, options: str) -> None:
    """Where neither /dev/log nor a module of Python's library is in reach."""
    (devices.path / "jail").mkdir()
    (devices.path / "jail").chmod(0o777)
    body = """
        context.chroot_directory = place / "jail"
        context.working_directory = "/"
        with context:
            say_pid()
            assert os.listdir("/") == ["pid"]
            undefined_näme
    """
    pid = start(devices, body, options, pidfile="jail/pid", status=int("False" in options))
    texts = told(devices, log, pid)
    assert is_traceback(texts, "NameError: name 'undefined_näme' is not defined"), texts


def test_an_exception_after_the_body_harms_no_file(devices: support.Sandbox, log: Log) -> None:
    pid = start(
        devices,
        """
        with context:
            say_pid()
        files = [open(place / f"file-{n}", "wb", 0) for n in range(10)]
        raise RuntimeError("too late")
    """,
    )
    texts = told(devices, log, pid)
    assert [path.stat().st_size for path in devices.path.glob("file-*")] == [0] * 10
    assert is_traceback(texts, "RuntimeError: too late"), texts


def test_an_exception_after_many_bodies_arrives_once(devices: support.Sandbox, log: Log) -> None:
    pid = start(
        devices,
        """
        with context:
            say_pid()
            for _ in range(3):
                with DaemonContext(detach_process=False):
                    pass
        again = DaemonContext(detach_process=False)
        for _ in range(3):
            with again:
                pass
        raise RuntimeError("too late")
    """,
    )
    assert is_traceback(told(devices, log, pid), "RuntimeError: too late")


def test_a_file_that_got_the_number_of_the_connection_is_spared(
    devices: support.Sandbox, log: Log
) -> None:
    pid = start(
        devices,
        """
        def reuse():
            os.closerange(3, 100)
            return [open(place / f"file-{n}", "w") for n in range(20)]
        try:
            with context:
                say_pid()
                files = reuse()
                raise RuntimeError("in the body")
        finally:
            for n, file in enumerate(files):
                file.write(str(n))
                file.close()
    """,
    )
    texts = told(devices, log, pid)
    assert is_traceback(texts, "RuntimeError: in the body"), texts
    for n in range(20):
        assert (devices.path / f"file-{n}").read_text() == str(n)


def test_a_program_without_arguments_has_a_name(devices: support.Sandbox, log: Log) -> None:
    pid = start(devices, "\n    sys.argv.clear()" + WITH.format("raise RuntimeError('no luck')"))
    assert is_traceback(lines(log.records(pid), pid, "python"), "RuntimeError: no luck")


def test_a_name_that_is_no_text_is_no_obstacle(devices: support.Sandbox, log: Log) -> None:
    body = "\n    sys.argv[0] = 'a\\udcff'" + WITH.format("raise RuntimeError('no luck')")
    pid = start(devices, body)
    assert is_traceback(lines(log.records(pid), pid, "a\\udcff"), "RuntimeError: no luck")


def test_a_failed_start_says_nothing(devices: support.Sandbox, log: Log) -> None:
    """It was told to the caller."""
    done = devices.run(
        """
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=True, readiness="explicit"):
            raise RuntimeError("not ready")
        """,
        prefix=prefix(devices),
    )
    assert "not ready" in done.stderr
    devices.settled()
    assert log.records(0) == []


def test_a_child_of_the_daemon_says_nothing(devices: support.Sandbox, log: Log) -> None:
    pid = start(
        devices,
        """
        with context:
            say_pid()
            if os.fork() == 0:
                raise RuntimeError("in a child")
            os.wait()
    """,
    )
    assert told(devices, log, pid) == []


def test_long_lines_are_split_and_none_is_lost(devices: support.Sandbox, log: Log) -> None:
    pid = start(devices, WITH.format("raise RuntimeError('aé☃\U0001f600' * 5000)"))
    texts = told(devices, log, pid)
    begin = next(n for n, text in enumerate(texts) if text.startswith("RuntimeError: "))
    assert "".join(texts[begin:]) == "RuntimeError: " + "aé☃\U0001f600" * 5000
    assert all(len(text.encode()) <= 2000 for text in texts)
    assert len(texts) > 25


def test_many_lines_arrive_in_order(devices: support.Sandbox, log: Log) -> None:
    """More than a socket's queue holds: the daemon waits for the log, and loses none."""
    pid = start(devices, WITH.format(r"raise RuntimeError('\n'.join(map(str, range(3000))))"))
    texts = told(devices, log, pid)
    begin = texts.index("RuntimeError: 0")
    assert texts[begin + 1 :] == [str(number) for number in range(1, 3000)]


def test_a_stuck_syslog_daemon_does_not_keep_the_daemon(devices: support.Sandbox, log: Log) -> None:
    """It reads nothing; the daemon gives up after some seconds."""
    pid = start(devices, WITH.format(r"raise RuntimeError('\n'.join(map(str, range(3000))))"))
    support.gone(pid)
    assert len(log.records(pid)) < 3000


WAITING = """
    with context:
        say_pid()
        context.sleep()
        raise RuntimeError("out of luck")
"""


def test_a_new_syslog_daemon_gets_them(devices: support.Sandbox, log: Log) -> None:
    pid = start(devices, WAITING, "signal_map={signal.SIGTERM: 'request_stop'}")
    log.end()
    log.begin()
    os.kill(pid, signal.SIGTERM)
    texts = told(devices, log, pid)
    assert is_traceback(texts, "RuntimeError: out of luck"), texts


@pytest.mark.parametrize("again", [False, True])
def test_without_a_syslog_daemon_the_daemon_ends_all_the_same(
    devices: support.Sandbox, log: Log, again: bool
) -> None:
    """Gone since the start (its socket's name as well, or not), or never there."""
    pid = start(devices, WAITING, "signal_map={signal.SIGTERM: 'request_stop'}")
    log.socket.close()
    if again:
        log.path.unlink()
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    (devices.path / "pid").unlink()
    support.gone(start(devices, WITH.format("raise RuntimeError('x')")))


def test_a_stream_gets_records_that_can_be_told_apart(devices: support.Sandbox) -> None:
    log = Log(devices.path / "dev" / "log", socket.SOCK_STREAM)
    pid = start(devices, WITH.format("raise RuntimeError('out of luck')"))
    with log.socket, log.socket.accept()[0] as connection:
        data = b""
        while chunk := connection.recv(1 << 16):
            data += chunk
    *records, rest = data.decode().split("\0")  # as syslog(3) ends them
    assert rest == ""
    assert is_traceback(lines(records, pid), "RuntimeError: out of luck")


def test_a_stream_whose_reader_is_gone_does_not_kill_by_sigpipe(devices: support.Sandbox) -> None:
    log = Log(devices.path / "dev" / "log", socket.SOCK_STREAM)
    pid = start(
        devices,
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n" + textwrap.dedent(WAITING),
        "signal_map={signal.SIGTERM: 'request_stop'}",
    )
    log.socket.accept()[0].close()
    log.end()
    log.begin()
    os.kill(pid, signal.SIGTERM)
    with log.socket, log.socket.accept()[0] as connection:
        data = b""
        while chunk := connection.recv(1 << 16):
            data += chunk
    records = data.decode().split("\0")[:-1]
    assert is_traceback(lines(records, pid), "RuntimeError: out of luck")


FULL = """
    with context:
        say_pid()
        context.sleep()
        kept = []
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
"""


@pytest.mark.parametrize("again", [False, True])
def test_a_daemon_that_has_run_out_of_descriptors_says_so(
    devices: support.Sandbox, log: Log, again: bool
) -> None:
    """Also where the log daemon was started anew since."""
    body = "import resource\n" + textwrap.dedent(FULL)
    pid = start(devices, body, "signal_map={signal.SIGTERM: 'request_stop'}, pidfile='d.pid'")
    if again:
        log.end()
        log.begin()
    os.kill(pid, signal.SIGTERM)
    texts = told(devices, log, pid)
    assert is_traceback(texts, "OSError: [Errno 24] Too many open files: '/dev/null'"), texts
    assert not (devices.path / "d.pid").exists()


# --- Debian's rsyslogd

RSYSLOG = """
module(load="imuxsock" SysSock.RateLimit.Interval="0")
template(name="plain" type="string" string="%programname%|%procid%|%syslogpriority-text%|%msg%\\n")
action(type="omfile" file="{place}/syslog" template="plain")
"""


def begin_rsyslogd(box: support.Sandbox) -> subprocess.Popen[str]:
    """In the foreground, in a mount namespace; its /dev/log is in the sandbox."""
    conf, log = box.path / "rsyslog.conf", box.path / "dev" / "log"
    conf.write_text(RSYSLOG.format(place=box.path))
    log.unlink(missing_ok=True)  # a former one's, which nobody would read
    program = tools.find("rsyslogd")
    daemon = subprocess.Popen(
        [*prefix(box), program, "-n", "-f", str(conf), "-i", f"{box.path}/rsyslog.pid"],
        env=box.environ, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    box.started.append(daemon)
    support.until(lambda: log.is_socket() or daemon.poll() is not None)
    assert daemon.poll() is None, daemon.communicate()
    return daemon


def logged(box: support.Sandbox, pid: int, last: str) -> list[str]:
    """The lines that rsyslogd has written, as soon as the last one is there."""
    path = box.path / "syslog"
    support.until(lambda: path.exists() and path.read_text().endswith(f"{last}\n"))
    rows = [line.split("|", 3) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row[0] != "rsyslogd"]  # it tells that it has started
    assert {(row[0], row[1], row[2]) for row in rows} == {("program.py", str(pid), "err")}
    return [row[3].removeprefix(" ") for row in rows]


def test_rsyslogd_writes_them(devices: support.Sandbox) -> None:
    """Whole, in order, from a chroot, and as a user without privileges."""
    begin_rsyslogd(devices)
    (devices.path / "jail").mkdir()
    (devices.path / "jail").chmod(0o777)
    body = """
        context.chroot_directory = place / "jail"
        context.working_directory = "/"
        with context:
            say_pid()
            raise RuntimeError("first\\n" + "é☃" * 3000 + "\\nlast")
    """
    pid = start(devices, body, "uid='nobody'", pidfile="jail/pid")
    texts = logged(devices, pid, "last")
    assert texts[0] == "Traceback (most recent call last):"
    begin = texts.index("RuntimeError: first")
    assert texts[-1] == "last"
    assert "".join(texts[begin + 1 : -1]) == "é☃" * 3000


def test_a_restarted_rsyslogd_writes_them(devices: support.Sandbox) -> None:
    rsyslogd = begin_rsyslogd(devices)
    pid = start(devices, WAITING, "signal_map={signal.SIGTERM: 'request_stop'}")
    rsyslogd.terminate()
    rsyslogd.wait(support.DEADLINE)
    begin_rsyslogd(devices)
    os.kill(pid, signal.SIGTERM)
    texts = logged(devices, pid, "RuntimeError: out of luck")
    assert is_traceback(texts, "RuntimeError: out of luck"), texts


# --- threads, exit handlers, and the foreground

THREADS = {
    "thread": """
        import threading
        def work(): raise RuntimeError("out of luck")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """,
    "thread of before": """
        import time
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """,
    "raw thread": """
        import _thread, time
        def work():
            try:
                raise RuntimeError("out of luck")
            finally:
                done.append(1)
        done = []
        _thread.start_new_thread(work, ())
        while not done: time.sleep(0.01)
        time.sleep(0.1)
    """,
    "exit handler": """
        import atexit
        def work(): raise RuntimeError("out of luck")
        atexit.register(work)
    """,
}


@pytest.mark.parametrize("way", [*WAYS, "class"])
@pytest.mark.parametrize("kind", THREADS)
def test_exceptions_in_threads_and_exit_handlers_arrive(
    devices: support.Sandbox, log: Log, way: str, kind: str
) -> None:
    code = textwrap.indent(textwrap.dedent(THREADS[kind]).strip(), " " * 8)
    before = "import threading\ndef work(): raise RuntimeError('out of luck')\n"
    body = {
        "with": "with context:\n        say_pid()\n",
        "open": "context.open()\nif 1:\n        say_pid()\n",
        "spawn": "def target():\n        say_pid()\n",
        "class": "from daemon_context import Daemon\n"
        "class D(Daemon):\n    def run(self):\n        say_pid()\n",
    }[way]
    after = {
        "spawn": "\ncontext.spawn(target)",
        "class": "\nD('d.pid', working_directory='.').start()",
    }.get(way, "")
    pid = start(devices, (before if "before" in kind else "") + body + code + after)
    texts = told(devices, log, pid)
    assert is_traceback(texts, "RuntimeError: out of luck"), texts


def test_what_ends_nothing_says_nothing(devices: support.Sandbox, log: Log) -> None:
    pid = start(
        devices,
        """
        import threading
        class Thing:
            def __del__(self):
                raise RuntimeError("ends nothing")
        with context:
            say_pid()
            Thing()
            thread = threading.Thread(target=sys.exit, args=("on purpose",))
            thread.start()
            thread.join()
    """,
    )
    assert told(devices, log, pid) == []


FOREGROUND = {
    "context": "with DaemonContext(detach_process=False): work()",
    "supervised": """
        from daemon_context.manager import Supervisor, supervisor
        supervisor.detect = lambda: Supervisor("a test", False, "it says so")
        with DaemonContext() as context:
            work()
    """,
    "class": """
        from daemon_context import Daemon
        class D(Daemon):
            def run(self):
                work()
        sys.exit(D("d.pid").run_foreground())
    """,
    "descriptor": "with DaemonContext(detach_process=False, stderr=sys.stderr): work()",
}


@pytest.mark.parametrize("stderr", ["2>/dev/null", "2>errors", "2>&-"])
@pytest.mark.parametrize("kind", FOREGROUND)
def test_in_the_foreground_as_well(
    devices: support.Sandbox, log: Log, kind: str, stderr: str
) -> None:
    if stderr == "2>&-" and kind == "descriptor":
        pytest.skip("there is no sys.stderr")
    script = devices.script(
        "import os, sys\nfrom pathlib import Path\nfrom daemon_context import DaemonContext\n"
        "def work():\n"
        f"    Path({str(devices.path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    raise RuntimeError('out of luck')\n" + textwrap.dedent(FOREGROUND[kind])
    )
    done = devices.run(script, prefix=[*prefix(devices), "sh", "-c", f'exec "$@" {stderr}', "sh"])
    assert done.returncode == 1, done
    pid = devices.pid("pid")
    texts = told(devices, log, pid)
    heard = stderr == "2>errors" and kind != "context"
    assert heard == (texts == []), texts
    assert heard or is_traceback(texts, "RuntimeError: out of luck"), texts


def test_an_exit_handlers_arrive_from_a_chroot(devices: support.Sandbox, log: Log) -> None:
    (devices.path / "jail").mkdir()
    body = """
        import atexit
        def work():
            raise RuntimeError("out of luck")
        atexit.register(work)
        context.chroot_directory = place / "jail"
        context.working_directory = "/"
        with context:
            say_pid()
    """
    pid = start(devices, body, pidfile="jail/pid")
    texts = told(devices, log, pid)
    assert is_traceback(texts, "RuntimeError: out of luck"), texts
