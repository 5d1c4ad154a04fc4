"""Hazards of the table and its column: kind, storage, indexes, rules; and all of a table's hazards."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.backfill.hazards.checks import read_check_hazards
from online_migrate.backfill.hazards.publications import read_publication_hazards
from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.backfill.hazards.triggers import read_trigger_hazards
from online_migrate.backfill.values import Value
from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection

_KINDS = {"p": "partitioned", "f": "a foreign table", "v": "a view", "m": "a materialized view"}


def read_table_hazards(
    connection: Connection, table: TableInfo, column: str, value: Value, *, skip_triggers: bool = False
) -> list[Finding]:
    """All findings at once.  Reads the catalog; rows only for NOT VALID checks, and only where the role may
    read them.
    """
    rights = read_right_hazards(connection, table)
    return [
        *_kind_hazards(connection, table, column),
        *_storage_hazards(connection, table, column),
        *read_trigger_hazards(connection, table, column, skip=skip_triggers),
        *_rule_hazards(connection, table),
        *rights,
        *([] if rights else read_check_hazards(connection, table, column, value)),
        *read_publication_hazards(connection, table),
    ]


def _kind_hazards(connection: Connection, table: TableInfo, column: str) -> Iterator[Finding]:
    if table.kind != "r":
        kind = _KINDS.get(table.kind, table.kind)
        fact = f"{table.name} is {kind}; a backfill needs a table that has rows itself"
        remedy = "remove it from the plan's tables"
        if table.kind == "p":
            remedy = _leaves_remedy(connection, table)
        yield Finding(severity=Severity.STOP, code="not_a_table", fact=fact, remedy=remedy)
    for index in table.indexes:
        if column in index.columns and index.can_be_referenced:
            yield Finding(
                severity=Severity.STOP,
                code="unique_on_column",
                fact=f"unique index {index.name} contains {column}: each UPDATE locks its row FOR UPDATE,"
                " which blocks inserts of child rows",
                remedy="create the index after the backfill",
            )


def _leaves_remedy(connection: Connection, table: TableInfo) -> str:
    """The partitions that the plan is to name in place of their root."""
    rows = connection.execute(
        """SELECT l.relname, n.nspname FROM pg_partition_tree(%s::oid) t JOIN pg_class l ON l.oid = t.relid
             JOIN pg_namespace n ON n.oid = l.relnamespace
            WHERE t.isleaf AND l.relkind = 'r' ORDER BY l.relname""",
        [table.oid],
    ).fetchall()
    same_schema = ", ".join(name for name, schema in rows if schema == table.schema)
    others = ", ".join(f"{schema}.{name}" for name, schema in rows if schema != table.schema)
    remedy = f"name its partitions instead: tables: [{same_schema}]"
    return f"{remedy}; those of other schemas need a plan of their own: {others}" if others else remedy


_STORAGE = """
SELECT c.relpersistence::text, a.attgenerated::text, a.attidentity::text,
       ARRAY(SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = c.oid ORDER BY 1),
       ARRAY(SELECT g.attname FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> ''
              AND NOT g.attisdropped AND g.attname <> %(column)s ORDER BY g.attnum)
  FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %(column)s
 WHERE c.oid = %(oid)s"""


def _storage_hazards(connection: Connection, table: TableInfo, column: str) -> Iterator[Finding]:
    row = connection.execute(_STORAGE, {"column": column, "oid": table.oid}).fetchone()
    assert row is not None  # the table was just read
    persistence, generated, identity, descendants, computed = row
    name = table.name
    if generated or identity == "a":
        kind = "a generated column" if generated else "GENERATED ALWAYS AS IDENTITY"
        fact = f"{name}.{column} is {kind}: only PostgreSQL can give it a value"
        remedy = "backfill another column"
        yield Finding(severity=Severity.STOP, code="generated_column", fact=fact, remedy=remedy)
    if persistence == "u":
        fact = f"{name} is unlogged: a crash of the server empties it"
        remedy = "none needed; after a crash there are no rows to fill"
        yield Finding(severity=Severity.INFO, code="unlogged", fact=fact, remedy=remedy)
    if descendants and table.kind == "r":
        fact = f"tables inherit from {name}, and its backfill does not fill them: {', '.join(descendants)}"
        remedy = "name them in the plan as well"
        yield Finding(severity=Severity.WARN, code="inherited", fact=fact, remedy=remedy)
    if computed:
        fact = f"{name}: each row that is written computes its generated columns again: {', '.join(computed)}"
        remedy = "none needed; an index on one of them costs more only if the column's value changes"
        yield Finding(severity=Severity.INFO, code="generated_columns", fact=fact, remedy=remedy)


def _rule_hazards(connection: Connection, table: TableInfo) -> Iterator[Finding]:
    rows = connection.execute(
        "SELECT rulename FROM pg_rewrite WHERE ev_class = %s AND ev_type = '2' AND ev_enabled <> 'D'",
        [table.oid],
    ).fetchall()
    if rows:
        names = ", ".join(r[0] for r in rows)
        fact = f"{table.name} has rules ON UPDATE, which would rewrite a batch: {names}"
        remedy = "replace them by triggers, or disable them during the backfill"
        yield Finding(severity=Severity.STOP, code="update_rule", fact=fact, remedy=remedy)
