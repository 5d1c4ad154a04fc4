"""Code that a new column breaks: functions, triggers and statements with ``*``; and isolation levels that
make our batches their errors (postgres-facts 9 and 19).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from online_migrate.discovery.statements import read_statements
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.redact import redact

_STAR = re.compile(
    r"(?is)\b(?:select|perform|returning)\s+(?:distinct\s+|all\s+)?\*|,\s*\*\s*(?:,|\bfrom\b|$)|\b\w+\.\*"
)
_ROW = re.compile(r"(?i)\b(?:new|old)\.\*")
_LEVEL = re.compile(r"(?i)isolation\s+level\s+(?:repeatable\s+read|serializable)")

_FUNCTIONS = """
SELECT p.oid::regprocedure::text, p.prosrc,
       ARRAY(SELECT c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE t.tgfoid = p.oid)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'online_migrate') AND p.prosrc LIKE '%*%'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
 ORDER BY 1"""

_LEVELS = """
SELECT coalesce('role ' || r.rolname, 'every role') || coalesce(' in database ' || d.datname, ''), setting
  FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
  LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
 WHERE setting ~* '^default_transaction_isolation=.?(repeatable read|serializable)'
   AND (s.setdatabase = 0 OR d.datname = current_database())
 UNION ALL
SELECT 'the server''s configuration', 'default_transaction_isolation=' || boot.setting
  FROM pg_file_settings boot
 WHERE boot.name = 'default_transaction_isolation' AND boot.applied
   AND boot.setting ~* 'repeatable read|serializable'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StarCode:
    kind: str
    """function, trigger function, or statement"""
    name: str
    tables: tuple[str, ...]


def read_star_functions(connection: Connection, tables: Iterable[str]) -> tuple[StarCode, ...]:
    """Functions of users' schemas whose body has ``*`` and names one of the tables, or that a trigger on it
    calls.
    """
    names = list(tables)
    found = []
    for name, body, triggers in connection.execute(_FUNCTIONS).fetchall():
        if not _STAR.search(body):
            continue
        named = [t for t in names if _names(t, body)]
        fired = [t for t in names if t in triggers and _ROW.search(body)]
        if named or fired:
            kind = "trigger function" if fired else "function"
            found.append(StarCode(kind=kind, name=name, tables=tuple(dict.fromkeys(fired + named))))
    return tuple(found)


def read_star_statements(connection: Connection, tables: Iterable[str]) -> tuple[StarCode, ...]:
    """``SELECT *`` and ``RETURNING *`` of the application in pg_stat_statements, if it exists."""
    found = []
    names = list(tables)
    for seen in read_statements(connection, ["*"]):
        named = tuple(t for t in names if _names(t, seen.query))
        if named and _STAR.search(seen.query):
            found.append(StarCode(kind="statement", name=redact(seen.query), tables=named))
    return tuple(found)


def read_isolation_settings(connection: Connection) -> tuple[str, ...]:
    """Roles, databases, configuration and statements that ask for an isolation level above READ COMMITTED."""
    settings = _LEVELS if _may_read_files(connection) else _LEVELS[: _LEVELS.index(" UNION ALL")]
    found = [f"{target}: {setting}" for target, setting in connection.execute(settings).fetchall()]
    found += [
        f"statement: {redact(s.query)}"
        for s in read_statements(connection, ["isolation level"])
        if _LEVEL.search(s.query)
    ]
    return tuple(found)


def _may_read_files(connection: Connection) -> bool:
    """pg_file_settings is a superuser's, unless granted."""
    row = connection.execute(
        "SELECT has_table_privilege('pg_file_settings', 'SELECT')"
        " AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE')"
    ).fetchone()
    return row is not None and bool(row[0])


def _names(table: str, text: str) -> bool:
    return re.search(rf"(?i)(?<!\w){re.escape(table)}(?!\w)", text) is not None
