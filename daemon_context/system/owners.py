"""Python objects that own descriptors: found in the heap, so that they can be told.

Closing a number under its owner is how log lines end up in pid files: the owner goes on writing
to the number, whoever has it by then. Imported, and the heap searched, only where a descriptor is
open that nothing else accounts for.
"""

from __future__ import annotations

import _io
import gc
import os
import stat
import sys

from . import of_proc
from .descriptors import STANDARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


FROZEN_BY_ITSELF = 1000  # more than CPython 3.12 freezes when it starts, less than a program does


class Owners:
    """Who uses which descriptor, and which files have to be written out.

    :param numbers: what will be closed; the standard streams are redirected, so that what other
        files than `sys.stdout` and `sys.stderr` have for them has to be written out as well
    """

    def __init__(self, numbers: set[int]) -> None:
        self.raw: dict[int, list[Any]] = {}
        self.closed: dict[int, str] = {}  # what owned each that was closed through it
        self.hung_up: int | None = None  # see `_hang_up`; -1: there can be none
        self.writers: list[Any] = []
        for item in _candidates():
            fd = number_of(item)
            if fd in numbers or fd in STANDARD:
                self._note(item, fd)
        # Text files first: their flush goes through the buffered file below them.
        self.writers.sort(key=lambda file: not issubclass(type(file), _io._TextIOBase))

    def written_files(self) -> set[int]:
        """The numbers of regular files that are open for writing."""
        return {
            fd
            for fd, users in self.raw.items()
            if any(map(_writable, users)) and stat.S_ISREG(os.fstat(fd).st_mode)
        }

    def logs(self) -> set[int]:
        """Those of the written files that are appended to: what a logger has open, whoever made
        it, and nothing that a program reads or goes back in.
        """
        return {fd for fd in self.written_files() if _appends(fd, self.raw[fd])}

    def writers_beside(self, kept: set[int]) -> Iterator[Any]:
        """What has to be written out, but for files that stay open."""
        return (file for file in self.writers if number_of(file) not in kept)

    def _note(self, item: Any, fd: int) -> None:
        if _is_socket(item) or issubclass(type(item), _io.FileIO):
            self.raw.setdefault(fd, []).append(item)
        elif issubclass(type(item), (_io._TextIOBase, _io._BufferedIOBase)) and _writable(item):
            self.writers.append(item)

    def close(self, fd: int) -> bool:
        """Close the descriptor through all objects that use it; False: none of them owned it, so
        it is still open.
        """
        users = self.raw[fd]
        owners = [user for user in users if _owns(user)]
        if owners:
            self.closed[fd] = _description(owners[0])
        if any(map(_is_connected, owners)) and self._hang_up(fd):
            return True
        for user in users:
            try:
                # Of a file the raw one: it does not write the buffers, already written, again.
                # Of a socket the C method: Python's waits for the files made of it.
                base = _sockets()[0] if _is_socket(user) else _io.FileIO
                base.close(user)
            except Exception:  # another owner has closed the number; or a user's flush() failed
                pass
        return fd in self.closed

    def _hang_up(self, fd: int) -> bool:
        """Put a connection whose peer has closed in the place of this one, which stays open for
        Python: clients that keep a connection, as those of HTTP do, look for that and make a new
        one. A closed socket has the number -1, which they trip over.
        """
        if self.hung_up is None:
            self.hung_up = _connection_without_peer()
        try:
            os.dup2(self.hung_up, fd, inheritable=False)
        except OSError:  # there is none
            return False
        return True

    def end(self) -> None:
        """All that was to be closed is."""
        if self.hung_up is not None and self.hung_up >= 0:
            os.close(self.hung_up)
        self.hung_up = None


def write_out(numbers: set[int]) -> None:
    """Before `os._exit`, which would lose it: what files of these descriptors have buffered."""
    for file in Owners(numbers).writers:
        try:
            file.flush()
        except Exception:  # the process ends here; the other files may have room
            pass


