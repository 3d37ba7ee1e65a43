"""README and docs: every program in them runs, and what is generated in them is up to date."""

from __future__ import annotations

import os
import pkgutil
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers import support
from tests.helpers.docs import regenerate, script

pictures = script("pictures")
PROGRAMS = [program for page in regenerate.PAGES for program in regenerate.programs(page)]
README = (support.ROOT / "README.md").read_text()


def named(items: list) -> dict:
    return {
        "argvalues": items,
        "ids": [
            getattr(item, "place", None) or str(item.relative_to(support.ROOT)) for item in items
        ],
    }


@pytest.mark.parametrize("program", **named([p for p in PROGRAMS if not p.fragment]))
def test_every_program_works_and_prints_what_is_said(
    program: regenerate.Program, box: support.Sandbox
) -> None:
    done = program.run(box)
    assert done.returncode == program.status, done.stderr
    if program.output is None:
        assert done.stderr == ""
    else:
        assert regenerate.told(done, box.path) == program.output
    daemons = box.processes()
    if re.search(r"(daemon|self)\.(sleep\(\)|every\()", program.code):
        assert daemons
    for pid in daemons:
        os.kill(pid, signal.SIGTERM)
        support.gone(pid)
    assert not list(box.path.glob("*.pid"))


@pytest.mark.parametrize(
    "page", **named([p for p in regenerate.PAGES if regenerate.SESSION.search(p.read_text())])
)
def test_every_command_prints_what_is_said(page: Path, box: support.Sandbox) -> None:
    text = page.read_text()
    assert regenerate.session(text, box) == text
    box.settled()  # what a page starts it also stops


@pytest.mark.parametrize("program", **named([p for p in PROGRAMS if p.fragment]))
def test_every_fragment_is_python(program: regenerate.Program) -> None:
    compile(program.code, program.place, "exec")


@pytest.mark.parametrize("page", **named(regenerate.PAGES))
def test_what_is_made_from_the_code_is_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert regenerate.sections(text) == text, "run: python docs/regenerate.py"


@pytest.mark.parametrize("page", **named(regenerate.PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_a_list_of_pages() -> None:
    listed = set()
    for page in regenerate.PAGES:
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.M | re.S):
            names = re.findall(
                r"^(?:.*<)?([\w/.-]+)>?$", re.sub(r"^:.*\n", "", block, flags=re.M), re.M
            )
            listed |= {(page.parent / name).resolve().with_suffix(".md") for name in names}
    pages = {page for page in regenerate.PAGES if page.parent != support.ROOT}
    assert pages - listed == {support.ROOT / "docs/index.md"}


@pytest.mark.parametrize("name", sorted(pictures.DRAWN))
def test_every_picture_shows_the_code_as_it_is(name: str) -> None:
    for path, text in pictures.drawn(name).items():
        assert path.read_text() == text, "run: python docs/pictures.py"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_ci_run_takes_its_commands_from_the_readme(name: str) -> None:
    block = re.search(rf"<!-- ci: {name} -->\n```sh\n(.*?)```\n", README, re.S)
    assert block
    taken = subprocess.run(
        [support.ROOT / ".ci/run", "command", name], capture_output=True, text=True, check=True
    )
    assert taken.stdout == block[1]
    assert len(block[1].splitlines()) == 1
    for path in re.findall(r"\bexamples/\S+", block[1]):
        assert (support.ROOT / path).exists()


def test_every_option_is_in_the_table_of_options() -> None:
    import inspect

    from daemon_context import DaemonContext

    text = (support.ROOT / "docs/reference/context.md").read_text()
    names = list(inspect.signature(DaemonContext).parameters)
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_every_name_on_the_page_of_the_api_is_there() -> None:
    text = (support.ROOT / "docs/reference/api.md").read_text()
    names = re.findall(r"^\.\. auto\w+:: (\S+)$", text, re.M)
    assert len(names) > 20
    for name in names:
        assert pkgutil.resolve_name(name).__doc__, name
