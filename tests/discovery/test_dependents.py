"""What depends on the old unique is found at check, on the filled shop, by real views,
functions and statements.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from online_migrate.discovery.dependents import Dependent, is_conflict_target, is_look_up, read_dependents
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.connection import Connection, Connector


@pytest.fixture
def connection(shop: str) -> Iterator[Connection]:
    with Connector(dsn=shop).open("test") as connection:
        yield connection


def dependents(connection: Connection, table: str = "promocodes", *columns: str) -> list[Dependent]:
    info = Catalog(connection).table(table)
    assert info is not None
    named = columns or ("code",)
    old = [i.oid for i in info.uniques_on_exactly(named)]
    return list(read_dependents(connection, info, named, old, ["bot_id"]))


def run(connection: Connection, *statements: str) -> None:
    """As the application: on a session of its own."""
    with psycopg.connect(connection.info.dsn, autocommit=True, user="postgres") as application:
        for statement in statements:
            application.execute(statement.encode())


def test_look_ups_lose_their_only_index(connection: Connection) -> None:
    """After the swap a look-up by code alone would scan; not so where another index begins with it."""
    assert [one.kind for one in dependents(connection)] == ["look-ups"]
    run(connection, "CREATE INDEX plain ON promocodes (code)")
    assert dependents(connection) == []


def test_views(connection: Connection) -> None:
    """A view that reads the column is named; one that reads others is not."""
    run(
        connection,
        "CREATE VIEW by_code AS SELECT id, code FROM promocodes",
        "CREATE VIEW others AS SELECT id FROM promocodes",
    )
    assert [one.name for one in dependents(connection) if one.kind == "view"] == ["public.by_code"]


def test_functions(connection: Connection) -> None:
    """ON CONFLICT on it would fail, a look-up by it may find two; one within an owner is in order."""
    run(
        connection,
        "CREATE FUNCTION upsert() RETURNS void LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO promocodes (code) VALUES (1) ON CONFLICT (code) DO NOTHING; END'",
        "CREATE FUNCTION look_up(c text) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM promocodes p"
        " WHERE p.code = $1'",
        "CREATE FUNCTION within(c text) RETURNS void LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM 1 FROM promocodes WHERE bot_id = 1 AND code = c; END'",
        "CREATE FUNCTION another() RETURNS int LANGUAGE sql AS 'SELECT 1 -- promocodes_old code = 1'",
    )
    found = {one.name: one.reason for one in dependents(connection) if one.kind == "function"}
    assert found.keys() == {"public.upsert()", "public.look_up(text)"}
    assert "42P10" in found["public.upsert()"]


def test_statements(connection: Connection) -> None:
    """What pg_stat_statements has of the application: upserts and look-ups by the old columns, without
    values.
    """
    row = connection.execute("SELECT current_setting('shared_preload_libraries')").fetchone()
    if row is None or "pg_stat_statements" not in row[0]:
        pytest.fail("the tests' server loads no pg_stat_statements")
    run(
        connection,
        "CREATE EXTENSION pg_stat_statements",
        "SELECT id FROM promocodes WHERE code = 'SECRET'",
        "SELECT id FROM promocodes WHERE promocodes.code IN ('SECRET', 'x')",
        "SELECT code FROM promocodes WHERE id = 1",
    )
    found = [one.name for one in dependents(connection) if one.kind == "statement"]
    assert len(found) == 2
    assert not [f for f in found if "SECRET" in f]
    assert all("calls)" in f for f in found)


def test_replica_identity_stops(connection: Connection) -> None:
    """Without it every UPDATE of a published table fails: that one is fatal."""
    run(connection, "ALTER TABLE promocodes ALTER code SET NOT NULL")
    index = next(i.name for i in Catalog(connection).table("promocodes").uniques_on_exactly(["code"]))  # type: ignore[union-attr]
    run(connection, f"ALTER TABLE promocodes REPLICA IDENTITY USING INDEX {index}")
    (found,) = [one for one in dependents(connection) if one.is_fatal]
    assert (found.kind, found.name) == ("replica identity", f"public.{index}")


@pytest.mark.parametrize(
    ("text", "is_target"),
    [
        ("INSERT INTO t VALUES (1) ON CONFLICT (code) DO NOTHING", True),
        ('insert into t values (1) on conflict ( "CODE" ) do update set x = 1', True),
        ("INSERT INTO t VALUES (1) ON CONFLICT (code, bot_id) DO NOTHING", False),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", False),
    ],
)
def test_conflict_targets(text: str, is_target: bool) -> None:
    """Exactly these columns, however they are written."""
    assert is_conflict_target(text, ["code"]) is is_target


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("SELECT * FROM p WHERE code = $1", True),
        ('SELECT "p"."code" FROM "p" WHERE "p"."code" = $1', True),
        ("SELECT * FROM p WHERE p.code IN ($1, $2)", True),
        ("SELECT * FROM p JOIN q ON q.x = p.code", True),
        ("SELECT code FROM p WHERE id = $1", False),
        ("SELECT * FROM p WHERE promo_code = $1", False),
        ("SELECT * FROM p WHERE bot_id = $1 AND code = $2", False),
    ],
)
def test_look_ups(text: str, is_one: bool) -> None:
    """By the old column alone, with a value or a join; a longer name is another column."""
    assert is_look_up(text, ["code"], ["bot_id"]) is is_one
