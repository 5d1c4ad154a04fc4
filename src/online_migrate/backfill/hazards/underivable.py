"""Rows for which a value is NULL, or cannot be computed: the backfill could not fill them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from online_migrate.backfill.hazards.filled_column import FilledColumn
from online_migrate.backfill.hazards.row_reads import error_kind, error_text, find_rows
from online_migrate.backfill.rows import describe_rows
from online_migrate.findings import Finding, Severity
from online_migrate.postgres.search_path import SearchPath
from online_migrate.postgres.sqlstate import ErrorClass, error_class


def read_underivable_rows(
    column: FilledColumn, derived: sql.Composable, reason: str, path: SearchPath = SearchPath.OURS
) -> Iterator[Finding]:
    """Rows without a value for which ``derived`` is NULL; ``reason`` says what that means.  Reads for some
    seconds.
    """
    table = column.table
    query = sql.SQL("SELECT ctid::pg_catalog.text FROM ONLY {} WHERE {} IS NULL").format(
        column.sql_table, derived
    )
    if column.exists:
        query += sql.SQL(" AND {} IS NULL").format(column.sql_name)
    try:
        found = find_rows(column.connection, query + sql.SQL(" LIMIT 3"), path)
    except psycopg.errors.QueryCanceled as error:
        fact = f"{table.name}: could not verify that every row's value can be derived: {error_text(error)}"
        remedy = (
            "a row without a value would stop the run at the end of the pass: look for such rows before"
            " the run, or give them a value with `else:`"
        )
        yield Finding(severity=Severity.WARN, code="values_unverified", fact=fact, remedy=remedy)
        return
    except psycopg.errors.ReadOnlySqlTransaction:
        return  # nextval(), for example: its result is known only by using a number up
    except psycopg.Error as error:
        if error_class(error) is not ErrorClass.PROGRAM:
            raise
        fact = f"{table.name}: a row's value cannot be derived: {error_kind(error)}"
        remedy = "fix the row, or change the expression so that it does not fail for it"
        yield Finding(severity=Severity.STOP, code="value_error", fact=fact, remedy=remedy)
        return
    if found:
        rows = describe_rows(column.connection, table, found)
        fact = f"{table.name}: rows whose value cannot be derived, because {reason}: {rows}"
        remedy = "give these rows what is missing, or give them a value with `else:`"
        yield Finding(severity=Severity.STOP, code="no_value", fact=fact, remedy=remedy)
