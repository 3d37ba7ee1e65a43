# ruff: noqa: SIM115 - that the files stay open is what this is about
"""Descriptors that handlers of logging hold."""

from __future__ import annotations

import logging
import logging.handlers
import os
import pickle
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.helpers.holders.cases import EARLY, LATE, Made, holder


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
