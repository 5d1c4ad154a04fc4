"""The pages hold together: links lead somewhere, commands exist, the index knows every page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs.generate import ROOT
from docs.generate.blocks import documents
from online_migrate.cli import main

PAGES = [ROOT / "README.md", *documents()]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def written(path: Path) -> str:
    """The page without what `make docs` writes."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"<!-- make docs: .*?<!-- end -->", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What links may lead to: each heading, as GitHub makes its anchor."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def commands(path: Path) -> Iterator[str]:
    """Every command line of ours in an indented block or a fenced one."""
    for line in written(path).splitlines():
        found = re.match(r"(?:    )?(?:\$ )?(online-migrate [a-z].*)$", line)
        if found and line.startswith(("    ", "$ ")):
            yield found[1].split("  #")[0].split(" > ")[0].strip()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    """A reader who follows a link within the project arrives."""
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), link


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_command_of_a_page_exists(path: Path) -> None:
    """An operator who pastes a command never gets 'no such command' or 'no such option'."""
    for line in commands(path):
        _, name, *arguments = shlex.split(line)
        command = main.commands[name]
        assert isinstance(command, click.Command)
        command.make_context(name, list(arguments), parent=click.Context(main, **main.context_settings))


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_command_named_in_a_sentence_exists(path: Path) -> None:
    """`online-migrate approve PLAN STAGE` in a sentence is a command, too; so is `make docs`."""
    text = written(path)
    for name in re.findall(r"`online-migrate ([a-z]+)", text):
        assert name in main.commands, name
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), target


def test_the_index_knows_every_page() -> None:
    """No page of docs/ is hidden: the index links to it, or the index of its folder does."""
    for folder in ("docs", "docs/operations", "docs/decisions"):
        index = ROOT / folder / "README.md"
        text = index.read_text(encoding="utf-8")
        for page in sorted((ROOT / folder).glob("*.md")):
            assert page == index or f"({page.name})" in text, page


def test_lines_can_be_read_in_a_terminal() -> None:
    """Pages are written in lines of at most 110 characters; tables, links and generated blocks aside."""
    own = [
        p
        for p in PAGES
        if p.name not in ("runbook.md", "backfill.md", "benchmarks.md", "benchmarks-locks.md")
    ]
    for path in own:
        for number, line in enumerate(written(path).splitlines(), 1):
            is_free = line.startswith("|") or "](" in line or "://" in line
            assert is_free or len(line) <= 110, f"{named(path)}:{number}: {len(line)} characters"
