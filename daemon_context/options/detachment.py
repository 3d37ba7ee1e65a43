"""Whether to detach: as given, or as who started us wants it; a contradiction is refused."""

from __future__ import annotations

from ..errors import OptionError
from ..manager import Supervisor, may_be_tracked


def detachment(
    given: bool | str | None, *, always: bool, serves: bool, helper: bool, forks: bool
) -> Supervisor:
    """Whether to detach, and why.

    :param given: None, a flag, or ``"force"``
    :param always: for `spawn`, which does in any case
    :param serves: whether the daemon is the program, though the launching process goes on
    :param helper: whether it is one beside the program
    :param forks: whether the sequence has the step for it
    :raises OptionError: what is given can't be right here
    """
    if given is None and not always:
        from ..manager.supervisor import detect

        return detect()
    if always and not forks:
        raise OptionError(
            "spawn() always detaches, and the sequence has no 'detach': leave that step in"
        )
    if (given or always) and forks and given != "force":
        _require_untracked(serves=serves, helper=helper)
    if always:
        return Supervisor("not asked", True, "spawn always detaches")
    return Supervisor("not asked", bool(given), f"detach_process={given} was given")


def _require_untracked(*, serves: bool, helper: bool) -> None:
    """Who is tracked by his pid, and detaches, has ended: refused before that goes unnoticed."""
    if helper or not may_be_tracked():
        return
    from ..manager.contradictions import contradiction
    from ..manager.facts import Facts

    if not (reason := contradiction(Facts())):
        return
    if serves:
        what, remedy = "cannot start", "use the verb run, or run_foreground(), in place of start"
    else:
        what = "detach_process=True was given"
        remedy = "set detach_process=False, or None, which finds out what is right"
    raise OptionError(f"{what}: {reason}; {remedy} ('force' as detach_process detaches regardless)")
