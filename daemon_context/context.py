"""`DaemonContext`: PEP 3143's context, and `launch`, which walks the sequence. What the program
calls once it is the daemon is in `daemon_context.life`.

Importing this costs next to nothing in the programs, and there are many, that seldom become a
daemon. *Constructing* a context loads all that its start will run: once `launch` has begun, neither
the session leader nor the daemon imports anything, as they may be in a chroot, another user, out of
descriptors, or under a package that is being upgraded.
"""

from __future__ import annotations

import atexit
import os

from .life import Life
from .options import DEFAULTS, is_default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .embedding import Handle
    from .look.explain import Explanation
    from .look.trace import Trace
    from .manager import Supervisor
    from .options.frozen import Options
    from .sequence import Walk
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


class DaemonContext(Life):
    """A context manager that turns the running program into a daemon (PEP 3143).

    The positional options are PEP 3143's and python-daemon's, in python-daemon's order. Each is
    an attribute that can be read, with its resolved default, and assigned until `open`. Nothing
    is looked at before `open` starts; it refuses a bad value in the launching process, before
    anything has changed. The options are described at `daemon_context.options.Given`.
    """

    # Class-level defaults, so that a subclass need not call our __init__ before it sets options.
    # No attribute or method is named _start or _stop: subclasses use these, as python-daemon's
    # runner does.
    _over = False
    _registered = False
    _trace: Trace | None = None

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
        """Import what a start runs: the daemon may not be able to, in its root and as its user.

        Without the garbage collector: it would run six times in the midst of this, a tenth of the
        time, over code and classes that all stay.
        """
        import gc

        enabled = gc.isenabled()
        gc.disable()
        try:
            self._import_the_start()
        finally:
            if enabled:
                gc.enable()

    def _import_the_start(self) -> None:
        from . import loop, steps  # noqa: F401
        from .options import frozen  # noqa: F401
        from .system.descriptors import FEW, STANDARD, polled

        if polled(FEW) != STANDARD:  # without a look at /proc, which constructing must not take
            from .system import owners  # noqa: F401
        if self._detach_process is None:
            from .manager import supervisor  # noqa: F401
        if not isinstance(self.stderr, (str, bytes)) and os.path.exists("/dev/log"):
            from .report import lastwords  # noqa: F401

    @property
    def supervisor(self) -> Supervisor:
        """Who started us, whether to detach, and the reason in words."""
        return super().supervisor if self._walk is None else self._walk.options.supervisor

    # --- becoming a daemon

    def launch(self) -> Handle | None:
        """Become a daemon, and go on in both processes: as `os.fork`, the other way round.

        Does nothing, and returns None, if it is open. The context is open in the daemon only.

        :returns: in the launching process the daemon's handle, once it is ready; in the daemon
            None, and in a process that does not detach, which is the daemon itself
        :raises DaemonError: in the launching process, whatever failed in any of the three
            processes; nothing that the stock steps did is left
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

    def __enter__(self: Self) -> Self:
        self.open()
        return self

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

    def _opened(self) -> None:
        """All steps are done, in the process that goes on."""
        if not self._registered:
            self._registered = True
            atexit.register(self.close)

    # --- looking at it

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
