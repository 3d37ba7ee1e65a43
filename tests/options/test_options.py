"""The options: PEP 3143's names and order, defaults, and every bad value refused in preflight."""

from __future__ import annotations

import inspect
import io
import os
import re
import signal
import socket
import sys
import tempfile
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from daemon_context import (
    DEFAULT_STEPS,
    DaemonContext,
    DaemonError,
    PidFile,
    Step,
    default_signal_map,
)
from daemon_context.options.freezing import freeze
from daemon_context.sequence.step import as_steps
from tests.helpers import support

POSITIONAL = [
    "chroot_directory", "working_directory", "umask", "uid", "gid", "initgroups", "prevent_core",
    "detach_process", "files_preserve", "pidfile", "stdin", "stdout", "stderr", "signal_map",
]  # fmt: skip
KEYWORDS = ["readiness", "start_timeout", "threads", "preserve_logging", "steps"]
OPTIONS = POSITIONAL + KEYWORDS
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- names, order, defaults


def test_the_positional_order_is_that_of_python_daemon() -> None:
    parameters = list(inspect.signature(DaemonContext).parameters.values())
    ordered = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert ordered == POSITIONAL
    assert set(KEYWORDS) <= set(keywords)


def test_the_readme_names_all_that_python_daemons_has_not() -> None:
    theirs = {*POSITIONAL, "close", "is_open", "open", "terminate"}
    ours = {name for name in dir(DaemonContext()) if not name.startswith("_")}
    _, _, text = (
        (support.ROOT / "docs/howto/from-python-daemon.md")
        .read_text()
        .partition("has some names more")
    )
    assert set(re.findall(r"`(\w+)`", text)) == ours - theirs


def test_positional_values_arrive_at_their_names() -> None:
    values = ["/c", "/w", 7, 11, 12, True, False, True, [5], "p", "i", "o", "e", {1: None}]
    context = DaemonContext(*values)
    assert [getattr(context, name) for name in POSITIONAL] == values


def test_defaults_are_resolved_when_they_are_read() -> None:
    context = DaemonContext(detach_process=True)
    read = {name: getattr(context, name) for name in OPTIONS}
    assert read.pop("steps") is not None
    assert read == {
        "chroot_directory": None, "working_directory": "/", "umask": 0, "uid": os.getuid(),
        "gid": os.getgid(), "initgroups": False, "prevent_core": True, "detach_process": True,
        "files_preserve": None, "pidfile": None, "stdin": None, "stdout": None, "stderr": None,
        "signal_map": default_signal_map(), "readiness": "open", "start_timeout": None,
        "threads": "warn", "preserve_logging": True,
    }  # fmt: skip
    assert isinstance(DaemonContext().detach_process, bool)
    assert not context.is_open


def test_is_open_can_not_be_set() -> None:
    with pytest.raises(AttributeError):
        DaemonContext().is_open = True  # type: ignore[misc]


def test_the_default_signal_map_is_that_of_the_pep_and_new_each_time() -> None:
    assert default_signal_map() == {
        signal.SIGTSTP: None,
        signal.SIGTTIN: None,
        signal.SIGTTOU: None,
        signal.SIGTERM: "terminate",
    }
    default_signal_map().clear()
    assert default_signal_map()
    assert DaemonContext().signal_map is not DaemonContext().signal_map


def test_gid_follows_a_changed_uid() -> None:
    assert DaemonContext(uid="nobody").gid == 65534
    assert DaemonContext(uid=65534).gid == 65534
    assert DaemonContext(uid="nobody", gid=3).gid == 3
    assert DaemonContext(uid=os.getuid()).gid == os.getgid()


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
    st.complex_numbers(), st.lists(st.integers()), st.dictionaries(st.integers(), st.text()),
    st.builds(object), st.sampled_from([int, Step, PidFile, len, sys.stdin, ..., NotImplemented]),
    st.builds(Path, st.just("x")), st.builds(StringIO), st.sets(st.text()),
)  # fmt: skip


@CALM
@given(st.dictionaries(st.sampled_from(OPTIONS), ANYTHING))
def test_constructing_takes_any_object_and_gives_it_back(values: dict[str, Any]) -> None:
    context = DaemonContext(**values)
    for name, value in values.items():
        if value is not None:
            assert getattr(context, name) is value


