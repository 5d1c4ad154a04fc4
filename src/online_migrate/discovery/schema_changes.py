"""Who changed the schema: what the server can still tell, in pg_stat_statements or in its log."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

import psycopg
from psycopg import sql

from online_migrate.postgres.connection import Connection, name_beside_parameters
from online_migrate.postgres.redact import redact

SHOWN: Final = 3
"""statements that are named for one object"""
_LOGS_DDL: Final = ("ddl", "mod", "all")
"""settings of log_statement with which the server logs DDL (manual, 20.8.3)"""
_CHANGES: Final = r"^\s*(drop|alter)\y.*\y(drop|type|rename|set)\y|^\s*drop\y"
_EXTENSION: Final = (
    "SELECT n.nspname FROM pg_catalog.pg_extension e"
    " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'"
)
_STATEMENTS: Final = """
SELECT r.rolname, s.query FROM {} s
  JOIN pg_catalog.pg_database d ON d.oid = s.dbid AND d.datname = pg_catalog.current_database()
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid
 WHERE s.query ~* %s ORDER BY s.calls LIMIT 500"""


class SchemaChanges:
    """Statements that may have changed an object, read once.  ``ours`` are statements of the plan itself."""

    def __init__(self, connection: Connection, ours: Collection[str]) -> None:
        self._found = tuple(_read(connection, frozenset(map(_plain, ours))))
        row = connection.execute("SELECT pg_catalog.current_setting('log_statement')").fetchone()
        self._logs_ddl = row is not None and row[0] in _LOGS_DDL

    def describe(self, names: Collection[str]) -> str:
        """Roles and statements that name one of ``names``, or where to look; empty if nothing tells."""
        word = re.compile(rf"(?<![\w$])({'|'.join(map(re.escape, names))})(?![\w$])") if names else None
        found = [
            f"role {role}: {redact(query)}" for role, query in self._found if word and word.search(query)
        ]
        if found:
            return f"pg_stat_statements has {'; '.join(found[:SHOWN])}"
        if self._logs_ddl:
            return f"log_statement logs DDL: search the server's log for {', '.join(names)}"
        return ""


def _read(connection: Connection, ours: frozenset[str]) -> Iterator[tuple[str, str]]:
    row = connection.execute(_EXTENSION).fetchone()
    if row is None:
        return
    query = sql.SQL(_STATEMENTS).format(name_beside_parameters(row[0], "pg_stat_statements"))
    try:
        rows = connection.execute(query, [_CHANGES]).fetchall()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState):
        return
    for role, text in rows:
        if text and _plain(text) not in ours and "online_migrate" not in text:
            yield str(role), str(text)


def _plain(statement: str) -> str:
    """The statement as it can be compared with another spelling of it."""
    return re.sub(r'[\s";]', "", statement).lower()
