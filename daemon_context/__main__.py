"""``python -m daemon_context``: look at the sequence from the shell; write a unit."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile

from .context import DaemonContext
from .errors import DaemonError
from .system.arguments import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .daemon import Daemon


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    end = given.index("--") if "--" in given else len(given)
    options = _parser().parse_args(given[:end])
    options.arguments = given[end + 1 :]  # of a script, which argparse would take for its own
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path of another encoding
    try:
        return int(options.run(options))
    except DaemonError as error:
        print(f"daemon_context: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the start was cancelled, and nothing is left of it
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m daemon_context", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    explain = verbs.add_parser("explain", help="what each step would do, changing nothing")
    explain.add_argument(
        "context",
        nargs="?",
        metavar="MODULE:NAME",
        help="a DaemonContext or a Daemon of yours; without it, a context with all defaults",
    )
    explain.add_argument("--json", action="store_true", help="as JSON")
    explain.set_defaults(run=_explain)
    trace = verbs.add_parser("trace", help="start a scratch daemon, and tell what each step did")
    trace.add_argument("--json", action="store_true", help="as JSON")
    trace.add_argument(
        "--pause",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="stop after each step, so that one can look with ps -axj beside it",
    )
    trace.set_defaults(run=_trace)
    export = verbs.add_parser(
        "export",
        help="write what a manager needs to run a script",
        usage="%(prog)s [-h] [--user] [--watchdog SECONDS] systemd FILE [-- ARGUMENT ...]",
    )
    export.add_argument("format", choices=["systemd"], help="a unit")
    export.add_argument(
        "file", metavar="FILE", help="a script that starts a daemon; its arguments go behind --"
    )
    export.add_argument("--user", action="store_true", help="for systemctl --user")
    export.add_argument(
        "--watchdog",
        type=seconds,
        metavar="SECONDS",
        help="have a daemon restarted that gave no sign of life for so long",
    )
    export.set_defaults(run=_export)
    return parser


def _explain(options: argparse.Namespace) -> int:
    context = _named(options.context) if options.context else DaemonContext()
    explanation = context.explain()
    if options.json:
        print(json.dumps([row.as_dict() for row in explanation], indent=2))
    else:
        print(explanation)
    return 0


def _trace(options: argparse.Namespace) -> int:
    from .look.trace import pausing

    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # else their numbers would be our pipe's
        pass
    os.close(fd)
    reader, writer = os.pipe()
    progress = os.dup(2)
    with tempfile.TemporaryDirectory() as directory:
        context = DaemonContext(
            umask=0o022,
            detach_process=True,
            pidfile=os.path.join(directory, "scratch.pid"),
            files_preserve=[writer, progress],
            record_trace=True,
        )
        if options.pause:
            context.record_trace = pausing(progress, options.pause)
        handle = context.spawn(_send_trace, context, writer, as_json=options.json)
        os.close(writer)
        os.close(progress)
        with open(reader, encoding="utf-8") as file:
            print(file.read())
        handle.wait()
    return 0


def _export(options: argparse.Namespace) -> int:
    from .export import export

    export(options.file, options.arguments, user=options.user, watchdog=options.watchdog)


def _send_trace(context: DaemonContext, writer: int, *, as_json: bool) -> None:
    """In the scratch daemon, which has the whole trace."""
    trace = context.trace or ()
    with open(writer, "w", encoding="utf-8", errors="backslashreplace") as file:
        if as_json:
            json.dump([record.as_dict() for record in trace], file, indent=2)
        else:
            file.write(str(trace))


def _named(name: str) -> DaemonContext | Daemon:
    from .daemon import Daemon

    module, _, attribute = name.partition(":")
    if module.endswith(".py") and os.path.exists(module):  # what is before the dot would be run
        raise DaemonError(f"{name!r} is a file; give MODULE:NAME of a DaemonContext or a Daemon")
    sys.path.insert(0, "")
    try:
        context = getattr(importlib.import_module(module), attribute or "context")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise DaemonError(
            f"cannot find {name!r}: {error}; give MODULE:NAME of a DaemonContext or a Daemon"
        ) from error
    if not isinstance(context, (DaemonContext, Daemon)):
        raise DaemonError(f"{name!r} is no DaemonContext and no Daemon, but {context!r}")
    return context


if __name__ == "__main__":
    sys.exit(main())
