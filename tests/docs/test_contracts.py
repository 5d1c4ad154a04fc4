"""docs/contracts.md and docs/cli.md name the keys that commands print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.generate import ROOT
from docs.generate.operations import example_of
from tests.desk import Desk

CONTRACTS = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
FINDINGS = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
OPERATIONS = ROOT / "docs" / "operations"


@pytest.fixture
def desk(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The example plan of set_not_null, on the example's database."""
    monkeypatch.chdir(tmp_path)
    page = (OPERATIONS / "set_not_null.md").read_text(encoding="utf-8")
    (tmp_path / "plan.yaml").write_text(example_of(page))
    desk = Desk(folder=tmp_path, dsn=database)
    desk.run_sql((OPERATIONS / "example.sql").read_text())
    return desk


def promised(command: str) -> set[str]:
    """The keys that contracts.md names for a command: those of its paragraph, but
    for values in parentheses.
    """
    paragraph = next(p for p in CONTRACTS.split("\n\n") if p.startswith(f"`{command}` prints"))
    text = re.sub(r"\(`stop`.*?\)", "", " ".join(paragraph.split()).partition(":")[2])
    return set(re.findall(r"`(\w+)`", text))


def keys_of(value: Any) -> set[str]:
    """Every key at every depth."""
    if isinstance(value, list):
        return {key for entry in value for key in keys_of(entry)}
    if isinstance(value, dict):
        return set(value) | {key for entry in value.values() for key in keys_of(entry)}
    return set()


def test_the_keys_that_commands_print_are_those_that_the_contract_names(desk: Desk) -> None:
    """A script that reads JSON finds each key that the documentation promises, and no other."""
    for command in ("check", "explain", "locks"):
        said = desk.call(command, "--format", "json")
        assert said.code == 0, said.all
        assert keys_of(json.loads(said.out)) == promised(f"{command} --format json")


def test_the_picture_of_status_json_has_the_keys_that_status_prints(desk: Desk) -> None:
    """The example in docs/cli.md is what a script meets."""
    assert desk.call("run", "--through", "columns").code == 0
    printed = json.loads(desk.call("status", "--json").out)
    shown = re.search(r"```json\n(.*?)```", CLI, flags=re.DOTALL)
    assert shown is not None
    assert keys_of(json.loads(shown[1])) == keys_of(printed)


def test_every_exit_code_says_what_to_do() -> None:
    """No operator meets an exit code without advice: the first table of the page has
    each code of the errors.
    """
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    advised, _, generated = page.partition("## Errors by code")
    codes = set(re.findall(r"^\| (\d+) \|", generated, flags=re.MULTILINE))
    assert codes
    assert set(re.findall(r"^\| (\d+) \|", advised, flags=re.MULTILINE)) == codes


def test_every_code_that_check_reports_is_on_the_page_of_findings(desk: Desk) -> None:
    """The codes come from the source; none that is reported is missing."""
    desk.run_sql("ALTER TABLE orders ADD COLUMN shop_id text", "CREATE VIEW bad AS SELECT 1 AS id")
    said = desk.call("check", "--format", "json")
    codes = {finding["code"] for finding in json.loads(said.out)}
    assert "column_conflict" in codes
    assert {code for code in codes if f"| `{code}` |" not in FINDINGS} == set()
