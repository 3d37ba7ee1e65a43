"""The trace: what each step did in which of the three processes, compared with what others see."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon_context import DEFAULT_STEPS
from daemon_context.look.trace import Trace
from tests.helpers import support

MODULE = Path("-m")  # after it: the module that `python` runs
IDS = ("pid", "ppid", "pgid", "sid", "tty")
CHANGED = "what it changed"


def command(box: support.Sandbox, *args: str) -> subprocess.CompletedProcess[str]:
    (box.path / "tmp").mkdir(exist_ok=True)
    environ = {"TMPDIR": str(box.path / "tmp")}
    return box.run(MODULE, "daemon_context", "trace", *args, env=environ)


def rows(text: str) -> list[dict[str, str]]:
    """The lines of an aligned table by the names in its head, and what each step changed."""
    head, *lines = text.rstrip().splitlines()
    starts = [match.start() for match in re.finditer(r"(?<!\S)\S+( \S+)*", head)]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    names = [head[start:end].strip() for start, end in spans]
    found: list[dict[str, str]] = []
    for line in lines:
        if line.startswith("      "):
            found[-1][CHANGED] = f"{found[-1][CHANGED]} {line.strip()}".strip()
        else:
            cells = (line[start:end].strip() for start, end in spans)
            found.append({**dict(zip(names, cells, strict=True)), CHANGED: ""})
    return found


# --- the command


def test_the_command_tells_what_every_step_did_in_all_three_processes(
    box: support.Sandbox,
) -> None:
    done = command(box, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    records = json.loads(done.stdout)
    forks = ["first fork", "setsid", "second fork", "done"]
    assert [r["outcome"] for r in records if r["name"] == "detach"] == forks
    assert [r["name"] for r in records if r["outcome"] in ("done", "not needed")] == [
        *DEFAULT_STEPS.names
    ]
    assert [r["number"] for r in records if r["name"] != "detach"] == [1, 2, 3, *range(5, 16)]
    assert all(r["description"] for r in records)
    expected = ["launcher"] * 3 + ["session leader"] * 2 + ["daemon"] * 13
    assert [r["process"] for r in records] == expected
    launcher, leader, daemon = (
        next(r["ids"] for r in records if r["process"] == process)
        for process in ("launcher", "session leader", "daemon")
    )
    assert len({launcher["pid"], leader["pid"], daemon["pid"]}) == 3
    assert (leader["ppid"], daemon["ppid"]) == (launcher["pid"], leader["pid"])
    assert (leader["pgid"], leader["sid"]) == (launcher["pgid"], launcher["sid"])
    assert daemon["pgid"] == daemon["sid"] == leader["pid"]
    changed = {r["name"]: r["changes"] for r in records}
    assert changed["change-directory"] == {"cwd": [str(box.path), "/"]}
    assert changed["prevent-core"]["core"][1] == "0 0"
    assert changed["change-root"] == {}


def test_the_table_says_the_same_in_aligned_columns(box: support.Sandbox) -> None:
    done = command(box)
    assert (done.returncode, done.stderr) == (0, "")
    table = rows(done.stdout)
    assert list(table[0]) == ["#", "step", "outcome", "process", *IDS, CHANGED]
    assert max(len(line) for line in done.stdout.splitlines()) <= 100 + len(str(box.path))
    assert [row["step"] for row in table if row["step"] != "detach"] == [
        name for name in DEFAULT_STEPS.names if name != "detach"
    ]
    described = {row["step"]: row[CHANGED] for row in table}
    assert described["change-directory"] == f"cwd {box.path} -> /"
    assert "SIGTERM terminate" in described["install-signals"]
    assert described["change-owner"] == ""


@pytest.mark.parametrize("args", [[], ["--json"]])
def test_a_path_of_another_encoding_does_not_cost_the_trace(
    box: support.Sandbox, args: list[str]
) -> None:
    place = os.fsencode(box.path) + b"/\xff"
    os.mkdir(place)
    box.path = Path(os.fsdecode(place))
    done = command(box, *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\udcff" in done.stdout


def test_a_program_that_can_print_ascii_only_may_print_both(box: support.Sandbox) -> None:
    done = box.run(
        """
        import sys
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False, stdout=sys.stdout, record_trace=True) as daemon:
            print(daemon.explain())
            print(daemon.trace)
        """,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "not needed" in done.stdout
    assert "umask" in done.stdout


@pytest.mark.parametrize("args", [[], ["--json"], ["--pause", "0.001"]])
def test_the_command_leaves_nothing(box: support.Sandbox, args: list[str]) -> None:
    assert command(box, *args).returncode == 0
    assert list((box.path / "tmp").iterdir()) == []
    assert not box.processes()  # not even for a moment: the command has waited


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_the_command_tells_it_where_streams_are_closed(box: support.Sandbox, closed: str) -> None:
    prefix = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    done = box.run(MODULE, "daemon_context", "trace", prefix=prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["step"] for row in rows(done.stdout)][-1] == "report-ready"


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "x"])
def test_the_command_refuses_a_pause_that_is_no_time(box: support.Sandbox, seconds: str) -> None:
    done = command(box, f"--pause={seconds}")
    assert done.returncode == 2
    assert "--pause: " in done.stderr
    assert "_seconds" not in done.stderr
    assert not box.processes()


@pytest.mark.parametrize("verb", ["explain", "trace"])
@pytest.mark.parametrize("place", ["here", os.fsdecode(b"\xff")])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_the_command_tells_it_in_any_locale_and_place(
    box: support.Sandbox, encoding: str, place: str, verb: str
) -> None:
    (box.path / place).mkdir()
    prefix = ["env", "-C", box.path / place]
    environ = {
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "LC_ALL": "POSIX" if encoding == "ascii" else "C.UTF-8",
        "PYTHONIOENCODING": encoding,
    }
    done = box.run(MODULE, "daemon_context", verb, env=environ, prefix=list(map(str, prefix)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "report-ready" in done.stdout


def test_pausing_shows_each_process_while_it_is_so(box: support.Sandbox) -> None:
    seen = set()
    program = box.popen(MODULE, "daemon_context", "trace", "--pause", "0.15")
    assert program.stderr is not None
    for line in program.stderr:
        shown = re.search(r"in the ([a-z ]+): (pid.*)", line)
        assert shown, line
        ids = dict(re.findall(r"(\w+) (\S+)", shown[2]))
        fields = support.stat(int(ids["pid"]))
        if select.select([program.stderr], [], [], 0)[0] or not fields:
            continue  # too late: the next step is done already
        assert fields[1:4] == [ids["ppid"], ids["pgid"], ids["sid"]]
        seen.add(shown[1])
    assert program.wait() == 0
    assert seen == {"launcher", "session leader", "daemon"}


@pytest.mark.parametrize("moment", ["open-streams", "setsid", "change-directory"])
def test_an_interrupted_pause_leaves_nothing(box: support.Sandbox, moment: str) -> None:
    place = box.path / "tmp"
    place.mkdir()
    environ = {"TMPDIR": str(place)}
    program = box.popen(MODULE, "daemon_context", "trace", "--pause", "0.1", env=environ)
    assert program.stderr is not None
    while moment not in program.stderr.readline():
        pass
    program.send_signal(signal.SIGINT)
    assert program.wait(support.DEADLINE) == 130
    box.settled()
    assert list(place.iterdir()) == []


# --- compared with /proc and ps, while every process waits for us


OBSERVED = """
    import json, os, sys, time
    from daemon_context import DaemonContext

    place = os.getcwd()
    count = 0

    def observe(record):
        global count
        name = os.path.join(place, f"record-{count}")
        with open(f"{name}.tmp", "w") as file:
            json.dump(record.as_dict(), file)
        os.rename(f"{name}.tmp", name)
        while not os.path.exists(os.path.join(place, f"go-{count}")):
            time.sleep(0.005)
        count += 1

    context = DaemonContext(
        pidfile="d.pid", umask=0o027, stdout="log", record_trace=True, detach_process=True
    )
    context.record_trace = observe
    with context as daemon:
        daemon.sleep()