def _candidates() -> Iterator[Any]:
    # By exact type, because isinstance() asks lazy proxies for their class, which runs their
    # code; and a set of types is the fastest filter for millions of objects.
    kinds = {kind for base in (_io._IOBase, *_sockets()) for kind in _descendants(base)}
    # These would move from memory to a disk when asked for their number; the file that they have
    # if they did so already is found by itself.
    spooled = getattr(sys.modules.get("tempfile"), "SpooledTemporaryFile", None)
    if spooled is not None:
        kinds.difference_update(_descendants(spooled))
    return (item for item in _tracked() if type(item) in kinds)


def objects_of(base: type) -> list[Any]:
    """All objects of a class, and of those derived from it."""
    kinds = set(_descendants(base))
    return [item for item in _tracked() if type(item) in kinds]


def _tracked() -> list[Any]:
    """All objects that the garbage collector knows, frozen ones as well."""
    if gc.get_freeze_count() < FROZEN_BY_ITSELF:
        return gc.get_objects()
    # Only a thaw brings frozen objects back. Frozen again are then all: a program freezes because
    # it is about to fork, which it does.
    enabled = gc.isenabled()
    gc.disable()
    try:
        gc.unfreeze()
        return gc.get_objects()
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _descendants(kind: type) -> Iterator[type]:
    yield kind
    children: list[type] = type.__subclasses__(kind)
    for child in children:
        yield from _descendants(child)


def number_of(item: Any) -> int:
    """The descriptor of a file or socket; -1: it has none, or no more."""
    try:
        fd = min(STANDARD) if _is_over_pair(item) else item.fileno()
    except Exception:  # closed, detached, in memory, or a user's class half made
        return -1
    return fd if type(fd) is int else -1


def _is_over_pair(item: Any) -> bool:
    """``makefile("rw")`` of a socket: a file over a pair of buffers, which don't tell their number.
    It is written out in any case, as files on the standard streams are.
    """
    return type(item) is _io.TextIOWrapper and type(item.buffer) is _io.BufferedRWPair


def _owns(user: Any) -> bool:
    return _is_socket(user) or bool(user.closefd)


def _sockets() -> tuple[Any, ...]:
    """The C class of all sockets, if there are any: importing it costs more than the search."""
    module = sys.modules.get("_socket")
    return () if module is None else (module.socket,)


def _is_socket(item: Any) -> bool:
    return issubclass(type(item), _sockets())


def _is_connected(item: Any) -> bool:
    """Whether it is a stream to somebody else. A pair, whose ends have no names, is the program's
    own: a loop that is woken by it would never sleep again.
    """
    try:
        base, stream = _sockets()[0], sys.modules["_socket"].SOCK_STREAM
        return _is_socket(item) and item.type == stream and bool(base.getpeername(item))
    except Exception:  # it listens, or was never connected; or a file, where there are no sockets
        return False


def _connection_without_peer() -> int:
    """Over TCP: the end of a pair of UNIX sockets is an error for `http.client` from then on, and
    one that is only shut down takes what is written until it is full. -1: there is no loopback.
    """
    kind = _sockets()[0]
    try:
        listener, client = kind(), kind()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        os.close(listener._accept()[0])
        listener.close()
        number: int = client.detach()
        return number
    except OSError:
        return -1


def _writable(item: Any) -> bool:
    try:
        return bool(item.writable())
    except Exception:  # closed in part, or a user's class
        return False


def _appends(fd: int, users: list[Any]) -> bool:
    if any(str(getattr(user, "mode", "")).startswith("a") for user in users):
        return True
    # Opened by os.open(), as for a mode of its own. `fcntl` would cost all starts its import.
    flags = (of_proc(f"self/fdinfo/{fd}") or "").partition("flags:")[2].split()
    return bool(flags and int(flags[0], 8) & os.O_APPEND)


def _description(owner: Any) -> str:
    try:
        return repr(owner)
    except Exception:
        return f"<{type(owner).__name__}>"
