"""``python -m daemon_context``: look at the sequence from the shell."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from .context import DaemonContext
from .errors import DaemonError


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except DaemonError as error:
        print(f"daemon_context: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m daemon_context", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    explain = verbs.add_parser("explain", help="what each step would do, changing nothing")
    explain.add_argument(
        "context",
        nargs="?",
        metavar="MODULE:NAME",
        help="a DaemonContext of yours; without it, one with all defaults",
    )
    explain.add_argument("--json", action="store_true", help="as JSON")
    explain.set_defaults(run=_explain)
    return parser


def _explain(options: argparse.Namespace) -> int:
    context = _named(options.context) if options.context else DaemonContext()
    explanation = context.explain()
    if options.json:
        print(json.dumps([row.as_dict() for row in explanation], indent=2))
    else:
        print(explanation)
    return 0


def _named(name: str) -> DaemonContext:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        context = getattr(importlib.import_module(module), attribute or "context")
    except (ImportError, AttributeError) as error:
        raise DaemonError(
            f"cannot find {name!r}: {error}; give MODULE:NAME of a DaemonContext"
        ) from error
    if not isinstance(context, DaemonContext):
        raise DaemonError(f"{name!r} is no DaemonContext, but {context!r}")
    return context


if __name__ == "__main__":
    sys.exit(main())
