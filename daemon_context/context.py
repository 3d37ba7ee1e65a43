"""`DaemonContext`: PEP 3143's options and methods, and `open`, which walks the sequence.

What only a start needs is imported when it starts, so that importing the package costs next to
nothing in the programs, and there are many, that seldom become a daemon.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import FrameType, TracebackType
    from typing import Any, ClassVar, TypeVar

    from .embedding import Handle
    from .look.explain import Explanation
    from .look.trace import Record, Trace
    from .loop import Stop
    from .manager import Manager, Supervisor
    from .sequence import Walk
    from .sequence.step import Step, Steps
    from .system.descriptors import Closed

    Self = TypeVar("Self", bound="DaemonContext")
else:
    import _signal as signal  # see `daemon_context.system.processes`

HELD = 1_000_000_007  # objects: more than any program has meant


def default_signal_map() -> dict[int, str | None]:
    """PEP 3143's default: SIGTSTP, SIGTTIN, SIGTTOU ignored, SIGTERM → ``"terminate"``.

    A new dictionary each time, to be extended.
    """
    names = {"SIGTSTP": None, "SIGTTIN": None, "SIGTTOU": None, "SIGTERM": "terminate"}
    return {
        getattr(signal, name): target for name, target in names.items() if hasattr(signal, name)
    }


class CollectorHeld:
    """The garbage collector waits: a start makes thousands of objects that stay, and would be
    interrupted again and again by a search that finds nothing.

    By the threshold, and not by ``gc.disable``: what the program, or a step of its own, says about
    that goes on being so. Not where other threads make garbage while the launcher waits; nor in
    what a step forks, or starts in turn, which never comes to the end of this start.
    """

    before = (0, 0, 0)
    handing_over = False

    def __enter__(self) -> None:
        found = gc.get_threshold()
        if found[0] != HELD and len(sys._current_frames()) == 1:
            CollectorHeld.before = found
            gc.set_threshold(HELD, *found[1:])

    def __exit__(self, *error: object) -> None:
        if gc.get_threshold()[0] == HELD:
            gc.set_threshold(*CollectorHeld.before)

    @classmethod
    def end_in_child(cls) -> None:
        """What a step has forked goes on without us."""
        if not cls.handing_over:
            cls().__exit__()


if hasattr(os, "register_at_fork"):  # not Linux: what is missing is said by a start
    os.register_at_fork(after_in_child=CollectorHeld.end_in_child)


class DaemonContext:
    """A context manager that turns the running program into a daemon (PEP 3143).

    The positional options are PEP 3143's and python-daemon's, in python-daemon's order. Each is
    an attribute that can be read, with its resolved default, and assigned until `open`. Nothing
    is looked at before `open` starts; it refuses a bad value in the launching process, before
    anything has changed.

    :param chroot_directory: path of the daemon's root directory, or None
    :param working_directory: path; with a chroot relative to the new root; None: left as it is
    :param umask: file creation mask, 0 to 0o777; None: left as it is
    :param uid: user number or name; None: the real user of the process
    :param gid: group number or name; None: the primary group of a changed `uid`, else the real one
    :param initgroups: whether the new user's supplementary groups are set; otherwise none but `gid`
    :param prevent_core: whether core dumps are prevented
    :param detach_process: True, False, or None: decided by who started us (see `supervisor`);
        ``"force"`` detaches also where who started us would take the daemon for ended
    :param files_preserve: descriptors and file objects that stay open, from any iterable
    :param pidfile: path, `PidFile`, or any context manager, which is entered in the daemon
    :param stdin: file object, descriptor or path; None is ``/dev/null``
    :param stdout: the same; a path is appended to
    :param stderr: the same
    :param signal_map: signal number → None (ignore), name of a method of the context, or handler;
        replaces `default_signal_map`
    :param readiness: ``"open"``: the daemon is ready when `open` returns in it; ``"explicit"``:
        when the body calls `ready`
    :param start_timeout: seconds after which a start that is not ready is cancelled, or None
    :param threads: ``"warn"``, ``"refuse"`` or ``"ignore"`` threads that the daemon will not have
    :param preserve_logging: whether log handlers on regular files and sockets stay open
    :param steps: the sequence; None is `DEFAULT_STEPS`
    :param record_trace: whether `trace` tells what each step changed
    """

    def __init__(
        self,
        chroot_directory: Any = None,
        working_directory: Any = "/",
        umask: int | None = 0,
        uid: int | str | None = None,
        gid: int | str | None = None,
        initgroups: bool = False,
        prevent_core: bool = True,
        detach_process: bool | str | None = None,
        files_preserve: Iterable[Any] | None = None,
        pidfile: Any = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        signal_map: Mapping[int, Any] | None = None,
        *,
        readiness: str = "open",
        start_timeout: float | None = None,
        threads: str = "warn",
        preserve_logging: bool = True,
        steps: Iterable[Step] | None = None,
        record_trace: bool = False,
    ) -> None:
        self.chroot_directory = chroot_directory
        self.working_directory = working_directory
        self.umask = umask
        self.uid = uid
        self.gid = gid
        self.initgroups = initgroups
        self.prevent_core = prevent_core
        self.detach_process = detach_process
        self.files_preserve = files_preserve
        self.pidfile = pidfile
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.signal_map: Any = default_signal_map() if signal_map is None else signal_map
        self.readiness = readiness
        self.start_timeout = start_timeout
        self.threads = threads
        self.preserve_logging = preserve_logging
        self.steps = steps
        self.record_trace = record_trace

    # Class-level defaults, so that a subclass need not call our __init__ before it sets options.
    # None, nor a method, is named _start or _stop: subclasses use these, as python-daemon's runner.
    _steps: Any = None
    _uid: Any = None
    _gid: Any = None
    _detach_process: Any = None
    _walk: Walk | None = None
    _is_open = False
    _is_ready = False
    _serves = False  # whether it is the program's own daemon, though the launcher goes on
    _reloads_by_handler = True
    _registered = False
    _loop_stop: Stop | None = None
    _all_open: ClassVar[dict[int, DaemonContext]] = {}  # by id: a subclass may compare by value
    _trace: Trace | None = None
    _between: Callable[[], None] | None = None
    _waiting: Callable[[str, float], None] | None = None
    _observer: Callable[[Record], None] | None = None

    @property
    def steps(self) -> Any:
        """The sequence; as given, or `DEFAULT_STEPS`."""
        if self._steps is None:
            from .steps import DEFAULT_STEPS

            return DEFAULT_STEPS
        return self._steps

    @steps.setter
    def steps(self, value: Any) -> None:
        self._steps = value

    @property
    def uid(self) -> Any:
        """The user to become; as given, or the real one."""
        return os.getuid() if self._uid is None else self._uid

    @uid.setter
    def uid(self, value: Any) -> None:
        self._uid = value

    @property
    def gid(self) -> Any:
        """The group to become; as given, or the one that the default resolves to."""
        if self._gid is not None:
            return self._gid
        from .options.owner import default_gid

        return default_gid(self._uid)

    @gid.setter
    def gid(self, value: Any) -> None:
        self._gid = value

    @property
    def detach_process(self) -> Any:
        """Whether to detach; as given, or decided by who started us."""
        return self.supervisor.detach if self._detach_process is None else self._detach_process

    @detach_process.setter
    def detach_process(self, value: Any) -> None:
        self._detach_process = value

    @property
    def supervisor(self) -> Supervisor:
        """Who started us, whether to detach, and the reason in words."""
        if self._walk is not None:
            return self._walk.options.supervisor
        from .manager.supervisor import detect

        return detect()

    @property
    def is_open(self) -> bool:
        """Whether the context is open (read-only)."""
        return self._is_open

    def open(self) -> None:
        """Become a daemon: walk the sequence. Returns in the daemon; does nothing if open.

        The launching process exits with status 0 once the daemon is ready (``os._exit``: exit
        handlers and ``finally`` blocks belong to the daemon from then on).

        :raises DaemonError: in the launching process, whatever failed in any of the three
            processes; nothing of the start is left
        """
        if not self._is_open:
            self._start_walk()

    def spawn(self, target: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Handle:
        """Run the target in a daemon, and go on. Always detaches; the context stays closed here.

        :param target: a function; or ``"package.module:function"``, to run it in a fresh
            interpreter, where this program's threads or event loop can't be forked
        :returns: a handle, once the daemon is ready
        :raises DaemonError: as `open` does; AlreadyRunning carries the running daemon's handle
        """
        from . import embedding
        from .errors import DaemonError, refuse

        if self._is_open:
            raise DaemonError("spawn() was called on an open context; use another context")
        if isinstance(target, str):
            return embedding.spawn_fresh(self, target, args, kwargs)
        if not callable(target):
            raise refuse("target", target, "a function, or 'package.module:function'")
        launcher = os.getpid()
        try:
            walk = self._start_walk(spawning=True)
            if not walk.over:
                embedding.run_target(self, target, args, kwargs)
        except BaseException as error:
            if os.getpid() == launcher:
                raise
            # Of a signal that came before the target began: the frames below are the launcher's.
            embedding.run_target(self, embedding.raised, (error,), {})
        return embedding.Handle(walk.daemon, walk.words)

    def _sequence(self) -> Steps:
        """The sequence; an iterator gives its steps once only, so keep them."""
        steps = self.steps = as_steps(self.steps)
        return steps

    def _start_walk(self, *, spawning: bool = False) -> Walk:
        """Walk the sequence. Returns in the daemon; in the launcher only where it spawns."""
        with CollectorHeld():
            from .sequence import start

            walk = self._walk = self._begin(spawning=spawning)
            try:
                start(walk)
            finally:
                if walk.over and not spawning:  # also where a signal comes too late, and raises
                    os._exit(0)
                if not self._is_open:  # in the launcher, whether the daemon is ready or has failed
                    self._walk = None
        return walk

    def _begin(self, *, spawning: bool = False) -> Walk:
        from .options.freezing import freeze
        from .sequence import Walk

        # Now: a signal handler may ask for a stop in the middle of its import.
        self._stopping().begin()
        steps = self._sequence()
        walk = Walk(freeze(self, spawning=spawning), steps, self)
        if walk.options.record_trace:
            from .look.trace import Trace

            walk.trace = Trace(self._observer)
        self._trace = walk.trace
        return walk

    def _opened(self) -> None:
        """All steps are done, in the process that goes on."""
        self._is_open = True
        self._is_ready = False
        self._all_open[id(self)] = self
        if not self._registered:
            self._registered = True
            atexit.register(self.close)

    def close(self) -> None:
        """Leave the pid file, and be closed. A closed context stays as it is.

        Registered for the exit of the daemon. Descriptors, owner, signal handlers and so on stay
        as they are: there is no way back from being a daemon.
        """
        walk = self._walk
        if walk is None or not self._is_open or walk.owner != os.getpid():
            return  # not open, or a child that the daemon forked
        if walk.report is not None and not self._is_ready:
            self._fail_unready(None)
        self._is_open = False
        self._is_ready = False
        self._all_open.pop(id(self), None)
        walk.manager.end()
        if self._loop_stop is not None:
            self._loop_stop.end()
        if walk.last_words is not None:
            walk.last_words.close()
        if walk.entered:
            walk.options.pidfile.__exit__(None, None, None)

    def __enter__(self: Self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended(exc_value)
        self.close()

    def _ended(self, error: BaseException | None) -> None:
        """The body has ended: tell those who may not know why."""
        walk = self._walk
        if walk is None or walk.owner != os.getpid():
            return
        if walk.report is not None and not self._is_ready:
            self._fail_unready(error)
        if error is not None:
            walk.tell_last_words(error)

    def _fail_unready(self, error: BaseException | None) -> None:
        """The body ended before it said that it is ready: the launcher gets to know."""
        walk = self._walk
        assert walk is not None
        assert walk.report is not None
        walk.report.make_room()
        from .report.failures import unready

        failure, status = unready(error or walk.uncaught)
        walk.report.fail(walk, failure, status)

    def terminate(self, signal_number: int, stack_frame: FrameType | None) -> None:
        """Signal handler: end the daemon, as the default map says for SIGTERM.

        :raises SystemExit: with status 0, explaining the signal
        """
        from .loop import Terminated

        raise Terminated(signal_number)

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
        self._manager.stopping()

    @property
    def _manager(self) -> Manager:
        """Who wants to hear how it goes."""
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
        stop: Stop = self.__dict__.setdefault("_loop_stop", Stop(self._between))
        return stop

    def ready(self, status: str = "") -> None:
        """Say that the daemon works: the launcher exits with status 0 now.

        For the body under ``readiness="explicit"``. A second time it only warns.

        :param status: a few words about the state, for who started us (``systemctl status``) and
            for the handle that `spawn` returns
        """
        walk = self._walk
        if walk is None or not self._is_open:
            from .errors import DaemonError

            raise DaemonError("ready() was called on a context that is not open; call open() first")
        if self._is_copy():
            from .errors import DaemonError

            raise DaemonError("ready() was called in a child of the daemon, which alone may say it")
        if self._is_ready:
            from warnings import warn

            warn("the daemon was ready already; ready() does nothing", RuntimeWarning, stacklevel=2)
            return
        from .system.processes import SignalsHeld

        with SignalsHeld():  # what a handler raises must find the state that the launcher knows
            self._is_ready = walk.report is None or walk.report.ready(status)
            if self._is_ready:
                walk.manager.ready(status)
        if not self._is_ready:
            from .errors import StartError

            raise StartError("the start was cancelled before the daemon was ready")

    def tell(self, text: str) -> None:
        """Say in a few words how it is going, to a manager that listens (``systemctl status``).

        Where nobody does, and in children of the daemon, nothing happens.
        """
        self._manager.tell(text)

    def beat(self) -> None:
        """A sign of life for systemd's watchdog, from any thread of the daemon.

        The loop (`sleep`, `every`, `stop_requested`) gives it by itself, in the main thread. This
        is for long rounds and for loops of your own; once it was called, only this counts.
        """
        self._manager.beat()

    @property
    def closed(self) -> tuple[Closed, ...]:
        """What `open` closed: the number of each descriptor, what it was, and who owned it."""
        from .system.descriptors import Closed

        walk = self._walk
        if walk is None:
            return ()
        owners = walk.owners.closed if walk.owners is not None else {}
        return tuple(Closed(fd, mode, owners.get(fd)) for fd, mode in walk.closed.items())

    @property
    def trace(self) -> Trace | None:
        """What each step did and changed, in all three processes; None unless `record_trace`."""
        return self._trace

    def explain(self) -> Explanation:
        """What each step would do, in which process, or why it is not needed. Changes nothing.

        :raises OptionError: an option can't be used
        """
        from .look.explain import explain

        return explain(self)


def as_steps(steps: Any) -> Steps:
    """The sequence that the option gives.

    :raises OptionError: it is not iterable; SequenceError: it can not work
    """
    from .errors import refuse
    from .sequence.step import Steps

    if isinstance(steps, Steps):
        return steps
    try:
        members = tuple(steps)
    except Exception as error:
        raise refuse("steps", steps, "a Steps sequence or an iterable of steps") from error
    return Steps(members)
