"""What may change while a run is open, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from online_migrate.plan.load import load_file
from online_migrate.plan.model import Plan, changes_between
from tests.plan.standins import OPERATIONS

TEXT = """\
plan: shop
requires: {postgres: ">=15"}
secrets:
  token: {env: TOKEN}
table_sets:
  owned: {tables: [users, tickets]}
locks: {attempts: 5}
stages:
  - stage: tables
    steps:
      - create_tables: bots.sql
      - ensure_row: {id: master, table: bots, where: {a: 1, b: 2}, values: {}}
  - stage: rest
    gate: {approval: now}
    pace: {duty: 50%}
    hold_when: {standby_lag: 64MiB}
    steps:
      - add_column: {tables: owned, column: bot_id, type: integer}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bots.sql").write_text("CREATE TABLE bots (id int);")
    return tmp_path


def plan_of(folder: Path, text: str) -> Plan:
    path = folder / "shop.yaml"
    path.write_text(text)
    return load_file(path, OPERATIONS)


def changes(folder: Path, old: str, new: str) -> tuple[str, ...]:
    assert old in TEXT
    before = plan_of(folder, TEXT)
    after = plan_of(folder, TEXT.replace(old, new))
    found = changes_between(before.parts(), after.parts())
    assert (before.fingerprint() == after.fingerprint()) == (not found)
    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("duty: 50%", "duty: 10%"),
        ("approval: now", "approval: later"),
        ("64MiB", "1GiB"),
        ("attempts: 5", "attempts: 50"),
        ("plan: shop", "# a comment\nplan: shop"),
        ("{a: 1, b: 2}", "{b: 2, a: 1}"),
    ],
    ids=["pace", "gate", "hold_when", "locks", "comment", "order of keys"],
)
def test_what_an_operator_tunes_at_night_may_change(folder: Path, old: str, new: str) -> None:
    """A run that disturbs the shop can be slowed down without beginning it again."""
    assert changes(folder, old, new) == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('">=15"', '">=16"', ("requires: was changed",)),
        ("env: TOKEN", "env: OTHER", ("secret token: was changed",)),
        ("[users, tickets]", "[users]", ("table set owned: was changed",)),
        ("type: integer", "type: bigint", ("stage rest, step add_column bot_id: was changed",)),
        (
            "column: bot_id",
            "column: tenant_id",
            (
                "stage rest, step add_column bot_id: was removed",
                "stage rest, step add_column tenant_id: was added",
            ),
        ),
        ("plan: shop", "schema: other\nplan: shop", ("schema: was changed",)),
        (
            "plan: shop",
            "plan: shop\nstays_global: [{index: users_code, reason: one shop}]",
            ("stays_global: was added",),
        ),
    ],
)
def test_what_the_run_is_built_on_may_not_change(
    folder: Path, old: str, new: str, expected: tuple[str, ...]
) -> None:
    """Half of a run under one plan and half under another would be neither; the message says what differs."""
    assert changes(folder, old, new) == expected


def test_the_order_of_steps_may_not_change(folder: Path) -> None:
    """The same steps in another order are another plan."""
    step = "      - create_tables: bots.sql\n"
    row = "      - ensure_row: {id: master, table: bots, where: {a: 1, b: 2}, values: {}}\n"
    assert changes(folder, step + row, row + step) == ("order of the steps: was changed",)


def test_the_content_of_an_sql_file_may_not_change(folder: Path) -> None:
    """The plan's text is the same, but what it would make is not: that is seen."""
    before = plan_of(folder, TEXT)
    (folder / "bots.sql").write_text("CREATE TABLE bots (id bigint);")
    after = plan_of(folder, TEXT)
    assert changes_between(before.parts(), after.parts()) == (
        "stage tables, step create_tables bots.sql: was changed",
    )


def test_no_secret_is_in_the_parts(folder: Path) -> None:
    """The journal keeps the parts: they hold digests, not even the names of variables."""
    parts = plan_of(folder, TEXT).parts()
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in parts.values())
