"""Values that are taken from a parent: the joins that lead to it, the order of backfills, and rows without
one.
"""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.backfill.hazards.filled_column import FilledColumn
from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.backfill.hazards.underivable import read_underivable_rows
from online_migrate.backfill.values import FromParent, Join
from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import Catalog, TableInfo

Link = tuple[TableInfo, TableInfo, Join]
"""child, parent, and the join between them"""


def read_join_hazards(column: FilledColumn, value: FromParent) -> Iterator[Finding]:
    """Whether each join leads to at most one parent, which the role may read; ends at the first join that
    does not.
    """
    before = column.table
    for join in value.joins:
        parent = column.catalog.table(join.table)
        if parent is None:
            if join.table not in column.plan.made:
                fact = f"table {join.table}, from which {column.table.name} takes its value, does not exist"
                yield _stop("unknown_parent", fact, "correct `from`")
            return
        if missing := _missing_column(before, parent, join, column):
            yield _stop("unknown_column", missing, "correct `from`")
            return
        if not any(not i.has_predicate and i.is_valid for i in parent.uniques_on_exactly([join.key])):
            yield _stop(
                "ambiguous_parent",
                f"{parent.name}.{join.key} is not unique: a row of {before.name} may have several parents",
                "set `key` to the unique column that is referenced",
            )
            return
        yield from read_right_hazards(column.connection, parent, ("SELECT",))
        before = parent


def read_order_hazards(column: FilledColumn, value: FromParent) -> Iterator[Finding]:
    """Whether the parent's column has its values by the time that its children take them."""
    plan, taken = column.plan, (value.parent, value.column)
    parent = column.catalog.table(value.parent)
    names = [value.parent] if parent is None else _tables_with_rows(column.catalog, parent)
    places = {(name, value.column) for name in names}
    remedy = "move the parent's backfill above this one"
    if places & plan.filled_later:
        fact = f"{value.parent}.{value.column} is backfilled after the rows that take their value from it"
        yield _stop("parent_filled_later", fact, remedy)
    elif (
        parent is not None
        and value.column not in parent.columns
        and taken in plan.added
        and not (taken in plan.filled_before or places <= plan.filled_before)
    ):
        fact = (
            f"rows take their value from {value.parent}.{value.column}, which the plan adds and never fills"
        )
        yield _stop("parent_never_filled", fact, "add a backfill of it above this one")


def read_rows_without_parent(column: FilledColumn, value: FromParent) -> Iterator[Finding]:
    """Rows that have no parent, or whose parent has no value; not read where the schema excludes both."""
    links = existing_links(column, value)
    if value.otherwise is not None or not links or read_right_hazards(column.connection, column.table):
        return
    row, parent = column.table.name, links[-1][1]
    if _may_be_null(column, parent, value):
        reason = f"{parent.name}.{value.column} is NULL, or they have no parent there"
        yield from read_underivable_rows(column, value.as_sql(row), reason)
    elif not all(_is_bound(*link) for link in links):
        yield from read_underivable_rows(column, value.exists_sql(row), f"they have no {parent.name}")


def existing_links(column: FilledColumn, value: FromParent) -> list[Link]:
    """Each join with its two tables; empty if a table or a column of the path does not exist yet."""
    path = [column.table, *(p for j in value.joins if (p := column.catalog.table(j.table)) is not None)]
    links = list(zip(path, path[1:], value.joins, strict=False))
    exist = len(links) == len(value.joins) and all(
        j.on in child.columns and j.key in parent.columns for child, parent, j in links
    )
    return links if exist else []


def _missing_column(before: TableInfo, parent: TableInfo, join: Join, column: FilledColumn) -> str:
    for owner, name in ((before, join.on), (parent, join.key), (parent, join.column)):
        is_planned = (owner.name, name) in column.plan.added
        if name is not None and name not in owner.columns and not is_planned:
            return f"{owner.name} has no column {name}"
    return ""


def _is_bound(child: TableInfo, parent: TableInfo, join: Join) -> bool:
    """Whether the schema guarantees a parent to every row: NOT NULL and a validated foreign key."""
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


def _may_be_null(column: FilledColumn, parent: TableInfo, value: FromParent) -> bool:
    """Whether a parent may exist without a value, and no backfill of the plan fills it."""
    taken = parent.columns.get(value.column)
    filled = column.plan.filled_before | column.plan.filled_later
    return (
        taken is not None
        and not taken.is_not_null
        and not all((name, taken.name) in filled for name in _tables_with_rows(column.catalog, parent))
    )


def _tables_with_rows(catalog: Catalog, table: TableInfo) -> list[str]:
    """The tables that store its rows: for a partitioned table its leaves."""
    if table.kind != "p":
        return [table.name]
    descendants = {name: catalog.table(name) for schema, name in table.descendants if schema == table.schema}
    return [name for name, info in descendants.items() if info is None or info.kind != "p"]


def _stop(code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.STOP, code=code, fact=fact, remedy=remedy)
