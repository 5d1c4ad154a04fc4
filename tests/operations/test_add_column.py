"""add_column: old rows stay as they are, new ones get the default, and nothing is written."""

from __future__ import annotations

import pytest

from online_migrate.errors import PlanError
from online_migrate.operations.contract.base import State
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

PLAN = plan_of("add_column: {table: transactions, column: bot_id, type: integer, new_rows: <master.id>}")
INSERT = (
    "INSERT INTO transactions (user_id, type, amount_kopeks, is_completed, created_at)"
    " SELECT min(id), 'deposit', 1, true, now() FROM users"
)
MASTER = "ensure_row: {id: master, table: promo_groups, where: {is_default: true}}"


def plan(column: str) -> str:
    return plan_of(MASTER, f"add_column: {{table: transactions, {column}}}")


def test_old_rows_stay_null_and_new_ones_get_the_default(site_of: OpenSite) -> None:
    """No row is written: the file of the table is as it was, and only what is inserted from now on has a
    value.
    """
    site = site_of(
        plan("column: bot_id, type: integer, new_rows: <master.id>"), references={"master.id": "7"}
    )
    before = site.sql(
        "SELECT count(*), pg_relation_filenode('transactions'), pg_relation_size('transactions') FROM"
        " transactions"
    )
    site.execute()
    after = site.sql(
        "SELECT count(*) FILTER (WHERE bot_id IS NULL), pg_relation_filenode('transactions'),"
        " pg_relation_size('transactions') FROM transactions"
    )
    assert after == before
    site.sql(INSERT)
    assert site.sql("SELECT bot_id FROM transactions WHERE bot_id IS NOT NULL") == [(7,)]


@pytest.mark.parametrize(
    ("column", "by_hand"),
    [
        ("type: varchar(40), new_rows: \"it's\"", "character varying(40) DEFAULT 'it''s'"),
        ("type: text, new_rows: 'a\\b'", "text DEFAULT E'a\\\\b'"),
        ("type: bigint, new_rows: -1", "int8 DEFAULT '-1'"),
        ('type: "numeric(10, 2)", new_rows: "1.50"', "decimal(10,2) DEFAULT '1.50'"),
        ("type: boolean, new_rows: true", "bool DEFAULT 't'"),
        ("type: date, new_rows: 2026-1-9", "date DEFAULT '2026-01-09'"),
        ("type: jsonb, new_rows: '{\"a\":1}'", "jsonb DEFAULT '{\"a\": 1}'"),
        ("type: 'integer[]', new_rows: '{1,2}'", "integer[] DEFAULT '{1,2}'"),
        ("type: timestamp with time zone", "timestamptz"),
    ],
)  # fmt: skip
def test_one_column_spelt_two_ways_is_one(site_of: OpenSite, column: str, by_hand: str) -> None:
    """The server says how a type and a default are spelt: what it calls equal is no conflict, before and
    after.
    """
    site = site_of(plan(f"column: note, {column}"))
    site.sql(f"ALTER TABLE transactions ADD COLUMN note {by_hand}")
    assert site.state() is State.DONE
    site.sql("ALTER TABLE transactions DROP COLUMN note")
    site.execute()
    assert site.state() is State.DONE


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("type: integr", 'type "integr" does not exist'),
        ("type: integer, new_rows: x", 'invalid input syntax for type integer: "x"'),
        ("type: positive", "would write or scan every row"),
    ],
)
def test_a_column_that_cannot_be_is_found_at_check(site_of: OpenSite, column: str, words: str) -> None:
    """What the server refuses, and a domain whose check would be made for every row
    under the strongest lock.
    """
    site = site_of(plan(f"column: note, {column}"))
    site.sql("CREATE DOMAIN positive AS integer CHECK (value > 0)")
    (finding,) = site.stops()
    assert words in finding.fact


@pytest.mark.parametrize("type_name", ["serial", "integer UNIQUE", "integer[] NOT NULL", "text, ADD d int"])
def test_what_is_more_than_a_type_is_refused_when_the_plan_is_read(site_of: OpenSite, type_name: str) -> None:
    """A sequence, a constraint or a second column is no part of a type."""
    with pytest.raises(PlanError, match="type"):
        site_of(plan(f'column: note, type: "{type_name}"'))


def test_a_default_that_is_not_known_yet_is_no_conflict(site_of: OpenSite) -> None:
    """<master.id> is known once its row exists; until then what an earlier run has set is not doubted."""
    site = site_of(plan("column: bot_id, type: integer, new_rows: <master.id>"))
    site.sql("ALTER TABLE transactions ADD COLUMN bot_id integer DEFAULT 1")
    assert (site.state(), site.stops()) == (State.DONE, [])
    site.journal.write_reference(site.run_id, "master.id", "2")
    assert site.state() is State.CONFLICT
    assert "the plan wants integer, default 2" in site.stops()[0].fact
