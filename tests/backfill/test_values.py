"""What a row gets: constants, parents' values, expressions, and what check says where a value cannot be derived."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg import sql

from online_migrate.backfill.values import FromParent, SqlValue, value_sql
from online_migrate.errors import PlanError, PreflightFailed
from online_migrate.operations.base import Severity
from tests.backfill.plans import findings_of, plan_of, run_plan
from tests.backfill.tables import ask, do

SHOP = """
CREATE TABLE users (id integer PRIMARY KEY, c integer);
CREATE TABLE subscriptions (id integer PRIMARY KEY, user_id integer NOT NULL REFERENCES users);
CREATE TABLE uses (id integer PRIMARY KEY, subscription_id integer, amount integer, c integer);
INSERT INTO users SELECT n, CASE WHEN n % 5 > 0 THEN n % 3 + 1 END FROM generate_series(1, 300) n;
INSERT INTO subscriptions SELECT n, n % 300 + 1 FROM generate_series(1, 600) n;
INSERT INTO uses SELECT n, n % 600 + 1, n FROM generate_series(1, 3000) n;
"""
TWO_JOINS = "{from: [{table: subscriptions, on: subscription_id}, {table: users, on: user_id, column: c}]}"
USERS = "backfill: {table: users, column: c, value: 9}"
USES = f"backfill: {{table: uses, column: c, value: {TWO_JOINS}}}"
WRONG = "SELECT count(*) FROM uses x JOIN subscriptions s ON s.id = x.subscription_id JOIN users u ON u.id = s.user_id WHERE x.c IS DISTINCT FROM u.c"


@pytest.fixture
def bound(database: str) -> str:
    """Users, their subscriptions, and uses of these: two joins from a use to its user."""
    do(
        database,
        SHOP,
        "ALTER TABLE uses ALTER subscription_id SET NOT NULL, ADD FOREIGN KEY (subscription_id) REFERENCES subscriptions",
    )
    return database


@pytest.fixture
def loose(database: str) -> str:
    """The same without the last foreign key, and with three rows that have no parent."""
    do(
        database,
        SHOP,
        "UPDATE uses SET subscription_id = NULL WHERE id = 7",
        "UPDATE uses SET subscription_id = 9999 WHERE id IN (8, 9)",
    )
    return database


def test_a_row_gets_its_parent_s_value_two_joins_away(bound: str) -> None:
    """Parents first, then their children: every use has its user's value."""
    run_plan(bound, USERS, USES)
    assert ask(bound, WRONG) == 0
    assert ask(bound, "SELECT count(*) FROM uses WHERE c IS NULL") == 0


def test_a_key_that_the_schema_promises_is_not_looked_at(bound: str) -> None:
    """NOT NULL and validated foreign keys say that every row has a parent: check reads no rows."""
    codes = findings_of(bound, USERS, USES)
    assert not {c for c, f in codes.items() if f.severity in (Severity.STOP, Severity.WARN)}


def test_rows_without_a_parent_stop_the_check(loose: str) -> None:
    """They are named by their keys, and nothing is run."""
    found = findings_of(loose, USERS, USES)["no_parent"]
    assert found.severity is Severity.STOP
    assert "id = 7; id = 8; id = 9" in found.fact
    with pytest.raises(PreflightFailed):
        run_plan(loose, USERS, USES)


def test_else_is_for_rows_without_a_parent(loose: str) -> None:
    """They get what the plan names, the others their parent's."""
    value = TWO_JOINS[:-1] + ", else: 77}"
    run_plan(loose, USERS, f"backfill: {{table: uses, column: c, value: {value}}}")
    assert ask(loose, "SELECT array_agg(id ORDER BY id) FROM uses WHERE c = 77") == [7, 8, 9]
    assert ask(loose, WRONG) == 0


