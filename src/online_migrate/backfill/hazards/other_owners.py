"""A constant owner beside other owners: rows that are filled with it may belong to another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import psycopg
from psycopg import sql

from online_migrate.backfill.hazards.filled_column import FilledColumn
from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.backfill.hazards.row_reads import error_text, find_rows
from online_migrate.backfill.values import Constant
from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import ColumnInfo, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.sqlstate import ErrorClass, error_class


def read_other_owners(
    column: FilledColumn, value: Constant, owner_tables: Iterable[str]
) -> Iterator[Finding]:
    """Other values of the column in the table and its parents, and several rows in a table of owners.

    Asked of a column that the plan fills in several tables, as it does with an owner, while rows without a
    value exist.  Each read ends after some seconds.
    """
    plan, table = column.plan, column.table
    filled = {name for name, filled in plan.filled_before | plan.filled_later if filled == column.name}
    if not filled - {table.name} or not column.type or read_right_hazards(column.connection, table):
        return
    try:
        if not find_rows(column.connection, _unfilled(column)):
            return
        yield from _other_values(column, value)
        for name in sorted(set(owner_tables)):
            owners = column.catalog.table(name)
            if owners is not None:
                yield from _several_owners(column, value, owners)
    except psycopg.Error as error:
        if error_class(error) not in (ErrorClass.PROGRAM, ErrorClass.LOCK):
            raise
        yield Finding(
            severity=Severity.WARN,
            code="other_owners_unknown",
            fact=f"{table.name}: could not verify that no row belongs to another owner than"
            f" {_text(value)}: {error_text(error)}",
            remedy=f"before the run, look for other values of {column.name} in the table and its parents",
        )


def _unfilled(column: FilledColumn) -> sql.Composed:
    where = sql.SQL(" WHERE {} IS NULL").format(column.sql_name) if column.exists else sql.SQL("")
    return sql.SQL("SELECT ctid::pg_catalog.text FROM ONLY {}{} LIMIT 1").format(column.sql_table, where)


def _other_values(column: FilledColumn, value: Constant) -> Iterator[Finding]:
    table, name = column.table, column.name
    if column.exists:
        other = _differs("child", table.columns[name], value, column.type)
        rows = sql.SQL("FROM ONLY {} child WHERE {}").format(column.sql_table, other)
        yield from _found(column, value, rows, f"of {table.name} have other values in {name}")
    for key in table.foreign_keys:
        parent = column.catalog.table(str(key.ref_table)) if key.ref_schema == table.schema else None
        if parent is None or name not in parent.columns or parent.name == table.name or name in key.columns:
            continue
        if read_right_hazards(column.connection, parent, ("SELECT",)):
            continue
        joined = sql.SQL(" AND ").join(
            sql.SQL("child.{} {} parent.{}").format(
                sql.Identifier(c), table.columns[c].equals_sql, sql.Identifier(p)
            )
            for c, p in zip(key.columns, key.ref_columns, strict=True)
        )
        empty = sql.SQL("child.{} IS NULL AND ").format(column.sql_name) if column.exists else sql.SQL("")
        rows = sql.SQL("FROM ONLY {} child JOIN {} parent ON {} WHERE {}{}").format(
            column.sql_table,
            sql.Identifier(parent.schema, parent.name),
            joined,
            empty,
            _differs("parent", parent.columns[name], value, column.type),
        )
        what = (
            f"of {table.name} would get it and have a row of {parent.name} with another {name} ({key.name})"
        )
        yield from _found(column, value, rows, what)


def _differs(row: str, info: ColumnInfo, value: Constant, type_: str) -> sql.Composed:
    return sql.SQL("NOT ({}.{} {} CAST({} AS {}))").format(
        sql.Identifier(row), sql.Identifier(info.name), info.equals_sql, value.literal, sql.SQL(type_)
    )


def _several_owners(column: FilledColumn, value: Constant, owners: TableInfo) -> Iterator[Finding]:
    rows = sql.SQL("FROM {}").format(sql.Identifier(owners.schema, owners.name))
    if not read_right_hazards(column.connection, owners, ("SELECT",)):
        what = f"are in {owners.name}, which {column.table.name}.{column.name} references: which of them owns"
        yield from _found(column, value, rows, f"{what} a row without a value is not known", at_least=2)


def _found(
    column: FilledColumn, value: Constant, rows: sql.Composed, what: str, at_least: int = 1
) -> Iterator[Finding]:
    connection = column.connection
    first = sql.SQL("SELECT '' {} LIMIT {}").format(rows, sql.Literal(at_least))
    if len(find_rows(connection, first)) < at_least:
        return
    count = _count(connection, rows) or f"at least {at_least}"
    yield Finding(
        severity=Severity.STOP,
        code="other_owners",
        fact=f"{column.table.name}.{column.name} is filled with the constant {_text(value)}, but"
        f" {count} {'row' if count == '1' else 'rows'} {what}",
        remedy="derive the value from the row's parent (`value: {from: ...}`), or write"
        f" `other_owners: allowed` at the backfill if the constant is right; list them: SELECT *"
        f" {rows.as_string(None)}",
    )


def _count(connection: Connection, rows: sql.Composed) -> str:
    """Empty where counting takes too long."""
    try:
        return find_rows(connection, sql.SQL("SELECT pg_catalog.count(*)::pg_catalog.text {}").format(rows))[
            0
        ]
    except psycopg.errors.QueryCanceled:
        return ""


def _text(value: Constant) -> str:
    return value.literal.as_string(None)
