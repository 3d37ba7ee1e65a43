"""A reload in the daemon: between two rounds of its loop, or at once where it has none of ours."""

from __future__ import annotations

import os
import sys

from ..context import DaemonContext
from ..report.frames import fitting, plain
from ..system.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, ClassVar

LOG_LARGEST = 1 << 16  # characters of a refused reload


class Reloading:
    """The part of `daemon.Serving` that reloads."""

    # Class-level, so that a subclass need not call our __init__ first.
    _context: DaemonContext | None = None
    _looping = False
    _reload_due = False
    _reloads = 0
    _hangups = 0
    _at_reload: ClassVar[dict[int, object]] = {}  # by process: what a reload forks is not at it

    if TYPE_CHECKING:

        def on_reload(self) -> None: ...
        def _looped(self) -> DaemonContext: ...
        def _is_daemon(self) -> bool: ...
        def _tell(self, **values: Any) -> None: ...
        def _end_if_asked(self) -> None: ...
        def _beside_run(self, method: Callable[[], None]) -> None: ...

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        """SIGHUP: reload between two rounds; at once where run() has a loop of its own."""
        self._reload_due = True
        self._hangups += 1
        self._tell(hangups=self._hangups)  # who waits knows that it has come to us
        if not self._looping:
            self._reload_if_due()

    # It says itself when a reload begins: where the loop reloads between two rounds, it only
    # notes it.
    _on_hangup.announces = True  # type: ignore[attr-defined]

    def _reload_if_due(self) -> None:
        # Who comes in the middle of one leaves the next to who is at it: begun with an older
        # configuration, the outer one would be the last to set its own.
        process, mine = os.getpid(), object()
        while self._reload_due and self._at_reload.setdefault(process, mine) is mine:
            try:
                self._reload_due = False
                self._reload()
            finally:
                self._at_reload.pop(process, None)

    def _reload(self) -> None:
        self._tell_reloads(reloading=True)  # who asks from now on, asks for the next one
        manager = self._looped().manager
        manager.reloading()
        failure, said = None, {}
        try:
            self._beside_run(self._take_reload)
        except _NotReopened as error:
            failure = {**fitting(error.why), "reloaded": True}
            said = {"text": f"reloaded, but {error.why}"}
            _log(f"{type(self).__name__}: {said['text']}")
        except Exception as error:
            failure = fitting(error)
            said = {"text": f"reload failed: {_in_short(failure)}"}
            self._say_refused(error)
        finally:
            manager.reloaded(said.get("text", ""))
        self._tell_reloads(1, reloading=False, reload_error=failure, **said)
        self._end_if_asked()

    def _take_reload(self) -> None:
        """Streams first, so that what it says is in the new log; a failure there stops nothing."""
        failure = self._reopened()
        self.on_reload()
        if failure is not None:
            raise _NotReopened(failure)

    def _reopened(self) -> Exception | None:
        try:
            if self._context is not None and self._is_daemon():
                self._context.reopen_streams()
        except Exception as error:
            return error
        return None

    def _say_refused(self, error: Exception) -> None:
        """In the log, as who sent the signal hears nothing."""
        name = type(self).__name__
        _log(f"{name}: reload failed, the old configuration stays: {plain(error)}")

    def _tell_reloads(self, done: int = 0, **values: Any) -> None:
        self._reloads += done
        self._tell(reloads=self._reloads, hangups=self._hangups, **values)


class _NotReopened(Exception):
    """The configuration was taken, but the streams go on into the old files."""

    def __init__(self, why: Exception) -> None:
        self.why = why


def _in_short(failure: dict[str, Any]) -> str:
    return f"{failure['class']}: {failure['text']}"


def _log(text: str) -> None:
    """To stderr, without what a terminal would obey."""
    try:
        print(shown(text, LOG_LARGEST, lines=True), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # it is closed, or nobody reads any more
        pass
