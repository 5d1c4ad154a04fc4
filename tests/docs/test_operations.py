"""The example of every operation's page is a plan that loads, explains and runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import ROOT
from docs.generate.operations import example_of, explained, files_of
from online_migrate.operations.registry import OPERATIONS
from tests.desk import Desk

PAGES = ROOT / "docs" / "operations"


def page_of(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_example_shows_the_operation_of_its_page(name: str) -> None:
    """A reader sees the SQL of what the page is about: the plan loads, explains, and has such a step."""
    steps = [step for step in explained(page_of(name)).steps if step.operation == name]
    assert steps
    assert all(step.statements for step in steps)


@pytest.mark.parametrize(
    "path",
    [*(PAGES / f"{name}.md" for name in OPERATIONS), ROOT / "docs" / "start.md"],
    ids=lambda path: path.stem,
)
def test_the_example_runs_on_a_real_server(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """A reader who copies the example and example.sql gets a run that ends well, and a verify that finds
    nothing.
    """
    monkeypatch.chdir(tmp_path)
    page = path.read_text(encoding="utf-8")
    for file_name, text in files_of(page).items():
        (tmp_path / file_name).write_text(text)
    (tmp_path / "plan.yaml").write_text(example_of(page))
    desk = Desk(folder=tmp_path, dsn=database)
    desk.run_sql((PAGES / "example.sql").read_text())
    for command in ("check", "run", "verify"):
        said = desk.call(command)
        assert said.code == 0, f"{command}: {said.all}"
