"""The step that `Daemon` adds to a start: the status file is made beside the pid file."""

from __future__ import annotations

from ..sequence.step import Step, Steps, as_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..control.statusfile import StatusFile
    from ..options.frozen import Options
    from ..sequence import Walk


class OpenStatus(Step):
    """Create the status file beside the pid file, in the launcher."""

    name = "open-status"
    touches = frozenset({"descriptors"})
    after = {"lock-pidfile": "only who holds the lock may replace what a dead daemon has said"}
    remedy = "give the pid file a path beside which the launching user can create this file, too"
    at_once = True

    def __init__(self, file: StatusFile) -> None:
        self.file = file

    def describe(self, options: Options) -> str:
        return f"create the status file {self.file.path!r}"

    def apply(self, walk: Walk) -> None:
        try:
            self.file.begin(walk.options)
        except OSError:
            self.file.restore()
            raise
        self.file.fd = walk.acquire(self.file.fd)
        walk.lasting.add(self.file.fd)

    def undo(self, walk: Walk, memory: None) -> None:
        walk.descriptors.discard(self.file.fd)
        self.file.restore()


def with_status(given: Any, file: StatusFile) -> Steps:
    """The steps with it, if they lock a pid file; the default ones where none are given."""
    from ..steps import DEFAULT_STEPS

    steps = DEFAULT_STEPS if given is None else as_steps(given)
    if "lock-pidfile" not in steps:
        return steps
    return steps.insert_after("lock-pidfile", OpenStatus(file))
