"""A request to end that can't be lost.

The handler of a signal can only raise, wherever the program is, and what it raises may be lost. In
a ``__del__`` or a weakref callback it always is: it is raised again in the frame behind that. What
a framework's ``except`` has taken, or an event loop that has lost track, a thread finds out, which
is started with the request, and not before: it sends the signal again for as long as nothing begins
to end.
"""

from __future__ import annotations

import _thread
import os
import sys

from . import own, poll, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

PATIENCE = 2.0  # seconds from a request in which something has to begin to end
# Seconds for an event loop that ends but waits for events: what was raised in the middle of its own
# work may have cost it the task that it waits for.
IDLE = 5.0
TICK = 0.05
get_ident: Callable[[], int] = own(_thread, "get_ident")
start_thread: Callable[..., int] = own(_thread, "start_new_thread")

_process = 0  # the one in which the thread runs


def insist(number: int, kind: Callable[[int], BaseException], is_over: Callable[[], bool]) -> None:
    """Have the signal come again until it has an effect. In its handler, which is going to raise.

    :param kind: the class of what the handler raises, made of the signal's number
    :param is_over: whether the request has been seen to, and needs no insisting any more
    """
    global _process
    if _process == os.getpid():
        return
    _process = os.getpid()
    _watch_swallowed(number, kind, is_over)
    try:
        start_thread(_insist, (number, kind, get_ident(), is_over))
    except RuntimeError:  # no thread can be had: as without us
        _process = 0


def _insist(number: int, kind: Any, main: int, is_over: Callable[[], bool]) -> None:
    global _process
    waited = 0.0
    while not (is_over() or _has_returned(main)):
        poll(set(), TICK)
        waited += TICK
        patient = _ends(main, kind) and not (waited >= IDLE and _idles(main))
        if waited >= PATIENCE and not patient and not is_over():
            waited = 0.0
            signal.pthread_kill(main, number)
    _process = 0


def _watch_swallowed(number: int, kind: Any, is_over: Callable[[], bool]) -> None:
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, kind):
            previous(unraisable)
        elif not is_over():
            _raise_in(sys._getframe(1), kind(number))  # noqa: SLF001 - documented

    sys.unraisablehook = hook


def _raise_in(frame: FrameType | None, error: BaseException) -> None:
    """Raise at the next line of a frame that is further out: as `pdb.set_trace` stops there."""
    if frame is None:
        return

    # CPython takes a trace function that raises away: this one, the frame's, and a debugger's.
    def at_line(frame: FrameType, event: str, arg: Any) -> None:
        raise error

    frame.f_trace = at_line
    sys.settrace(lambda *event: None)


def _ends(main: int, kind: type[BaseException]) -> bool:
    """Whether the main thread is on its way out: in a ``finally``, an ``__exit__`` or an ``except``
    for what was raised.
    """
    found: Any = sys._current_exceptions().get(main)  # noqa: SLF001 - documented
    error = found[1] if isinstance(found, tuple) else found  # before Python 3.12
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


def _has_returned(main: int) -> bool:
    """Whether the program has come to its end, and only waits for its threads."""
    frame = sys._current_frames().get(main)  # noqa: SLF001 - documented
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame is None or (
        frame.f_code.co_name == "_shutdown" and frame.f_globals.get("__name__") == "threading"
    )


def _idles(main: int) -> bool:
    """Whether it is an event loop of asyncio's that waits for something to happen."""
    frame = sys._current_frames().get(main)  # noqa: SLF001 - documented
    names: list[str] = []
    while frame is not None and len(names) < 3:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return "select" in names and "_run_once" in names
