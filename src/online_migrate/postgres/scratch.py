"""Whether a table that is there equals what some DDL would make: PostgreSQL's to say.

The DDL is run in a scratch schema of a transaction that is rolled back, and the two catalogs are compared.  Tables that
the DDL refers to are stood in for by empty copies in the scratch schema, so that no lock above ACCESS SHARE is taken on
anything that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from online_migrate.postgres.connection import Connection

_SHAPE = """
SELECT format('column %%s %%s%%s%%s%%s', a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
              coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), ''),
              CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY ' || a.attidentity::text END ||
              CASE a.attgenerated WHEN '' THEN '' ELSE ' GENERATED' END)
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT format('constraint %%s %%s', conname, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE conrelid = %(oid)s AND contype IN ('p', 'u', 'f', 'c', 'x')
UNION ALL
SELECT 'index ' || replace(pg_get_indexdef(i.indexrelid), ' ON ' || quote_ident(%(schema)s) || '.', ' ON ')
  FROM pg_index i
 WHERE i.indrelid = %(oid)s"""


def read_shape(connection: Connection, schema: str, table: str) -> frozenset[str]:
    """A table's columns, constraints and indexes, a line each, without the schema's name; the order of columns aside."""
    row = connection.execute(
        "SELECT c.oid::int8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        [schema, table],
    ).fetchone()
    if row is None:
        return frozenset()
    lines = connection.execute(_SHAPE, {"oid": row[0], "schema": schema}).fetchall()
    return frozenset(str(r[0]) for r in lines)


def compare_with_ddl(
    connection: Connection, *, schema: str, table: str, ddl: Sequence[str], refers_to: Iterable[str]
) -> tuple[str, ...]:
    """What differs between the table that is there and what ``ddl`` would make; empty where they are equal.

    Needs the right to create a schema; writes nothing.  Raises psycopg.Error where the DDL itself fails.
    """
    scratch = "online_migrate_scratch"
    path = sql.SQL("SET LOCAL search_path = {}, {}").format(sql.Identifier(scratch), sql.Identifier(schema))
    there: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    with connection.transaction(force_rollback=True):
        there = read_shape(connection, schema, table)
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(scratch)))
        connection.execute(path)
        for name in refers_to:
            connection.execute(
                sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING INDEXES)").format(
                    sql.Identifier(scratch, name), sql.Identifier(schema, name)
                )
            )
        for statement in ddl:
            connection.execute(statement)
        wanted = read_shape(connection, scratch, table)
    missing = [f"missing: {line}" for line in sorted(wanted - there)]
    surplus = [f"not in the plan: {line}" for line in sorted(there - wanted) if not line.startswith("index ")]
    return tuple(missing + surplus)
