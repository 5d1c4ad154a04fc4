"""Which statements of the application write a table, as far as pg_stat_statements tells."""

from __future__ import annotations

import re
from collections.abc import Mapping

import psycopg

from online_migrate.postgres.blockers import redact
from online_migrate.postgres.connection import Connection

Calls = Mapping[str, int]
"""a statement's text and how often it ran"""


def read_calls(connection: Connection, table: str) -> Calls:
    """Statements that write ``table``, ours apart; empty where the extension is not there or may not be read."""
    try:
        row = connection.execute(
            "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_stat_statements'"
        ).fetchone()
        if row is None:
            return {}
        rows = connection.execute(
            f"SELECT s.query, sum(s.calls)::int8 FROM {row[0]}.pg_stat_statements s"  # noqa: S608  # a quoted name from the catalog
            " WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND s.query ~* '(insert|update|merge|copy)' GROUP BY 1"
        ).fetchall()
    except psycopg.Error:
        return {}
    named = re.compile(rf"(?i)\b(?:into|update|copy)\s+(?:only\s+)?[\w.\"]*\b{re.escape(table)}\b")
    return {query: calls for query, calls in rows if named.search(query) and "ctid" not in query}


def statements_since(before: Calls, now: Calls) -> tuple[str, ...]:
    """Those that ran in between, without their literals, the most frequent first."""
    risen = {query: calls - before.get(query, 0) for query, calls in now.items()}
    return tuple(redact(q) for q, n in sorted(risen.items(), key=lambda e: -e[1]) if n > 0)[:3]
