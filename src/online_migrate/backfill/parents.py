"""Can every row's value be derived?  Asked at check, so that no row turns up without a parent in the middle of the night."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.backfill.rows import describe_rows
from online_migrate.backfill.traps import LOOK_TIMEOUT_MS, Trap, read_right_traps
from online_migrate.backfill.values import FromParent, Join, SqlValue, parent_exists_sql, value_sql
from online_migrate.postgres.catalog import Catalog, TableInfo
from online_migrate.postgres.connection import name_beside_parameters

Columns = AbstractSet[tuple[str, str]]
"""(table, column)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the plan's other steps do."""

    added: Columns
    """columns that the plan adds"""
    filled_before: Columns
    """columns that are backfilled above this step, or added with a value for old rows"""
    filled_later: Columns
    """columns that are backfilled, but not before this step"""
    made: AbstractSet[str]
    """tables that the plan creates"""


def read_value_traps(
    catalog: Catalog, table: TableInfo, column: str, value: object, around: Around
) -> list[Trap]:
    """What stands between a row and its derived value; nothing for a constant."""
    if isinstance(value, FromParent):
        wrong = [*_joins(catalog, table, value, around), *_unfilled(catalog, value, around)]
        return wrong or list(_rows_without(catalog, table, column, value, around))
    if isinstance(value, SqlValue):
        return list(_expression(catalog, table, column, value, around))
    return []


def _joins(catalog: Catalog, table: TableInfo, value: FromParent, around: Around) -> Iterator[Trap]:
    """Does each join lead to one parent at most, that we may read?  The first that does not ends the look."""
    before = table
    for join in value.joins:
        parent = catalog.table(join.table)
        if parent is None:
            if join.table not in around.made:
                yield _stop(
                    "unknown_parent",
                    f"{join.table}, from which {table.name} takes its value, is not there",
                    "correct `from`",
                )
            return
        missing = _missing(before, parent, join, around)
        if missing:
            yield _stop("unknown_column", missing, "correct `from`")
            return
        if not any(not i.has_predicate and i.is_valid for i in parent.uniques_on_exactly([join.key])):
            yield _stop(
                "ambiguous_parent",
                f"{parent.name}.{join.key} is not unique: a row of {before.name} may have several parents",
                "name the unique column that is referred to by `key`",
            )
            return
        yield from read_right_traps(catalog.connection, parent, ("SELECT",))
        before = parent


def _rows_without(
    catalog: Catalog, table: TableInfo, column: str, value: FromParent, around: Around
) -> Iterator[Trap]:
    """Rows that have no parent, or whose parent has no value; not looked for where the schema promises both."""
    parents = [catalog.table(j.table) for j in value.joins]
    path = [table, *(p for p in parents if p is not None)]
    if value.else_ is not None or None in parents or read_right_traps(catalog.connection, table):
        return
    links = list(zip(path, path[1:], value.joins, strict=False))
    if not all(j.on in child.columns and j.key in parent.columns for child, parent, j in links):
        return  # a column that the plan adds: nothing to look at yet
    last = path[-1]
    if _may_be_null(last, value, around):
        derived = value_sql(value, schema=table.schema, table=table.name, literal=sql.Literal)
        why = f"{last.name}.{value.joins[-1].column} is NULL, or there is none"
        yield from _underivable(catalog, table, column, derived, why)
    elif not all(_is_bound(*link) for link in links):
        exists = parent_exists_sql(value, schema=table.schema, table=table.name)
        yield from _underivable(catalog, table, column, exists, f"they have no {last.name}")


def _missing(before: TableInfo, parent: TableInfo, join: Join, around: Around) -> str:
    for owner, column in ((before, join.on), (parent, join.key), (parent, join.column)):
        if column is not None and column not in owner.columns and (owner.name, column) not in around.added:
            return f"{owner.name} has no column {column}"
    return ""


def _is_bound(child: TableInfo, parent: TableInfo, join: Join) -> bool:
    """Does the schema itself promise a parent to every row: NOT NULL and a validated foreign key?"""
    column = child.columns.get(join.on)
    return (
        column is not None
        and column.is_not_null
        and any(
            k.is_valid
            and k.columns == (join.on,)
            and k.ref_table == parent.name
            and k.ref_columns == (join.key,)
            for k in child.foreign_keys
        )
    )


