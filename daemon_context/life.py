"""The life of a daemon: what its program calls between the start and the end.

In the daemon's process, and of no effect in children that it forks, unless it says otherwise.
"""

from __future__ import annotations

import os
import sys

from .options import Given

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from .loop import Stop
    from .manager import Manager
    from .sequence import Walk
    from .sequence.keeping import Closed


class Life(Given):
    """What `DaemonContext` is used by once it is open."""

    # Class-level defaults, so that a subclass need not call our __init__.
    _walk: Walk | None = None
    _loop_stop: Stop | None = None

    #: Called in the daemon's main thread before a sleep, when a signal has woken it, and between
    #: two rounds of `every`. For who builds on this class; None: nobody is.
    on_round: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the context is open (read-only)."""
        return self._walk is not None and self._walk.is_open

    @property
    def is_here(self) -> bool:
        """Whether this process is the daemon that it was opened in, and no child of that."""
        return self._walk is not None and self._walk.is_here

    def ready(self, status: str = "") -> None:
        """Say that the daemon works: the launcher exits with status 0 now.

        For the body under ``readiness="explicit"``. A second time it only warns.

        :param status: a few words about the state, for who started us (``systemctl status``) and
            for the handle that `spawn` returns
        """
        from .errors import DaemonError, warn

        walk = self._walk
        if walk is None or not walk.is_open:
            raise DaemonError("ready() was called on a context that is not open; call open() first")
        if not walk.is_here:
            raise DaemonError("ready() was called in a child of the daemon, which alone may say it")
        if not walk.is_ready:
            walk.ready(status)
            return
        warn("the daemon was ready already; ready() does nothing", RuntimeWarning)

    def begun(self, status: str = "") -> None:
        """The body begins: the daemon is ready, or, with the option `settle`, as soon as it has
        settled. For who builds on this class, under ``readiness="explicit"``.
        """
        if self._walk is not None:
            self._walk.begun(status)

    # --- its loop

    def sleep(self, seconds: float | None = None) -> bool:
        """Sleep; True when the time is over, False at once when a stop is requested.

        :param seconds: how long; None: until a stop is requested, without any wake-up
        """
        return self._stopping().sleep(seconds)

    def every(self, seconds: float) -> Iterator[int]:
        """The daemon's loop: a round now and then each `seconds`, until a stop is requested."""
        return self._stopping().every(seconds)

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return self._stopping().look()

    def request_stop(
        self, signal_number: int | None = None, frame: FrameType | None = None
    ) -> None:
        """Ask the daemon's loop to end; also a handler for the signal map: ``"request_stop"``.

        :raises SystemExit: as `terminate`, in a child that the daemon has forked and that never
            sleeps nor asks: nobody would look at the request there
        """
        stop = self._stopping()
        if signal_number is not None and self._is_copy() and not stop.is_watched:
            Life.terminate(self, signal_number, frame)  # an own one may call this
        stop.request()
        self.manager.stopping()

    def _is_copy(self) -> bool:
        """Whether this is a child that the daemon has forked."""
        return self._walk is not None and self._walk.owner not in (0, os.getpid())

    def _stopping(self) -> Stop:
        if self._loop_stop is not None:
            return self._loop_stop
        from .loop import Stop

        # Atomic: a signal handler may come in between, and ask for one as well.
        stop: Stop = self.__dict__.setdefault("_loop_stop", Stop(self._look))
        return stop

    def _look(self) -> None:
        """Between two rounds, and when a signal has woken a sleep."""
        if self._walk is not None:
            self._walk.look()
        if self.on_round is not None:
            self.on_round()

    # --- what it says, and where to

    def tell(self, text: str) -> None:
        """Say in a few words how it is going, to a manager that listens (``systemctl status``).

        Where nobody does, and in children of the daemon, nothing happens.
        """
        self.manager.tell(text)

    def beat(self) -> None:
        """A sign of life for systemd's watchdog, from any thread of the daemon.

        The loop (`sleep`, `every`, `stop_requested`) gives it by itself, in the main thread. This
        is for long rounds and for loops of your own; once it was called, only this counts.
        """
        self.manager.beat()

    @property
    def manager(self) -> Manager:
        """Who wants to hear how it goes; nobody, where nobody does."""
        from .manager import Manager

        return Manager() if self._walk is None else self._walk.manager

    def reopen_streams(
        self, signal_number: int | None = None, frame: FrameType | None = None
    ) -> None:
        """Open the paths given as `stdout` and `stderr` anew, once the files were rotated. In the
        daemon, as its user. Every other stream stays as it is. Also a handler for the signal map:
        ``"reopen_streams"``, which tells a failure to standard error.

        :raises DaemonError: the context is not open, or a path can't be opened: the output goes
            on into the old file
        """
        from .errors import DaemonError

        walk = self._walk
        if walk is None or not walk.is_open:
            raise DaemonError("reopen_streams() is for the daemon: the context is not open")
        if any(target.kind == "path" for target in walk.options.streams):
            from .steps.logfiles import reopen  # loaded when the path was given

            try:
                reopen(walk.options)
            except DaemonError as error:
                if signal_number is None:
                    raise
                print(error, file=sys.stderr, flush=True)  # the daemon goes on

    @property
    def closed_descriptors(self) -> tuple[Closed, ...]:
        """What `open` closed: the number of each descriptor, what it was, and who owned it.

        ``what`` is ``"unknown"`` where more than 256 were closed and no trace is recorded.
        """
        from .sequence.keeping import closed

        return () if self._walk is None else closed(self._walk)

    @property
    def closed(self) -> tuple[Closed, ...]:
        """Old name of `closed_descriptors`: of a file, ``closed`` says whether it is closed."""
        from .errors import warn

        warn("closed is closed_descriptors by now", DeprecationWarning)
        return self.closed_descriptors

    # --- its end

    def terminate(self, signal_number: int, stack_frame: FrameType | None) -> None:
        """Signal handler: end the daemon, as the default map says for SIGTERM.

        It is not lost: what is swallowed on its way is raised again. A child of
        `multiprocessing` ends by the signal itself, as it does outside a daemon.

        :raises SystemExit: with status 0, explaining the signal
        """
        from .loop import end_by

        end_by(signal_number, lambda: not self.is_open)

    def fails(self, error: BaseException | None) -> bool:
        """Whether the error, by which the body ends, is a failed start. For who builds on this
        class, before it tidies up: `ended` is called afterwards.
        """
        return self._walk is not None and self._walk.is_here and self._walk.fails(error)

    def ended(self, error: BaseException | None) -> None:
        """The body has ended, by that error: tell those who may not know, the launcher of one that
        is not ready, and syslog. ``__exit__`` does it; for who builds on this class.
        """
        if self._walk is not None and self._walk.is_here:
            self._walk.ended(error)

    def close(self) -> None:
        """Leave the pid file, and be closed. A closed context stays as it is.

        Registered for the exit of the daemon. Descriptors, owner, signal handlers and so on stay
        as they are: there is no way back from being a daemon.
        """
        if self._walk is not None and self.is_open and self.is_here:
            self._walk.leave()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended(exc_value)
        self.close()
