"""Tables to backfill: the column c is empty in every row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from online_migrate.postgres.catalog import Catalog, TableInfo
from online_migrate.postgres.connection import Connection, Connector


def make_table(dsn: str, rows: int, *, name: str = "t", filler: int = 60, more: str = "") -> None:
    """A filled table without autovacuum (it would prune beside us); ``more`` is run afterwards."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL(
                "CREATE TABLE {t} (id bigserial PRIMARY KEY, user_id bigint, v integer NOT NULL DEFAULT 0,"
                " filler text, c integer)"
                " WITH (autovacuum_enabled = off)"
            ).format(t=sql.Identifier(name))
        )
        plain = sql.SQL("ALTER TABLE {} ALTER filler SET STORAGE PLAIN").format(sql.Identifier(name))
        connection.execute(plain)
        connection.execute(
            sql.SQL(
                "INSERT INTO {} (user_id, filler) SELECT n % 1000, repeat('x', {}) FROM generate_series(1,"
                " {}) n"
            ).format(sql.Identifier(name), sql.Literal(filler), sql.Literal(rows))
        )
        connection.execute(sql.SQL("CREATE INDEX ON {} (user_id)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("ALTER TABLE {} ALTER c SET DEFAULT 7").format(sql.Identifier(name)))
        if more:
            connection.execute(more)
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(name)))


def ask(dsn: str, query: str, *args: object) -> object:
    """One value."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query, args or None).fetchone()
    return None if row is None else row[0]


def do(dsn: str, *queries: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for query in queries:
            connection.execute(query)


@contextmanager
def session(dsn: str) -> Iterator[Connection]:
    """A session of ours."""
    connection = Connector(dsn=dsn).open("test")
    try:
        yield connection
    finally:
        connection.close()


def table_info(connection: Connection, name: str = "t") -> TableInfo:
    table = Catalog(connection).table(name)
    assert table is not None
    return table