"""


def ps(pid: int) -> list[str]:
    """PID, PPID, PGID, SID and TTY, as ``ps -axj`` shows them."""
    listing = subprocess.run(["ps", "-axj"], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines()[1:]:
        parent, *ids, terminal = line.split()[:5]
        if ids[0] == str(pid):
            return [ids[0], parent, *ids[1:], terminal]
    raise AssertionError(f"ps does not show {pid}")


def test_the_trace_says_what_ps_and_proc_say(box: support.Sandbox) -> None:
    with support.Terminal() as terminal:
        program = box.popen(OBSERVED, prefix=["setsid", "--ctty"], **terminal.streams)
        records: list[dict[str, Any]] = []
        while not records or records[-1]["name"] != DEFAULT_STEPS.names[-1]:
            number = len(records)
            records.append(record := json.loads(box.text(f"record-{number}")))
            ids, changes = record["ids"], record["changes"]
            pid = ids["pid"]
            assert ps(pid) == [str(ids[name]) for name in IDS]
            assert support.stat(pid)[1:4] == [str(ids[name]) for name in IDS[1:4]]
            if "umask" in changes:
                assert support.status(pid)["Umask"] == f"0{changes['umask'][1]}"
            if "cwd" in changes:
                assert os.readlink(f"/proc/{pid}/cwd") == changes["cwd"][1]
            if "core" in changes:
                limits = Path(f"/proc/{pid}/limits").read_text()
                assert re.search(r"core file size +0 +0 ", limits)
            if "descriptors" in changes:
                there = support.descriptors(pid)
                for fd, what in changes["descriptors"][1].items():
                    assert there[int(fd)] == what.replace("reserved", os.devnull)
            (box.path / f"go-{number}").touch()
        assert program.wait(support.DEADLINE) == 0
        terminals = [record["ids"]["tty"] for record in records]
        assert terminals[:4] == [terminal.name.removeprefix("/dev/")] * 4
        assert set(terminals[4:]) == {"?"}
    os.kill(box.pid(), signal.SIGTERM)
    box.settled()


# --- what changed lies within what the steps say that they touch


EVERYTHING = """
    import io, json, logging, os, resource, signal, socket, sys
    from daemon_context import DEFAULT_STEPS, DaemonContext, Step

    class Lie(Step):
        touches = frozenset({"cwd"})
        def apply(self, walk):
            os.umask(0o012)

    def reload(number, frame): pass

    kind = sys.argv[1]
    answer = open("trace.json", "w")
    data = open("data", "w")
    data.write("buffered")
    unpreserved = open("unpreserved", "w")
    unpreserved.write("buffered")
    left, right = socket.socketpair()
    wakeup = os.pipe()
    os.set_blocking(wakeup[1], False)
    signal.set_wakeup_fd(wakeup[1])
    logging.basicConfig(filename="records.log")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.umask(0o077)
    os.makedirs("root/srv", exist_ok=True)
    os.chmod("root", 0o755)
    os.chmod("root/srv", 0o755)
    options = dict(
        umask=0o027, working_directory="/srv", prevent_core=True, pidfile="d.pid",
        files_preserve=[answer, data, right], stdin="data", stdout=io.StringIO(), stderr="log",
        signal_map={signal.SIGUSR1: reload, signal.SIGTERM: "terminate", signal.SIGHUP: None},
        record_trace=True, detach_process="foreground" not in kind,
        steps=DEFAULT_STEPS.insert_after("set-umask", Lie()) if "lie" in kind else DEFAULT_STEPS,
    )
    if os.getuid() == 0:
        options.update(uid="nobody", initgroups=True)
        if "plain" not in kind:
            options.update(chroot_directory="root")
    else:
        options.update(working_directory="root/srv")
    context = DaemonContext(**options)

    def body(context=context):
        json.dump([record.as_dict() for record in context.trace], answer)
        answer.close()

    if "spawn" in kind:
        context.spawn(body).wait()
    else:
        with context:
            body()
