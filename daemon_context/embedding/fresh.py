"""`spawn` of ``"package.module:function"``: in a fresh interpreter, for programs whose threads or
event loop can't be forked.

The other interpreter is a child only until its daemon is ready. Order and answer have pipes of
their own, so that the standard streams stay the program's; the order is a pickle, because it
comes from the program itself; the answer is JSON, because it comes from elsewhere.
"""

from __future__ import annotations

import os
import sys

from ..errors import DaemonError, refuse
from ..options import Given
from ..report.frames import WORDS_LARGEST, write
from ..system.descriptors import lifted, open_pipe
from .interpreter import BEGIN, interpreter_options, require_interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from typing import Any

    from ..options.frozen import Options, Target
    from . import Handle

PASSED = (
    "umask",
    "_uid",
    "_gid",
    "initgroups",
    "prevent_core",
    "signal_map",
    "readiness",
    "settle",
    "start_timeout",
    "threads",
    "preserve_logging",
    "steps",
    "record_trace",
)
REMEDY = "give functions of modules that can be imported, and values that can be pickled"


def spawn(context: Given, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle:
    """Start the target in a new interpreter, which becomes the daemon. In the launcher.

    :raises DaemonError: as from `DaemonContext.open`; the options or arguments can't be handed over
    """
    from ..options.freezing import freeze
    from ..system.descriptors import is_open

    _require_importable(target)
    require_interpreter(target)
    options = freeze(context, goes_on=True, always=True)
    streams = {stream.fd for stream in options.streams}
    kept = {fd for fd in options.files_preserve | streams if fd >= 0 and is_open(fd)}
    order = _order(context, options, kept, target, args, kwargs)
    return _answered(*_run(order, kept, target))


def _require_importable(target: str) -> None:
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise refuse("target", target, "'package.module:function'")
    if module == "__main__":
        raise refuse(
            "target", target, "a function of a module, as a fresh interpreter has another __main__"
        )


def _order(
    context: Given,
    options: Options,
    kept: set[int],
    target: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> bytes:
    """What the other interpreter needs to do the same."""
    import pickle

    values = {name.lstrip("_"): getattr(context, name) for name in PASSED}
    values.update({stream.option: _passed(stream) for stream in options.streams})
    values.update(
        files_preserve=sorted(options.files_preserve),
        pidfile=_unlocked(options),
        working_directory=options.working_directory,
        chroot_directory=options.chroot_directory,
    )
    closed_on_exec = [fd for fd in kept if not os.get_inheritable(fd)]
    try:
        # The path first, by itself: what is in the rest may have to be imported.
        path = pickle.dumps(sys.path)
        rest = (type(context), closed_on_exec, values, target, args, kwargs)
        return path + pickle.dumps(rest)
    except Exception as error:
        raise DaemonError(
            f"cannot hand the options and arguments to a fresh interpreter: {error}; {REMEDY}"
        ) from error


def _passed(stream: Target) -> str | int | None:
    """What stands for a standard stream in the other interpreter."""
    if stream.kind == "object":
        raise DaemonError(
            f"cannot hand {stream.option}={stream.file!r} to a fresh interpreter: it has no "
            "descriptor; give a path or an open file"
        )
    if stream.kind == "descriptor":
        return stream.fd
    return stream.path if stream.kind == "path" else None


def _unlocked(options: Options) -> Any:
    """A pid file of ours anew: a lock belongs to the process that holds it."""
    from ..pidfile import PidFile

    lock = options.pidfile_lock
    return options.pidfile if lock is None else PidFile(lock.path, lock.timeout)


def _run(order: bytes, kept: set[int], target: str) -> tuple[bytes, int]:
    ends: list[int] = []

    def take(fd: int) -> int:
        ends.append(lifted(fd))
        return ends[-1]

    try:
        order_r, order_w = open_pipe(take)
        answer_r, answer_w = open_pipe(take)
        child = _interpreter(order_r, answer_w, kept, target)
    except BaseException as error:
        for fd in ends:
            os.close(fd)
        if isinstance(error, OSError):
            raise DaemonError(f"cannot start {sys.executable!r}: {error.strerror}") from error
        raise
    os.close(order_r)
    os.close(answer_w)
    with child:
        try:
            answer = _exchange(order_w, order, answer_r)
        except BaseException:  # interrupted: without its launcher the start is cancelled
            child.terminate()
            raise
    return answer, child.returncode


def _interpreter(order: int, answer: int, kept: set[int], target: str) -> Popen[bytes]:
    from subprocess import Popen

    own = os.path.dirname(sys.modules["daemon_context"].__path__[0])
    program = f"import sys; sys.path.append({own!r}); {BEGIN}; obey({order}, {answer})"
    return Popen(
        [sys.executable, *interpreter_options(), "-c", program, target],
        pass_fds=sorted({order, answer, *(fd for fd in kept if fd > 2)}),
    )


def _exchange(order_w: int, order: bytes, answer_r: int) -> bytes:
    with open(answer_r, "rb") as answer:
        try:
            while order:
                order = order[write(order_w, order) :]
        except BrokenPipeError:  # it has ended already: its status says more
            pass
        finally:
            os.close(order_w)
        return answer.readline()  # its end the daemon may keep open, if told to preserve it


def _answered(answer: bytes, returncode: int) -> Handle:
    import json

    from ..report.failures import decode
    from ..system.text import shown
    from . import Handle

    try:
        fields = json.loads(answer)
        pid = int(fields["pid"])
        failure = fields.get("failure")
    except (ValueError, KeyError, TypeError):
        raise DaemonError(
            f"the fresh interpreter, {sys.executable!r}, ended with status {returncode} and no "
            "answer; look at what it wrote to stderr, and whether that is a Python"
        ) from None
    if failure is not None:
        raise decode(None, failure.encode(), None)
    words = shown(str(fields.get("status", "")), WORDS_LARGEST)
    return Handle(pid, words, str(fields.get("identity", "")))


def obey(order: int, answer: int) -> None:
    """In the fresh interpreter: read the order, start the daemon, answer, end."""
    import json

    for fd in (order, answer):
        os.set_inheritable(fd, False)
    _keep_to_ourselves(answer)
    said: dict[str, Any] = {"pid": 0}
    try:
        handle = _obeyed(order)
        said.update(pid=handle.pid, status=handle.status, identity=handle.identity)
    except Exception as error:
        from ..report.frames import encoded

        said["failure"] = encoded(error, 0, "fresh interpreter").decode()
    with open(answer, "wb") as file:
        file.write(json.dumps(said).encode() + b"\n")


def _keep_to_ourselves(fd: int) -> None:
    """Whatever is preserved: the daemon, as whichever user, must not answer in our place."""
    still_open = [fd]

    def close() -> None:
        while still_open:  # in the first child: in its own ones, the number may be another file's
            os.close(still_open.pop())

    os.register_at_fork(after_in_child=close)


def _obeyed(order: int) -> Handle:
    import pickle

    try:
        with open(order, "rb") as file:
            sys.path[:] = pickle.load(file)
            kind, closed_on_exec, values, target, args, kwargs = pickle.load(file)
        for fd in closed_on_exec:
            os.set_inheritable(fd, False)
    except Exception as error:
        raise DaemonError(
            f"a fresh interpreter can't read the options and arguments: {error}; {REMEDY}"
        ) from error
    context = kind.__new__(kind)
    Given.__init__(context, **values)  # a subclass may have arguments of its own
    handle: Handle = context.spawn(_found(target), *args, **kwargs)
    return handle


def _found(target: str) -> Callable[..., Any]:
    from contextlib import redirect_stdout
    from importlib import import_module

    module, _, name = target.partition(":")
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no output of the launcher
            found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise DaemonError(
            f"cannot find the target {target!r}: {type(error).__name__}: {error}; give "
            "'package.module:function'"
        ) from error
    return found  # type: ignore[return-value]
