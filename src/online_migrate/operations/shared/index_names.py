"""An index by its name: what has the name now, and how it is dropped."""

from __future__ import annotations

from psycopg import sql

from online_migrate.operations.contract.base import Kind, Place, Statement
from online_migrate.operations.shared.steps import need
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode


def read_index(connection: Connection, schema: str, name: str) -> tuple[int, str] | None:
    """The relation of that name, whatever it is: (oid, definition)."""
    row = connection.execute(
        """SELECT c.oid::int8, CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid)
          ELSE 'a relation of kind ' || c.relkind::text END
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s
               AND c.relname = %s""",
        [schema, name],
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def drop_concurrently(place: Place, name: str) -> Statement:
    """DROP INDEX CONCURRENTLY.

    ACCESS EXCLUSIVE on the index comes at its very end, when no session uses the index any more (source:
    index_drop in PostgreSQL's index.c).
    """
    drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(place.schema, name))
    locks = (
        need(place.schema, place.table, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True),
        need(place.schema, name, LockMode.ACCESS_EXCLUSIVE),
    )
    return Statement(sql=drop, kind=Kind.LONG, locks=locks)
