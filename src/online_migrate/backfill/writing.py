"""The application's statements that write a table, as far as pg_stat_statements shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import psycopg

from online_migrate.backfill.context import MARK
from online_migrate.postgres.blockers import redact
from online_migrate.postgres.connection import Connection

Calls = Mapping[str, int]
"""the text of a statement, and the number of its calls"""
SHOWN_STATEMENTS = 3
_COMMENT = re.compile(r"(?s)/\*.*?\*/|--[^\n]*")
_WITHOUT_COLUMNS = re.compile(
    r'(?i)\b(?:into|copy)\s+[\w."]+\s+(?:values|select|table|with|overriding|from)\b'
)


def read_calls(connection: Connection, table: str) -> Calls:
    """Statements that write ``table``, without ours; empty if the extension is not installed or may not be
    read.
    """
    try:
        row = connection.execute(
            "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_stat_statements'"
        ).fetchone()
        if row is None:
            return {}
        rows = connection.execute(
            # the name is quoted, from the catalog
            f"SELECT s.query, sum(s.calls)::int8 FROM {row[0]}.pg_stat_statements s"  # noqa: S608
            " WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND s.query ~* '(insert|update|merge|copy)' GROUP BY 1"
        ).fetchall()
    except psycopg.Error:
        return {}
    named = re.compile(rf"(?i)\b(?:into|update|copy)\s+(?:only\s+)?[\w.\"]*\b{re.escape(table)}\b")
    return {q: calls for q, calls in rows if MARK not in q and named.search(_COMMENT.sub(" ", q))}


def statements_since(before: Calls, now: Calls, column: str) -> tuple[str, ...]:
    """Those called in between, without literals: first those that can write NULL into ``column``, then the
    most frequent.
    """
    increased = {query: calls - before.get(query, 0) for query, calls in now.items()}
    ranked = sorted(
        (q for q, n in increased.items() if n > 0), key=lambda q: (not _may_write(q, column), -increased[q])
    )
    return tuple(redact(q) for q in ranked[:SHOWN_STATEMENTS])


def _may_write(query: str, column: str) -> bool:
    """Whether it names the column, or no columns; an INSERT that omits the column writes its default."""
    text = _COMMENT.sub(" ", query)
    return re.search(rf"(?i)\b{re.escape(column)}\b", text) is not None or bool(_WITHOUT_COLUMNS.search(text))
