"""The walk: one pass through the detach sequence, and the loop that makes it."""

from __future__ import annotations

import os
import sys

from ..errors import DaemonError, DaemonOSEnvironmentError, StartError, StepError, text_of
from ..manager import Manager, connection
from ..system.processes import SignalsHeld, close_quietly, lifted
from .step import Step, Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ..context import DaemonContext
    from ..look.trace import Trace
    from ..options import Options
    from ..report import Report
    from ..report.lastwords import LastWords
    from ..system.owners import Owners


class Walk:
    """One pass through the sequence: the frozen options, and what was acquired on the way.

    :ivar options: the frozen, resolved options
    :ivar context: the context that is being opened
    :ivar steps: the sequence
    :ivar process: ``"launcher"``, ``"session leader"``, ``"daemon"``, or ``"this process"``
        where nothing detaches
    """

    def __init__(self, options: Options, steps: Steps, context: DaemonContext) -> None:
        self.options = options
        self.steps = steps
        self.context = context
        self.process = "launcher" if options.detach_process else "this process"
        self.launcher = os.getpid()
        self.number = 0
        self.report: Report | None = None
        self.daemon, self.words = 0, ""  # pid and words, in the launcher, once it is ready
        self.descriptors: set[int] = set()
        self.lasting: set[int] = set()  # acquired, and needed longer than the walk
        self.last_words: LastWords | None = None
        self.manager = Manager()
        self.kept: set[int] = set()  # preserved beside those given
        self.others: set[int] | None = None  # open when the start began, and not preserved
        self.owners: Owners | None = None  # Python objects of what will be closed
        self.closed: dict[int, int] = {}  # number and mode: see `descriptors.Closed`
        self.streams: dict[int, int] = {}  # opened for descriptors 0, 1 and 2
        self.attempted: Step | None = None  # begun, and not done
        self.applied: list[tuple[str, Step, Any]] = []  # in which process
        self.owner = 0  # the process in which open() returns
        self.ready_due = False
        self.entered = False
        self.over = False
        self.uncaught: BaseException | None = None
        self.trace: Trace | None = None

    @property
    def detaches(self) -> bool:
        """Whether this walk forks: not in the foreground."""
        return self.process != "this process"

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
        """The last step is done: open the context, and only then say that the daemon is ready."""
        self.owner = os.getpid()
        self.context._opened()
        self.manager.begin(self.context._stopping())
        unready = self.report.fds if self.report is not None else set()
        self.close(*self.descriptors.difference(self.lasting, unready))
        if self.ready_due:
            self.context.ready()
        elif self.report is not None:
            self.report.progress(0)  # from here on it is the body that may die
        if self.last_words is not None or self.report is not None:
            self._watch_uncaught()

    def tell_last_words(self, error: BaseException) -> None:
        """Where stderr is /dev/null, syslog gets to know what ended the daemon."""
        if self.last_words is not None:
            self.last_words.tell(error)

    def _watch_uncaught(self) -> None:
        """Without a ``with``, only this hook sees what the body raises."""
        previous = sys.excepthook

        def hook(kind: Any, error: BaseException, traceback: Any) -> None:
            self.uncaught = error
            if self.owner == os.getpid():
                self.tell_last_words(error)
            previous(kind, error, traceback)

        sys.excepthook = hook

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
                    failed.append(f"could not undo {step.name}: {_words(error)}")
        return failed


def start(walk: Walk) -> None:
    """Preflight, then the walk. Returns in the daemon, and in the launcher when it is over.

    :raises DaemonError: in the launcher, whatever failed, wherever it did; all is undone
    """
    try:
        if walk.trace is not None:
            walk.trace.begin(walk)
        preflight(walk)
        walk.manager = connection(walk.keep, stays=not walk.detaches, helper=walk.options.helper)
        perform(walk)
    except BaseException as error:
        opened = walk.context._is_open if not walk.detaches else walk.context._is_ready
        if walk.over or (opened and walk.owner == os.getpid()):
            raise  # a signal that comes too late for the start, or has ended the body already
        if walk.process == "daemon":
            _fail_in_daemon(walk, error)
        failure = explained(walk, error)
        _take_back(walk, failure)
        if isinstance(failure, DaemonError):
            # The message is complete; our own frames between the caller and it are noise.
            raise failure.with_traceback(None) from failure.__cause__
        raise


