"""Each check of the demo notices what it is there for; two databases are compared by what they hold."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from online_migrate.demo.checks import Check, check_owner, final_checks
from online_migrate.demo.dump import rows_digest, schema_dump
from online_migrate.demo.shop import BRIEF_TABLES, FURTHER_TABLES
from online_migrate.demo.tenant import create_tenant
from online_migrate.journal.schema import ensure_schema
from tests.demo import by_hand

TABLES = BRIEF_TABLES + FURTHER_TABLES


@pytest.fixture
def migrated(shop: str) -> Iterator[psycopg.Connection]:
    """The shop at the end of the plan, with a journal and a second tenant, bot 2."""
    with psycopg.connect(shop, autocommit=True) as connection:
        by_hand.add_bots(connection)
        by_hand.swap(connection)
        ensure_schema(connection)
        assert create_tenant(connection) == 2
        yield connection


def look(connection: psycopg.Connection, failures: tuple[str, ...] = ()) -> tuple[Check, ...]:
    return final_checks(
        connection, tables=TABLES, tenant=2, failures=failures, secrets=["s3cret"], handed_over=["token"]
    )


BREAKAGES = {
    "bot_id is NOT NULL": "ALTER TABLE tickets ALTER bot_id DROP NOT NULL",
    (
        "bot_id references bots ON DELETE CASCADE, validated"
    ): "ALTER TABLE tickets DROP CONSTRAINT tickets_bot_id_fkey;"
    " ALTER TABLE tickets ADD FOREIGN KEY (bot_id) REFERENCES bots",
    "idx_<table>_bot_id exists and is valid": "DROP INDEX idx_tickets_bot_id",
    "bot_id has no default": "ALTER TABLE tickets ALTER bot_id SET DEFAULT 1",
    "no unique on telegram_id, code or name alone is left": "DELETE FROM bots WHERE id = 2;"
    " ALTER TABLE users ADD CONSTRAINT back_again UNIQUE (telegram_id)",
    "the composite uniques are valid": "DROP INDEX idx_promocodes_bot_code",
    "the seven new tables exist": "DROP TABLE zarinpal_payments",
    "the brief's 16 indexes are valid": "DROP INDEX idx_bots_is_active",
    "no index is invalid": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_bots_is_active'::regclass"
    ),
    "no constraint is left to validate": "ALTER TABLE bots ADD CHECK (id > 0) NOT VALID",
    (
        "one master bot, its api_token masked, the token handed over"
    ): "UPDATE bots SET api_token = 'token' WHERE id = 1",
    "the journal contains no secret": "INSERT INTO online_migrate.approval (plan, stage, approved_by, note)"
    " VALUES ('p', 's', 'me', 'it is s3cret!')",
    "two tenants share telegram_id, code and name": "UPDATE users SET telegram_id = -1 WHERE bot_id = 2",
    (
        "tenant 2 has a row in every table and along every foreign key"
    ): "DELETE FROM poll_answers WHERE bot_id = 2",
    "DELETE FROM bots removes the tenant from every table": "ALTER TABLE welcome_texts DROP CONSTRAINT"
    " welcome_texts_bot_id_fkey; ALTER TABLE bots ADD COLUMN x int",
}


def test_what_is_right_passes_every_check(migrated: psycopg.Connection) -> None:
    """On a shop that is as the plan should leave it every check holds, and looking changes nothing."""
    before = rows_digest(migrated)
    assert [c for c in look(migrated) if not c.ok] == []
    assert rows_digest(migrated) == before


def test_every_breakage_is_noticed(migrated: psycopg.Connection) -> None:
    """For each check there is a way to break what it promises, and it says so."""
    names = {c.name for c in look(migrated)}
    assert names - set(BREAKAGES) == {"the table set is right", "no transaction of the application failed"}
    for name, statements in BREAKAGES.items():
        with migrated.transaction(force_rollback=True):
            migrated.execute(statements)
            assert name in {c.name for c in look(migrated) if not c.ok}, name


def test_failures_and_missing_tables_are_noticed(migrated: psycopg.Connection) -> None:
    """A failed transaction fails its check and is quoted; a set without a table fails its own."""
    failed = {c.name: c.detail for c in look(migrated, failures=("during, redeem: 23505 twice",)) if not c.ok}
    assert failed == {"no transaction of the application failed": "during, redeem: 23505 twice"}
    checks = final_checks(
        migrated, tables=TABLES[:-1], tenant=2, failures=(), secrets=(), handed_over=["token"]
    )
    assert [c.detail for c in checks if not c.ok] == [TABLES[-1]]


def test_rows_of_nobody_are_noticed(migrated: psycopg.Connection) -> None:
    """Before a second tenant joins, one row of another bot, or of none, is one too many."""
    assert not check_owner(migrated, TABLES).ok
    migrated.execute("DELETE FROM bots WHERE id = 2")
    assert check_owner(migrated, TABLES).ok
    migrated.execute("ALTER TABLE tickets ALTER bot_id DROP NOT NULL")
    migrated.execute("UPDATE tickets SET bot_id = NULL WHERE id = (SELECT min(id) FROM tickets)")
    assert check_owner(migrated, TABLES).detail == "1 rows of tickets"


def test_dump_sees_every_kind_of_change(shop: str) -> None:
    """The dump contains columns, defaults, constraints, indexes, validity, functions and triggers."""
    changes = (
        "ALTER TABLE tickets ADD COLUMN extra integer",
        "ALTER TABLE tickets ALTER priority SET DEFAULT 'high'",
        "ALTER TABLE tickets ALTER closed_at SET NOT NULL",
        "ALTER TABLE tickets ADD CONSTRAINT c CHECK (id > 0) NOT VALID",
        "ALTER INDEX ix_tickets_status RENAME TO another",
        "ALTER TABLE tickets OWNER TO pg_monitor",
        "CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE VIEW v AS SELECT id FROM tickets",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_tickets_status'::regclass",
    )
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute("UPDATE tickets SET closed_at = created_at")
        before = schema_dump(connection)
        for change in changes:
            with connection.transaction(force_rollback=True):
                connection.execute(change)
                assert schema_dump(connection) != before, change
        assert schema_dump(connection) == before


def test_dump_leaves_the_journal_and_the_order_of_columns_out(shop: str) -> None:
    """The journal may exist or not, and a column that was added earlier is the same column."""
    with psycopg.connect(shop, autocommit=True) as connection:
        with connection.transaction(force_rollback=True):
            connection.execute("ALTER TABLE tickets ADD COLUMN a integer, ADD COLUMN b integer")
            one = schema_dump(connection)
        connection.execute("ALTER TABLE tickets ADD COLUMN b integer, ADD COLUMN a integer")
        ensure_schema(connection)
        assert schema_dump(connection) == one


def test_digest_sees_one_value_and_not_the_order_of_rows(shop: str) -> None:
    """One changed value changes its table's digest; rows that moved on disk, and columns left out, do not."""
    with psycopg.connect(shop, autocommit=True) as connection:
        before = rows_digest(connection)
        connection.execute("UPDATE tickets SET status = status")
        assert rows_digest(connection) == before
        connection.execute("UPDATE tickets SET title = 'x' WHERE id = (SELECT max(id) FROM tickets)")
        assert {t for t, digest in rows_digest(connection).items() if digest != before[t]} == {"tickets"}
        left_out = rows_digest(connection, leave_out={"tickets": ["title"]})
        connection.execute("UPDATE tickets SET title = 'y'")
        assert rows_digest(connection, leave_out={"tickets": ["title"]}) == left_out
