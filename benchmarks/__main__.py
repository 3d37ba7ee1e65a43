"""Measure: python -m benchmarks --help"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from . import limb, page, plots, show
from .bench import Bench
from .environment import ROOT, Environment
from .scenarios import ALL

ROUNDS, QUICK_ROUNDS = 30, 5


def main(argv: list[str] | None = None) -> int:
    """Measure, show, and fail if anything was left behind."""
    options = parse(argv)
    require(options)
    for number in limb.STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupted)
    environment = Environment(options.environment)
    environment.prepare(install=options.install, peers=options.peers)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    only = set(options.contender) or None
    bench = Bench(environment, rounds, quick=options.quick, only=only)
    if only and (unknown := only - set(bench.contenders.all)):
        sys.exit(f"no contender {unknown}; there are: {', '.join(bench.contenders.all)}")
    machine, began, outcomes = environment.describe(), time.monotonic(), {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # pid files live on a tmpfs
    with tempfile.TemporaryDirectory(prefix="daemon-bench-", dir=memory) as directory:
        bench.directory = Path(directory)
        for name in options.only or ALL:
            at = time.monotonic()
            outcomes[name] = ALL[name](bench)
            print(f"{name}: {time.monotonic() - at:.1f} s", file=sys.stderr)
    left = bench.left_behind()
    if not environment.has_ours():
        sys.exit(f"{environment.directory} was another checkout's meanwhile: nothing is told")
    command = shlex.join(["python", "-m", "benchmarks", *again(options)])
    seconds = time.monotonic() - began
    run = show.Run(command, machine, rounds, seconds, bench.remarks, outcomes)
    if not options.silent:
        show.to_terminal(run, whole=not options.only)
    if options.json:
        show.to_json(run, options.json)
    if options.plots:
        plots.to_plots(run, options.plots)
    if options.docs:
        page.to_docs(run, ROOT / "docs/project/benchmarks.md", ROOT / "docs/project/benchmarks")
    if left:
        print(f"left behind: {sorted(left)}", file=sys.stderr)
    return 1 if left else 0


def interrupted(number: int, frame: object) -> None:
    """End what runs and remove what was made, undisturbed by the next Ctrl-C."""
    for stop in limb.STOPS:
        signal.signal(stop, signal.SIG_IGN)
    limb.end_all()
    sys.exit(128 + number)


def require(options: argparse.Namespace) -> None:
    """What will be needed for showing, before minutes are spent on measuring."""
    needed = [] if options.silent else ["rich"]
    needed += ["matplotlib"] if options.docs or options.plots else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} is not here: pip install 'daemon-context[bench]'")


def again(options: argparse.Namespace) -> list[str]:
    """The words that measure the same once more."""
    words = ["--quick"] if options.quick else []
    words += ["--rounds", str(options.rounds)] if options.rounds else []
    words += [word for name in options.only or () for word in ("--only", name)]
    words += [word for name in options.contender for word in ("--contender", name)]
    words += [] if options.peers else ["--no-peers"]
    return [*words, "--docs"] if options.docs else words


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", choices=list(ALL), help="one scenario; may be repeated")
    add("--contender", action="append", default=[], help="one contender; may be repeated")
    add("--rounds", type=int, help=f"default: {ROUNDS}, with --quick {QUICK_ROUNDS}")
    add("--quick", action="store_true", help="fewer rounds, smaller sizes: under two minutes")
    add("--no-peers", action="store_false", dest="peers", help="without the Python peers")
    add("--silent", action="store_true", help="no tables on the terminal")
    add("--json", type=Path, metavar="FILE", help="write everything, with all samples")
    add("--plots", type=Path, metavar="DIRECTORY", help="write SVG files")
    add("--docs", action="store_true", help="write docs/project/benchmarks.md and its plots")
    add("--install", action="store_true", help="install Debian's peers and tools first, as root")
    add("--environment", type=Path, metavar="DIRECTORY", default=ROOT / ".venv-bench",
        help="where the peers are installed; default: .venv-bench")  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
