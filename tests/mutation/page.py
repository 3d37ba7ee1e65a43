"""The page in the docs: how many mutants were tried, and which have survived, and why."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.support import ROOT

from .mutants import Mutant, mutants_of
from .plan import PLAN
from .results import Key, Results

PAGE = ROOT / "docs/project/mutation.md"
JUDGEMENTS = Path(__file__).with_name("judgements.toml")
KINDS = {"equivalent": "equivalent", "unimportant": "does not matter"}


def write(results: Results) -> None:
    """Write the page."""
    survivors = {module: _survivors(module, results) for module in PLAN}
    PAGE.write_text(_page(results, survivors))


def tell_unjudged(results: Results) -> int:
    """Print the survivors that nobody has judged; 1 if there are some."""
    judged = judgements()
    mutants = (mutant for module in PLAN for mutant in _survivors(module, results))
    unjudged = [mutant for mutant in mutants if mutant.key not in judged]
    for mutant in unjudged:
        print(f"not judged: {mutant.module}: {mutant.function}: {mutant.change}")
    return int(bool(unjudged))


def _survivors(module: str, results: Results) -> list[Mutant]:
    return [mutant for mutant in mutants_of(module) if results.survived(mutant)]


def judgements() -> dict[Key, tuple[str, str]]:
    """Kind and reason, of each mutant in the file."""
    found = {}
    for entry in tomllib.loads(JUDGEMENTS.read_text())["survivors"]:
        for function, change in entry["mutants"]:
            key = entry["module"], function, change
            found[key] = KINDS[entry["kind"]], entry["reason"]
    return found


def _page(results: Results, survivors: dict[str, list[Mutant]]) -> str:
    return f"""# Mutation tests

What is a test worth that can't fail? The library is changed in one place at a time: a condition
turned round, a number one more or less, an exception not caught, a statement removed. Then at
least one test has to fail.

```sh
python -m tests.mutation --sample 60
```

needs root, and what `pip install -e ".[mutation]"` installs:
[cosmic-ray](https://cosmic-ray.readthedocs.io/) makes the mutants, but for removed statements.
Each is tested in a copy of the tree, in namespaces for processes and mounts of its own, because a
mutant may signal any process or leave daemons. Of the test files that belong to a module only tests
that take less than five seconds are run, up to the first that fails; those most likely to fail come
first. `--survivors` tries those mutants once more that have survived and are not judged, on more
tests, and `--page` writes this page.

{_table(results, survivors)}

The last of these was tried on {results.day}. Not all are tried, but a sample that is drawn by
chance, with the same seed each time.

## Survivors

*Equivalent*: no process can tell the difference. *Does not matter*: one could, and nobody is worse
off; or what would tell it needs another machine.

{_sections(survivors)}
"""


def _table(results: Results, survivors: dict[str, list[Mutant]]) -> str:
    judged = judgements()
    lines = [
        "| module | mutants | tried | killed | survived | of these equivalent |",
        "| --- |" + " --- |" * 5,
    ]
    totals = [0] * 5
    for module, survived in survivors.items():
        mutants = mutants_of(module)
        tried = sum(mutant.key in results.killers for mutant in mutants)
        kinds = [judged.get(mutant.key, ("not judged", ""))[0] for mutant in survived]
        cells = [len(mutants), tried, tried - len(survived), len(survived)]
        cells.append(kinds.count("equivalent"))
        totals = [a + b for a, b in zip(totals, cells, strict=True)]
        lines.append(f"| `{module}.py` | {' | '.join(map(str, cells))} |")
    lines.append(f"| all | {' | '.join(map(str, totals))} |")
    return "\n".join(lines)


def _sections(survivors: dict[str, list[Mutant]]) -> str:
    judged = judgements()
    sections = []
    for module, survived in survivors.items():
        if survived:
            rows = "\n".join(_rows(survived, judged))
            sections.append(f"### {module}.py\n\n{rows}")
    return "\n\n".join(sections)


def _rows(survived: list[Mutant], judged: dict[Key, tuple[str, str]]) -> Iterator[str]:
    yield "| function | change | why no test fails |"
    yield "| --- | --- | --- |"
    for mutant in survived:
        kind, reason = judged.get(mutant.key, ("not judged", ""))
        why = f"{kind}: {reason}" if reason else kind
        change = f"`{mutant.before}` → `{mutant.after}`".replace("|", "\\|")
        change = re.sub(r"(?<=[(\[{]) (?=-?\d)", "", change)  # cosmic-ray's blanks
        alike = f" ({mutant.nth})" if mutant.nth > 1 else ""
        yield f"| `{mutant.function}` | {change}{alike} | {why} |"
