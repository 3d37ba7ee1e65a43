"""The standard streams: opened in the launcher, redirected in the daemon."""

from __future__ import annotations

import fcntl
import os
import sys

from ..errors import DaemonOSEnvironmentError
from ..step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options import Options, Target
    from ..sequence import Walk

LOG_MODE = 0o640


class OpenStreams(Step):
    """Open what the standard streams will go to, in the launcher: so that an error is seen, root
    can open it, and a chroot need not have it.
    """

    name = "open-streams"
    touches = frozenset({"descriptors"})

    def needed(self, options: Options) -> bool:
        return any(target.kind != "keep" for target in options.streams)

    def describe(self, options: Options) -> str:
        return f"open {_places(options)} for the standard streams"

    def why_not(self, options: Options) -> str:
        return "the supervisor's streams are kept"

    def check(self, walk: Walk) -> None:
        for target in walk.options.streams:
            if target.kind == "path":
                _require_openable(target)

    def apply(self, walk: Walk) -> list[str]:
        created: list[str] = []
        try:
            for number, target in enumerate(walk.options.streams):
                if target.kind != "keep":
                    walk.streams[number] = _open(target, number, walk, created)
            stderr = walk.options.stderr
            if stderr.kind in ("null", "path") and stderr.path == os.devnull:
                _prepare_last_words(walk)
        except BaseException:
            _remove_empty(created)
            raise
        return created

    def undo(self, walk: Walk, memory: list[str]) -> None:
        _remove_empty(memory)


class RedirectStreams(Step):
    """Put the opened streams on descriptors 0, 1 and 2, where programs that the daemon runs
    inherit them.
    """

    name = "redirect-streams"
    touches = frozenset({"descriptors", "streams"})
    after = {
        "open-streams": "it opens what the streams are redirected to",
        "detach": "the launcher needs its streams to show an error",
        "close-descriptors": "it leaves the old streams to this step",
    }

    def needed(self, options: Options) -> bool:
        return any(target.kind != "keep" for target in options.streams)

    def describe(self, options: Options) -> str:
        return f"redirect {', '.join(map(str, options.streams))}"

    def why_not(self, options: Options) -> str:
        return "the supervisor's streams are kept"

    def apply(self, walk: Walk) -> Any:
        saved: dict[int, int | None] = {}
        names = {name: _bound(name) for name in ("stdin", "stdout", "stderr")}
        try:
            for number, source in walk.streams.items():
                if not walk.detaches:
                    saved[number] = _saved(walk, number)
                # Inheritable, also where descriptor and target are the same number already.
                os.dup2(source, number, inheritable=True)
        except BaseException:
            self.undo(walk, (saved, names))
            raise
        _rebind(walk.options)
        walk.close(*walk.streams.values())
        return saved, names

    def undo(self, walk: Walk, memory: Any) -> None:
        saved, names = memory
        for number, source in saved.items():
            if source is None:
                os.close(number)
            else:
                os.dup2(source, number, inheritable=True)
        for name, (stream, line_buffering) in names.items():
            setattr(sys, name, stream)
            if getattr(stream, "line_buffering", None) != line_buffering:
                stream.reconfigure(line_buffering=line_buffering)


def _bound(name: str) -> tuple[Any, bool | None]:
    stream = getattr(sys, name)
    return stream, getattr(stream, "line_buffering", None)


def _prepare_last_words(walk: Walk) -> None:
    from ..lastwords import LastWords

    walk.last_words = LastWords.connect(walk)


def _places(options: Options) -> str:
    kinds = {
        str(t.path if t.kind != "descriptor" else f"descriptor {t.fd}") for t in options.streams
    }
    return ", ".join(sorted(kinds))


def _require_openable(target: Target) -> None:
    """Preflight: the directory, or the file if there is one, without opening it."""
    reading = target.option == "stdin"
    exists = os.path.lexists(target.path)
    if not exists and reading:
        raise _cannot_open(target, FileNotFoundError(2, os.strerror(2)))
    place = target.path if exists else os.path.dirname(target.path)
    mode = os.R_OK if reading else os.W_OK
    if os.path.isdir(target.path):
        raise _cannot_open(target, IsADirectoryError(21, os.strerror(21)))
    try:
        os.lstat(place)
    except OSError as error:
        raise _cannot_open(target, error) from error
    if not os.access(place, mode, effective_ids=os.access in os.supports_effective_ids):
        raise _cannot_open(target, PermissionError(13, os.strerror(13)))


def _cannot_open(target: Target, error: OSError) -> DaemonOSEnvironmentError:
    fit = "file that the launching user may read"
    if target.option != "stdin":
        fit = "path in a directory where the launching user may write"
    return DaemonOSEnvironmentError(
        f"cannot open {target.path!r} as {target.option}: {error.strerror}; "
        f"set {target.option} to a {fit}, or to None for /dev/null",
        errno=error.errno,
        path=target.path,
    )


def _open(target: Target, number: int, walk: Walk, created: list[str]) -> int:
    if target.kind == "descriptor":
        # A copy, so that stdout=sys.stderr and stderr=sys.stdout can change places.
        return walk.acquire(fcntl.fcntl(target.fd, fcntl.F_DUPFD_CLOEXEC, 3))
    try:
        if target.kind != "path" or target.path == os.devnull:
            return walk.acquire(os.open(os.devnull, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        return _open_path(target.path, number, walk, created)
    except OSError as error:
        raise _cannot_open(target, error) from error


def _open_path(path: str, number: int, walk: Walk, created: list[str]) -> int:
    # Non-blocking, because opening a FIFO would wait for its other end; no terminal may become
    # ours; and the privileged follow no symlink that somebody may have put there.
    flags = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if os.geteuid() == 0:
        flags |= os.O_NOFOLLOW
    flags |= os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND
    fd = _create(path, flags, walk, created) if number else None
    if fd is None:
        fd = walk.acquire(os.open(path, flags))
    os.set_blocking(fd, True)
    return fd


def _create(path: str, flags: int, walk: Walk, created: list[str]) -> int | None:
    """A new log file belongs to the daemon's user, who rotates it. None: it is there already."""
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, LOG_MODE)
    except FileExistsError:
        return None
    created.append(path)
    fd = walk.acquire(fd)  # at once: what fails from now on must not leave it open
    os.fchmod(fd, LOG_MODE)  # whatever the umask
    if walk.options.owner_changes:
        os.fchown(fd, walk.options.uid, walk.options.gid)
    return fd


def _remove_empty(created: list[str]) -> None:
    for path in created:
        try:
            if os.stat(path).st_size == 0:
                os.unlink(path)
        except OSError:
            pass


def _saved(walk: Walk, number: int) -> int | None:
    try:
        return walk.acquire(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3))
    except OSError:  # it was closed
        return None


def _rebind(options: Options) -> None:
    """Bind the names in `sys`: to a file without a descriptor (PEP 3143), or where the launcher
    was started with the descriptor closed, so that Python has none.
    """
    for number, target in enumerate(options.streams):
        stream = getattr(sys, target.option)
        if target.kind == "object":
            setattr(sys, target.option, target.file)
        elif stream is None or getattr(stream, "closed", False):
            mode = "r" if number == 0 else "w"
            stream = open(number, mode, buffering=1, closefd=False)  # noqa: SIM115
            setattr(sys, target.option, stream)
        elif target.kind in ("path", "descriptor") and hasattr(stream, "reconfigure") and number:
            stream.reconfigure(line_buffering=True)  # a log is read while the daemon runs
