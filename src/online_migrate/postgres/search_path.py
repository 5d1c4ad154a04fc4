"""The search_path of our sessions: pg_catalog alone, but for a statement that must find the objects of the
database's users.

PostgreSQL chooses a function or an operator by its argument types before it considers the schemas' order
(manual, chapter "Type Conversion"), so a function in the plan's schema whose types fit better than
pg_catalog's is called instead of it, with the rights of the migrating role.  The only remedy is that such a
schema is not on the path of our own statements. ``pg_temp`` is named, and last: unnamed, it is searched first
for relations and types.

Triggers, index expressions, checks and types belong to the database's users, and what they call is found by
the path that role and database have.  A statement that runs such code gets that path for itself alone; in it,
each name of ours is qualified.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from psycopg import sql
from psycopg.pq import TransactionStatus

from online_migrate.postgres.connection import OUR_PATH, Connection, Sql, role_path_of


class SearchPath(Enum):
    """Which search_path a statement runs with."""

    OURS = "pg_catalog"
    ROLE = "role"
    """that of role and database, then the plan's schema: for statements of ours that run the users' code"""
    PLAN = "plan"
    """the plan's schema first: for SQL that the plan's author wrote, and that names no schema"""


_TO_OURS: Final = sql.SQL("SET LOCAL search_path = {}").format(sql.SQL(OUR_PATH))


def path_text(connection: Connection, path: SearchPath) -> str:
    """The value of search_path."""
    role, schema = role_path_of(connection)
    named = sql.Identifier(schema).as_string(None)
    return {
        SearchPath.OURS: OUR_PATH,
        SearchPath.ROLE: f"{role}, {named}",
        SearchPath.PLAN: f"{named}, {role}",
    }[path]


def set_local(connection: Connection, path: SearchPath, *, first: str = "") -> sql.Composed:
    """The statement that sets the path until the transaction ends; a schema ``first`` comes before all
    others.
    """
    text = path_text(connection, path)
    if first:
        text = f"{sql.Identifier(first).as_string(None)}, {text}"
    return sql.SQL("SELECT pg_catalog.set_config('search_path', {}, true)").format(sql.Literal(text))


def with_path(connection: Connection, path: SearchPath, statement: Sql) -> Sql:
    """The statement for a message of several, in a transaction: with its path before it, and ours again after
    it.

    The line break ends a comment at the end of the statement.
    """
    if path is SearchPath.OURS:
        return statement
    return sql.SQL("{}; {}\n; {}").format(set_local(connection, path), statement, _TO_OURS)


@contextmanager
def local_path(connection: Connection, path: SearchPath, *, first: str = "") -> Iterator[None]:
    """Within a transaction: the block's statements run with that path, those after it with ours."""
    connection.execute(set_local(connection, path, first=first))
    yield
    connection.execute(_TO_OURS)  # after an error the transaction's end brings ours back


@contextmanager
def session_path(connection: Connection, path: SearchPath) -> Iterator[None]:
    """For a statement that cannot run in a transaction, or that may.

    A session that was lost is opened again with ours; a transaction that failed brings ours back with its
    end.
    """
    if path is SearchPath.OURS:
        yield
        return
    connection.execute(
        sql.SQL("SELECT pg_catalog.set_config('search_path', {}, false)").format(
            sql.Literal(path_text(connection, path))
        )
    )
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status is not TransactionStatus.INERROR:
            connection.execute(sql.SQL("SET search_path = {}").format(sql.SQL(OUR_PATH)))
