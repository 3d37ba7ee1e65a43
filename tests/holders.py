# ruff: noqa: SIM115 - that the files stay open is what this is about
"""Imported by the programs that tests start: objects that hold descriptors, opened before the
context and used after it, and a daemon made by hand to compare with.
"""

from __future__ import annotations

import bz2
import codecs
import ctypes
import gc
import gzip
import io
import logging
import logging.handlers
import mmap
import os
import pickle
import queue
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from daemon_context import DaemonContext

from .launching import report

Made = tuple[list[Any], Callable[[], object]]
FRESH = 40  # new files in the daemon: more than there are numbers that could be free

EARLY, LATE = "early\n", "late\n"


class Case(NamedTuple):
    """What to preserve, and how it is used late; what the file ``old`` has to contain then."""

    make: Callable[[], Made]
    early: str | None
    late: str | None
    kind: str


CASES: dict[str, Case] = {}


def holder(
    early: str | None = EARLY, late: str | None = EARLY + LATE, kind: str = "given"
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Add a case.

    :param early: what ``old`` contains when nothing is preserved; None: there is no such file
    :param late: what it contains when all is preserved and was used
    :param kind: ``given``: late use raises unless preserved; ``logging``: preserved by default;
        ``always``: late use works in any case
    """

    def add(make: Callable[[], Made]) -> Callable[[], Made]:
        CASES[make.__name__] = Case(make, early, late, kind)
        return make

    return add


def opened(pattern: str) -> list[int]:
    """The descriptors whose link in /proc contains the pattern."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if pattern in os.readlink(f"/proc/self/fd/{name}"):
                found.append(int(name))
        except OSError:  # the listing's own
            pass
    return found


# --- files


def _file(file: Any, *, early: Any = EARLY, late: Any = LATE) -> Made:
    file.write(early)

    def use() -> None:
        file.write(late)
        file.flush()

    return [file], use


@holder()
def text() -> Made:
    return _file(open("old", "w"))


@holder()
def line_buffered() -> Made:
    return _file(open("old", "w", buffering=1))


@holder()
def binary() -> Made:
    return _file(open("old", "wb"), early=b"early\n", late=b"late\n")


@holder()
def unbuffered() -> Made:
    return _file(open("old", "wb", 0), early=b"early\n", late=b"late\n")


@holder()
def random_access() -> Made:
    return _file(open("old", "w+b"), early=b"early\n", late=b"late\n")


@holder()
def appending() -> Made:
    return _file(open("old", "a+"))


@holder("early\nlate\n")
def reading() -> Made:
    Path("old").write_text("early\nlate\n")
    file = open("old")
    file.readline()

    def use() -> None:
        assert file.readline() == LATE

    return [file], use


@holder()
def detached_buffer() -> Made:
    return _file(open("old", "w").detach(), early=b"early\n", late=b"late\n")


@holder()
def by_codecs() -> Made:
    return _file(codecs.open("old", "w", "utf-8"))


@holder(None, None)
def gzipped() -> Made:
    file = gzip.open("old.gz", "wt")
    file.write(EARLY)

    def use() -> None:
        file.write(LATE)
        file.close()
        assert gzip.decompress(Path("old.gz").read_bytes()) == b"early\nlate\n"

    return [file], use


@holder(None, None)
def bzipped() -> Made:
    file = bz2.open("old.bz2", "wb")
    file.write(b"early\n")

    def use() -> None:
        file.write(b"late\n")
        file.close()
        assert bz2.decompress(Path("old.bz2").read_bytes()) == b"early\nlate\n"

    return [file], use


@holder(None, None)
def zipped() -> Made:
    archive = zipfile.ZipFile("old.zip", "w")
    archive.writestr("early", EARLY)

    def use() -> None:
        archive.writestr("late", LATE)
        archive.close()
        assert zipfile.ZipFile("old.zip").namelist() == ["early", "late"]

    return [archive.fp], use


@holder(None, None)
def named_temporary() -> Made:
    file = tempfile.NamedTemporaryFile("w", dir=".")
    file.write(EARLY)

    def use() -> None:
        file.write(LATE)
        file.flush()
        assert Path(file.name).read_text() == EARLY + LATE

    return [file], use


@holder(None, None)
def temporary() -> Made:
    file = tempfile.TemporaryFile("w+")
    file.write(EARLY)

    def use() -> None:
        file.write(LATE)
        file.seek(0)
        assert file.read() == EARLY + LATE

    return [file], use


@holder(None, None, "always")
def spooled_in_memory() -> Made:
    """Beside a descriptor that makes the library look for files."""
    os.open(".", os.O_RDONLY)
    file = tempfile.SpooledTemporaryFile(1000, "w+", dir=".")
    file.write(EARLY)

    def use() -> None:
        assert not file._rolled  # type: ignore[attr-defined]
        file.write(LATE)
        file.seek(0)
        assert file.read() == EARLY + LATE

    return [], use


@holder(None, None)
def spooled_on_disk() -> Made:
    file = tempfile.SpooledTemporaryFile(1, "w+", dir=".")
    file.write(EARLY)

    def use() -> None:
        file.write(LATE)
        file.seek(0)
        assert file.read() == EARLY + LATE

    return [file.fileno()], use


@holder()
def frozen_heap() -> Made:
    made = _file(open("old", "w"))
    gc.freeze()
    return made


@holder("")
def numbers_only() -> Made:
    fd = os.open("old", os.O_WRONLY | os.O_CREAT)

    def use() -> None:
        os.write(fd, b"early\nlate\n")

    return [fd], use


class Deleter:
    """Owns a number, and closes it when it is collected."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT)

    def __del__(self) -> None:
        os.close(self.fd)


@holder("")
def deleter() -> Made:
    owner = Deleter("old")
    return [owner.fd], lambda: os.write(owner.fd, b"early\nlate\n")


@holder()
def copied_number() -> Made:
    file = open("old", "w")
    made = _file(file)
    copy = os.dup(file.fileno())

    def use() -> None:
        try:
            made[1]()
        finally:
            os.write(copy, b"")

    return [file, copy], use


@holder()
def borrowed_number() -> Made:
    fd = os.open("old", os.O_WRONLY | os.O_CREAT)
    return _file(open(fd, "w", closefd=False))


@holder()
def borrowed_from_a_file() -> Made:
    """The wrapper outlives the number that it borrowed, and must not write to the next file."""
    file = open("old", "wb", 0)
    preserve, use = _file(open(file.fileno(), "w", closefd=False))
    return [*preserve, file], use


@holder()
def two_owners() -> Made:
    first = open("old", "wb", 0)
    second = open(first.fileno(), "wb")
    made = _file(second, early=b"early\n", late=b"late\n")

    def use() -> None:
        made[1]()
        first.write(b"")

    return [first, second], use


class OwnFile(io.FileIO):
    """A user's file: odd, but within its rights."""

    def close(self) -> None:
        if not self.closed:
            Path("closed").touch()
        super().close()

    def flush(self) -> None:
        super().flush()


class OwnRaw(io.RawIOBase):
    """A user's raw file of a number that only it knows about."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_WRONLY | os.O_CREAT)

    def fileno(self) -> int:
        return self.number

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return os.write(self.number, data)

    def close(self) -> None:
        if not self.closed:
            os.close(self.number)
        super().close()


@holder()
def own_file() -> Made:
    return _file(io.BufferedWriter(OwnFile("old", "w")), early=b"early\n", late=b"late\n")


@holder()
def own_raw() -> Made:
    return _file(io.BufferedWriter(OwnRaw("old")), early=b"early\n", late=b"late\n")


class Lazy:
    """A proxy that isn't bound yet: whoever asks for its class, or anything else, gets an error."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("working outside of a context")


class LazyFile(io.FileIO):
    """The same, and a file."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a context")

    def writable(self) -> bool:
        raise RuntimeError("working outside of a context")


@holder()
def lazy_proxies() -> Made:
    proxies = [Lazy(), LazyFile("/dev/null", "w"), io.TextIOWrapper.__new__(io.TextIOWrapper)]
    preserve, use = _file(open("old", "w"))
    return preserve, lambda: (use(), proxies)


@holder(None, None)
def stdio_of_c() -> Made:
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(b"old", b"w"))
    libc.fputs(b"early\n", file)

    def use() -> None:
        if libc.fputs(b"late\n", file) < 0 or libc.fflush(file):
            raise OSError("fflush failed")

    return opened("/old"), use


# --- sockets


@holder(None, None)
def socket_pair() -> Made:
    one, other = socket.socketpair()

    def use() -> None:
        one.sendall(b"late")
        assert other.recv(100) == b"late"

    return [one, other], use


@holder(None, None)
def made_files() -> Made:
    one, other = socket.socketpair()
    writer, reader = one.makefile("w"), other.makefile("r")
    writer.write(EARLY)

    def use() -> None:
        writer.write(LATE)
        writer.flush()
        assert (reader.readline(), reader.readline()) == (EARLY, LATE)

    return [one, other], use


@holder(None, None)
def made_file_for_both_ways() -> Made:
    """The only one that is left of its socket."""
    one, other = socket.socketpair()
    both = one.makefile("rw")
    fd = one.fileno()
    one.close()
    both.write(EARLY)

    def use() -> None:
        both.write(LATE)
        both.flush()
        assert other.recv(100) == b"early\nlate\n"

    return [fd, other], use


@holder(None, None)
def listening_socket() -> Made:
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()

    def use() -> None:
        with socket.create_connection(address), server.accept()[0]:
            pass

    return [server], use


@holder(None, None)
def datagram_socket() -> Made:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    address = one.getsockname()

    def use() -> None:
        one.sendto(b"late", address)
        assert one.recv(100) == b"late"

    return [one], use


@holder(None, None)
def two_sockets_of_one_number() -> Made:
    one, other = socket.socketpair()
    twin = socket.socket(fileno=one.fileno())

    def use() -> None:
        twin.sendall(b"late")
        assert other.recv(100) == b"late"

    return [one, other, twin], use


# --- what the kernel has beside files


@holder(None, None)
def epoll() -> Made:
    poller, (one, other) = select.epoll(), socket.socketpair()
    poller.register(one.fileno(), select.EPOLLOUT)

    def use() -> None:
        assert [fd for fd, _ in poller.poll(0)] == [one.fileno()], other

    return [poller, one, other], use


@holder(None, None)
def inotify() -> Made:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(0)

    def use() -> None:
        if libc.inotify_add_watch(fd, b".", 0x100) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        Path("watched").touch()
        assert os.read(fd, 100)

    return [fd], use


@holder(None, None)
def scandir() -> Made:
    """With more entries than the C library reads in advance."""
    os.mkdir("many")
    for number in range(1200):
        os.close(os.open(f"many/{'long' * 10}{number}", os.O_CREAT | os.O_WRONLY))
    entries = os.scandir("many")
    next(entries)

    def use() -> None:
        assert len(list(entries)) == 1199

    return opened("/many"), use


@holder("early\n")
def memory_map() -> Made:
    Path("old").write_text(EARLY)
    with open("old", "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)

    def use() -> None:
        assert memory[:] == b"early\n"
        memory.resize(11)
        memory[6:] = b"late\n"
        memory.flush()

    return opened("/old"), use


@holder(None, None)
def path_only() -> Made:
    os.mkdir("place")
    Path("place/file").write_text(EARLY)
    fd = os.open("place", os.O_PATH)
    return [fd], lambda: os.close(os.open("file", os.O_RDONLY, dir_fd=fd))


@holder(None, None)
def pipe() -> Made:
    reader, writer = os.pipe()

    def use() -> None:
        os.write(writer, b"late")
        assert os.read(reader, 100) == b"late"

    return [reader, writer], use


@holder(None, None)
def event() -> Made:
    fd = os.eventfd(0)

    def use() -> None:
        os.eventfd_write(fd, 1)
        assert os.eventfd_read(fd) == 1

    return [fd], use


@holder(None, None)
def pseudo_terminal() -> Made:
    master, slave = os.openpty()

    def use() -> None:
        os.write(slave, b"late")
        assert os.read(master, 100) == b"late"

    return [master, slave], use


# --- libraries


def _row(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("insert into lines values (?)", (text,))
    connection.commit()


def _sqlite(journal: str) -> Made:
    connection = sqlite3.connect("old.db")
    connection.execute(f"pragma journal_mode={journal}")
    connection.execute("create table lines (text)")
    _row(connection, EARLY)

    def use() -> None:
        _row(connection, LATE)

    return opened("/old.db"), use


@holder(None, None)
def sqlite() -> Made:
    return _sqlite("delete")


@holder(None, None)
def sqlite_wal() -> Made:
    return _sqlite("wal")


@holder(None, None)
def event_loop() -> Made:
    import asyncio  # which, from 3.12 on, resets the wake-up descriptor in every forked process

    loop = asyncio.new_event_loop()
    parts = [loop._selector, loop._ssock, loop._csock]  # type: ignore[attr-defined]

    def use() -> None:
        loop.call_later(0, loop.call_soon_threadsafe, print)
        loop.run_until_complete(asyncio.sleep(0.001))

    return parts, use


@holder()
def program_fed_by_a_pipe() -> Made:
    with open("old", "w") as old:
        program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=old, text=True)
    return _file(program.stdin)


@holder(None, None)
def program_read_by_a_pipe() -> Made:
    program = subprocess.Popen(["echo", "late"], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    stdout = program.stdout

    def use() -> None:
        assert stdout.read() == LATE

    return [stdout], use


@holder(None, None)
def wakeup() -> Made:
    reader, writer = os.pipe()
    for fd in (reader, writer):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGUSR1, lambda *_: None)

    def use() -> None:
        signal.raise_signal(signal.SIGUSR1)
        assert os.read(reader, 10) == bytes([signal.SIGUSR1])

    return [reader, writer], use


def _crash() -> None:
    import faulthandler

    pid = os.fork()
    if not pid:
        faulthandler._sigsegv()  # type: ignore[attr-defined]
    os.waitpid(pid, 0)


@holder(None, None, "always")
def crash_dump_to_a_file() -> Made:
    import faulthandler

    crashes = open("old", "w")
    faulthandler.enable(file=crashes)

    def use() -> None:
        _crash()
        assert Path("old").read_text().startswith("Fatal Python error: Segmentation fault")

    return [], use


@holder("", "", "always")
def crash_dump_to_a_number() -> Made:
    """Reserved: the dump goes nowhere, rather than into data."""
    import faulthandler

    fd = os.open("old", os.O_WRONLY | os.O_CREAT)
    faulthandler.enable(file=fd)

    return [], _crash


@holder(None, None, "always")
def dump_on_demand() -> Made:
    import faulthandler

    dumps = open("old", "w")
    faulthandler.register(signal.SIGUSR1, file=dumps)

    def use() -> None:
        signal.raise_signal(signal.SIGUSR1)
        assert "most recent call first" in Path("old").read_text()

    return [], use


@holder(None, None)
def crash_dump_to_stderr() -> Made:
    import faulthandler

    faulthandler.enable()
    made = numbers_only()

    def use() -> None:
        _crash()
        made[1]()

    return made[0], use


@holder(None, None)
def crash_dump_off() -> Made:
    import faulthandler

    faulthandler.enable()
    faulthandler.disable()
    made = numbers_only()

    def use() -> None:
        _crash()
        made[1]()

    return made[0], use


# --- logging


def _log(handler: logging.Handler, text: str) -> None:
    handler.handle(logging.LogRecord("name", logging.ERROR, "path", 1, text, None, None))


def _raising(handler: Any) -> Any:
    """A handler that raises, instead of printing to a stderr that nobody sees."""

    def raise_it(record: object) -> None:
        raise

    handler.handleError = raise_it
    return handler


def _handler(handler: Any) -> Made:
    _raising(handler)
    _log(handler, "early")
    return [], lambda: _log(handler, "late")


@holder(kind="logging")
def file_handler() -> Made:
    return _handler(logging.FileHandler("old"))


@holder(kind="logging")
def watched_handler() -> Made:
    return _handler(logging.handlers.WatchedFileHandler("old"))


@holder(kind="logging")
def timed_handler() -> Made:
    return _handler(logging.handlers.TimedRotatingFileHandler("old", when="D"))


@holder(kind="logging")
def stream_handler_on_a_file() -> Made:
    return _handler(logging.StreamHandler(open("old", "w")))


@holder(EARLY, LATE, "logging")
def rotating_handler() -> Made:
    return _handler(logging.handlers.RotatingFileHandler("old", maxBytes=8, backupCount=1))


@holder(None, LATE, "always")
def delayed_handler() -> Made:
    handler = _raising(logging.FileHandler("old", delay=True))
    return [], lambda: _log(handler, "late")


@holder(None, EARLY + LATE, "always")
def memory_handler_not_yet_open() -> Made:
    handler = logging.handlers.MemoryHandler(10, target=logging.FileHandler("old", delay=True))
    handler.flushLevel = logging.CRITICAL
    _log(handler, "early")

    def use() -> None:
        _log(handler, "late")
        handler.flush()

    return [], use


@holder("", kind="logging")
def memory_handler() -> Made:
    target = _raising(logging.FileHandler("old"))
    handler = _raising(logging.handlers.MemoryHandler(10, logging.CRITICAL, target))
    _log(handler, "early")

    def use() -> None:
        _log(handler, "late")
        handler.flush()

    return [], use


@holder(None, None, "always")
def buffering_handler() -> Made:
    handler = logging.handlers.BufferingHandler(10)
    _log(handler, "early")

    def use() -> None:
        _log(handler, "late")
        assert len(handler.buffer) == 2

    return [], use


@holder(None, None, "always")
def null_handler() -> Made:
    handler = logging.NullHandler()
    return [], lambda: _log(handler, "late")


@holder(None, None, "always")
def mail_handler() -> Made:
    handler = logging.handlers.SMTPHandler(("127.0.0.1", 9), "me", "you", "subject")
    return [], lambda: handler.getSubject(None)  # type: ignore[arg-type]


@holder(None, None, "always")
def stderr_handler() -> Made:
    handler = _raising(logging.StreamHandler())
    return [], lambda: _log(handler, "late")


@holder(None, None)
def pipe_handler() -> Made:
    reader, writer = os.pipe()
    handler = _raising(logging.StreamHandler(open(writer, "w")))

    def use() -> None:
        _log(handler, "late")
        assert os.read(reader, 100) == b"late\n"

    return [reader, handler.stream], use


def _received(handler: Any, receive: Callable[[], bytes]) -> Callable[[], None]:
    def use() -> None:
        _log(handler, "late")
        if not (received := receive()):
            raise EOFError("the peer has closed")  # as it seems where the connection was not kept
        assert b"late" in received

    return use


@holder(None, None, "logging")
def syslog_handler() -> Made:
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("log")
    handler = _raising(logging.handlers.SysLogHandler("log"))
    return [log], _received(handler, lambda: log.recv(1000))


@holder(None, None, "logging")
def datagram_handler() -> Made:
    log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    log.bind(("127.0.0.1", 0))
    handler = _raising(logging.handlers.DatagramHandler(*log.getsockname()))
    _log(handler, "early")
    log.recv(1000)
    return [log], _received(handler, lambda: log.recv(1000))


@holder(None, None, "logging")
def socket_handler() -> Made:
    with socket.create_server(("127.0.0.1", 0)) as server:
        handler = _raising(logging.handlers.SocketHandler(*server.getsockname()))
        _log(handler, "early")
        log = server.accept()[0]
    assert pickle.loads(log.recv(1000)[4:])["msg"] == "early"
    return [log], _received(handler, lambda: log.recv(1000))


@holder(None, None)
def web_handler() -> Made:
    """Connects for each record: only its listener here has a descriptor."""
    server = socket.create_server(("127.0.0.1", 0))
    address = "{}:{}".format(*server.getsockname())
    handler = _raising(logging.handlers.HTTPHandler(address, "/log"))

    def answer() -> None:
        with server.accept()[0] as connection:
            connection.recv(10000)
            connection.sendall(b"HTTP/1.0 204 No Content\r\n\r\n")

    def use() -> None:
        thread = threading.Thread(target=answer, daemon=True)
        server.fileno() >= 0 and thread.start()
        _log(handler, "late")
        thread.join()

    return [server], use


@holder(kind="logging")
def queue_listener() -> Made:
    """Its thread has ended before, and begins anew in the daemon."""
    records: Any = queue.SimpleQueue()
    handler, target = logging.handlers.QueueHandler(records), logging.FileHandler("old")
    listener = logging.handlers.QueueListener(records, _raising(target))
    listener.start()
    _log(handler, "early")
    listener.stop()

    def use() -> None:
        target.stream.write("")
        listener.start()
        _log(handler, "late")
        listener.stop()

    return [], use


# --- daemons


def double_fork() -> None:
    """As the tutorials do it: two forks, and everything closed that a number can stand for."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(0)
    for fd in range(os.sysconf("SC_OPEN_MAX")):
        try:
            os.close(fd)
        except OSError:
            pass
    os.open(os.devnull, os.O_RDWR)
    os.dup2(0, 1)
    os.dup2(0, 2)


def examine(name: str, how: str) -> None:
    """Make the objects, become a daemon, open new files, use the objects, and collect them."""
    case = CASES[name]
    preserve, use = case.make()
    closed: list[Any] = []
    if how == "naive":
        double_fork()
    else:
        # Event loops and children from before are what this is about: see test_past for the words.
        warnings.simplefilter("ignore", RuntimeWarning)
        context = DaemonContext(
            working_directory=".",
            detach_process=True,
            files_preserve=preserve if how == "preserved" and case.kind != "always" else None,
            preserve_logging=how == "preserved",
            threads="ignore",  # one that was joined may need a moment to end
        )
        context.open()
        closed = [(item.fd, item.what, item.owner) for item in context.closed_descriptors]
    fresh = {
        os.open(f"fresh-{number}", os.O_RDWR | os.O_CREAT | os.O_EXCL): f"fresh-{number}"
        for number in range(FRESH)
    }
    try:
        use()
        used = ""
    except Exception as error:
        used = f"{type(error).__name__}: {error}"
    del preserve, use, case
    CASES.clear()
    gc.collect()
    spoilt = [path for fd, path in fresh.items() if not _intact(fd, path)]
    report("result", {"used": used, "spoilt": spoilt, "closed": closed, "fresh": list(fresh)})


def _intact(fd: int, path: str) -> bool:
    try:
        found, wanted = os.fstat(fd), os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino, found.st_size) == (wanted.st_dev, wanted.st_ino, 0)


def examine_all(how: str, names: list[str]) -> None:
    """Each in a launcher and a directory of its own. The imports are the same for all."""
    for name in names:
        os.mkdir(name)
        pid = os.fork()
        if not pid:
            os.chdir(name)
            error = os.open("stderr", os.O_WRONLY | os.O_CREAT)
            os.dup2(error, 2)
            os.close(error)
            examine(name, how)
            return  # the daemon: the interpreter's end may still write somewhere
        status = os.waitpid(pid, 0)[1]
        with open(f"{name}/status", "w") as file:
            file.write(str(status))


if __name__ == "__main__":
    examine_all(sys.argv[1], sys.argv[2:])
