"""NOT VALID checks that old rows violate: the server refuses to update such a row, whatever the UPDATE sets
(23514).
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from online_migrate.backfill.hazards.row_reads import error_kind, error_text, find_rows
from online_migrate.backfill.rows import describe_rows
from online_migrate.backfill.values import Expression, Value
from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import ConstraintInfo, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.search_path import SearchPath
from online_migrate.postgres.sqlstate import ErrorClass, error_class


def read_check_hazards(
    connection: Connection, table: TableInfo, column: str, value: Value
) -> Iterator[Finding]:
    """Compare old rows, as they will be with their value, with each NOT VALID check of the table."""
    for check in table.constraints:
        if check.kind != "c" or check.is_valid:
            continue
        row = connection.execute(
            """SELECT pg_get_expr(conbin, conrelid), coalesce((to_jsonb(c) ->> 'conenforced')::bool, true)
                 FROM pg_constraint c WHERE oid = %s""",
            [check.oid],
        ).fetchone()
        assert row is not None  # the constraint was just read
        expression, is_enforced = row  # NOT ENFORCED: from 18 on
        if is_enforced:
            yield from _hazards_of(connection, table, check, expression, column, value)


def _hazards_of(
    connection: Connection,
    table: TableInfo,
    check: ConstraintInfo,
    expression: str,
    column: str,
    value: Value,
) -> Iterator[Finding]:
    if column in check.columns and not value.is_known:
        yield _unverified(table, check, f"the value of {column} is not known yet")
        return
    path = SearchPath.PLAN if isinstance(value, Expression) else SearchPath.OURS
    try:
        found = find_rows(connection, _violating(table, check, expression, column, value), path)
    except (
        psycopg.errors.QueryCanceled,
        psycopg.errors.ReadOnlySqlTransaction,  # the value is nextval(), for example
        psycopg.ProgrammingError,  # it names what a later part of the plan creates
    ) as error:
        yield _unverified(table, check, error_text(error))
        return
    except psycopg.Error as error:
        if error_class(error) is not ErrorClass.PROGRAM:
            raise
        fact = (
            f"{table.name}: the NOT VALID check {check.name} fails for an old row,"
            f" and so would an UPDATE of that row: {error_kind(error)}"
        )
        yield _violated(fact, "fix the row, or drop the check")
        return
    if found:
        rows = describe_rows(connection, table, found)
        fact = (
            f"{table.name}: old rows violate the NOT VALID check {check.name},"
            f" so PostgreSQL refuses to update them: {rows}"
        )
        yield _violated(fact, "fix these rows, or drop the check")


def _unverified(table: TableInfo, check: ConstraintInfo, reason: str) -> Finding:
    return Finding(
        severity=Severity.WARN,
        code="check_unverified",
        fact=f"{table.name}: could not verify that old rows satisfy the NOT VALID check {check.name}:"
        f" {reason}",
        remedy="a row that violates it would stop the backfill: look for such rows before the run",
    )


def _violated(fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.STOP, code="check_violated", fact=fact, remedy=remedy)


def _violating(
    table: TableInfo, check: ConstraintInfo, expression: str, column: str, value: Value
) -> sql.Composed:
    """Rows to be written that violate the check once they have their value, if the check is about the column.

    A row whose value is NULL is not written: the inner SELECT then has no row, and NOT gives NULL.
    """
    holds: sql.Composable = sql.SQL(expression)
    target, name = sql.Identifier(column), sql.Identifier(table.name)
    if column in check.columns:
        filled = sql.SQL(", ").join(
            sql.SQL("CAST({} AS {}) AS {}").format(value.as_sql(table.name), sql.SQL(c.type), target)
            if c.name == column
            else sql.SQL("{}.{}").format(name, sql.Identifier(c.name))
            for c in table.columns.values()
        )
        holds = sql.SQL("SELECT {} FROM (SELECT {}) AS {} WHERE {} IS NOT NULL").format(
            holds, filled, name, target
        )
    empty = sql.SQL("{} IS NULL AND ").format(target) if column in table.columns else sql.SQL("")
    return sql.SQL("SELECT ctid::pg_catalog.text FROM ONLY {} WHERE {}NOT ({}) LIMIT 3").format(
        sql.Identifier(table.schema, table.name), empty, holds
    )
