"""`DaemonContext`: PEP 3143's options and methods, and `launch`, which walks the sequence.

Importing this costs next to nothing in the programs, and there are many, that seldom become a
daemon. *Constructing* a context loads all that its start will run: from the first line of `launch`
on the session leader and the daemon import nothing, as they may be in a chroot, another user, out
of descriptors, or under a package that is being upgraded.
"""

from __future__ import annotations

import atexit
import os
import sys

from .options import DEFAULTS, Given, is_default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Any, TypeVar

    from .embedding import Handle
    from .look.explain import Explanation
    from .look.trace import Trace
    from .loop import Stop
    from .manager import Manager, Supervisor
    from .options.frozen import Options
    from .sequence import Walk
    from .sequence.keeping import Closed
    from .sequence.step import Steps

    Self = TypeVar("Self", bound="DaemonContext")

# What a start runs where an option is given: modules of this package.
LOADED_WITH = {
    "chroot_directory": "system.capabilities",
    "gid": "options.owner",
    "initgroups": "options.owner",
    "pidfile": "pidfile",
    "readiness": "system.owners",
    "settle": "system.owners",
    "record_trace": "look.trace",
    "stderr": "steps.logfiles",
    "stdin": "steps.logfiles",
    "stdout": "steps.logfiles",
    "uid": "options.owner",
}
LOADED_IN = os.getpid()


