"""The walk: one pass through the sequence, as data, and what is done with it at its end."""

from __future__ import annotations

import os

from ..errors import StartError, text_of
from ..manager import Manager
from ..system import SignalsHeld
from ..system.descriptors import close_quietly, lifted
from .hooks import watch
from .keeping import note_closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

    from ..loop import Stop
    from ..options.frozen import Options
    from ..system.owners import Owners
    from .parts import Body, LastWords, Report, Trace
    from .step import Step, Steps


CANCELLED = "the start was cancelled before the daemon was ready"


class Walk:
    """One pass through the sequence: the frozen options, and what was acquired on the way.

    :ivar options: the frozen, resolved options
    :ivar steps: the sequence
    :ivar context: the context that is being opened
    :ivar process: ``"launcher"``, ``"session leader"``, ``"daemon"``, or ``"this process"``
        where nothing detaches
    """

    opened: ClassVar[dict[int, Walk]] = {}  # of this process, by id

    def __init__(self, options: Options, steps: Steps, context: Body, loop: Stop) -> None:
        self.options = options
        self.steps = steps
        self.context = context
        self.loop = loop
        self.process = "launcher" if options.detach_process else "this process"
        self.launcher = os.getpid()
        self.number = 0
        self.report: Report | None = None
        self.daemon, self.identity, self.words = 0, "", ""  # in the launcher, once it is ready
        self.descriptors: set[int] = set()
        self.lasting: set[int] = set()  # acquired, and needed longer than the walk
        self.last_words: LastWords | None = None
        self.manager = Manager()
        self.kept: set[int] = set()  # preserved beside those given
        self.others: set[int] | None = None  # open when the start began, and not preserved
        self.owners: Owners | None = None  # Python objects of what will be closed
        self.closed: set[int] = set()  # by the daemon
        self.modes: dict[int, int] = {}  # of those: see `keeping.Closed`
        self.streams: dict[int, int] = {}  # opened for descriptors 0, 1 and 2
        self.statuses: list[int] | None = None  # of all threads, opened before a change of root
        self.attempted: Step | None = None  # begun, and not done
        self.applied: list[tuple[str, Step, Any]] = []  # in which process
        self.owner = 0  # the process in which open() returns
        self.is_open = False
        self.is_ready = False
        self.is_settling = False  # what ends the body now is a failed start
        self.ready_due = False
        self.entered = False
        self.over = False  # in the launcher: the daemon is ready
        self.uncaught: BaseException | None = None
        self.trace: Trace | None = None
        self.on_open: Callable[[], None] | None = None
        self.on_wait: Callable[[str, float], None] | None = None

    @property
    def detaches(self) -> bool:
        """Whether this walk forks: not in the foreground."""
        return self.process != "this process"

    @property
    def is_here(self) -> bool:
        """Whether this process is the one in which `open` returned, and no child of it."""
        return self.owner == os.getpid()

    def acquire(self, fd: int) -> int:
        """Take the descriptor over: closed when the walk is over, until then kept by every step.

        Its number may change: 0, 1 and 2 (handed out where the launcher was started with them
        closed) belong to the standard streams.
        """
        fd = lifted(fd)
        self.descriptors.add(fd)  # first, so that a failure closes it
        os.set_inheritable(fd, False)
        return fd

    def keep(self, fd: int) -> int:
        """The same, for longer than the walk."""
        fd = self.acquire(fd)
        self.lasting.add(fd)
        return fd

    def close(self, *fds: int) -> None:
        """Close descriptors that the walk has acquired."""
        for fd in fds:
            self.descriptors.discard(fd)
            close_quietly(fd)

    def close_all(self) -> None:
        """Close all that the walk has acquired."""
        self.close(*tuple(self.descriptors))

    def note(self, what: str) -> None:
        """For a trace: a part of the step in work is done."""
        if self.trace is not None:
            self.trace.part(self, what)

    def finish(self) -> None:
        """The last step is done: be open, and only then say that the daemon is ready."""
        self.owner = os.getpid()
        self.is_open = True
        self.opened[id(self)] = self
        if self.on_open is not None:
            self.on_open()
        self.manager.begin(self.loop)
        unready = self.report.fds if self.report is not None else set()
        self.close(*self.descriptors.difference(self.lasting, unready))
        if self.ready_due and self.options.settle and self.report is not None:
            self.begun()
        elif self.ready_due:
            self.context.ready()
        elif self.report is not None:
            self.report.progress(0)  # the body may die from here on
        if self.last_words is not None or self.report is not None or self.closed:
            watch(self)

    def ready(self, status: str) -> None:
        """Tell the launcher that the daemon works.

        :raises StartError: nobody listens any more
        """
        with SignalsHeld():  # what a handler raises must find the state that the launcher knows
            if self.report is None or self._is_settled() or self.report.ready(status):
                self._settled()
                self.manager.ready(status)
        if not self.is_ready:
            raise StartError(CANCELLED)

    def begun(self, status: str = "") -> None:
        """The body begins: ready, or as soon as it has settled.

        :raises StartError: nobody listens any more
        """
        if self.report is None or not self.options.settle:
            self.ready(status)
            return
        with SignalsHeld():
            self.is_settling = self.report.begun(status)
            if self.is_settling:
                self.manager.ready(status)
        if not self.is_settling:
            raise StartError(CANCELLED)

    def look(self) -> None:
        """Let go of the report once the body has settled. In the daemon, between two rounds."""
        if self.is_settling and self.is_here and self.report is not None and self.report.is_over:
            self._settled()

    def fails(self, error: BaseException | None) -> bool:
        """Whether the error, by which the body ends, is a failed start: then it stays so, however
        long it takes to tidy up.
        """
        if self.report is None or self.is_ready:
            return False
        return not self.is_settling or (_is_failure(error) and self.report.take_turn())

    def _is_settled(self) -> bool:
        return self.is_settling and self.report is not None and not self.report.take_turn()

    def _settled(self) -> None:
        self.is_ready, self.is_settling = True, False
        if self.report is not None:
            self.report.let_go()

    def ended(self, error: BaseException | None) -> None:
        """The body has ended: tell those who may not know why. In the daemon."""
        if error is not None:
            note_closed(self, error)
        if self.report is not None and not self.is_ready:
            if self.fails(error or self.uncaught):
                self.report.fail(error or self.uncaught, 0)
            if not self._is_settled():
                self.report.ready()
            self._settled()
        if error is not None:
            self.tell_last_words(error)

    def leave(self) -> None:
        """The context is closed: leave the pid file. In the daemon."""
        # Of a body that settles and has not ended, the session leader sees how it does.
        if not self.is_ready and (not self.is_settling or self.uncaught is not None):
            self.ended(None)
        self.is_open = self.is_ready = False
        self.opened.pop(id(self), None)
        self.manager.end()
        self.loop.end()
        # In a chroot there can be no other, for an exit handler's.
        if self.last_words is not None and self.options.chroot_directory is None:
            self.last_words.close()
        if self.entered:
            self.options.pidfile.__exit__(None, None, None)

    def tell_last_words(self, error: BaseException) -> None:
        """Where stderr is /dev/null, syslog gets to know what ended the daemon."""
        if self.last_words is not None:
            self.last_words.tell(error)

    def seen(self, error: BaseException) -> None:
        """Nobody has caught it. In the daemon; what a child of it raises is not the daemon's."""
        if self.is_here:
            note_closed(self, error)
            self.tell_last_words(error)

    def roll_back(self, process: str = "") -> list[str]:
        """Undo, in reverse, what one process applied; by default this one. Returns what failed."""
        failed = []
        for entry in reversed(self.applied):
            where, step, memory = entry
            if where == (process or self.process):
                self.applied.remove(entry)
                try:
                    step.undo(self, memory)
                except BaseException as error:  # the other steps have to be undone all the same
                    failed.append(f"could not undo {step.name}: {words(error)}")
        return failed


def _is_failure(error: BaseException | None) -> bool:
    """Whether it is no good end: neither an outcome, nor an exit with status 0."""
    if not isinstance(error, SystemExit):
        return error is not None
    return bool(error.code & 0xFF if isinstance(error.code, int) else error.code is not None)


def words(error: BaseException, said: str = "") -> str:
    """The operating system's text, with the path unless said already; or as Python prints it."""
    if isinstance(error, OSError) and error.strerror:
        path = " -> ".join(repr(f) for f in (error.filename, error.filename2) if f is not None)
        return error.strerror if path in said else f"{error.strerror}: {path}"
    if type(error) is SystemExit:  # others, as of a signal, say it in words of their own
        return f"it called sys.exit({error.code!r})"
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