@CALM
@given(st.sampled_from(OPTIONS), ANYTHING)
def test_any_object_is_either_usable_or_refused_by_name(option: str, value: Any) -> None:
    assume((option, value) != ("steps", sys.stdin))  # see the tests of one-shot sequences
    context = DaemonContext(**{"detach_process": True, option: value})
    try:
        freeze(context)
        as_steps(context.steps)
    except DaemonError as error:
        named = option == "steps" or option in str(error)
        shown = option in ("signal_map", "files_preserve", "steps") or repr(value) in str(error)
    else:
        named = shown = True
    assert (named, shown) == (True, True)


@CALM
@given(st.dictionaries(st.sampled_from(OPTIONS), ANYTHING))
def test_options_can_be_reassigned_until_open(values: dict[str, Any]) -> None:
    context = DaemonContext()
    for name, value in values.items():
        setattr(context, name, value)
        if value is not None:
            assert getattr(context, name) is value


def test_frozen_options_can_not_be_set() -> None:
    options = freeze(DaemonContext(detach_process=True))
    with pytest.raises(AttributeError, match="frozen"):
        options.umask = 1


def test_constructing_touches_nothing(box: support.Sandbox) -> None:
    done = box.run("""
        import os, sys
        from daemon_context import DaemonContext

        seen = []
        def hook(event, args):
            if seen is not None and event.split(".")[0] in ("open", "os", "fcntl", "socket"):
                seen.append((event, args))
        sys.addaudithook(hook)
        options = dict(record_trace=True, pidfile="first.pid", stdout="log")
        DaemonContext("/nope", uid=0, **options)  # loads what starts run
        seen.clear()
        DaemonContext(
            "/nope", "/nope", 0o7777, "nobody", "nogroup", True, True, True, ["/nope"], "/nope/p",
            "/nope/in", "/nope/out", "/nope/err", {999: "nope"}, steps=[None],
        )
        found, seen = seen, None
        print(found)
    """)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- what is refused, with the option, the value and what is expected


class Handler:
    """Neither None, nor a name, nor callable."""


def closed_file() -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.close()
    return file


