"""What ends a daemon without stderr arrives in syslog: whole, once, one record a line."""

from __future__ import annotations

import os
import signal
import socket
import textwrap

import pytest

from tests.helpers import support
from tests.helpers.syslog import WAITING, WAYS, WITH, Log, is_traceback, lines, prefix, start, told

pytestmark = pytest.mark.root

FRESH = """
    lines = ["import os", "def target():", "    open('pid', 'w').write(str(os.getpid()))", "    {}"]
    Path("fresh_target.py").write_text("\\n".join(lines))
    sys.path.insert(0, str(place))
    context.spawn("fresh_target:target")
"""


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
