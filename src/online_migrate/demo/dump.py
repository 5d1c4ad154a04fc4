"""Two databases, or one database at two times, compared: the schema as text, the rows as a digest of each
table.

The journal's schema is left out: it says how a run went, not where it ended.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import psycopg
from psycopg import sql

Connection = psycopg.Connection[tuple[Any, ...]]

#: Columns whose values are another run's own: tokens that are made up, and the moment the bot was made.
DIFFERS_BY_RUN: Final[Mapping[str, Collection[str]]] = {
    "bots": ("telegram_bot_token", "api_token", "api_token_hash", "created_at", "updated_at")
}

_OURS: Final = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'online_migrate')"

_RELATIONS: Final = """
    SELECT format('%s %I.%I owner=%s acl=%s options=%s', c.relkind, n.nspname, c.relname,
      pg_get_userbyid(c.relowner),
                  c.relacl, c.reloptions)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"""

_COLUMNS: Final = """
    SELECT format('column %I.%I.%I %s%s default=%s identity=%s', n.nspname, c.relname, a.attname,
                  format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' NOT NULL' END,
                  pg_get_expr(d.adbin, d.adrelid), a.attidentity)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped"""

_CONSTRAINTS: Final = """
    SELECT format('constraint %I.%I.%I %s validated=%s', n.nspname, c.relname, k.conname,
      pg_get_constraintdef(k.oid),
                  k.convalidated)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE true"""

_INDEXES: Final = """
    SELECT format('index %s valid=%s', pg_get_indexdef(i.indexrelid), i.indisvalid)
      FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n
        ON n.oid = c.relnamespace WHERE true"""

_TRIGGERS: Final = """
    SELECT 'trigger ' || pg_get_triggerdef(t.oid)
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT t.tgisinternal"""

_FUNCTIONS: Final = """
    SELECT 'function ' || p.oid::regprocedure || ' ' || md5(p.prosrc)
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE true"""

_TABLE_COLUMNS: Final = """
    SELECT n.nspname, c.relname, array_agg(a.attname::text ORDER BY a.attname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname !~ '^pg_'
       AND n.nspname NOT IN ('information_schema', 'online_migrate')
     GROUP BY c.oid, n.nspname, c.relname ORDER BY 1, 2"""


def schema_dump(connection: Connection) -> str:
    """Every table, column, type, default, constraint, index, sequence, view, trigger and function, a line
    each, sorted.

    The order of a table's columns and the state of sequences are left out.
    """
    lines: list[str] = []
    for query in (_RELATIONS, _COLUMNS, _CONSTRAINTS, _INDEXES, _TRIGGERS, _FUNCTIONS):
        lines += (row[0] for row in connection.execute(query + f" AND {_OURS}"))
    return "\n".join(sorted(lines)) + "\n"


def rows_digest(
    connection: Connection, *, leave_out: Mapping[str, Collection[str]] | None = None
) -> dict[str, str]:
    """The md5 of all rows of each table, whatever their order on disk and that of the columns.

    ``leave_out`` names columns by table, as :data:`DIFFERS_BY_RUN` does.
    """
    digests = {}
    for schema, table, columns in connection.execute(_TABLE_COLUMNS).fetchall():
        kept = [c for c in columns if c not in (leave_out or {}).get(table, ())]
        query = sql.SQL(
            "SELECT md5(coalesce(string_agg(line, '' ORDER BY line), ''))"
            ' FROM (SELECT md5(ROW({})::text) COLLATE "C" AS line FROM {}) AS lines'
        ).format(sql.SQL(", ").join(map(sql.Identifier, kept)), sql.Identifier(schema, table))
        row = connection.execute(query).fetchone()
        assert row is not None
        digests[table if schema == "public" else f"{schema}.{table}"] = str(row[0])
    return digests
