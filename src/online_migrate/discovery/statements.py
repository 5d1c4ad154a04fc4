"""The application's statements, as pg_stat_statements has them: without values, with how often they ran."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.postgres.connection import Connection, name_beside_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A normalised statement."""

    query: str
    calls: int


def read_statements(connection: Connection, words: Iterable[str]) -> tuple[Seen, ...]:
    """Statements of this database that hold one of ``words``, the most frequent first; none where the
    extension is missing, or not loaded, or not ours to read.  Our own are left out.
    """
    row = connection.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname"
        " = 'pg_stat_statements'"
    ).fetchone()
    if row is None:
        return ()
    query = sql.SQL(
        "SELECT s.query, sum(s.calls)::int8 FROM {} s WHERE s.dbid = (SELECT oid FROM pg_database WHERE"
        " datname = current_database())"
        " AND s.query ILIKE ANY (%s) AND s.query NOT LIKE '%%online_migrate%%' AND s.query NOT LIKE"
        " '%%pg_stat_statements%%'"
        " GROUP BY s.query ORDER BY 2 DESC LIMIT 2000"
    ).format(name_beside_parameters(row[0], "pg_stat_statements"))
    try:
        rows = connection.execute(query, [[f"%{w}%" for w in words]]).fetchall()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState):
        return ()
    return tuple(Seen(query=q, calls=int(n)) for q, n in rows if q)
