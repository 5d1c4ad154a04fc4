"""Can every row's value be derived?  Asked at check, so that no row turns up without a parent in the middle of the night."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.backfill.rows import describe_rows
from online_migrate.backfill.traps import LOOK_TIMEOUT_MS, Trap
from online_migrate.backfill.values import FromParent, Join, SqlValue, parent_exists_sql
from online_migrate.postgres.catalog import Catalog, TableInfo
from online_migrate.postgres.connection import name_beside_parameters

Columns = AbstractSet[tuple[str, str]]
"""(table, column)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the plan's other steps do."""

    added: Columns
    """columns that the plan adds"""
    filled_later: Columns
    """columns that are backfilled, but not before this step"""
    made: AbstractSet[str]
    """tables that the plan creates"""


def read_value_traps(
    catalog: Catalog, table: TableInfo, column: str, value: object, around: Around
) -> list[Trap]:
    """What stands between a row and its derived value; nothing for a constant."""
    if isinstance(value, FromParent):
        return [*_joins(catalog, table, value, around), *_later(value, around)]
    if isinstance(value, SqlValue):
        return list(_expression(catalog, table, column, value, around))
    return []


def _joins(catalog: Catalog, table: TableInfo, value: FromParent, around: Around) -> Iterator[Trap]:
    before, is_certain = table, True
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
        is_certain = is_certain and _is_bound(before, parent, join)
        before = parent
    if not is_certain and value.else_ is None:
        yield from _orphans(catalog, table, value)


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


def _orphans(catalog: Catalog, table: TableInfo, value: FromParent) -> Iterator[Trap]:
    """Rows without a parent, as far as a look of some seconds finds them."""
    exists = parent_exists_sql(value, schema=table.schema, table=table.name)
    query = sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {} IS NULL LIMIT 3").format(
        sql.Identifier(table.schema, table.name), exists
    )
    connection = catalog.connection
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(LOOK_TIMEOUT_MS))
            )
            found = connection.execute(query).fetchall()
    except psycopg.errors.QueryCanceled:
        fact = f"{table.name}: whether every row has a parent was not seen in {LOOK_TIMEOUT_MS // 1000} s"
        remedy = "no foreign key promises it: look for rows without one before, or name a value for them by `else:`"
        yield Trap(level="warn", code="parents_unknown", fact=fact, remedy=remedy)
        return
    if found:
        rows = describe_rows(connection, table, [r[0] for r in found])
        yield _stop(
            "no_parent",
            f"{table.name}: rows whose value cannot be derived, for they have no {value.joins[-1].table}: {rows}",
            "give them a parent, or name a value for them by `else:`",
        )


def _later(value: FromParent, around: Around) -> Iterator[Trap]:
    last = value.joins[-1]
    if (last.table, last.column or "") in around.filled_later:
        yield _stop(
            "parents_first",
            f"{last.table}.{last.column} is backfilled after the rows that take their value from it",
            "name the parent's backfill above this one: parents first",
        )


def _expression(
    catalog: Catalog, table: TableInfo, column: str, value: SqlValue, around: Around
) -> Iterator[Trap]:
    """Let the server read it; one that names a column which the plan adds can be read only later."""
    if any(owner == table.name and added in value.sql for owner, added in around.added if added != column):
        return
    try:
        catalog.connection.execute(
            sql.SQL("EXPLAIN SELECT ({}) FROM ONLY {} WHERE %s").format(
                sql.SQL(value.sql.replace("%", "%%")), name_beside_parameters(table.schema, table.name)
            ),
            [False],
        )
    except psycopg.Error as error:
        text = error.diag.message_primary or str(error)
        yield _stop(
            "bad_expression",
            f"{table.name}: the expression ({value.sql}) is refused: {text}",
            "correct `sql`",
        )


def _stop(code: str, fact: str, remedy: str) -> Trap:
    return Trap(level="stop", code=code, fact=fact, remedy=remedy)
