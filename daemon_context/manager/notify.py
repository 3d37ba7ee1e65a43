"""Speaking to who started us: sd_notify(3), and the newline that s6 waits for.

Loaded in the launcher, and only where there is somebody to speak to. The daemon writes to a
descriptor: what it would need to import may be out of its reach.
"""

from __future__ import annotations

import os
import select
import stat
from _thread import get_ident
from time import monotonic, monotonic_ns

from ..system import of_proc
from ..system.descriptors import duplicate, is_still, lifted
from . import Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from ..loop import Stop

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
LARGEST = 4096  # bytes; systemd drops a longer datagram, with all that is in it
PATIENCE = 5.0  # seconds for a manager that does not read, where a word must not get lost
ONE_LINE = str.maketrans("\n\r\0", "   ")  # a line of its own would be another message


class Unheard(Manager):
    """Of a daemon beside the program: its words are not the program's, nor its children's."""

    def begin(self, stop: Stop) -> None:
        for name in VARIABLES:
            os.environ.pop(name, None)


class Notified(Manager):
    """A manager that listens.

    :param fd: a datagram socket that is connected to ``NOTIFY_SOCKET``, or -1
    :param newline: the pipe to ``s6-supervise``, or -1
    :param interval: seconds within which systemd wants a sign of life, or None
    """

    def __init__(self, fd: int, newline: int, interval: float | None) -> None:
        self.fd, self.found = fd, os.fstat(fd) if fd >= 0 else None
        self.newline, self.pipe = newline, os.fstat(newline) if newline >= 0 else None
        self.interval = interval
        self.process = self.thread = 0
        self.last_beat = 0.0
        self.is_ready = self.is_reloading = self.is_stopping = self.is_beating = False

    def begin(self, stop: Stop) -> None:
        self.process, self.thread = os.getpid(), get_ident()
        for name in VARIABLES:
            os.environ.pop(name, None)  # with them any child could say that we are ready
        if self.interval is not None:
            stop.pulse = self.pulse

    def ready(self, text: str = "") -> None:
        self.is_ready = True
        self._say("READY=1", text, patience=PATIENCE)
        self._end_line()

    def tell(self, text: str) -> None:
        self._say("", text)

    def reloading(self) -> None:
        if self.is_ready and not self.is_stopping:  # before, its end would say that we are ready
            self.is_reloading = True
            # In one datagram: systemd takes no RELOADING without the time.
            self._say(
                f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}", "", patience=PATIENCE
            )

    def reloaded(self, text: str = "") -> None:
        if self.is_reloading and not self.is_stopping:
            self._say("READY=1", text, patience=PATIENCE)
        self.is_reloading = False

    def around(self, handler: Any) -> Any:
        def reload(number: int, frame: FrameType | None) -> None:
            self.reloading()
            try:
                handler(number, frame)
            finally:
                self.reloaded()

        return reload if self.fd >= 0 else handler

    def beat(self) -> None:
        if self._speaks():
            self.is_beating = True
            self._beat()

    def pulse(self) -> float | None:
        """In the loop: a sign of life where one is due; the seconds until the next one.

        Of the main thread only: another one would speak for a worker that is stuck.
        """
        if self.is_beating or get_ident() != self.thread or not self._speaks():
            return None
        return self._beat()

    def stopping(self) -> None:
        if self._speaks() and not self.is_stopping:
            self.is_stopping = True
            self._say("STOPPING=1", "", patience=PATIENCE)

    def end(self) -> None:
        self.stopping()
        if self._speaks():
            self._end_line()
            if is_still(self.fd, self.found):
                os.close(self.fd)
            self.fd, self.process = -1, 0

    def _beat(self) -> float | None:
        if self.interval is None:
            return None
        now = monotonic()
        if now >= self.last_beat + self.interval / 10:  # not with each round of a fast loop
            self.last_beat = now
            self._say("WATCHDOG=1", "")
        return self.last_beat + self.interval / 2 - now

    def _speaks(self) -> bool:
        return self.process == os.getpid()

    def _say(self, state: str, text: str, *, patience: float = 0.0) -> None:
        """One datagram. That nobody listens any more is no error of the daemon's."""
        if not self._speaks() or not is_still(self.fd, self.found):
            return
        words = f"STATUS={text.translate(ONE_LINE)}" if text or not state else ""
        data = _cut("\n".join(filter(None, (state, words))))
        try:
            _send(self.fd, data, patience)
        except OSError:
            pass

    def _end_line(self) -> None:
        """Of s6, to which a newline says "ready"; at the end without one, if it never was."""
        if self._speaks() and is_still(self.newline, self.pipe):
            try:
                if self.is_ready:
                    os.write(self.newline, b"\n")
            except OSError:
                pass
            os.close(self.newline)
            self.newline = -1


