"""Which type a name means: the server finds it by the path of role and database, then the plan's schema."""

from __future__ import annotations

from psycopg import sql

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.search_path import SearchPath, local_path

_SPELLED = """
SELECT pg_catalog.format_type(oid, CASE WHEN typtype = 'd' THEN -1 ELSE %s END) FROM pg_catalog.pg_type
 WHERE oid = %s"""
"""A domain has no modifier of its own: the server reports that of its base type."""


def read_type(connection: Connection, name: str) -> str:
    """The type as format_type() spells it for our search_path: with its schema, unless that is pg_catalog.

    Such a name means the same type whatever path a statement runs with.  ``name`` is what the grammar takes
    for one type (plan/type_name.py).  Raises psycopg.Error where the server does not know it.
    """
    null = sql.SQL("(SELECT NULL::{} WHERE false)").format(sql.SQL(name))  # a domain may refuse NULL
    with connection.transaction():
        with local_path(connection, SearchPath.ROLE):
            cursor = connection.execute(
                sql.SQL("SELECT pg_catalog.pg_typeof({0})::pg_catalog.oid::pg_catalog.int8, {0}").format(null)
            )
        found, result = cursor.fetchone(), cursor.pgresult
        assert found is not None and result is not None  # noqa: PT018 - a SELECT without FROM has one row
        row = connection.execute(_SPELLED, [result.fmod(1), found[0]]).fetchone()
    assert row is not None  # it was just found
    return str(row[0])
