"""The sequence and the walk through it.

What belongs here: what a step is (`step`), the data of one walk, the loop that makes it, and the
undoing. What does not: what the stock steps do (`daemon_context.steps`), and how the three
processes talk to each other (`daemon_context.report`), which the walk only carries.
"""

from __future__ import annotations

import os

from ..errors import (
    REMEDIES,
    DaemonError,
    DaemonOSEnvironmentError,
    StartError,
    StepError,
    text_of,
)
from ..manager import connection
from ..system import SignalsHeld
from .step import Step
from .walk import Walk, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ..options.frozen import Options

__all__ = ["Step", "Walk", "check", "explained", "in_words", "perform", "preflight", "start"]


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
        opened = walk.is_ready or walk.is_settling if walk.detaches else walk.is_open
        if walk.over or (opened and walk.is_here):
            raise  # a signal that comes too late for the start, or has ended the body already
        if walk.process == "daemon":
            _fail_in_daemon(walk, error)
        failure = _taken_back(walk, error)
        if isinstance(failure, DaemonError):
            # The message is complete; our own frames between the caller and it are noise.
            raise failure.with_traceback(None) from failure.__cause__
        raise


def _fail_in_daemon(walk: Walk, error: BaseException) -> NoReturn:
    """Whatever happens on the way, no exception may reach the frames that are the launcher's."""
    try:
        assert walk.report is not None
        walk.report.fail(error, walk.number)
    finally:
        os._exit(1)


def check(walk: Walk) -> None:
    """Preflight only.

    :raises DaemonError: what the start would raise
    """
    try:
        preflight(walk)
    except BaseException as error:
        failure = explained(walk, error)
        if failure is error:
            raise
        raise failure from error


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


def _taken_back(walk: Walk, error: BaseException) -> BaseException:
    """The error in words, once all that this process applied is undone; with notes of the rest."""
    failure = explained(walk, error)
    lasting = _lasting(walk)
    for note in walk.roll_back():
        failure.add_note(note)
    walk.close_all()
    if lasting:
        failure.add_note(f"changed for good in this process by: {', '.join(lasting)}")
    return failure


def _lasting(walk: Walk) -> list[str]:
    """Steps that changed this process for good, the one that failed half-way included."""
    steps = [step for _, step, _ in walk.applied]
    if walk.attempted is not None:
        steps.append(walk.attempted)
    return [step.name for step in steps if step.touches and type(step).undo is Step.undo]


def explained(walk: Walk, error: BaseException) -> BaseException:
    """The error that names the step and what it was about; interrupts pass as they are."""
    if not isinstance(error, (Exception, SystemExit)):
        return error  # KeyboardInterrupt: the user's own
    failure = in_words(walk, walk.number, error)
    if failure is not error:
        failure.__cause__ = error
    return failure


def in_words(walk: Walk, number: int, error: BaseException) -> BaseException:
    """The error that names the step of that number, and what it was about."""
    if (
        isinstance(error, StartError)
        or (isinstance(error, DaemonError) and getattr(error, "step", None))
        or not 1 <= number <= len(walk.steps)
    ):
        return error
    step = walk.steps[number - 1]
    place = f"(step {number} of {len(walk.steps)}, {step.name})"
    if isinstance(error, DaemonError):
        error.step = step.name
        error.args = (f"{text_of(error)} {place}",)
        return error
    phrase = described(step, walk.options)
    message = f"cannot {phrase}: {words(error, phrase)} {place}"
    # Of what can befall any step, in the place of its own.
    remedy = REMEDIES.get(getattr(error, "errno", 0) or 0, step.remedy)
    if remedy:
        message += f"; {remedy}"
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