def _fail_in_daemon(walk: Walk, error: BaseException) -> NoReturn:
    """Whatever happens on the way, no exception may reach the frames that are the launcher's."""
    try:
        assert walk.report is not None
        walk.report.fail(walk, explained(walk, error))
    finally:
        os._exit(1)


def preflight(walk: Walk) -> None:
    """The checks of all steps, in the launcher, before anything has changed."""
    for number, step in enumerate(walk.steps, 1):
        walk.number = number
        if step.needed(walk.options):
            step.check(walk)


def perform(walk: Walk) -> None:
    """Apply the steps in their order: this loop is the whole detach sequence."""
    for number, step in enumerate(walk.steps, 1):
        walk.number = number
        if step.needed(walk.options):
            _apply(walk, step)
        elif walk.trace is not None:
            walk.trace.skip(walk, step)
        if walk.over:  # the launcher has heard "ready": the other steps were the daemon's
            return
    with SignalsHeld(walk.report is None):  # half-way through this nothing could be undone
        walk.finish()


def _apply(walk: Walk, step: Step) -> None:
    if walk.report is not None:
        walk.report.progress(walk.number)
    apply = _attempt if walk.trace is None else walk.trace.apply
    with SignalsHeld(step.at_once and walk.report is None):
        apply(walk, step)


def _attempt(walk: Walk, step: Step) -> None:
    walk.attempted = step
    memory = step.apply(walk)
    # No call before it is noted, in which a signal handler could raise: it would not be undone.
    walk.attempted = None
    walk.applied.append((walk.process, step, memory))


def _take_back(walk: Walk, failure: BaseException) -> None:
    """Undo what this process applied, and note what can't be undone."""
    lasting = _lasting(walk)
    for note in walk.roll_back():
        failure.add_note(note)
    walk.close_all()
    if lasting:
        failure.add_note(f"changed for good in this process by: {', '.join(lasting)}")


def _lasting(walk: Walk) -> list[str]:
    """Steps that changed this process for good, the one that failed half-way included."""
    steps = [step for _, step, _ in walk.applied]
    if walk.attempted is not None:
        steps.append(walk.attempted)
    return [step.name for step in steps if step.touches and type(step).undo is Step.undo]


def explained(walk: Walk, error: BaseException) -> BaseException:
    """The error that names the step and what it was about; interrupts pass as they are."""
    failure = _explained(walk, error)
    if failure is not error:
        failure.__cause__ = error
    return failure


def _explained(walk: Walk, error: BaseException) -> BaseException:
    if (
        isinstance(error, StartError)
        or (isinstance(error, DaemonError) and getattr(error, "step", None))
        or not 1 <= walk.number <= len(walk.steps)
    ):
        return error
    step = walk.steps[walk.number - 1]
    place = f"(step {walk.number} of {len(walk.steps)}, {step.name})"
    if isinstance(error, DaemonError):
        error.step = step.name
        error.args = (f"{text_of(error)} {place}",)
        return error
    if not isinstance(error, (Exception, SystemExit)) and walk.process != "daemon":
        return error  # KeyboardInterrupt: the user's own, in the launcher
    phrase = described(step, walk.options)
    message = f"cannot {phrase}: {_words(error, phrase)} {place}"
    if step.remedy:
        message += f"; {step.remedy}"
    if isinstance(error, OSError):
        path = error.filename if isinstance(error.filename, str) else None
        return DaemonOSEnvironmentError(message, step=step.name, errno=error.errno, path=path)
    return StepError(message, step=step.name)


def described(step: Step, options: Options) -> str:
    """The step's phrase; of a user's that can't give one, its name."""
    try:
        phrase = str(step.describe(options) or "")
    except (Exception, SystemExit):  # must not hide the error that is told, nor cost the undoing
        phrase = ""
    return phrase or step.name.replace("-", " ")


def _words(error: BaseException, said: str = "") -> str:
    """The operating system's text, with the path unless said already; or as Python prints it."""
    if isinstance(error, OSError) and error.strerror:
        path = " -> ".join(repr(f) for f in (error.filename, error.filename2) if f is not None)
        return error.strerror if path in said else f"{error.strerror}: {path}"
    if type(error) is SystemExit:  # others, as of a signal, say it in words of their own
        return f"it called sys.exit({error.code!r})"
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
