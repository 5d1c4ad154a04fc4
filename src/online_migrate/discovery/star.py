"""Code that a new column breaks: functions and triggers with ``*``, prepared ``SELECT *``; and roles whose isolation level
makes our batches their errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.redact import redact

_STAR = re.compile(r"(?is)\b(?:select|returning)\s+(?:\w+\.)?\*|\b(?:new|old)\.\*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StarCode:
    kind: str
    """function, or statement"""
    name: str
    tables: tuple[str, ...]


def read_star_functions(connection: Connection, tables: Iterable[str]) -> tuple[StarCode, ...]:
    """Functions of users' schemas whose body has ``*`` and names one of the tables."""
    names = list(tables)
    rows = connection.execute(
        """SELECT p.oid::regprocedure::text, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'online_migrate') AND p.prosrc LIKE '%*%'
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"""
    ).fetchall()
    found = []
    for name, body in rows:
        if _STAR.search(body):
            named = tuple(t for t in names if re.search(rf"\b{re.escape(t)}\b", body))
            if named or re.search(r"(?i)\b(?:new|old)\.\*", body):
                found.append(StarCode(kind="function", name=name, tables=named))
    return tuple(found)


def read_star_statements(connection: Connection, tables: Iterable[str]) -> tuple[StarCode, ...]:
    """``SELECT *`` and ``RETURNING *`` of the application in pg_stat_statements, where that is there."""
    try:
        row = connection.execute(
            "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_stat_statements'"
        ).fetchone()
        if row is None:
            return ()
        rows = connection.execute(
            f"SELECT DISTINCT s.query FROM {row[0]}.pg_stat_statements s"  # noqa: S608  # a quoted name from the catalog
            " WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.query LIKE '%*%'"
        ).fetchall()
    except psycopg.errors.Error:
        return ()
    found = []
    for (query,) in rows:
        named = tuple(t for t in tables if re.search(rf"\b{re.escape(t)}\b", query))
        if named and _STAR.search(query) and "online_migrate" not in query:
            found.append(StarCode(kind="statement", name=redact(query), tables=named))
    return tuple(found)


def read_isolation_settings(connection: Connection) -> tuple[str, ...]:
    """Roles and databases whose default isolation level is above READ COMMITTED."""
    rows = connection.execute(
        """SELECT coalesce('role ' || r.rolname, 'every role') || coalesce(' in database ' || d.datname, ''), setting
             FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
             LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
            WHERE setting ~* '^default_transaction_isolation=.?(repeatable read|serializable)'
              AND (s.setdatabase = 0 OR d.datname = current_database())"""
    ).fetchall()
    return tuple(f"{who}: {setting}" for who, setting in rows)
