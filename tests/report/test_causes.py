"""What is behind an error in the daemon is told with it: cause, context, members of a group."""

from __future__ import annotations

import re

import pytest

from tests.helpers import support

TRACEBACK = "Traceback (most recent call last):"
INNER, OUTER = [TRACEBACK, "KeyError: 'inner'"], [TRACEBACK, "RuntimeError: outer"]
CAUSED = "The above exception was the direct cause of the following exception:"
DURING = "During handling of the above exception, another exception occurred:"
MEMBERS = [
    "  +---------------- 1 ----------------",
    *(f"  | {line}" for line in INNER),
    "  +---------------- 2 ----------------",
    "  | ValueError: other",
]

# How the inner error leads to one that leaves, and what of that is told, without the frames.
WAYS = {
    "cause": ("raise RuntimeError('outer') from error", [*INNER, CAUSED, *OUTER]),
    "context": ("raise RuntimeError('outer')", [*INNER, DURING, *OUTER]),
    "no context": ("raise RuntimeError('outer') from None", OUTER),
    "group": (
        "raise ExceptionGroup('outer', [error, ValueError('other')]) from None",
        [TRACEBACK, "ExceptionGroup: outer (2 sub-exceptions)", *MEMBERS],
    ),
    # Of an error of ours, which arrives as it is, only what is behind it.
    "ours": ("raise DaemonError('outer') from error", INNER),
}


@pytest.mark.parametrize(
    ("way", "place"),
    [(way, "step") for way in WAYS] + [(way, "body") for way in WAYS if way != "ours"],
)
def test_what_is_behind_an_error_is_told(box: support.Sandbox, way: str, place: str) -> None:
    ending, expected = WAYS[way]
    done = box.run(f"""
        import sys
        from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step
        def work():
            try:
                raise KeyError("inner")
            except KeyError as error:
                {ending}
        class Work(Step):
            def apply(self, walk):
                work()
        context = DaemonContext(detach_process=True, readiness="explicit")
        if sys.argv[1] == "step":
            context.steps = DEFAULT_STEPS.insert_before("report-ready", Work())
        try:
            context.open()
        except DaemonError as error:
            print(error, *error.__notes__, sep="\\n")
            sys.exit()
        work()
    """, place)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    message, head, *lines = done.stdout.splitlines()
    assert "outer" in message
    assert re.fullmatch(r"In the daemon \(pid \d+\):", head)
    frame = re.compile(r"(  \| )?  (File|  )")
    assert [line for line in lines if line and not frame.match(line)] == expected