class DaemonContext(Given):
    """A context manager that turns the running program into a daemon (PEP 3143).

    The positional options are PEP 3143's and python-daemon's, in python-daemon's order. Each is
    an attribute that can be read, with its resolved default, and assigned until `open`. Nothing
    is looked at before `open` starts; it refuses a bad value in the launching process, before
    anything has changed. The options are described at `daemon_context.options.Given`.
    """

    # Class-level defaults, so that a subclass need not call our __init__ before it sets options.
    # No attribute or method is named _start or _stop: subclasses use these, as python-daemon's
    # runner does.
    _walk: Walk | None = None
    _over = False
    _registered = False
    _loop_stop: Stop | None = None
    _trace: Trace | None = None

    #: Called in the daemon's main thread before a sleep, when a signal has woken it, and between
    #: two rounds of `every`. For who builds on this class; None: nobody is.
    on_round: Callable[[], None] | None = None
    #: Called in the launcher, about once a second, while it waits: what for, and for how many
    #: seconds by now. None: nobody is.
    on_wait: Callable[[str, float], None] | None = None
    #: Whether the daemon is the program itself, though the launching process goes on, and no helper
    #: beside it: then managers hear of it.
    serves = False

    def __setattr__(self, name: str, value: Any) -> None:
        if not is_default(name, value):
            from .options import freezing  # noqa: F401
        if name in LOADED_WITH and value is not DEFAULTS.get(name):
            __import__(f"{__package__}.{LOADED_WITH[name]}")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        walk, pidfile = self._walk, vars(self).get("pidfile")
        state = "not open" if walk is None or not walk.is_open else f"open in pid {walk.owner}"
        named = "" if pidfile is None else f", pid file {getattr(pidfile, 'path', pidfile)!r}"
        return f"<{type(self).__name__}, {state}{named}>"

    @property
    def steps(self) -> Any:
        """The sequence; as given, or `DEFAULT_STEPS`."""
        if self._steps is None:
            from .steps import DEFAULT_STEPS

            return DEFAULT_STEPS
        return self._steps

    @steps.setter
    def steps(self, value: Any) -> None:
        self._load_the_start()  # the constructor comes by here last
        self._steps = value

    def _load_the_start(self) -> None:
        """Import what a start runs: the daemon may not be able to, in its root and as its user."""
        from . import loop, steps  # noqa: F401
        from .options import frozen  # noqa: F401
        from .system.descriptors import FEW, polled

        if polled(FEW) != {0, 1, 2}:  # without a look at /proc, which constructing must not take
            from .system import owners  # noqa: F401
        if self._detach_process is None:
            from .manager import supervisor  # noqa: F401
        if not isinstance(self.stderr, (str, bytes)) and os.path.exists("/dev/log"):
            from .report import lastwords  # noqa: F401

    @property
    def supervisor(self) -> Supervisor:
        """Who started us, whether to detach, and the reason in words."""
        return super().supervisor if self._walk is None else self._walk.options.supervisor

    @property
    def is_open(self) -> bool:
        """Whether the context is open (read-only)."""
        return self._walk is not None and self._walk.is_open

    @property
    def is_here(self) -> bool:
        """Whether this process is the daemon that it was opened in, and no child of that."""
        return self._walk is not None and self._walk.is_here

    # --- becoming a daemon

    def launch(self) -> Handle | None:
        """Become a daemon, and go on in both processes: as `os.fork`, the other way round.

        Does nothing, and returns None, if it is open. The context is open in the daemon only.

        :returns: in the launching process the daemon's handle, once it is ready; in the daemon
            None, and in a process that does not detach, which is the daemon itself
        :raises DaemonError: in the launching process, whatever failed in any of the three
            processes; nothing of the start is left
        """
        from .embedding import handle_of

        return None if self.is_open else handle_of(self._walked(self._begin()))

    def open(self) -> None:
        """Become a daemon: `launch`, and the launcher's end. Returns in the daemon only.

        The launching process exits with status 0 once the daemon is ready (``os._exit``: exit
        handlers and ``finally`` blocks belong to the daemon from then on).

        :raises DaemonError: as `launch` does
        """
        if self.is_open:
            return
        self._over = False
        try:
            self._walked(self._begin(goes_on=False))
        finally:
            if self._over:  # also where a signal comes too late, and raises
                os._exit(0)

    def spawn(self, target: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Handle:
        """`launch`, and run the target in the daemon. Always detaches.

        :param target: a function; or ``"package.module:function"``, to run it in a fresh
            interpreter, where this program's threads or event loop can't be forked
        :returns: a handle, once the daemon is ready
        :raises DaemonError: as `launch` does; AlreadyRunning carries the running daemon's handle
        """
        from .embedding import handle_of
        from .embedding.target import raised, run_target
        from .errors import DaemonError, refuse
        from .options.work import require_plain

        if self.is_open:
            raise DaemonError("spawn() was called on an open context; use another context")
        if isinstance(target, str):
            from .embedding.fresh import spawn

            return spawn(self, target, args, kwargs)
        if not callable(target):
            raise refuse("target", target, "a function, or 'package.module:function'")
        require_plain(f"target={target!r}", target)
        launcher = os.getpid()
        try:
            handle = handle_of(self._walked(self._begin(always=True)))
            if handle is None:
                run_target(self, target, args, kwargs)
        except BaseException as error:
            if os.getpid() == launcher:
                raise
            # Of a signal that came before the target began: the frames below are the launcher's.
            run_target(self, raised, (error,), {})
        return handle

    def check(self) -> None:
        """What a start would refuse before anything changes, refused now. Changes nothing.

        :raises DaemonError: as `launch` does
        """
        from .sequence import check

        check(self._planned())

    def _begin(self, *, goes_on: bool = True, always: bool = False) -> Walk:
        """The walk of one start, which has not begun yet.

        :param goes_on: whether the launching process does
        :param always: whether it detaches in any case
        """
        self._stopping().begin()
        walk = self._planned(goes_on=goes_on, always=always)
        walk.on_open, walk.on_wait = self._opened, self.on_wait
        walk.trace = self._trace = self._new_trace() if walk.options.record_trace else None
        return walk

    def _planned(self, *, goes_on: bool = True, always: bool = False) -> Walk:
        """The options as they are now, frozen, and the sequence; this context does not change."""
        from .sequence import Walk

        steps = self._sequence()
        options = self._frozen(steps, goes_on=goes_on, always=always, serves=self.serves)
        return Walk(options, steps, self, self._stopping())

    def _new_trace(self) -> Trace:
        from .look.trace import Trace

        return Trace(self.record_trace if callable(self.record_trace) else None)

    def _walked(self, walk: Walk) -> Walk:
        """Walk the sequence; the walk, which is over in the launcher."""
        from .options.place import require_own_process
        from .sequence import start

        survives = walk.options.goes_on and walk.detaches
        require_own_process(loaded_in=LOADED_IN, survives=survives)
        self._walk = walk
        try:
            start(walk)
        finally:
            self._over = walk.over
            if not walk.is_open:  # in the launcher, whether the daemon is ready or has failed
                self._walk = None
        return walk

    def _sequence(self) -> Steps:
        """The sequence; an iterator gives its steps once only, so keep them."""
        from .sequence.step import as_steps

        given = self.steps
        steps = as_steps(given)
        if steps is not given:
            self.steps = steps
        return steps

    def _frozen(self, steps: Steps, **how: bool) -> Options:
        from .options.frozen import freeze

        if not is_default("files_preserve", self.files_preserve):
            from .options.freezing import lasting

            self.files_preserve = lasting(self.files_preserve)
        return freeze(self, forks="detach" in steps, **how)

    # --- being one

    def _opened(self) -> None:
        """All steps are done, in the process that goes on."""
        if not self._registered:
            self._registered = True
            atexit.register(self.close)

    def close(self) -> None:
        """Leave the pid file, and be closed. A closed context stays as it is.

        Registered for the exit of the daemon. Descriptors, owner, signal handlers and so on stay
        as they are: there is no way back from being a daemon.
        """
        if self._walk is not None and self.is_open and self.is_here:
            self._walk.leave()

    def __enter__(self: Self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended(exc_value)
        self.close()

    def ended(self, error: BaseException | None) -> None:
        """The body has ended, by that error: tell those who may not know, the launcher of one that
        is not ready, and syslog. ``__exit__`` does it; for who builds on this class.
        """
        if self._walk is not None and self._walk.is_here:
            self._walk.ended(error)

    def begun(self, status: str = "") -> None:
        """The body begins: the daemon is ready, or, with the option `settle`, as soon as it has
        settled. For who builds on this class, under ``readiness="explicit"``.
        """
        if self._walk is not None:
            self._walk.begun(status)

    def fails(self, error: BaseException | None) -> bool:
        """Whether the error, by which the body ends, is a failed start. For who builds on this
        class, before it tidies up: `ended` is called afterwards.
        """
        return self._walk is not None and self._walk.is_here and self._walk.fails(error)

    def terminate(self, signal_number: int, stack_frame: FrameType | None) -> None:
        """Signal handler: end the daemon, as the default map says for SIGTERM.

        It is not lost: what is swallowed on its way is raised again. A child of
        `multiprocessing` ends by the signal itself, as it does outside a daemon.

        :raises SystemExit: with status 0, explaining the signal
        """
        from .loop import end_by

        end_by(signal_number, lambda: not self.is_open)

    def request_stop(
        self, signal_number: int | None = None, frame: FrameType | None = None
    ) -> None:
        """Ask the daemon's loop to end; also a handler for the signal map: ``"request_stop"``.

        :raises SystemExit: as `terminate`, in a child that the daemon has forked and that never
            sleeps nor asks: nobody would look at the request there
        """
        stop = self._stopping()
        if signal_number is not None and self._is_copy() and not stop.is_watched:
            DaemonContext.terminate(self, signal_number, frame)  # an own one may call this
        stop.request()
        self.manager.stopping()

    @property
    def manager(self) -> Manager:
        """Who wants to hear how it goes; nobody, where nobody does."""
        from .manager import Manager

        return Manager() if self._walk is None else self._walk.manager

    def _is_copy(self) -> bool:
        """Whether this is a child that the daemon has forked."""
        return self._walk is not None and self._walk.owner not in (0, os.getpid())

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return self._stopping().look()

    def sleep(self, seconds: float | None = None) -> bool:
        """Sleep; True when the time is over, False at once when a stop is requested.

        :param seconds: how long; None: until a stop is requested, without any wake-up
        """
        return self._stopping().sleep(seconds)

    def every(self, seconds: float) -> Iterator[int]:
        """The daemon's loop: a round now and then each `seconds`, until a stop is requested."""
        return self._stopping().every(seconds)

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

    # --- looking at it

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
    def closed_descriptors(self) -> tuple[Closed, ...]:
        """What `open` closed: the number of each descriptor, what it was, and who owned it."""
        from .sequence.keeping import closed

        return () if self._walk is None else closed(self._walk)

    @property
    def closed(self) -> tuple[Closed, ...]:
        """Old name of `closed_descriptors`: of a file, ``closed`` says whether it is closed."""
        from .errors import warn

        warn("closed is closed_descriptors by now", DeprecationWarning)
        return self.closed_descriptors

    @property
    def trace(self) -> Trace | None:
        """What each step did and changed, in all three processes; None unless `record_trace`."""
        return self._trace

    def explain(self) -> Explanation:
        """What each step would do, in which process, or why it is not needed. Changes nothing.

        :raises OptionError: an option can't be used
        """
        from .look.explain import explain

        steps = self._sequence()
        return explain(self._frozen(steps), steps)