"""
SEEN_IN_ALL = {"cwd", "umask", "core", "signals", "signal mask", "descriptors", "streams"}
SEEN_WHEN = {
    "foreground": {"wake-up descriptor"},
    "detached": {"pid", "ppid", "pgid", "sid", "tty", "wake-up descriptor"},
    "spawn": {"pid", "ppid", "pgid", "sid", "tty", "wake-up descriptor"},
}


def traced(box: support.Sandbox, kind: str) -> list[dict[str, Any]]:
    """The records of a start with as many options as possible, on a terminal of its own."""
    with support.Terminal() as terminal:
        streams = {"stdin": terminal.slave}
        program = box.popen(EVERYTHING, kind, prefix=["setsid", "--ctty"], **streams)
        _, errors = program.communicate(timeout=support.DEADLINE)
        assert (program.returncode, errors) == (0, "")
    box.settled()
    return json.loads(box.text("trace.json"))


@pytest.mark.parametrize("root", ["chroot", "plain"])
@pytest.mark.parametrize("kind", ["detached", "foreground", "spawn"])
def test_what_changed_lies_within_what_the_step_touches(
    open_box: support.Sandbox, kind: str, root: str
) -> None:
    seen: set[str] = set()
    for record in traced(open_box, f"{kind} {root}"):
        changes = set(record["changes"])
        assert changes <= DEFAULT_STEPS[record["name"]].touches, record
        seen |= changes
    expected = SEEN_IN_ALL | SEEN_WHEN[kind]
    if os.geteuid() == 0:
        expected |= {"uid", "gid", "groups", "environment"}
        expected |= {"root"} if root == "chroot" else set()
    assert seen == expected  # or the test above would say nothing


def test_a_step_that_touches_something_else_is_found_out(open_box: support.Sandbox) -> None:
    lie = next(r for r in traced(open_box, "detached lie") if r["name"] == "lie")
    assert lie["changes"] == {"umask": ["027", "012"]}


@pytest.mark.root
def test_a_chroot_hides_nothing_and_keeps_no_way_out(open_box: support.Sandbox) -> None:
    done = open_box.run("""
        import os, sys
        from daemon_context import DaemonContext
        os.mkdir("root")
        answer = open("trace", "w")
        context = DaemonContext(
            chroot_directory="root", uid="nobody", record_trace=True, detach_process=True,
            files_preserve=[answer], pidfile="d.pid", stderr="log")
        with context as daemon:
            answer.write(str(context.trace))
            answer.close()
            daemon.sleep()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    table = {row["step"]: row for row in rows(open_box.text("trace"))}
    assert re.fullmatch(r"cwd .* -> /; root inode .* -> inode .*", table["change-root"][CHANGED])
    nobody = "65534 " * 3 + "65534"
    assert table["change-owner"][CHANGED].startswith(f"uid 0 0 0 0 -> {nobody}; gid")
    assert "1 /dev/null" in table["redirect-streams"][CHANGED]
    pid = open_box.pid()
    assert not [what for what in support.descriptors(pid).values() if what.startswith("/proc")]
    os.kill(pid, signal.SIGTERM)
    open_box.settled()


