"""Last words: an exception that leaves a daemon whose stderr is /dev/null goes to syslog.

The socket is opened in the launcher, so that it works in a chroot without ``/dev/log`` as well.
"""

from __future__ import annotations

import _socket  # `socket` would cost more than the rest of the start
import os
import select
import stat
import sys
import time

from ..system import new_poll
from ..system.descriptors import is_still
from ..system.text import shown
from .frames import plain, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..sequence.walk import Walk

LOG = "/dev/log"
PRIORITY = 3 << 3 | 3  # facility daemon, severity err (RFC 5424)
RECORDS_LARGEST = 1 << 20  # characters of all together
LONGEST = 2000  # bytes of text in a record; daemons of old cut at 2048
PATIENCE = 5.0  # seconds that the log daemon may be busy; a stuck one must not keep us from ending
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class LastWords:
    """A connection to syslog, for the one message that nobody else would get."""

    told: BaseException | None = None  # by whichever: each context that was opened watches

    def __init__(self, walk: Walk, fd: int) -> None:
        self.walk = walk
        self.fd = self._acquire(fd)
        self.ident = os.path.basename("".join(sys.argv[:1])) or "python"

    @classmethod
    def connect(cls, walk: Walk) -> LastWords | None:
        """Connect to syslog; None where there is none."""
        fd = _connect()
        return None if fd is None else cls(walk, fd)

    def _acquire(self, fd: int) -> int:
        fd = self.walk.acquire(fd)
        os.set_blocking(fd, False)
        self.walk.lasting.add(fd)
        self.status = os.fstat(fd)
        return fd

    def tell(self, error: BaseException) -> None:
        """Send the error with its traceback, one record a line; once."""
        if error is LastWords.told or not _worth_telling(error):
            return
        LastWords.told = error
        deadline = time.monotonic() + PATIENCE
        for line in shown(self._text(error), RECORDS_LARGEST, lines=True).splitlines():
            for text in _pieces(line.encode()):
                self._record(text, deadline)

    def _text(self, error: BaseException) -> str:
        """As Python prints it; without source lines where that can't be imported any more, and
        where what would be imported is the chroot's.
        """
        if self.walk.options.chroot_directory is None or "traceback" in sys.modules:
            try:
                from traceback import format_exception

                return "".join(format_exception(error))
            except Exception:
                pass
        return plain(error)

    def _record(self, text: bytes, deadline: float) -> None:
        now = time.localtime()
        # As syslog(3) writes it; strftime would use the names of the program's locale.
        stamp = f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
        # The NUL tells records apart where the socket is a stream; others cut it off.
        head = f"<{PRIORITY}>{stamp} {self.ident}[{os.getpid()}]: "
        record = head.encode("utf-8", "backslashreplace") + text + b"\0"
        if self._is_ours() and self._sent(record, deadline):
            return
        # Or the log daemon was started anew since: its socket is another one by now.
        self.close()
        fd = _connect()
        if fd is not None:  # else there is nobody left to tell
            self.fd = self._acquire(fd)
            self._sent(record, deadline)

    def close(self) -> None:
        """Close the connection, unless the program has closed it."""
        if self._is_ours():
            self.walk.close(self.fd)
        self.walk.descriptors.discard(self.fd)

    def _is_ours(self) -> bool:
        return self.fd in self.walk.descriptors and is_still(self.fd, self.status)

    def _sent(self, record: bytes, deadline: float) -> bool:
        poller = new_poll()
        poller.register(self.fd, select.POLLOUT)
        while record and poller.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            try:
                record = record[write(self.fd, record) :]
            except BlockingIOError:  # somebody else took the room
                pass
            except OSError:
                return False
        return True


def _connect() -> int | None:
    try:
        if not stat.S_ISSOCK(os.stat(LOG).st_mode):
            return None
    except OSError:
        return None
    for kind in (_socket.SOCK_DGRAM, _socket.SOCK_STREAM):
        try:
            log = _socket.socket(_socket.AF_UNIX, kind)
        except OSError:  # no descriptor is left
            return None
        try:
            log.connect(LOG)
            return log.detach()
        except OSError:
            log.close()
    return None


def _pieces(line: bytes) -> Iterator[bytes]:
    """Of a long line, none cut within a character."""
    while len(line) > LONGEST:
        end = LONGEST
        while line[end] & 0xC0 == 0x80:
            end -= 1
        yield line[:end]
        line = line[end:]
    yield line


def _worth_telling(error: BaseException) -> bool:
    """Not what ends a program on purpose: an exit without a message."""
    return not isinstance(error, SystemExit) or not isinstance(error.code, (int, type(None)))
