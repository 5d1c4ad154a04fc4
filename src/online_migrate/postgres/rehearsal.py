"""What some DDL would make, and whether what is there equals it: PostgreSQL's to say.

The DDL is run in a scratch schema of a transaction that is rolled back, and the two catalogs are compared.
Tables that the DDL refers to have empty copies as stand-ins in the scratch schema, so that no lock above
ACCESS SHARE is taken on anything that exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.search_path import SearchPath, local_path
from online_migrate.postgres.sqlstate import ErrorClass, error_class

SCRATCH = "online_migrate_scratch"

_SHAPE = """
SELECT replace(line, quote_ident(%(schema)s) || '.', '') FROM (
SELECT format('kind %%s, %%s', c.relkind, c.relpersistence) AS line FROM pg_class c WHERE c.oid = %(oid)s
UNION ALL
SELECT format('column %%s %%s%%s%%s%%s%%s', a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attcollation = t.typcollation THEN ''
                   ELSE (SELECT ' COLLATE ' || quote_ident(l.collname) FROM pg_collation l
                     WHERE l.oid = a.attcollation) END,
              CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
              coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), ''),
              CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY ' || a.attidentity::text END ||
              CASE a.attgenerated WHEN '' THEN '' ELSE ' GENERATED' END)
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT format('constraint %%s %%s', conname, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE conrelid = %(oid)s AND contype IN ('p', 'u', 'f', 'c', 'x')
UNION ALL
SELECT 'index ' || pg_get_indexdef(i.indexrelid) ||
       CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
  FROM pg_index i
 WHERE i.indrelid = %(oid)s) shape"""

_NAMES = """
SELECT c.relname FROM pg_class c
 WHERE c.oid = %(oid)s
    OR c.oid IN (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = %(oid)s)
    OR c.oid IN (SELECT d.objid FROM pg_depend d WHERE d.refobjid = %(oid)s AND d.deptype IN ('a', 'i')
                    AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass)"""

_TAKEN = """
SELECT c.relname || ' (' || CASE c.relkind WHEN 'i' THEN pg_get_indexdef(c.oid) WHEN 'S'
  THEN 'a sequence' ELSE 'a relation' END || ')'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = ANY (%s) ORDER BY 1"""

_COLUMN = """
SELECT format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid),
       t.typtype = 'd' AND (t.typnotnull OR t.typdefault IS NOT NULL OR EXISTS (SELECT
         FROM pg_constraint WHERE contypid = t.oid))
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = to_regclass('pg_temp.online_migrate_scratch') AND a.attnum = 1"""


class TrialFailed(Exception):  # becomes a finding of the operation that tried
    """The server refuses the DDL; the message is the server's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the DDL of one table would make."""

    differences: tuple[str, ...]
    """between the existing table of that name and the one of the DDL; empty if they are equal"""
    taken: tuple[str, ...]
    """existing relations with a name that the DDL would give: the table's, an index's, a sequence's"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTrial:
    """How the server spells a column's type and default."""

    type: str
    default: str | None
    is_written: bool
    """a domain with a default or a constraint: adding the column would write or scan every row"""


def read_shape(connection: Connection, schema: str, table: str) -> frozenset[str]:
    """A table's columns, constraints and indexes, a line each, without the schema's name; the order of
    columns aside.
    """
    oid = _oid(connection, schema, table)
    if oid is None:
        return frozenset()
    lines = connection.execute(_SHAPE, {"oid": oid, "schema": schema}).fetchall()
    return frozenset(str(r[0]) for r in lines)


def try_ddl(
    connection: Connection, *, schema: str, table: str, ddl: Sequence[str], refers_to: Iterable[str]
) -> Trial:
    """Run ``ddl``, which makes ``table``, beside copies of the tables that it refers to, and roll it back.

    Needs the right to create a schema; writes nothing.  Raises :class:`TrialFailed` where the server refuses
    the DDL.
    """
    there: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    taken: list[str] = []
    try:
        with connection.transaction(force_rollback=True):
            there = read_shape(connection, schema, table)
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCRATCH)))
            for name in refers_to:
                connection.execute(
                    sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING INDEXES)").format(
                        sql.Identifier(SCRATCH, name), sql.Identifier(schema, name)
                    )
                )
            with local_path(connection, SearchPath.PLAN, first=SCRATCH):
                for statement in ddl:
                    connection.execute(sql.SQL(statement))
            wanted = read_shape(connection, SCRATCH, table)
            names = connection.execute(_NAMES, {"oid": _oid(connection, SCRATCH, table)}).fetchall()
            taken = [r[0] for r in connection.execute(_TAKEN, [schema, [n[0] for n in names]])]
    except psycopg.Error as error:
        raise _refusal(error) from error
    missing = [f"missing: {line}" for line in sorted(wanted - there)]
    # Another plain index does no harm; another unique one refuses rows that the plan's table would take.
    surplus = [
        f"not in the plan: {line}"
        for line in sorted(there - wanted)
        if not line.startswith("index CREATE INDEX")
    ]
    return Trial(differences=tuple(missing + surplus), taken=tuple(taken))


def try_column(connection: Connection, type_name: str, default: sql.Composable | None) -> ColumnTrial:
    """Make a column of that type and default in a temporary table, and roll it back.

    The type is found by the path of role and database.  Raises :class:`TrialFailed` where the server refuses
    them.
    """
    of_type = sql.SQL(type_name)
    with_default = sql.SQL("") if default is None else sql.SQL(" DEFAULT {}").format(default)
    row: tuple[str, str | None, bool] | None = None
    try:
        with connection.transaction(force_rollback=True):
            with local_path(connection, SearchPath.ROLE):
                connection.execute(
                    sql.SQL("CREATE TEMPORARY TABLE pg_temp.online_migrate_scratch (c {}{})").format(
                        of_type, with_default
                    )
                )
            row = connection.execute(_COLUMN).fetchone()
    except psycopg.Error as error:
        raise _refusal(error) from error
    assert row is not None  # the table of one column was just made
    return ColumnTrial(type=row[0], default=row[1], is_written=row[2])


@contextmanager
def temporary_copy(
    connection: Connection, table: TableInfo, added: Mapping[str, str], *, with_indexes: bool = False
) -> Iterator[sql.Identifier]:
    """An empty temporary table of the table's name and columns, and of those that are ``added`` with their
    types; taken back afterwards.

    It is of another type and schema than the table, so an expression over these may fail on it alone.
    """
    copy = sql.Identifier("pg_temp", table.name)
    like = sql.SQL("LIKE {} INCLUDING INDEXES" if with_indexes else "LIKE {}")
    columns = [
        like.format(sql.Identifier(table.schema, table.name)),
        *(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(of)) for name, of in added.items()),
    ]
    with connection.transaction(force_rollback=True):
        connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ({})").format(copy, sql.SQL(", ").join(columns))
        )
        yield copy


def _refusal(error: psycopg.Error) -> Exception:
    """What the server says of the DDL; a lost connection stays what it is."""
    if error_class(error) is not ErrorClass.PROGRAM:
        return error
    return TrialFailed(error.diag.message_primary or str(error))


def _oid(connection: Connection, schema: str, table: str) -> int | None:
    row = connection.execute(
        "SELECT c.oid::int8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname ="
        " %s AND c.relname = %s",
        [schema, table],
    ).fetchone()
    return None if row is None else int(row[0])
