"""A file system that stands still when it is told to: a FUSE server, by hand (fuse(4)).

One directory with one file, ``log``. Run as a program it mounts itself on the path that it gets,
and stops answering, for good, on SIGUSR1.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import struct
import sys

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, WRITE = 1, 2, 3, 4, 14, 16
RELEASE, INIT, OPENDIR, RELEASEDIR, ACCESS, ENOSYS = 18, 26, 27, 29, 34, 38
ROOT, LOG = 1, 2
HEADER = struct.Struct("<IIQQIIII")


def attributes(node: int) -> bytes:
    """``struct fuse_attr``: 88 bytes."""
    mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o666
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(code: int, node: int, body: bytes) -> bytes | int | None:
    """What is sent back: a body, an error number, or None for nothing at all."""
    if code == INIT:
        major, _, ahead, _ = struct.unpack_from("<4I", body)
        return struct.pack("<4I2H8I", major, 31, ahead, 0, 0, 0, 4096, *[0] * 7)
    if code == LOOKUP:
        if body.rstrip(b"\0") != b"log":
            return 2  # ENOENT
        return struct.pack("<4Q2I", LOG, 0, 0, 0, 0, 0) + attributes(LOG)
    if code in (GETATTR, SETATTR):
        return struct.pack("<Q2I", 0, 0, 0) + attributes(node)
    if code in (OPEN, OPENDIR):
        return struct.pack("<Q2I", 0, 0, 0)
    if code == WRITE:
        return struct.pack("<2I", struct.unpack_from("<QQI", body)[2], 0)
    if code in (RELEASE, RELEASEDIR, ACCESS):
        return b""
    # FLUSH too: the kernel asks for it no more, and a process that is killed can end.
    return None if code == FORGET else ENOSYS


def serve(fd: int) -> None:
    """Answer until the file system is unmounted."""
    while True:
        try:
            request = os.read(fd, 1 << 20)
        except OSError:  # ENODEV: unmounted
            return
        _, code, unique, node, *_ = HEADER.unpack_from(request)
        reply = answer(code, node, request[HEADER.size :])
        if reply is None:
            continue
        error, body = (-reply, b"") if isinstance(reply, int) else (0, reply)
        os.write(fd, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


def stand_still(*_: object) -> None:
    """Hold what comes, and answer nothing."""
    print("still", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    target = sys.argv[1].encode()
    if libc.mount(b"test", target, b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    signal.signal(signal.SIGUSR1, stand_still)
    print(os.getpid(), flush=True)
    serve(device)
