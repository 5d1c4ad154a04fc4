"""Whether every row can be given its value, and the column can take it: asked at check, not met at row
12,000,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
from psycopg import sql

from online_migrate.backfill.context import update_statement
from online_migrate.backfill.hazards.filled_column import FilledColumn
from online_migrate.backfill.hazards.parents import (
    existing_links,
    read_join_hazards,
    read_order_hazards,
    read_rows_without_parent,
)
from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.backfill.hazards.row_reads import error_kind, error_text, limit_reads
from online_migrate.backfill.hazards.underivable import read_underivable_rows
from online_migrate.backfill.values import Constant, Expression, FromParent, Reference, Value
from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import ConstraintInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.rehearsal import temporary_copy
from online_migrate.postgres.search_path import SearchPath, local_path, session_path
from online_migrate.postgres.sqlstate import ErrorClass, error_class


def read_value_hazards(column: FilledColumn, value: Value) -> list[Finding]:
    """What would keep a row from its value, or the column from taking it."""
    match value:
        case Constant():
            return list(_constant_hazards(column, value))
        case Reference():
            return []
        case Expression():
            return list(_expression_hazards(column, value))
        case FromParent():
            return _parent_hazards(column, value)


def _parent_hazards(column: FilledColumn, value: FromParent) -> list[Finding]:
    found = [*read_join_hazards(column, value), *read_order_hazards(column, value)]
    links = existing_links(column, value)
    if not found and value.is_known and links and value.column in links[-1][1].columns:
        found = list(_refused_values(column, value))
    return found or list(read_rows_without_parent(column, value))


def _constant_hazards(column: FilledColumn, value: Constant) -> Iterator[Finding]:
    """Whether it fits the column, and the row exists that an existing foreign key on the column requires."""
    refused = list(_refused_values(column, value))
    yield from refused
    if not refused and column.exists:
        yield from _missing_parent_rows(column, value)


def _missing_parent_rows(column: FilledColumn, value: Constant) -> Iterator[Finding]:
    """Not asked where the plan itself makes rows in the parent: the row may exist by then."""
    for key in column.table.foreign_keys:
        if key.columns != (column.name,) or key.ref_table in column.plan.made:
            continue
        if not _is_enforced_and_readable(column.connection, key):
            continue
        referenced = sql.Identifier(key.ref_columns[0])
        parent = sql.SQL("(SELECT {} FROM {} WHERE {} = CAST({} AS {}))").format(
            referenced,
            sql.Identifier(str(key.ref_schema), str(key.ref_table)),
            referenced,
            value.literal,
            sql.SQL(column.type),
        )
        text = value.literal.as_string(None)
        reason = (
            f"{key.ref_table} has no row with {key.ref_columns[0]} = {text},"
            f" which foreign key {key.name} requires"
        )
        yield from read_underivable_rows(column, parent, reason)


def _is_enforced_and_readable(connection: Connection, key: ConstraintInfo) -> bool:
    row = connection.execute(
        """SELECT has_table_privilege(confrelid, 'SELECT') AND NOT row_security_active(confrelid)
                  AND coalesce((to_jsonb(c) ->> 'conenforced')::bool, true)
             FROM pg_constraint c WHERE oid = %s""",
        [key.oid],
    ).fetchone()
    return row is not None and bool(row[0])


def _expression_hazards(column: FilledColumn, value: Expression) -> Iterator[Finding]:
    """Have the server parse it; its results are read only if all columns that it names exist."""
    if read_right_hazards(column.connection, column.table):
        return
    names_planned = any(name in value.text for name in column.planned)
    derived = value.bare_sql
    try:
        if not names_planned:
            _explain(column.connection, sql.SQL("SELECT {} FROM ONLY {}").format(derived, column.sql_table))
    except psycopg.Error as error:
        if error_class(error) is not ErrorClass.PROGRAM:
            raise
        yield _invalid_value(column, derived, error_text(error))
        return
    refused = list(_refused_values(column, value)) if value.is_known else []
    yield from refused
    if refused or names_planned:
        return
    if value.otherwise is None:
        yield from read_underivable_rows(column, derived, f"({value.text}) is NULL", SearchPath.PLAN)
    yield from _too_large_values(column, derived)


def _refused_values(column: FilledColumn, value: Value) -> Iterator[Finding]:
    """Have the server parse, not execute, the batch's own UPDATE: does the value fit the column?

    On a copy without rows: parsing an UPDATE takes ROW EXCLUSIVE on its table.
    """
    table, planned = column.table, column.planned
    if table.kind != "r" or read_right_hazards(column.connection, table):
        return
    if not column.exists and column.name not in planned:
        return
    given = value.as_sql(table.name)
    names_planned = any(name == column.name or name in given.as_string(None) for name in planned)
    try:
        with ExitStack() as stack:
            added = {name: type_ for name, type_ in planned.items() if name not in table.columns}
            target = stack.enter_context(temporary_copy(column.connection, table, added))
            rows = sql.SQL("ctid OPERATOR(pg_catalog.=) '(0,1)'")
            statement = update_statement(target, column.sql_name, value, rows, row=table.name)
            _explain(column.connection, statement)
    except (psycopg.errors.GeneratedAlways, psycopg.errors.ObjectNotInPrerequisiteState):
        return  # a generated column, or no replica identity: findings of their own
    except psycopg.Error as error:
        trouble = error_class(error)
        is_about_value = str(error.sqlstate).startswith("22") or error.sqlstate == "42804"
        may_copy = not isinstance(error, psycopg.errors.InsufficientPrivilege)
        if trouble is ErrorClass.PROGRAM and (is_about_value or (may_copy and not names_planned)):
            yield _invalid_value(column, given, error_text(error))
        elif trouble in (ErrorClass.PROGRAM, ErrorClass.LOCK):
            fact = (
                f"{table.name}: could not verify that {column.name} takes {given.as_string(None)}:"
                f" {error_text(error)}"
            )
            remedy = (
                "run `check` again"
                if trouble is ErrorClass.LOCK
                else "make sure that the value has the column's type"
            )
            yield _unverified(fact, remedy)
        else:
            raise


def _too_large_values(column: FilledColumn, derived: sql.Composable) -> Iterator[Finding]:
    """A row whose value has the column's type and exceeds its length or range, as far as some seconds of
    reading find it.

    A cast would truncate a text that is too long; an assignment in PL/pgSQL refuses it, as an UPDATE does,
    and writes nothing.
    """
    table, type_ = column.table, column.type
    if "(" not in type_ and type_ != "smallint":
        return
    empty = sql.SQL("{} IS NULL" if column.exists else "true").format(column.sql_name)
    body = sql.SQL(
        "DECLARE online_migrate_value {}; BEGIN"
        " FOR online_migrate_value IN SELECT {} FROM ONLY {} WHERE {} LOOP NULL; END LOOP; END"
    ).format(sql.SQL(type_), derived, column.sql_table, empty)
    try:
        with column.connection.transaction():
            limit_reads(column.connection)
            with local_path(column.connection, SearchPath.PLAN):
                column.connection.execute(sql.SQL("DO {}").format(sql.Literal(body.as_string(None))))
    except psycopg.errors.DataError as error:
        fact = f"{table.name}: a row's value does not fit {column.name} {type_}: {error_kind(error)}"
        remedy = "fix the row, or change the expression so that its value fits"
        yield Finding(severity=Severity.STOP, code="value_error", fact=fact, remedy=remedy)
    except psycopg.errors.QueryCanceled as error:
        fact = (
            f"{table.name}: could not verify that every row's value fits {column.name} {type_}:"
            f" {error_text(error)}"
        )
        yield _unverified(fact, "look for rows whose value is too large before the run")
    except psycopg.Error as error:
        if error_class(error) is not ErrorClass.PROGRAM and error.sqlstate != "25006":
            raise


def _explain(connection: Connection, statement: sql.Composable) -> None:
    """With ``binary`` psycopg uses the extended protocol: one statement only, whatever an expression
    contains.
    """
    with session_path(connection, SearchPath.PLAN):
        connection.execute(sql.SQL("EXPLAIN {}").format(statement), binary=True)


def _invalid_value(column: FilledColumn, given: sql.Composable, reason: str) -> Finding:
    fact = f"{column.table.name}.{column.name} cannot be set to {given.as_string(None)}: {reason}"
    return Finding(severity=Severity.STOP, code="invalid_value", fact=fact, remedy="correct `value`")


def _unverified(fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.WARN, code="values_unverified", fact=fact, remedy=remedy)