HANDLER = Handler()
REFUSED: list[tuple[str, Any, str]] = [
    ("chroot_directory", 5, "a path"),
    ("chroot_directory", "", "not empty"),
    ("chroot_directory", "a\0b", "NUL"),
    ("chroot_directory", object(), "a path"),
    ("working_directory", -7, "a path or the descriptor"),
    ("working_directory", "", "not empty"),
    ("working_directory", "/tmp\0", "NUL"),
    ("working_directory", b"/tmp\0", "NUL"),
    ("working_directory", "/\ud800", "bytes"),
    ("working_directory", ["/tmp"], "a path"),
    ("umask", -1, "0 to 0o777"),
    ("umask", 0o1000, "0 to 0o777"),
    ("umask", "022", "0 to 0o777"),
    ("umask", True, "0 to 0o777"),
    ("umask", 18.0, "0 to 0o777"),
    ("uid", -1, "number"),
    ("uid", 2**32 - 1, "number"),
    ("uid", 2**64, "number"),
    ("uid", 1.0, "number"),
    ("uid", True, "number"),
    ("uid", "no-such-user", "user that exists"),
    ("uid", "", "user that exists"),
    ("uid", "no\0body", "user that exists"),
    ("uid", 54321, "gid as well"),
    ("gid", -1, "number"),
    ("gid", 2**32 - 1, "number"),
    ("gid", "no-such-group", "group that exists"),
    ("gid", [0], "number"),
    ("initgroups", "yes", "True or False"),
    ("initgroups", None, "True or False"),
    ("prevent_core", 2, "True or False"),
    ("prevent_core", "no", "True or False"),
    ("detach_process", "yes", "True or False"),
    ("detach_process", 2, "True or False"),
    ("files_preserve", 5, "iterable"),
    ("files_preserve", [object()], "fileno"),
    ("files_preserve", [-1], "0 or more"),
    ("files_preserve", [2**31], "0 or more"),
    ("files_preserve", ["/a/path"], "fileno"),
    ("files_preserve", [True], "fileno"),
    ("files_preserve", [closed_file()], "open file"),
    ("files_preserve", [socket.socket], "open file"),
    ("pidfile", "", "not empty"),
    ("pidfile", "a\0b", "NUL"),
    ("pidfile", 7, "context manager"),
    ("pidfile", object(), "context manager"),
    ("pidfile", PidFile, "context manager"),
    ("pidfile", sys.__stdin__, "an open file locks nothing: give its path"),
    ("pidfile", io.BytesIO(), "an open file locks nothing"),
    ("stdin", object(), "file object"),
    ("stdin", closed_file(), "open file"),
    ("stdin", 999_999, "not open"),
    ("stdin", "", "not empty"),
    ("stdout", -1, "0 or more"),
    ("stdout", True, "descriptor"),
    ("stdout", "a\0b", "NUL"),
    ("stdout", 4.2, "file object"),
    ("stderr", closed_file(), "open file"),
    ("stderr", [], "file object"),
    ("signal_map", 5, "mapping"),
    ("signal_map", [1, 2], "mapping"),
    ("signal_map", (1 / 0 for _ in "x"), "mapping"),
    ("files_preserve", (1 / 0 for _ in "x"), "iterable"),
    ("signal_map", {signal.SIGKILL: None}, "can be caught"),
    ("signal_map", {signal.SIGSTOP: "terminate"}, "can be caught"),
    ("signal_map", {999: None}, "number of a signal"),
    ("signal_map", {0: None}, "number of a signal"),
    ("signal_map", {-1: None}, "number of a signal"),
    ("signal_map", {"SIGHUP": None}, "number of a signal"),
    ("signal_map", {signal.SIGHUP: "no_such_method"}, "method of the context"),
    ("signal_map", {signal.SIGHUP: "umask"}, "method of the context"),
    ("signal_map", {signal.SIGHUP: ""}, "method of the context"),
    ("signal_map", {signal.SIGHUP: HANDLER}, "callable"),
    ("signal_map", {signal.SIGHUP: 5}, "callable"),
    ("signal_map", {signal.SIGHUP: False}, "callable"),
    ("readiness", "notify", "'open' or 'explicit'"),
    ("readiness", None, "'open' or 'explicit'"),
    ("start_timeout", -1, "positive"),
    ("start_timeout", 0, "positive"),
    ("start_timeout", float("nan"), "positive"),
    ("start_timeout", float("inf"), "positive"),
    ("start_timeout", "5", "positive"),
    ("start_timeout", True, "positive"),
    ("threads", "stop", "'warn' or 'refuse' or 'ignore'"),
    ("threads", None, "'warn' or 'refuse' or 'ignore'"),
    ("preserve_logging", "no", "True or False"),
]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    REFUSED,
    ids=[f"{o}-{n}" for n, (o, _, _) in enumerate(REFUSED)],
)
def test_a_bad_value_is_refused(option: str, value: Any, expected: str) -> None:
    before = support.snapshot()
    context = DaemonContext(**{"detach_process": True, option: value})
    with pytest.raises(DaemonError) as caught:
        freeze(context)
    message = str(caught.value)
    assert message.startswith(f"{option}=")
    assert expected in message
    assert "can't be used" in message
    assert _shown(value) in message
    assert support.snapshot() == before


def _shown(value: Any) -> str:
    """The value as the message has it: of a map or list the entry that is wrong."""
    if isinstance(value, dict):
        (target,) = value.values()
        return f": {target!r}}}"
    if isinstance(value, list) and len(value) == 1:
        return repr(value[0])
    return repr(value)


def test_a_sequence_that_is_none_is_refused() -> None:
    for steps, words in [
        (5, "steps=5"),
        (None, "steps=None"),
        ([object()], "is not a step"),
        ([Step], "not its class: Step()"),
        (["detach"], "'detach' is not a step"),
        ([Step(), Step()], "two steps are named"),
    ]:
        with pytest.raises(DaemonError) as caught:
            as_steps(steps)
        assert words in str(caught.value)


def test_a_sequence_that_raises_is_refused() -> None:
    with pytest.raises(DaemonError, match=r"^steps="):
        as_steps(1 / 0 for _ in "x")


def test_a_sequence_from_a_generator_serves_more_than_one_look() -> None:
    context = DaemonContext(detach_process=True, steps=(step for step in DEFAULT_STEPS))
    assert len(context.explain()) == len(context.explain()) == len(DEFAULT_STEPS)


def test_a_stream_of_a_closed_descriptor_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file:
        number = file.fileno()
        other = os.dup(number)
        os.close(other)
    for option in ("stdin", "stdout", "stderr"):
        with pytest.raises(DaemonError, match=f"^{option}=.*not open"):
            freeze(DaemonContext(detach_process=True, **{option: other}))


# --- what is accepted