# --- off, and failing


def test_off_there_is_no_trace_and_nothing_of_it_is_loaded(box: support.Sandbox) -> None:
    done = box.run("""
        import sys
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False, stdout=sys.stderr) as daemon:
            assert daemon.trace is None
            assert daemon._walk.trace is None
            print([name for name in sys.modules if name.startswith("daemon_context.")
                   and name.rpartition(".")[2] in ("trace", "snapshot", "tables")])
        assert DaemonContext().trace is None
    """)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_a_program_of_any_name_is_traced(box: support.Sandbox) -> None:
    # The kernel cuts the name at 15 bytes, and so in the middle of a character.
    path = box.script(
        """
        import sys
        from daemon_context import DaemonContext
        with DaemonContext(detach_process=False, stdout=sys.stdout, umask=0o027,
                           record_trace=True) as daemon:
            print(daemon.trace["set-umask"].changes["umask"][1])
    """
    )
    program = path.rename(path.with_name("poll-the-feedsä"))
    program.write_text(f"#!{sys.executable}\n{program.read_text()}")
    done = subprocess.run(
        [program], capture_output=True, text=True, check=False, cwd=box.path, env=box.environ
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "027\n", "")


def test_a_step_that_has_no_record(box: support.Sandbox) -> None:
    trace = Trace()
    with pytest.raises(KeyError, match="detatch"):
        trace["detatch"]


FAILING = """
    import os
    from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step

    class Fail(Step):
        touches = frozenset({"umask"})
        def describe(self, options):
            return "do what can't be done"
        def apply(self, walk):
            os.umask(0o012)
            raise RuntimeError("out of luck")

    context = DaemonContext(
        detach_process=False, record_trace=True, working_directory=".", umask=0o022,
        steps=DEFAULT_STEPS.insert_after("set-umask", Fail()))
    records = []
    context.record_trace = records.append
    try:
        context.open()
    except DaemonError as error:
        pass
    last = records[-1]
"""


def test_a_failing_step_is_recorded(box: support.Sandbox) -> None:
    shown = "print(last.name, last.outcome, last.process, last.changes, last.description, sep='|')"
    done = box.run(f"{FAILING}    {shown}\n")
    assert (done.returncode, done.stderr) == (0, "")
    changes = {"umask": ("022", "012")}
    said = f"fail|failed|this process|{changes}|do what can't be done: out of luck\n"
    assert done.stdout == said


def test_a_failed_start_leaves_its_trace(box: support.Sandbox) -> None:
    done = box.run(f"{FAILING}    print(context.trace['fail'].outcome)\n")
    assert (done.returncode, done.stdout) == (0, "failed\n")


def test_an_error_that_can_not_be_printed_is_recorded_and_is_the_error(
    box: support.Sandbox,
) -> None:
    done = box.run("""
        from tests.helpers.launching import *
        steps = DEFAULT_STEPS.insert_after(sys.argv[1], Fail("unprintable"))
        context = DaemonContext(detach_process=True, record_trace=True, steps=steps)
        print(attempt(context)["message"])
    """, "set-umask")  # fmt: skip
    assert "Unprintable" in done.stdout, done
