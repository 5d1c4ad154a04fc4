"""Reads of rows that `check` makes: read-only, limited in time, and without a row's content in what they
report.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.search_path import SearchPath, set_local

READ_TIMEOUT_MS = 5_000
"""a read of rows at check is cancelled after this, and the finding says so"""
CONTENT_FREE = {"22001", "22003", "22012"}
"""value too long, out of range, division by zero: errors of data whose message quotes nothing of the row"""


def find_rows(connection: Connection, query: sql.Composed, path: SearchPath = SearchPath.OURS) -> list[str]:
    """The TIDs that a query returns; it cannot write, and is cancelled (57014) after READ_TIMEOUT_MS."""
    with connection.transaction():
        limit_reads(connection)
        connection.execute(set_local(connection, path))
        # binary: the extended protocol, which takes one statement, whatever an expression of the plan
        # contains
        return [ctid for (ctid,) in connection.execute(query, binary=True).fetchall()]


def limit_reads(connection: Connection) -> None:
    """Make the transaction read-only, and limit each of its statements (57014) to READ_TIMEOUT_MS."""
    timeout = sql.Literal(READ_TIMEOUT_MS)
    connection.execute(sql.SQL("SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}").format(timeout))


def error_text(error: psycopg.Error) -> str:
    """The server's message; for a read that was cancelled, the limit."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return f"it takes longer than {READ_TIMEOUT_MS / 1000:g} s"
    return error.diag.message_primary or str(error)


def error_kind(error: psycopg.Error) -> str:
    """The server's message about a row without the row's content, which errors of data often quote, as 22P02
    does.

    Source: PostgreSQL manual, appendix A "PostgreSQL Error Codes", class 22.
    """
    state = error.sqlstate or ""
    if state.startswith("22") and state not in CONTENT_FREE:
        return f"{type(error).__name__} ({state})"
    return error_text(error)
