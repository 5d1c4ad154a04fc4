"""docs/add-an-operation.md names the files, the methods and the modules that a new operation meets."""

from __future__ import annotations

import re

from docs.generate import ROOT
from docs.generate.packages import SOURCE
from online_migrate.operations.contract.base import Operation

DOCS = ROOT / "docs"
PAGE = (DOCS / "add-an-operation.md").read_text(encoding="utf-8")


def part(title: str) -> str:
    """The text below a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_file_of_the_table_has_the_example_in_it() -> None:
    """A newcomer who opens a file of the table finds there what to write, with set_default as example."""
    files = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\)", part("Files"), flags=re.MULTILINE)
    assert len(files) > 5
    for file in files:
        text = (DOCS / file).read_text(encoding="utf-8")
        assert "set_default" in text or "SetsDefault" in text, file


def test_the_table_knows_every_file_of_the_example() -> None:
    """A new operation is never half done because the page left a file of the program out."""
    named = {(DOCS / file).resolve() for file in re.findall(r"\]\(([^)#]+)\)", PAGE)}
    operations = SOURCE / "operations"
    places = [*operations.glob("*.py"), *(operations / "contract").glob("*.py")]
    for path in (*places, ROOT / "pyproject.toml"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"\bset_default\b|\bSetDefault\b", text):
            assert path.resolve() in named, path


def test_every_method_of_the_contract_that_is_abstract_is_explained() -> None:
    """The page names each method that must be written, and none that is not part of the contract."""
    cells = re.findall(r"^\| ([^|]+) \|", part("The contract in the order of a run"), flags=re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert Operation.__abstractmethods__ <= named
    assert all(hasattr(Operation, name) or name in Operation.__annotations__ for name in named)


def test_every_module_for_findings_exists() -> None:
    """`engine.check.order_rules` and its like are modules or folders."""
    names = set(re.findall(r"`((?:operations|backfill|engine)(?:\.\w+)+)`", part("Where does a finding go?")))
    assert names
    for name in names:
        path = SOURCE.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").exists(), name