def _cut(text: str) -> bytes:
    """At a character: systemd takes valid UTF-8 only."""
    data = text.encode("utf-8", "replace")
    return data if len(data) <= LARGEST else data[:LARGEST].decode("utf-8", "ignore").encode()


def _send(fd: int, data: bytes, patience: float) -> None:
    try:
        os.write(fd, data)
    except BlockingIOError:
        if patience:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll(patience * 1000)
            os.write(fd, data)


def connect(keep: Callable[[int], int], *, supervise: bool) -> Manager:
    """The connections, made once and before anything changes; nobody if nobody can be reached."""
    fd = _socket_to(os.environ.get("NOTIFY_SOCKET", ""))
    newline = _notification_fd() if supervise else -1
    if fd < 0 and newline < 0:
        return Manager()
    return Notified(
        keep(fd) if fd >= 0 else -1, keep(newline) if newline >= 0 else -1, _watchdog_interval()
    )


def _socket_to(address: str) -> int:
    """A datagram socket connected to a path, or to a name in the abstract namespace; or -1."""
    if address[:1] not in ("/", "@"):
        return -1
    import _socket  # a fifth of what `socket` costs

    name = address if address[0] == "/" else f"\0{address[1:]}"
    try:
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    except OSError:  # no descriptor is free; what comes next will say so
        return -1
    try:
        socket.connect(os.fsencode(name))
        socket.setblocking(False)
        return lifted(socket.detach())
    except OSError:  # whoever listened there is gone
        socket.close()
        return -1


def _watchdog_interval() -> float | None:
    """Seconds, if the sign of life is asked of this process (sd_watchdog_enabled(3))."""
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return None
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None


def _notification_fd() -> int:
    """The pipe by which ``s6-supervise``, our parent, is told; -1 if it has none for us.

    Its number is in the service directory: the parent's, and ours as long as nothing has changed
    it, which is all that may be read where the parent is root's and we are not.
    """
    parent = os.getppid()
    number = of_proc(f"{parent}/cwd/notification-fd") or of_proc("self/cwd/notification-fd")
    try:
        fd = int(number or "")
        found = os.fstat(fd)
        if not stat.S_ISFIFO(found.st_mode) or not _is_its_pipe(parent, found):
            return -1
        return fd if fd > 2 else duplicate(fd)
    except (ValueError, OSError, OverflowError):
        return -1


def _is_its_pipe(parent: int, pipe: os.stat_result) -> bool:
    """That the parent holds the other end proves that the number is still what it was, and not a
    pipe of the program's own; else that we don't hold it must do.
    """
    try:
        return _ends(f"/proc/{parent}/fd", pipe) > 0
    except PermissionError:
        return _ends("/proc/self/fd", pipe) == 1


def _ends(directory: str, pipe: os.stat_result) -> int:
    """How many descriptors of a process are of that pipe."""
    count = 0
    for fd in os.listdir(directory):
        try:
            count += os.path.samestat(os.stat(f"{directory}/{fd}"), pipe)
        except FileNotFoundError:  # closed by now, as that of the listing
            pass
    return count