@pytest.mark.parametrize(
    "items",
    [
        range(1024), [], (), {5, 6}, [None, 3, None], iter([3, 4]), (n for n in (3, 4)),
        {3: "a"}, [1_000_000], [StringIO()],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_files_preserve_takes_any_iterable(items: Any) -> None:
    freeze(DaemonContext(detach_process=True, files_preserve=items))


def test_a_file_alone_is_no_list_of_files_to_preserve(tmp_path: Path) -> None:
    with (
        open(tmp_path / "log", "a+") as file,  # which would give its lines, and has none
        pytest.raises(DaemonError, match="such as a list with that file in it"),
    ):
        freeze(DaemonContext(detach_process=True, files_preserve=file))


def test_files_preserve_takes_descriptors_and_files(tmp_path: Path) -> None:
    left, right = socket.socketpair()
    with (tmp_path / "f").open("w") as file, left, right:
        given_items = [file, left, right.fileno(), None, 900]
        copy = list(given_items)
        options = freeze(DaemonContext(detach_process=True, files_preserve=given_items))
        assert options.files_preserve == {file.fileno(), left.fileno(), right.fileno(), 900}
        assert given_items == copy


def test_a_generator_serves_more_than_one_look() -> None:
    context = DaemonContext(detach_process=True, files_preserve=(n for n in (7, 8)))
    context.explain()
    assert freeze(context).files_preserve == {7, 8}


def test_given_maps_and_lists_are_not_modified() -> None:
    signal_map = {signal.SIGHUP: None, signal.SIGTERM: "terminate"}
    preserve = [0, 1, 2]
    context = DaemonContext(detach_process=True, signal_map=signal_map, files_preserve=preserve)
    freeze(context)
    assert context.signal_map is signal_map
    assert signal_map == {signal.SIGHUP: None, signal.SIGTERM: "terminate"}
    assert context.files_preserve is preserve
    assert preserve == [0, 1, 2]


def test_a_signal_map_takes_what_the_pep_says() -> None:
    def handler(number: int, frame: Any) -> None: ...

    context = DaemonContext(detach_process=True)
    context.signal_map = {
        signal.SIGHUP: None,
        signal.SIGTERM: "terminate",
        signal.SIGINT: handler,
        signal.SIGUSR1: signal.SIG_DFL,
        signal.SIGUSR2: signal.SIG_IGN,
        signal.SIGRTMIN + 1: "request_stop",
    }
    frozen = freeze(context).signal_map
    assert frozen[signal.SIGHUP] == signal.SIG_IGN
    assert frozen[signal.SIGTERM] == context.terminate
    assert frozen[signal.SIGINT] is handler
    assert frozen[signal.SIGUSR1] == signal.SIG_DFL
    assert frozen[signal.SIGRTMIN + 1] == context.request_stop


def test_paths_of_every_kind_become_absolute(tmp_path: Path) -> None:
    for path in ("x", b"x", Path("x")):
        options = freeze(
            DaemonContext(
                detach_process=True, chroot_directory=path, working_directory=path,
                pidfile=path, stdin=path, stdout=path, stderr=path,
            )
        )  # fmt: skip
        here = os.path.abspath("x")
        assert options.chroot_directory == here
        assert options.working_directory == "/x"  # inside the new root
        assert options.pidfile.path == here
        assert {target.path for target in options.streams} == {here}
    assert freeze(DaemonContext(working_directory="x")).working_directory == here


def test_any_context_manager_serves_as_pidfile() -> None:
    manager = nullcontext()
    options = freeze(DaemonContext(detach_process=True, pidfile=manager))
    assert options.pidfile is manager
    assert options.pidfile_lock is None


def test_a_file_that_locks_itself_serves_as_pidfile(tmp_path: Path) -> None:
    class Locked(io.FileIO):
        def __enter__(self) -> Any:
            return self

    with Locked(tmp_path / "d.pid", "w") as file:
        assert freeze(DaemonContext(detach_process=True, pidfile=file)).pidfile is file


def test_owners_are_numbers_or_names() -> None:
    options = freeze(DaemonContext(detach_process=True, uid="nobody", gid="daemon"))
    assert (options.uid, options.gid, options.user) == (65534, 1, "nobody")
    options = freeze(DaemonContext(detach_process=True, uid=54321, gid=54322))
    assert (options.uid, options.gid, options.user, options.groups) == (
        54321,
        54322,
        None,
        (54322,),
    )
