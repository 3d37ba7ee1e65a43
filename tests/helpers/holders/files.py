# ruff: noqa: SIM115 - that the files stay open is what this is about
"""Files of every kind."""

from __future__ import annotations

import bz2
import codecs
import ctypes
import gc
import gzip
import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tests.helpers.holders.cases import EARLY, LATE, Made, _file, holder, opened


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
