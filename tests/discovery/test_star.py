"""Code that a new column breaks is found at check; code that names its columns is not named."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from online_migrate.discovery.star import read_isolation_settings, read_star_functions, read_star_statements
from online_migrate.postgres.connection import Connection, Connector

TABLES = ("users", "promocodes")


@pytest.fixture
def connection(shop: str) -> Iterator[Connection]:
    with Connector(dsn=shop).open("test") as connection:
        yield connection


def run(connection: Connection, *statements: str) -> None:
    with psycopg.connect(connection.info.dsn, autocommit=True) as application:
        for statement in statements:
            application.execute(statement.encode())


def test_functions_and_triggers(connection: Connection) -> None:
    """``SELECT *``, ``t.*``, ``RETURNING *``, and NEW.* of a trigger on one of the tables; count(*) is none
    of them.
    """
    body = "CREATE FUNCTION {}() RETURNS {} LANGUAGE plpgsql AS 'BEGIN {}; RETURN NULL; END'"
    run(
        connection,
        "CREATE TABLE kept (LIKE users)",
        "CREATE TABLE far (x int)",
        body.format("f_select", "int", "PERFORM * FROM users"),
        body.format("f_alias", "int", "PERFORM u.id, u.* FROM users u"),
        body.format("f_returning", "int", "UPDATE users SET id = id RETURNING *"),
        body.format("f_count", "int", "PERFORM count(*) FROM users"),
        body.format("f_other", "int", "PERFORM * FROM user_messages"),
        body.format("f_row", "trigger", "INSERT INTO kept SELECT NEW.*"),
        body.format("f_elsewhere", "trigger", "INSERT INTO far SELECT NEW.*"),
        "CREATE TRIGGER keep AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f_row()",
        "CREATE TRIGGER keep AFTER UPDATE ON far FOR EACH ROW EXECUTE FUNCTION f_elsewhere()",
    )
    found = {f.name: (f.kind, f.tables) for f in read_star_functions(connection, TABLES)}
    assert found == {
        "public.f_select()": ("function", ("users",)),
        "public.f_alias()": ("function", ("users",)),
        "public.f_returning()": ("function", ("users",)),
        "public.f_row()": ("trigger function", ("users",)),
    }


def test_statements(connection: Connection) -> None:
    """What the application has run, if pg_stat_statements exists; nothing, and no error, where it is
    not.
    """
    assert read_star_statements(connection, TABLES) == ()
    run(
        connection,
        "CREATE EXTENSION pg_stat_statements",
        "SELECT * FROM promocodes WHERE code = 'SECRET'",
        "SELECT count(*) FROM promocodes",
    )
    (found,) = read_star_statements(connection, TABLES)
    assert found.tables == ("promocodes",)
    assert "SECRET" not in found.name


def test_isolation_levels(connection: Connection) -> None:
    """A role, a database or a statement above READ COMMITTED gets 40001 from our batches."""
    run(
        connection,
        "DO $$ BEGIN CREATE ROLE om_strict; EXCEPTION WHEN duplicate_object THEN END $$",
        "CREATE EXTENSION pg_stat_statements",
        "BEGIN ISOLATION LEVEL REPEATABLE READ; COMMIT",
    )
    name = sql.Identifier(connection.info.dbname)
    with psycopg.connect(connection.info.dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'").format(name)
        )
        admin.execute(
            sql.SQL(
                "ALTER ROLE om_strict IN DATABASE {} SET default_transaction_isolation = 'repeatable read'"
            ).format(name)
        )
    found = " | ".join(read_isolation_settings(connection))
    assert "role om_strict in database" in found
    assert "every role in database" in found
