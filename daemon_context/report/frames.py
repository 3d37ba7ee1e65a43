"""Frames: a kind, a length and JSON, from a process that may be torn off, slow or hostile."""

from __future__ import annotations

import os

from ..system import own
from ..system.processes import signal

HELLO, BEGUN, READY, ERROR = b"H", b"B", b"R", b"E"
HEADER = 5
LARGEST = 1 << 20
WORDS_LARGEST = 1000  # of READY: bytes as they are sent, characters as they are shown


class Frames:
    """Reads frames, as they come, from a process that may be torn off, slow or hostile."""

    def __init__(self) -> None:
        self.data = b""

    def read(self, fd: int) -> bool:
        """Read what is there; False at the end."""
        try:
            chunk = own.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not self.hostile:
            self.data += chunk
        return bool(chunk)

    def drain(self, fd: int) -> None:
        """Read what is left of the first frame: a descendant may write behind it for ever."""
        os.set_blocking(fd, False)
        while not self.decided and self.read(fd):
            pass

    @property
    def _length(self) -> int:
        return int.from_bytes(self.data[1:HEADER], "big")

    @property
    def complete(self) -> bool:
        return len(self.data) >= HEADER and len(self.data) >= HEADER + self._length

    @property
    def decided(self) -> bool:
        """Whether no further byte can change what the first frame says."""
        return self.complete or self.hostile

    @property
    def hostile(self) -> bool:
        """Nothing that we write looks like this."""
        kind = self.data[:1]
        return bool(kind) and (
            kind not in (HELLO, BEGUN, READY, ERROR)
            or (len(self.data) >= HEADER and self._length > LARGEST)
        )

    def first(self) -> tuple[bytes, bytes]:
        """Kind and payload; what can't be read is an error without any."""
        if self.hostile or not self.complete:
            return ERROR, b""
        return self.data[:1], self.data[HEADER : HEADER + self._length]

    def drop(self) -> None:
        self.data = self.data[HEADER + self._length :]


def send(fd: int, kind: bytes, payload: bytes = b"") -> bool:
    """Write a frame; False if nobody reads any more."""
    data = kind + len(payload).to_bytes(4, "big") + payload
    try:
        while data:
            data = data[write(fd, data) :]
        return True
    except BrokenPipeError:
        return False


def write(fd: int, data: bytes) -> int:
    """`os.write` with SIGPIPE blocked: the program may have set it to its default, which would
    kill us here.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    before = signal.sigpending()
    try:
        return own.write(fd, data)
    finally:
        # Also after a write that came short: the reader has left in the middle of it.
        if signal.SIGPIPE in signal.sigpending() - before and hasattr(signal, "sigtimedwait"):
            signal.sigtimedwait({signal.SIGPIPE}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
