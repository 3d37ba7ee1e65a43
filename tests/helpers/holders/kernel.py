"""Sockets, and what else the kernel has beside files."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
from pathlib import Path

from tests.helpers.holders.cases import EARLY, LATE, Made, holder, opened

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
