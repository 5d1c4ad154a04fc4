"""Triggers that fire for each row of a batch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from psycopg import sql

from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.insert_values import columns_set_by

_WRITES = re.compile(
    r"\b(insert|update|delete|merge|copy|truncate|execute|perform|call|select)\b", re.IGNORECASE
)
_SET_THEIR_ARGUMENT = {
    "moddatetime",
    "insert_username",
    "tsvector_update_trigger",
    "tsvector_update_trigger_column",
}
"""trigger functions in C whose first argument is the column that they set (manual, 12.4.3 and appendix F,
"spi")"""

_UPDATE_TRIGGERS = r"""
SELECT t.tgname, p.prosrc, t.tgtype & 2 = 2 AND t.tgtype & 1 = 1, t.tgenabled::text,
       CASE WHEN l.lanname IN ('c', 'internal') AND p.proname = ANY (%(known)s)
            THEN convert_from(substring(t.tgargs FROM 1 FOR position('\x00'::bytea IN t.tgargs) - 1),
                              getdatabaseencoding()) END
  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
 WHERE t.tgrelid = %(oid)s AND t.tgtype & 16 = 16 AND t.tgenabled <> 'D'
   AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.oid = t.tgconstraint AND c.contype <> 't')
   AND (t.tgattr = ''
        OR (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = t.tgrelid AND a.attname = %(column)s)
           = ANY (string_to_array(t.tgattr::text, ' ')::int[]))
 ORDER BY t.tgname"""
"""Those of foreign keys and exclusion constraints apart.  Up to 14, tgisinternal does not tell them: it is
also set on a partition's copy of its root's trigger."""


def read_writing_triggers(
    connection: Connection, schema: str, tables: Collection[str], *, skip: bool
) -> list[str]:
    """Triggers on UPDATE of these tables that may write a table, as ``name of table``.

    The source of a PL/pgSQL function shows that it writes none; a function in another language counts as one
    that writes.
    """
    rows = connection.execute(
        """SELECT t.tgname || ' of ' || c.relname, CASE WHEN l.lanname = 'plpgsql' THEN p.prosrc END
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
             JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
            WHERE n.nspname = %s AND c.relname = ANY (%s)
              AND t.tgtype & 16 = 16 AND t.tgenabled::text = ANY (%s)
              AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
            ORDER BY 1""",
        [schema, list(tables), ["A", "R"] if skip else ["A", "O"]],
    ).fetchall()
    return [name for name, body in rows if body is None or _WRITES.search(body)]


def read_trigger_hazards(
    connection: Connection, table: TableInfo, column: str, *, skip: bool
) -> Iterator[Finding]:
    """Triggers that a batch fires, first those known to set a column; ``skip`` is `triggers: skip`."""
    parameters = {"oid": table.oid, "column": column, "known": sorted(_SET_THEIR_ARGUMENT)}
    rows = connection.execute(_UPDATE_TRIGGERS, parameters).fetchall()
    if skip:
        rows = [r for r in rows if r[3] in ("A", "R")]
        yield from _skip_hazards(connection, table, column)
    else:
        rows = [r for r in rows if r[3] != "R"]
    setters = {
        name: sorted((columns_set_by(body) if argument is None else {argument}) - {column})
        for name, body, is_before_row, _, argument in rows
        if is_before_row
    }
    remedy = "if it must not fire for old rows, add `triggers: skip` to the backfill"
    for name, columns in setters.items():
        if columns:
            fact = (
                f"trigger {name} of {table.name} sets {', '.join(columns)}"
                " in every row that the backfill writes"
            )
            yield Finding(severity=Severity.WARN, code="trigger_sets_column", fact=fact, remedy=remedy)
    others = [r[0] for r in rows if not setters.get(r[0])]
    if others:
        fact = f"{table.name}: triggers fire for every row that the backfill writes: {', '.join(others)}"
        remedy = "if they must not fire for old rows, add `triggers: skip` to the backfill"
        yield Finding(severity=Severity.WARN, code="triggers_fire", fact=fact, remedy=remedy)


def _skip_hazards(connection: Connection, table: TableInfo, column: str) -> Iterator[Finding]:
    """session_replication_role = replica needs a right, and also disables foreign-key checks (postgres-facts
    16).
    """
    may = "current_setting('is_superuser') = 'on'"
    if connection.info.server_version >= 150000:
        may += " OR has_parameter_privilege(current_user, 'session_replication_role', 'SET')"
    row = connection.execute(sql.SQL("SELECT {}, quote_ident(current_user)").format(sql.SQL(may))).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    if not row[0]:
        yield Finding(
            severity=Severity.STOP,
            code="skip_triggers_right",
            fact=f"`triggers: skip` sets session_replication_role, and role {row[1]} may not set it",
            remedy=f"GRANT SET ON PARAMETER session_replication_role TO {row[1]} (PostgreSQL 15 or later),"
            " or remove `triggers: skip`",
        )
    keys = [k.name for k in table.foreign_keys if column in k.columns]
    if keys:
        yield skipped_key_hazard(f"foreign key {', '.join(keys)} on {table.name}.{column}")


def skipped_key_hazard(key: str) -> Finding:
    """`triggers: skip` beside a foreign key on the column, described by ``key``."""
    return Finding(
        severity=Severity.STOP,
        code="skip_triggers_foreign_key",
        fact=f"`triggers: skip` would also skip {key}: the backfill could write a value that no parent has",
        remedy="add the foreign key after the backfill, or remove `triggers: skip`",
    )
