"""What a run has shown: tolerated, clean, or what is wrong."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from . import calls, facts, programs
from .run import Case

LOCK = f"{programs.PIDFILE}.lock"  # unlocked it is in nobody's way, as the pid file
ALWAYS_THERE = {"stdout", "stderr", programs.DATA, programs.ROOT, programs.PIDFILE, LOCK}
OUT_OF_REACH = ("owner", "chroot")  # whose daemon may not remove its pid file: unlocked it stays
CALLERS = ("./stdout", "./stderr")
SLOW = 8.0  # seconds; what a machine under load never takes, and a wait for nothing does
FOR_GOOD = re.compile(r"changed for good in this process by: .*prevent-core")
# What an error means there, where that is more than the operating system's text.
IN_OTHER_WORDS = {
    ("stat", "ENOENT"): "somebody removed or replaced it",
    ("openat", "ENOENT"): "somebody removed or replaced it",
    # To one end of the pipe the other one is gone, which can't be told through that pipe.
    ("write(pipe)", "EPIPE"): "ready",
}
# The process ended without a step that could be named, or told why.
NO_STEP = re.compile("OptionError|was killed|was cancelled|exited with status")


class Verdict(NamedTuple):
    """The outcome of a case.

    :ivar outcome: ``tolerated``: a working daemon; ``clean``: a told failure that has left
        nothing; ``not reached``; or ``wrong``
    :ivar problems: what is wrong; each begins with a word or two that name the kind
    """

    case: Case
    outcome: str
    problems: list[str]

    @property
    def kinds(self) -> set[str]:
        """The kinds of what is wrong."""
        return {problem.partition(":")[0] for problem in self.problems}


def judge(seen: dict[str, Any], reference: dict[str, Any]) -> Verdict:
    """Of one run, by comparison with an undisturbed one."""
    case = Case(*seen["case"])
    if not seen["hit"] and case.action not in ("list", "none"):
        return Verdict(case, "not reached", [])
    outcome = "tolerated" if _works(seen) else "clean"
    problems = _always(seen)
    if outcome == "tolerated":
        problems += _not_working(seen, reference)
    else:
        problems += _not_clean(seen)
        problems += _not_told(seen) if _should_tell(seen) else []
    if "next" in seen:
        following = judge(seen["next"], reference)
        if following.outcome != "tolerated":
            problems.append(f"next start: {following.problems or seen['next']['stderr'][-300:]}")
    return Verdict(case, "wrong" if problems else outcome, problems)


def _works(seen: dict[str, Any]) -> bool:
    """Whether the caller is told that the daemon works (or can't be told any more)."""
    if seen["case"][0] == "foreground":
        return bool(seen["daemon"])
    # An interrupt that comes too late for the start reaches the program that spawned it.
    late = seen["case"][0] == "spawn" and seen["case"][4] == "SIGINT"
    killed = (late or _launcher_is_killed(seen)) and seen["daemon"]
    return seen["status"] == 0 or bool(killed)


def _launcher_is_killed(seen: dict[str, Any]) -> bool:
    case = Case(*seen["case"])
    return case.action in ("SIGTERM", "SIGHUP") or (
        case.action == "kill" and case.role == "launcher"
    )


def _should_tell(seen: dict[str, Any]) -> bool:
    foreground = seen["case"][0] == "foreground"
    return not _launcher_is_killed(seen) and not (foreground and seen["case"][4] == "kill")


def _always(seen: dict[str, Any]) -> list[str]:
    problems = []
    case = Case(*seen["case"])
    if seen["hung"]:
        problems.append(f"hangs: left {seen['left']}, status {seen['status']}")
    elif seen["left"]:
        problems.append(f"processes left: {seen['left']}")
    elif seen["seconds"] > SLOW:
        problems.append(f"slow: {seen['seconds']:.1f} s")
    flushes = seen["case"][0] == "files" and not _launcher_is_killed(seen)
    if flushes and seen["data"] != programs.WRITTEN:
        problems.append(f"data: {seen['data']!r} was written")
    stopped = seen["after stop"]
    if case.variant in OUT_OF_REACH and stopped["text"] == f"{seen['daemon']}\n":
        stopped = {**stopped, "text": ""}
    if seen["daemon"] and (stopped["text"] or stopped["locked"]):
        problems.append(f"stale file: after the stop, {stopped}")
    return problems


def _not_working(seen: dict[str, Any], reference: dict[str, Any]) -> list[str]:
    """Exit 0 promises a daemon that works as in an undisturbed start."""
    problems = []
    case, pidfile, daemon = Case(*seen["case"]), seen["pidfile"], seen["daemon"]
    if not daemon:
        if case.action == "kill" and _has_reported(case, reference):
            return []  # killed after ready: the next start shows that nothing is in its way
        problems.append("silent: exit 0 without a daemon" if not seen["ready"]
                        else "dead: exit 0, and the daemon has ended")  # fmt: skip
        if pidfile["text"] not in ("", seen["before"]["text"]):
            problems.append(f"stale file: {pidfile}")
        return problems
    if reference["pidfile"]["exists"]:
        if pidfile["text"] != f"{daemon}\n":
            problems.append(f"wrong pid file: {pidfile}, but the daemon is {daemon}")
        if reference["pidfile"]["owner"] and pidfile["owner"] != daemon:
            problems.append(f"wrong owner: {pidfile}, but the daemon is {daemon}")
    ready = seen["marks"]["ready"]
    if any(target in CALLERS for target, _ in ready["descriptors"].values()):
        problems.append("caller waits: the daemon holds the caller's stdout or stderr")
    found = facts.differences(reference["marks"]["ready"], ready, exact=False)
    return problems + [f"daemon differs: {difference}" for difference in found]


def _has_reported(case: Case, reference: dict[str, Any]) -> bool:
    """Whether the daemon has said that it is ready before it comes to this call."""
    calls_of_daemon = [point[:3] for point in reference["points"] if point[0] == "daemon"]
    ready = max((n for n, p in enumerate(calls_of_daemon) if p[1] == "write(pipe)"), default=0)
    point = list(case[1:4])
    return case.role == "daemon" and (
        point not in calls_of_daemon or calls_of_daemon.index(point) > ready
    )


def _not_clean(seen: dict[str, Any]) -> list[str]:
    """A failure leaves nothing behind, and the launcher as it was."""
    problems = []
    pidfile = seen["pidfile"]
    case = Case(*seen["case"])
    if seen["daemon"]:
        problems.append("daemon left: the start failed, but the daemon runs")
    if case.variant == "foreground" and case.action in ("kill", "SIGTERM", "SIGHUP"):
        pidfile = {**pidfile, "text": ""}  # a dead process can't clean up; the next start can
    if pidfile["locked"] or pidfile["text"] not in ("", seen["before"]["text"]):
        problems.append(f"stale file: {pidfile}")
    left = {name for name in seen["files"] if name not in ALWAYS_THERE}
    left.difference_update(seen["before"]["files"])
    in_body = case.variant == "foreground" and "failed" not in seen["marks"]
    if left and not _launcher_is_killed(seen) and not in_body:
        problems.append(f"files left: {sorted(left)}")
    if seen["unreaped"]:
        problems.append("zombie: a child is not reaped when open() raises")
    if "failed" in seen["marks"]:
        found = facts.differences(seen["marks"]["begin"], seen["marks"]["failed"], exact=True)
        problems += [
            f"launcher changed: {difference}"
            for difference in found
            if not (difference.startswith("core") and FOR_GOOD.search(seen["stderr"]))
        ]
    return problems


def _not_told(seen: dict[str, Any]) -> list[str]:
    """The caller gets an error that names the step and what the operating system said."""
    action, text = seen["case"][4], seen["stderr"]
    if action == "SIGINT":
        return [] if seen["status"] in (1, -2, 130) else [f"status: {seen['status']}"]
    if "failed" not in seen["marks"]:
        return [f"not raised: status {seen['status']}: {text[-200:]!r}"]
    problems = []
    message = _message(text)
    if not message.startswith("daemon_context."):
        problems.append(f"not ours: {message[:300]}")
    wanted = IN_OTHER_WORDS.get((seen["case"][2], action), "no other")
    if wanted not in message and _expected(action) not in message:
        problems.append(f"unnamed error: {message[:300]}")
    if "(step " not in message and not NO_STEP.search(message):
        problems.append(f"unnamed step: {message[:300]}")
    return problems


def _expected(action: str) -> str:
    return "SIGKILL" if action == "kill" else calls.words(action)


def _message(text: str) -> str:
    """The last line of a printed traceback; notes, and remote tracebacks in them, follow it."""
    lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
    ours = [line for line in lines if line.startswith("daemon_context.")]
    return [*lines, "", *ours][-1]
