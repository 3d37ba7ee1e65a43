"""Text from a daemon that may be hostile: on no way out of it does a terminal, a log or a reader of
lines obey it, and none of it is longer than the place for it.

The kind test: every channel with the same text. `daemon_context.system.text` is the one function.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_context.system.text import shown
from tests.helpers import support
from tests.helpers.syslog import Log, prefix

#: Terminal commands, C1, NUL, bidi overrides, invisible ones, every kind of line end, half a
#: character, a forged record of syslog; and far more of it than any place has room for.
WICKED = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\0\r\b\x7f\x85\u2028\u2029\v\f\u202e\u2066\u200b\u2060\ufeff\U000e0041"
    "\ud83d\udcff\n<27>Jan  1 00:00:00 sshd[1]: forged"
)
#: The start of every program.
HEAD = f"""
import json, os, signal, sys, time
from daemon_context import DEFAULT_STEPS, Daemon, DaemonContext, DaemonError, Step, embedding
from daemon_context.report.frames import ERROR, READY, send
WICKED = {WICKED!a}
LONG = WICKED + "x" * 200_000
def tell(*texts):
    with open("told.tmp", "w") as file:
        json.dump(texts, file)
    os.rename("told.tmp", "told")
def tell_error(call, *args):
    try:
        call(*args)
    except DaemonError as error:
        tell(str(error), *getattr(error, "__notes__", ()))
"""
SPACES = "\xa0\u202f\u3000"
ROOM = 100_000  # characters, of all that one error or status has


def told(box: support.Sandbox, body: str, *args: Any, **kwargs: Any) -> list[str]:
    """What a program got to know from its daemon."""
    import json
    import textwrap

    done = box.run(box.script(HEAD + textwrap.dedent(body)), *args, **kwargs)
    assert (done.returncode, done.stderr) == (0, "")
    texts: list[str] = json.loads(box.text("told"))
    return texts


def is_harmless(text: str, lines: bool = False) -> bool:
    """Whether nobody who shows it obeys it."""
    return all(c.isprintable() or c in SPACES or (lines and c == "\n") for c in text)


def check(texts: list[str], room: int = ROOM, *, lines: bool = True) -> None:
    assert texts
    for text in texts:
        assert is_harmless(text, lines), text[:300]
    assert any("owned" in text and r"\x1b[2J" in text for text in texts)
    assert sum(map(len, texts)) <= room


@given(st.text(), st.integers(100, 300), st.booleans())
def test_any_text_is_shown_and_what_is_shown_stays(text: str, largest: int, lines: bool) -> None:
    once = shown(text * 20, largest, lines=lines)
    assert is_harmless(once, lines)
    assert len(once) <= largest
    assert shown(once, largest, lines=lines) == once
    once.encode()
    if is_harmless(text, lines) and len(text) <= largest:
        assert shown(text, largest, lines=lines) == text


def test_what_people_write_is_shown_as_it_is() -> None:
    text = "füńf → 六 \U0001f600 « a\xa0» C:\\temp 'x' é"
    assert shown(text, 100) == text
    assert shown(text + "\n\t", 100) == text + r"\n\t"


ERRORS = {
    "step": """
        class Fail(Step):
            def apply(self, walk):
                error = RuntimeError(LONG)
                for _ in range(100):
                    error.add_note(LONG)
                raise error
        steps = DEFAULT_STEPS.insert_after("change-owner", Fail())
        tell_error(DaemonContext(steps=steps, uid="nobody").spawn, print)
    """,
    "body": """
        def target():
            raise RuntimeError(LONG)
        tell_error(DaemonContext(readiness="explicit", uid="nobody").spawn, target)
    """,
    "exit": """
        def target():
            sys.exit(LONG)
        tell_error(DaemonContext(readiness="explicit", uid="nobody").spawn, target)
    """,
    "class": """
        def target():
            raise type(LONG.replace("\\0", "").replace("\\ud83d", "").replace("\\udcff", ""),
                       (Exception,), {})("x")
        tell_error(DaemonContext(readiness="explicit", uid="nobody").spawn, target)
    """,
    "forged": """
        class Lie(Step):
            def apply(self, walk):
                LONG = globals()["LONG"][:20_000]  # more would not fit into a frame
                error = {"class": LONG, "text": LONG, "ours": "StepError", "facts": {},
                         "notes": [LONG] * 2, "frames": [[LONG, 1, LONG]] * 3}
                fields = {"error": {**error, "cause": error}, "step": 1, "process": LONG}
                send(walk.report.report_w, ERROR, json.dumps(fields, ensure_ascii=False).encode(
                    "utf-8", "surrogatepass"))
                os._exit(0)
        steps = DEFAULT_STEPS.insert_after("change-owner", Lie())
        tell_error(DaemonContext(steps=steps, uid="nobody").spawn, print)
    """,
}


@pytest.mark.root
@pytest.mark.parametrize("way", ERRORS)
def test_errors(open_box: support.Sandbox, way: str) -> None:
    check(told(open_box, ERRORS[way]))


READINESS = {
    "ready": """
        context = DaemonContext(readiness="explicit", uid="nobody")
        def target():
            context.ready(WICKED)
        tell(context.spawn(target).status)
    """,
    "forged": """
        class Lie(Step):
            def apply(self, walk):
                send(walk.report.outcome_w, READY, LONG.encode("utf-8", "surrogatepass"))
        steps = DEFAULT_STEPS.insert_after("change-owner", Lie())
        tell(DaemonContext(steps=steps, uid="nobody").spawn(time.sleep, 0).status)
    """,
    "by name": """
        def target():
            embedding.current.ready(WICKED)
        if __name__ == "__main__":
            context = DaemonContext(readiness="explicit", uid="nobody")
            tell(context.spawn("program:target").status)
    """,
}


@pytest.mark.root
@pytest.mark.parametrize("way", READINESS)
def test_words_of_readiness(open_box: support.Sandbox, way: str) -> None:
    check(told(open_box, READINESS[way]), 1000, lines=False)


STATUS = """
    class Hostile(Daemon):
        def setup(self):
            self.say(False)
        def say(self, reloaded):
            said = {**self._said.values, "ready": True, "reloads": int(reloaded)}
            said["text"] = WICKED + "x" * 800_000
            if reloaded:
                said["text"] = ""
                said["reload_error"] = {"class": LONG, "text": LONG, "notes": [LONG],
                                        "frames": [[LONG, 1, LONG]]}
            self._said._overwrite(json.dumps(said).encode())
            self._said.tell = lambda **values: None
        def on_reload(self):
            self.say(True)
        def run(self):
            self.sleep()
    Hostile("d.pid", uid="nobody", working_directory=os.getcwd()).main()
