"""The benchmark command: it measures two contenders, finds the marks, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page
from benchmarks.bench import Bench
from benchmarks.environment import PEERS, Environment
from benchmarks.figures import Figures, Outcome, Sample, Table, filled
from benchmarks.limb import Failed
from benchmarks.scenarios.code import ROLES
from benchmarks.show import Run
from tests.helpers import support


def command(box: support.Sandbox, *options: str) -> list[str]:
    """One round, without what needs the network or the extra: no peers, no tables."""
    return [
        sys.executable, "-m", "benchmarks", "--rounds", "1", "--quick", "--no-peers", "--silent",
        "--environment", str(box.path / "environment"), *options,
    ]  # fmt: skip


def environ(box: support.Sandbox) -> dict[str, str]:
    """The mark that contenders are given is our home."""
    return {**box.environ, "HOME": str(box.path), "TMPDIR": str(box.path)}


def run(box: support.Sandbox, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(box, *options),
        capture_output=True, text=True, timeout=120, cwd=support.ROOT, env=environ(box),
        check=False,
    )  # fmt: skip


def apart(box: support.Sandbox, code: str) -> str:
    """What a program prints that is apart, as a limb ends all children of who has started it."""
    (box.path / "apart.py").write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, str(box.path / "apart.py")],
        capture_output=True, text=True, timeout=120, check=False, cwd=box.path,
        env={**environ(box), "PYTHONPATH": str(support.ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def left_behind(box: support.Sandbox) -> list[Path]:
    """All that runs and has our home, the zombies excepted."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={box.path}".encode() in path.read_bytes().split(b"\0"):
                found.append(path)
        except OSError:
            pass
    return found


