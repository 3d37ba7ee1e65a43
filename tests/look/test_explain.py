"""explain() and its command."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import pytest

from daemon_context import DEFAULT_STEPS, DaemonContext
from daemon_context.manager import Supervisor
from tests.helpers import support
from tests.helpers.stepping import ORDER


def test_explain_has_a_row_for_every_step() -> None:
    before = support.snapshot()
    rows = list(DaemonContext(detach_process=True, pidfile="/run/x.pid").explain())
    assert [row.name for row in rows] == list(ORDER)
    assert [row.number for row in rows] == list(range(1, len(ORDER) + 1))
    assert [row.process for row in rows] == ["launcher"] * 3 + ["all three"] + ["daemon"] * 11
    assert all(row.text for row in rows)
    assert support.snapshot() == before


def test_explain_says_where_the_streams_go() -> None:
    with open(os.devnull, "w") as file:
        context = DaemonContext(
            detach_process=True, stdin="/etc/passwd", stdout=file, stderr=io.StringIO()
        )
        text = context.explain()["redirect-streams"].text
        to_file = f"stdout to descriptor {file.fileno()}"
    assert text.startswith(f"redirect stdin to '/etc/passwd', {to_file}, stderr to <_io.StringIO ")


def test_explain_says_which_streams_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Supervisor("a test", False, "it says so")
    monkeypatch.setattr("daemon_context.manager.supervisor.detect", lambda: kept)
    text = DaemonContext(stdout=os.devnull).explain()["redirect-streams"].text
    assert text == "redirect stdin as it is, stdout to '/dev/null', stderr as it is"


def test_explain_knows_no_other_step() -> None:
    explanation = DaemonContext(detach_process=True).explain()
    assert explanation["detach"].number == 4
    with pytest.raises(KeyError, match="chroot"):
        explanation["chroot"]


def test_explain_gives_the_reason_why_a_step_is_not_needed() -> None:
    explanation = DaemonContext(detach_process=False, signal_map={}, prevent_core=False).explain()
    unneeded = {row.name: row.text for row in explanation if not row.needed}
    assert unneeded == {
        "lock-pidfile": "no pidfile is given",
        "detach": "detach_process=False was given",
        "change-root": "no chroot_directory is given",
        "change-owner": unneeded["change-owner"],
        "prevent-core": "prevent_core=False was given",
        "install-signals": "the signal map is empty",
        "write-pidfile": "no pidfile is given",
        "enter-pidfile": "no pidfile is given",
    }
    assert "already" in unneeded["change-owner"]
    assert {row.process for row in explanation} == {"this process"}


def test_explain_promises_no_launcher_where_no_step_detaches() -> None:
    steps = DEFAULT_STEPS.remove("detach")
    explanation = DaemonContext(detach_process=True, steps=steps).explain()
    assert explanation["report-ready"].text == "be ready"


def test_explain_changes_nothing_even_where_open_would_fail(box: support.Sandbox) -> None:
    done = box.run("""
        import os
        from daemon_context import DaemonContext
        from tests.helpers.support import snapshot
        context = DaemonContext(
            detach_process=True, pidfile="d.pid", stdout="log", uid="nobody",
            working_directory="/no/such/directory", files_preserve=iter([]),
        )
        files = os.listdir()
        before = snapshot()
        first, second = str(context.explain()), str(context.explain())
        assert snapshot() == before
        assert first == second
        assert os.listdir() == files
        assert not context.is_open
        context.working_directory = "/"
        assert "'/'" in str(context.explain())
        print(first)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no/such/directory" in done.stdout
    assert sorted(path.name for path in box.path.iterdir()) == ["program.py"]


def explain(box: support.Sandbox, *args: str) -> Any:
    run = box.script("import runpy; runpy.run_module('daemon_context', run_name='__main__')")
    return box.run(run, "explain", *args)


def test_the_command_prints_an_aligned_table(box: support.Sandbox) -> None:
    done = explain(box)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["#", "step", "process", "what"]
    assert [line.split()[1] for line in lines] == list(ORDER)
    for word in ("step", "process", "what"):
        column = head.index(word)
        assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert "who started it" in done.stdout


MODULE = """
    from daemon_context import DaemonContext
    feed = DaemonContext(pidfile="/run/feed.pid", detach_process=True, umask=0o22)
    number = 5
    bad = DaemonContext(umask="x")
"""


def test_the_command_explains_a_context_of_yours_also_as_json(box: support.Sandbox) -> None:
    box.script(MODULE, "mine.py")
    assert "write the pid to '/run/feed.pid'" in explain(box, "mine:feed").stdout
    found = json.loads(explain(box, "--json", "mine:feed").stdout)
    rows = found if isinstance(found, list) else found["steps"]
    assert [row["name"] for row in rows] == list(ORDER)
    assert next(row for row in rows if row["name"] == "set-umask")["text"] == "set the umask to 022"
    assert {"number", "name", "process", "needed", "text"} <= set(rows[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:feed", "no_such_module"),
        ("mine:no_such_name", "no_such_name"),
        ("mine", "context"),
        ("mine:number", "is no DaemonContext and no Daemon, but 5"),
        ("mine:bad", "umask='x'"),
        (":feed", "MODULE:NAME"),
        (".mine:feed", "MODULE:NAME"),
        ("program.py", "'program.py' is a file; give MODULE:NAME"),
    ],
)
def test_the_command_has_one_clear_line_for_what_is_no_context(
    box: support.Sandbox, name: str, words: str
) -> None:
    box.script(MODULE, "mine.py")
    box.script("print('I was run')", "program.py")
    done = explain(box, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.startswith("daemon_context: ")
    assert len(done.stderr.splitlines()) == 1