"""


@pytest.mark.root
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_status_and_reload(open_box: support.Sandbox, encoding: str) -> None:
    """Whatever stands in the status file, which the daemon's user may write."""
    import textwrap

    box = open_box
    script = box.script(HEAD + textwrap.dedent(STATUS))
    env = {"PYTHONIOENCODING": encoding}
    done = box.run(script, "start", env=env)
    assert done.returncode == 0, done.stderr
    said = box.run(script, "status", env=env)
    assert said.returncode == 0
    check(said.stdout.splitlines(), 20_000, lines=False)
    shown_as_json = box.run(script, "status", "--json", env=env).stdout
    assert is_harmless(shown_as_json.rstrip("\n"))
    assert len(shown_as_json) < 50_000
    refused = box.run(script, "reload", env=env)
    assert refused.returncode == 1
    check([refused.stderr])
    assert box.run(script, "stop").returncode == 0


LAST = """
    context = DaemonContext(uid="nobody", detach_process=True, working_directory={place!r})
    with context:
        open("pid", "w").write(str(os.getpid()))
        raise RuntimeError(WICKED.replace("\\n", "") + "\\0<27>Jan  1 00:00:00 sshd[1]: forged")
"""


@pytest.mark.root
def test_last_words_on_a_stream(open_box: support.Sandbox) -> None:
    """A NUL ends a record there: none of them is the daemon's to write."""
    import textwrap

    box = open_box
    (box.path / "dev").mkdir()
    for name in ("null", "zero", "urandom"):
        (box.path / "dev" / name).touch()
    log = Log(box.path / "dev" / "log", socket.SOCK_STREAM)
    try:
        script = box.script(HEAD + textwrap.dedent(LAST.format(place=str(box.path))))
        done = box.run(script, prefix=prefix(box))
        assert (done.returncode, done.stderr) == (0, "")
        connection, _ = log.socket.accept()
        with connection, connection.makefile("rb") as stream:
            records = stream.read().decode().removesuffix("\0").split("\0")
    finally:
        log.socket.close()
    pid = box.pid("pid")
    for record in records:
        assert f" program.py[{pid}]: " in record
    check(records, lines=False)
    box.settled()