@pytest.fixture
def box(box: support.Sandbox) -> Iterator[support.Sandbox]:
    """A box that also ends what a run has left: contenders don't carry the mark of the tests."""
    yield box
    for path in left_behind(box):
        os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.mark.parametrize(
    ("scenario", "quantities"),
    [
        ("launch", {"launch", "ready", "launch-pidfile", "ready-signals"}),
        ("descriptors", {"descriptors-detach"}),
        ("race", {"race-winners"}),
        ("detach", {"inside"}),
    ],
)
def test_one_round_of_two_contenders_leaves_nothing_behind(
    scenario: str, quantities: set[str], box: support.Sandbox
) -> None:
    two = ("--contender", "daemon_context", "--contender", "bare double fork")
    done = run(box, "--only", scenario, *two, "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert not left_behind(box)
    tables = json.loads((box.path / "out.json").read_text())["tables"]
    assert quantities <= set(tables)
    for name in quantities:
        row = tables[name]["rows"]["daemon_context"]
        assert row["median"] > 0, row


def test_a_race_has_one_winner_and_marks_are_computed(box: support.Sandbox) -> None:
    done = run(box, "--only", "race", "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    marks = json.loads((box.path / "out.json").read_text())["marks"]
    verdicts = {mark["what"]: mark["verdict"] for mark in marks}
    assert verdicts["racing starts: one winner"] == "met"
    assert verdicts["racing starts: others without an error"] == "met"
    assert verdicts["import and construct"] == "not measured"


def test_what_runs_of_a_start_is_a_part_of_what_it_loads(box: support.Sandbox) -> None:
    done = run(box, "--only", "code", "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    document = json.loads((box.path / "out.json").read_text())
    size = medians(document, "code")
    loaded, runs = size["loaded"], size["run in any of its processes"]
    assert loaded / 3 < runs < loaded
    assert size["loaded, without docstrings"] < loaded
    assert all(medians(document, "code-objects")[f"run in the {role}"] > 10 for role in ROLES)
    mark = next(mark for mark in document["marks"] if mark["what"].startswith("byte code"))
    assert mark["measured"] == loaded
    assert f"{runs:.0f} KB run" in mark["way"].replace("\n", " ")


def medians(document: dict[str, Any], table: str) -> dict[str, float]:
    rows = document["tables"][table]["rows"].items()
    return {name.removeprefix("daemon_context: "): row["median"] for name, row in rows}


def test_a_refused_start_is_measured_beside_one_that_succeeds(box: support.Sandbox) -> None:
    done = run(box, "--only", "refused", "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    document = json.loads((box.path / "out.json").read_text())
    found = medians(document, "refused")
    mark = next(mark for mark in document["marks"] if mark["what"].startswith("a refused start"))
    assert mark["measured"] == found["refused"] / found["successful"]


def test_texts_take_their_figures_from_the_tables() -> None:
    rows = {"ours": Figures([2.0, 3.0, 40.0]), "bare": Figures([1.0]), "slow": Figures(note="late")}
    tables = {"time": Table("time", "Time", "ms", rows)}
    text = "{time/ours}, {time/ours − bare} more; {time/slow}, {time/nobody}, {none/ours}"
    assert filled(text, tables) == "3 ms, 2 ms more; –, –, –"


def test_the_page_begins_with_what_users_ask_and_tells_why_marks_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "to_plots", lambda run, place: [("A plot", place / "plot.svg")])
    rows = {"daemon_context": Figures([3.0]), "python-daemon": Figures([2.0])}
    outcome = Outcome([Table("import", "Import", "ms", rows)])
    measured = Run("python -m benchmarks", {}, 1, 1.0, [], {"import": outcome})
    page.to_docs(measured, tmp_path / "page.md", tmp_path / "plots")
    text = (tmp_path / "page.md").read_text()
    places = [text.index(f"\n{words}") for words in ("| import,", "![", "## How", "## Marks")]
    assert places == sorted(places)
    assert "| import, and construct a context | 3 ms | 2 ms | – | – | – |" in text
    assert "- **import and construct (2.2 ms too much).** It loads" in text


def test_an_environment_that_became_another_checkouts_is_noticed(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    link = tmp_path / "lib/python3.11/site-packages/daemon_context"
    link.symlink_to(support.ROOT / "daemon_context")
    assert environment.has_ours()
    link.unlink()
    link.symlink_to(tmp_path)
    assert not environment.has_ours()


def test_an_unknown_contender_is_refused(box: support.Sandbox) -> None:
    done = run(box, "--contender", "nobody")
    assert done.returncode == 1
    assert "bare double fork" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_interrupted_leaves_nothing_behind(
    number: signal.Signals, box: support.Sandbox
) -> None:
    with subprocess.Popen(
        command(box, "--only", "idle"), cwd=support.ROOT, env=environ(box), process_group=0
    ) as process:
        fifo = support.until(lambda: next(fifos(box, process.pid), None))
        os.killpg(process.pid, number)
        os.killpg(process.pid, number)  # as somebody does who has no patience
        status = process.wait(support.DEADLINE)
    assert not left_behind(box)
    assert not fifo.parent.parent.exists()
    assert status == 128 + number


def fifos(box: support.Sandbox, group: int) -> Iterator[Path]:
    """The FIFO of each daemon that has left the group, which lies in the run's directory."""
    for path in left_behind(box):
        try:
            words = path.read_bytes().split(b"\0")
            own = os.getpgid(int(path.parent.name))
        except OSError:
            continue
        for word in words:
            if own != group and word.startswith(b"BENCH_FIFO="):
                yield Path(os.fsdecode(word.removeprefix(b"BENCH_FIFO=")))


def test_a_limb_that_is_killed_leaves_its_daemons_to_who_has_started_it(
    box: support.Sandbox,
) -> None:
    said = apart(
        box,
        """
        import os, signal, subprocess
        from benchmarks import limb

        def work():
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            os.kill(os.getpid(), signal.SIGKILL)

        try:
            limb.apart(work)
        except limb.Failed as error:
            print(error)
        """,
    )
    assert said == "the process that measures died\n"
    assert not left_behind(box)


def test_an_environment_that_is_not_ours_is_not_emptied(box: support.Sandbox) -> None:
    (box.path / "thesis.txt").write_text("precious")
    done = run(box, "--environment", str(box.path))
    assert done.returncode == 1
    assert "none of ours" in done.stderr
    assert (box.path / "thesis.txt").read_text() == "precious"


def test_a_run_without_peers_leaves_those_that_are_installed(box: support.Sandbox) -> None:
    assert run(box, "--contender", "nobody").returncode == 1  # it is made
    stamp = box.path / "environment" / "peers.txt"
    stamp.write_text(f"python-daemon==3.1.2\n{stamp.read_text()}")
    (peer := box.path / "environment" / "peer").touch()
    assert run(box, "--contender", "nobody").returncode == 1
    assert peer.exists()


def test_modules_are_compiled_before_anything_is_measured(
    box: support.Sandbox, tmp_path: Path
) -> None:
    for name in ("benchmarks", "daemon_context"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(support.ROOT / name, tmp_path / name, ignore=ignore)
    subprocess.run(
        command(box, "--contender", "nobody"), cwd=tmp_path, env=environ(box), check=False
    )
    compiled = {path.name.partition(".")[0] for path in tmp_path.glob("daemon_context/**/*.pyc")}
    assert {"context", "launcher", "detach"} <= compiled
    assert list(tmp_path.glob("benchmarks/programs/__pycache__/stage.*.pyc"))


@pytest.mark.root
def test_only_tools_that_are_not_here_are_installed(box: support.Sandbox) -> None:
    """The others would be replaced by newer versions."""
    tools = box.path / "tools"
    tools.mkdir()
    for name, code in (("apt-get", 'echo "$@" >>"$HOME/asked"'), ("strace", "true")):
        (tools / name).write_text(f"#!/bin/sh\n{code}\n")
        (tools / name).chmod(0o755)
    box.environ["PATH"] = str(tools)
    run(box, "--install", "--contender", "nobody")
    asked = (box.path / "asked").read_text().split()
    assert {"valgrind", "daemon", "gcc"} <= set(asked)
    assert "strace" not in asked


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Environment(tmp_path), 30, quick=False)


@pytest.mark.parametrize(("rounds", "samples"), [(1, 1), (2, 2), (3, 3), (5, 3), (9, 3), (30, 8)])
def test_one_that_is_slow_has_samples_enough_for_a_median(
    rounds: int, samples: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.bench.SLOW", -1)
    bench.base_rounds = rounds
    found = bench.interleave({"it": lambda: {"time": 1.0}}, warm_up=False)
    assert len(found["it"]["time"].values) == samples


def test_nobody_always_follows_the_same_one(bench: Bench) -> None:
    took: list[str] = []

    def measure(name: str) -> Sample:
        took.append(name)
        return {"time": 1.0}

    bench.interleave({name: partial(measure, name) for name in "abcd"})
    after = {now: {one for one, two in pairwise(took) if two == now} for now in "abcd"}
    assert all({*"abcd"} - {now} <= others for now, others in after.items()), after


def test_one_that_drops_out_is_told_of_beside_its_median(bench: Bench) -> None:
    outcomes = iter([1.0, 2.0, 3.0])

    def measure() -> Sample:
        value = next(outcomes, None)
        if value is None:
            raise Failed("it ended with 1; it said:\nImportError: peer")
        return {"time": value}

    found = bench.interleave({("", "peer"): measure, ("", "other"): lambda: {"time": 1.0}})
    assert found["", "peer"]["time"].values == [2.0, 3.0]  # the first round is thrown away
    assert bench.remarks == ["peer dropped out after 2 samples: ImportError: peer"]
    assert len(found["", "other"]["time"].values) == 30


def test_a_start_that_fails_at_once_is_not_waited_for(box: support.Sandbox) -> None:
    said = apart(
        box,
        """
        from functools import partial
        from pathlib import Path
        from benchmarks.bench import Bench
        from benchmarks.contenders import Contender
        from benchmarks.environment import Environment
        from benchmarks.limb import Failed
        from benchmarks.scenarios.counts import _run_whole
        from benchmarks.scenarios.pidfiles import _race
        from benchmarks.scenarios.starts import modules
        from benchmarks.scene import Scene

        bench = Bench(Environment(Path("environment")), 1, quick=True)
        false = Contender("false", ("/bin/false",))
        for work in (
            lambda: bench.apart(Scene(), partial(_race, false)),
            lambda: bench.apart(Scene(), partial(_run_whole, [], false, Scene())),
            lambda: modules(bench, false),
        ):
            try:
                work()
            except Failed as error:
                print(error)
        """,
    )
    assert said == "it ended with 1\n" * 3


def test_a_contender_that_cannot_start_takes_nobody_else_along(box: support.Sandbox) -> None:
    done = run(box, "--contender", "nobody")  # the environment is made, without peers
    stamp = box.path / "environment" / "peers.txt"
    stamp.write_text("\n".join((*PEERS, stamp.read_text())))
    words = [word for word in command(box, "--only", "detach") if word != "--no-peers"]
    done = subprocess.run(
        [*words, "--json", str(box.path / "out.json")],
        capture_output=True, text=True, timeout=120, cwd=support.ROOT, env=environ(box),
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((box.path / "out.json").read_text())
    rows = document["tables"]["detach"]["rows"]
    assert rows["daemon_context (warm)"]["median"] > 0
    assert rows["python-daemon (warm)"]["median"] is None
    assert any("No module named 'daemon'" in remark for remark in document["remarks"])


@pytest.mark.parametrize(
    ("contender", "scenarios"),
    [
        ("python alone", {"launch", "syscalls"}),
        ("daemon_context", {"lock", "stop", "idle-cpu", "import-alone", "refused", "code"}),
        ("class of 2007", {"stop"}),
    ],
)
def test_only_the_chosen_contender_is_measured(
    contender: str, scenarios: set[str], box: support.Sandbox
) -> None:
    names = (
        "import", "launch", "descriptors", "lock", "refused", "stop", "idle", "counts", "code",
    )  # fmt: skip
    only = [word for name in names for word in ("--only", name)]
    done = run(box, "--contender", contender, *only, "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    tables = json.loads((box.path / "out.json").read_text())["tables"]
    assert tables.keys() >= (scenarios if shutil.which("strace") else scenarios - {"syscalls"})
    assert all(name.startswith(contender) for table in tables.values() for name in table["rows"])


def test_the_plot_of_descriptors_shows_what_the_mark_is_about(box: support.Sandbox) -> None:
    done = run(box, "--only", "descriptors", "--json", str(box.path / "out.json"))
    assert done.returncode == 0, done.stderr
    document = json.loads((box.path / "out.json").read_text())
    (plot,) = document["plots"]
    (median,) = plot["lines"]["all steps inline"].values()
    assert median == document["tables"]["descriptors-detach"]["rows"]["all steps inline"]["median"]
