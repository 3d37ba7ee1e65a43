"""The standard streams: opened in the launcher, redirected in the daemon."""

from __future__ import annotations

import errno
import os
import sys

from ..errors import DaemonOSEnvironmentError
from ..sequence.keeping import to_stay_open, vacant
from ..sequence.step import Step
from ..system.descriptors import duplicate

LOG = "/dev/log"  # see `daemon_context.report.lastwords`

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.frozen import Options, Target
    from ..sequence import Walk


class OpenStreams(Step):
    """Open what the standard streams will go to, in the launcher: so that an error is seen, root
    can open it, and a chroot need not have it.
    """

    name = "open-streams"
    at_once = True
    touches = frozenset({"descriptors"})

    def needed(self, options: Options) -> bool:
        return _changes(options) or _is_unheard(options.stderr)

    def describe(self, options: Options) -> str:
        if not _changes(options):
            return f"connect to {LOG}, as stderr is {os.devnull}"
        return f"open {_places(options)} for the standard streams"

    def why_not(self, options: Options) -> str:
        return "the supervisor's streams are kept"

    def check(self, walk: Walk) -> None:
        for target in walk.options.streams:
            if target.kind == "path":
                from .logfiles import require_openable

                require_openable(target)

    def apply(self, walk: Walk) -> list[str]:
        created: list[str] = []
        try:
            for number, target in enumerate(walk.options.streams):
                if target.kind != "keep":
                    walk.streams[number] = _open(target, number, walk, created)
            if _is_unheard(walk.options.stderr):
                _prepare_last_words(walk)
        except BaseException:
            self.undo(walk, created)
            raise
        return created

    def undo(self, walk: Walk, memory: list[str]) -> None:
        if memory:
            from .logfiles import remove_empty

            remove_empty(memory)


class RedirectStreams(Step):
    """Put the opened streams on descriptors 0, 1 and 2, where programs that the daemon runs
    inherit them.
    """

    name = "redirect-streams"
    at_once = True
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

    def check(self, walk: Walk) -> None:
        if not walk.detaches:
            import fcntl  # noqa: F401  # for `undo`; as another user, or in a chroot, out of reach
        for number in vacant():
            _require_nothing_lost(walk, number)

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
        _rebind(walk)
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


def _require_nothing_lost(walk: Walk, number: int) -> None:
    target = walk.options.streams[number]
    if target.kind != "keep" and target.fd != number and number in to_stay_open(walk):
        raise DaemonOSEnvironmentError(
            f"cannot redirect {target}: a file that is to stay open has descriptor {number}, as "
            f"the program was started with {target.option} closed; start it with >/dev/null 2>&1 "
            "</dev/null instead"
        )


def _bound(name: str) -> tuple[Any, bool | None]:
    stream = getattr(sys, name)
    return stream, getattr(stream, "line_buffering", None)


def _changes(options: Options) -> bool:
    return any(target.kind != "keep" for target in options.streams)


def _is_unheard(stderr: Target) -> bool:
    """Whether there is a syslog that gets the words which nobody would see on stderr."""
    if stderr.kind == "object" or not os.path.exists(LOG):
        return False
    place: str | int = stderr.path
    if stderr.kind in ("keep", "descriptor"):
        place = 2 if stderr.kind == "keep" else stderr.fd
    try:
        return os.path.samestat(os.stat(place), os.stat(os.devnull))
    except OSError:  # not there yet, or closed: then nothing is heard either
        return isinstance(place, int)


def _prepare_last_words(walk: Walk) -> None:
    from ..report.lastwords import LastWords

    walk.last_words = LastWords.connect(walk)


def _places(options: Options) -> str:
    kinds = {
        str(t.path if t.kind != "descriptor" else f"descriptor {t.fd}") for t in options.streams
    }
    return ", ".join(sorted(kinds))


def _open(target: Target, number: int, walk: Walk, created: list[str]) -> int:
    if target.kind == "descriptor":
        # A copy, so that stdout=sys.stderr and stderr=sys.stdout can change places.
        return walk.acquire(duplicate(target.fd))
    if target.path == os.devnull:
        return walk.acquire(os.open(os.devnull, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    from .logfiles import cannot_open, open_path

    try:
        return open_path(target.path, number, walk, created)
    except OSError as error:
        raise cannot_open(target, error) from error


def _saved(walk: Walk, number: int) -> int | None:
    try:
        return walk.acquire(duplicate(number))
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None  # it was closed


def _rebind(walk: Walk) -> None:
    """Bind the names in `sys`: to a file without a descriptor (PEP 3143); where the launcher was
    started with the descriptor closed, so that Python has none; and where the program has put a
    log in the stream's place, but the stream is given.
    """
    for number, target in enumerate(walk.options.streams):
        stream = getattr(sys, target.option)
        if target.kind == "object":
            setattr(sys, target.option, target.file)
        elif stream is None or getattr(stream, "closed", False) or _passes_by(walk, target, stream):
            mode = "r" if number == 0 else "w"
            stream = open(number, mode, buffering=1, closefd=False)  # noqa: SIM115
            setattr(sys, target.option, stream)
        elif target.kind in ("path", "descriptor") and hasattr(stream, "reconfigure") and number:
            stream.reconfigure(line_buffering=True)  # a log is read while the daemon runs


def _passes_by(walk: Walk, target: Target, stream: Any) -> bool:
    if target.kind not in ("path", "descriptor") or not walk.kept:
        return False
    from ..system.owners import number_of  # loaded by what has found those kept

    return number_of(stream) in walk.kept - {target.fd}