def _may_be_null(parent: TableInfo, value: FromParent, around: Around) -> bool:
    """Can the parent be there and have no value itself, and nothing above fills it?"""
    column = parent.columns.get(value.joins[-1].column or "")
    return (
        column is not None
        and not column.is_not_null
        and (parent.name, column.name) not in around.filled_before | around.filled_later
    )


def _unfilled(catalog: Catalog, value: FromParent, around: Around) -> Iterator[Trap]:
    """The parent's value must be there when its children ask for it."""
    last = value.joins[-1]
    place = (last.table, last.column or "")
    if place in around.filled_later:
        yield _stop(
            "parents_first",
            f"{last.table}.{last.column} is backfilled after the rows that take their value from it",
            "name the parent's backfill above this one: parents first",
        )
        return
    parent = catalog.table(last.table)
    if (
        parent is not None
        and last.column not in parent.columns
        and place in around.added - around.filled_before
    ):
        yield _stop(
            "parents_unfilled",
            f"{last.table}.{last.column}, from which rows take their value, is added by the plan and never filled",
            "name a backfill of it above this one: parents first",
        )


def _expression(
    catalog: Catalog, table: TableInfo, column: str, value: SqlValue, around: Around
) -> Iterator[Trap]:
    """Let the server read it; one that names a column which the plan adds can be read only later."""
    if any(owner == table.name and added in value.sql for owner, added in around.added if added != column):
        return
    if read_right_traps(catalog.connection, table):
        return
    try:
        catalog.connection.execute(  # with a parameter the server takes one statement only, whatever stands in the expression
            sql.SQL("EXPLAIN SELECT ({}) FROM ONLY {} WHERE %s").format(
                sql.SQL(value.sql.replace("%", "%%")), name_beside_parameters(table.schema, table.name)
            ),
            [False],
        )
    except psycopg.Error as error:
        yield _stop(
            "bad_expression",
            f"{table.name}: the expression ({value.sql}) is refused: {_text(error)}",
            "correct `sql`",
        )
        return
    if value.else_ is None:
        derived = sql.SQL("({})").format(sql.SQL(value.sql))
        yield from _underivable(catalog, table, column, derived, f"({value.sql}) is NULL")


def _underivable(
    catalog: Catalog, table: TableInfo, column: str, derived: sql.Composable, why: str
) -> Iterator[Trap]:
    """Rows that have no value and would get none, as far as a look of some seconds finds them; it writes nothing."""
    empty = (
        sql.SQL(" AND {} IS NULL").format(sql.Identifier(column)) if column in table.columns else sql.SQL("")
    )
    query = sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {} IS NULL{} LIMIT 3").format(
        sql.Identifier(table.schema, table.name), derived, empty
    )
    connection = catalog.connection
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}").format(
                    sql.Literal(LOOK_TIMEOUT_MS)
                )
            )
            found = connection.execute(query).fetchall()
    except psycopg.errors.QueryCanceled:
        fact = f"{table.name}: whether every row's value can be derived was not seen in {LOOK_TIMEOUT_MS // 1000} s"
        remedy = "such a row would stop the run at the end of the pass: look for them before, or name a value for them by `else:`"
        yield Trap(level="warn", code="values_unknown", fact=fact, remedy=remedy)
        return
    except (
        psycopg.errors.ReadOnlySqlTransaction
    ):  # nextval(), say: what it would give cannot be asked for without giving it
        return
    except (psycopg.errors.DataError, psycopg.errors.RaiseException) as error:
        fact = f"{table.name}: a row's value cannot be derived: {_text(error)}"
        yield _stop("value_fails", fact, "mend the row, or have the expression pass it over")
        return
    if found:
        rows = describe_rows(connection, table, [r[0] for r in found])
        yield _stop(
            "no_value",
            f"{table.name}: rows whose value cannot be derived, for {why}: {rows}",
            "give them what is missing, or name a value for them by `else:`",
        )


def _text(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error)


def _stop(code: str, fact: str, remedy: str) -> Trap:
    return Trap(level="stop", code=code, fact=fact, remedy=remedy)
