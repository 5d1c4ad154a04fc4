"""add_foreign_key: two windows' work, and what already exists under another name is used."""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.errors import VerificationFailed
from online_migrate.findings import (
    Severity,
)
from online_migrate.operations.contract.base import (
    State,
)
from tests.operations.cases import BOTS, FILLED_COLUMN
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

PLAN = plan_of(
    "add_foreign_key: {table: transactions, column: bot_id, references: bots.id, on_delete: cascade}"
)
BY_HAND = (
    "ALTER TABLE transactions ADD CONSTRAINT by_hand FOREIGN KEY (bot_id) REFERENCES bots (id) ON"
    " DELETE CASCADE"
)
KEYS = (
    "SELECT count(*) FROM pg_constraint WHERE conrelid = 'transactions'::regclass AND confrelid ="
    " 'bots'::regclass"
)


def test_an_orphan_stops_it_and_new_ones_are_refused(site_of: OpenSite) -> None:
    """Exit 5 with the row's key; the key stays NOT VALID, so that no further orphan is added; once fixed, it
    goes on.
    """
    site = site_of(PLAN)
    site.sql(
        BOTS
        + FILLED_COLUMN
        + "UPDATE transactions SET bot_id = 99 WHERE id = (SELECT min(id) FROM transactions)"
    )
    with pytest.raises(VerificationFailed, match=r"Key \(bot_id\)=\(99\) is not present"):
        site.execute()
    assert site.state() is State.PARTIAL
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        site.sql("UPDATE transactions SET bot_id = 98 WHERE id = (SELECT max(id) FROM transactions)")
    site.sql("UPDATE transactions SET bot_id = 1 WHERE bot_id = 99")
    site.execute()
    assert site.state() is State.DONE


@pytest.mark.parametrize("is_valid", [True, False])
def test_a_key_of_another_name_is_taken_up(site_of: OpenSite, is_valid: bool) -> None:
    """The same by definition: it is validated where it is not, and no second one is added."""
    site = site_of(PLAN)
    site.sql(BOTS + FILLED_COLUMN + BY_HAND + ("" if is_valid else " NOT VALID"))
    assert site.state() is (State.DONE if is_valid else State.PARTIAL)
    site.execute()
    assert site.state() is State.DONE
    assert site.one(KEYS) == 1


def test_a_parent_that_is_not_there_is_found_at_check(site_of: OpenSite) -> None:
    """And one that an earlier step makes is not missed."""
    site = site_of(PLAN)
    site.sql(FILLED_COLUMN)
    (finding,) = site.stops()
    assert finding.fact == "transactions.bot_id should reference bots.id, which does not exist"
    later = site_of(
        PLAN.replace("plan: harness", "plan: other").replace(
            "steps:\n", "steps:\n      - create_tables: multi_tenant.sql\n"
        )
    )
    assert later.stops() == []


@pytest.mark.parametrize(
    ("column", "parent", "code", "words"),
    [
        ("n", "a.id", "foreign_key_refused", 'Key columns "n" and "id" are of incompatible types: text and'),
        ("planned", "a.id", "foreign_key_refused", "are of incompatible types: uuid and"),
        ("i", "a.partly", "foreign_key_refused", "no unique constraint matching given keys"),
        ("i", "a.later", "foreign_key_refused", "cannot use a deferrable unique constraint"),
        ("i", "a.id", "orphans", "b has rows whose i has no a.id: id = 2"),
    ],
)
def test_a_key_that_the_server_would_refuse_stops_the_check(
    site_of: OpenSite, column: str, parent: str, code: str, words: str
) -> None:
    """Incompatible types, no whole unique, rows without a parent: said before the first step, nothing is
    changed.
    """
    text = plan_of(
        "add_column: {table: b, column: planned, type: uuid}",
        f"add_foreign_key: {{table: b, column: {column}, references: {parent}}}",
    )
    site = site_of(text)
    site.sql(
        "CREATE TABLE a (id bigint PRIMARY KEY, partly int, later int UNIQUE DEFERRABLE);"
        "CREATE UNIQUE INDEX ON a (partly) WHERE partly > 0;"
        "CREATE TABLE b (id int PRIMARY KEY, n text, i int); INSERT INTO a VALUES (1); INSERT INTO b VALUES"
        " (1, 'x', 1), (2, 'y', 2)"
    )
    before = site.schema()
    (found,) = site.stops()
    assert found.code == code
    assert words in found.fact
    assert site.schema() == before


def test_a_key_that_the_server_takes_is_not_refused(site_of: OpenSite) -> None:
    """A narrower integer to bigint, to itself, by a unique that a step above builds; behind a gate an orphan
    is a warning.
    """
    tables = (
        "CREATE TABLE a (id bigint PRIMARY KEY, other int, above int); INSERT INTO a VALUES (1, 1, 1);"
        "CREATE TABLE b (id int PRIMARY KEY, i int); INSERT INTO b VALUES (1, 1), (2, NULL)"
    )
    key = "add_foreign_key: {table: b, column: i, references: a.id}"
    site = site_of(plan_of(key))
    site.sql(tables)
    assert site.preflight() == []
    itself = key.replace("table: b, column: i", "table: a, column: above")
    assert site_of(plan_of(itself, name="itself")).preflight() == []
    unique = "create_index: {table: a, columns: [other], name: idx_other, unique: true}"
    built = site_of(plan_of(unique, key.replace("a.id", "a.other"), name="built"))
    assert [f.severity for f in built.preflight()] == [Severity.WARN]
    gated = site_of(plan_of(key, stage="gate: {approval: mended}", name="gated"))
    gated.sql("INSERT INTO b VALUES (3, 9)")
    assert [(f.severity, f.code) for f in gated.preflight()] == [(Severity.WARN, "orphans")]


def test_a_partitioned_table_is_taken(site_of: OpenSite) -> None:
    """NOT VALID on a root needs 18, and would lock every partition at once; its partitions take the key one
    by one.
    """
    site = site_of(PLAN.replace("transactions", "logs"))
    site.sql(BOTS + "CREATE TABLE logs (bot_id integer) PARTITION BY LIST (bot_id)")
    assert [f.code for f in site.stops()] == []