def test_parents_first(bound: str) -> None:
    """A child before its parent would take NULL from it: check refuses the order."""
    assert findings_of(bound, USES, USERS)["parents_first"].severity is Severity.STOP


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(
            "{from: {table: subscriptions, on: subscription_id, column: no}}",
            "unknown_column",
            id="no such column",
        ),
        pytest.param(
            "{from: {table: nobody, on: subscription_id, column: c}}", "unknown_parent", id="no such table"
        ),
        pytest.param(
            "{from: {table: subscriptions, on: amount, key: user_id, column: id}}",
            "ambiguous_parent",
            id="several parents",
        ),
        pytest.param("{sql: amount +}", "bad_expression", id="an expression that cannot be read"),
        pytest.param(
            "{sql: nosuch + 1}", "bad_expression", id="an expression over a column that is not there"
        ),
    ],
)
def test_a_value_that_cannot_be_is_found_at_check(bound: str, value: str, code: str) -> None:
    """With what is wrong, before anything is run."""
    found = findings_of(bound, f"backfill: {{table: uses, column: c, value: {value}}}")
    assert found[code].severity is Severity.STOP


def test_an_expression_over_the_row(bound: str) -> None:
    """Any expression of PostgreSQL's, percent signs included."""
    run_plan(bound, "backfill: {table: uses, column: c, value: {sql: 'amount % 10 + 1'}}")
    assert ask(bound, "SELECT count(*) FROM uses WHERE c IS DISTINCT FROM amount % 10 + 1") == 0


def test_an_expression_that_is_null_for_a_row_takes_else(bound: str) -> None:
    """coalesce, so that no row is left."""
    run_plan(bound, "backfill: {table: uses, column: c, value: {sql: 'nullif(amount % 2, 0)', else: 5}}")
    assert ask(bound, "SELECT count(*) FROM uses WHERE c = 5") == 1_500


@pytest.mark.parametrize(
    "value",
    [
        "{from: {table: users, on: user_id}}",
        "{from: []}",
        "{from: [{table: a, on: a_id, column: x}, {table: b, on: b_id, column: y}]}",
        "{form: {table: users, on: user_id, column: c}}",
        "{sql: ''}",
    ],
)
def test_a_value_that_makes_no_sense_is_a_mistake_of_the_plan(value: str) -> None:
    """Exit 2, before any database is asked."""
    with pytest.raises(PlanError):
        plan_of(f"backfill: {{table: t, column: c, value: {value}}}")


def test_the_sql_of_a_value() -> None:
    """What explain prints: one look into the parent's key per row, names quoted."""
    literal = sql.Literal
    value = FromParent.model_validate(
        {"from": {"table": "users", "on": "user_id", "column": "bot_id"}, "else": 1}
    )
    text = value_sql(value, schema="public", table="t", literal=literal).as_string(None)
    assert text == (
        '(coalesce((SELECT "parent1"."bot_id" FROM "public"."users" "parent1" WHERE "parent1"."id" = "t"."user_id"), 1))'
    )
    assert (
        value_sql(SqlValue(sql="a + 1"), schema="public", table="t", literal=literal).as_string(None)
        == "(a + 1)"
    )
    assert value_sql(1, schema="public", table="t", literal=literal).as_string(None) == "1"


def test_pace_is_no_part_of_the_fingerprint() -> None:
    """An operator may slow a run down in the middle of a night without being asked to accept a changed plan."""
    from online_migrate.operations.registry import OPERATIONS
    from online_migrate.plan.load import load

    texts = [
        f"plan: p\nstages:\n  - stage: one\n{pace}    steps:\n      - backfill: {{table: t, column: c, value: 1}}\n"
        for pace in ("", "    pace: {batch_target: 20ms, duty: 25%, max_wal: 1MiB}\n")
    ]
    first, second = (load(t, OPERATIONS, path=Path("p.yaml")) for t in texts)
    assert first.stages[0].pace != second.stages[0].pace
    assert first.fingerprint() == second.fingerprint()
