"""docs/architecture.md is the picture of the folders that exist."""

from __future__ import annotations

import re

from docs.generate import ROOT
from docs.generate.packages import SOURCE, layers

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def packages() -> set[str]:
    """The packages and modules of the program, as the folder has them."""
    folders = {p.parent.name for p in SOURCE.glob("*/__init__.py")}
    return folders | {p.stem for p in SOURCE.glob("*.py")} - {"__init__"}


def test_the_order_has_every_package_and_no_other() -> None:
    """The picture, the folders and import-linter's layers are one."""
    names = [name for layer in layers() for name in layer]
    assert sorted(names) == sorted(packages())
    picture = re.findall(r"^── (.*?) ─+$", PAGE, flags=re.MULTILINE)
    assert [line.split(" │ ") for line in picture] == layers()


def test_the_page_says_what_each_package_owns() -> None:
    """A newcomer finds each package in the table of what it owns."""
    rows = re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == packages()


def test_every_module_that_the_page_names_exists() -> None:
    """`backfill.worker` and its like in the diagrams are modules; a folder that is named exists."""
    known = "|".join(sorted(packages()))
    names = set(re.findall(rf"\b((?:{known})(?:\.[a-z_]+)+)\b", PAGE)) - {"plan.yaml"}
    assert names
    for name in names:
        parts = name.split(".")
        found = any(
            (SOURCE.joinpath(*parts[:n])).with_suffix(".py").exists() for n in range(1, len(parts) + 1)
        )
        assert found or SOURCE.joinpath(*parts).is_dir(), name
    for folder in re.findall(r"`(contract|shared|snapshot|prometheus|terminal|page)/`", PAGE):
        assert list(SOURCE.glob(f"*/{folder}/__init__.py")), folder
