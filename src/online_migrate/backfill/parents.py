"""Can every row's value be derived?  Asked at check, so that no row turns up without a parent in the middle of the night."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.backfill.context import update_statement
from online_migrate.backfill.hazards import (
    Hazard,
    kind_of,
    limit_look,
    look_for_rows,
    read_right_traps,
    text_of,
)
from online_migrate.backfill.rows import describe_rows
from online_migrate.backfill.values import FromParent, Join, SqlValue, parent_exists_sql, value_sql
from online_migrate.postgres.catalog import Catalog, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.rehearsal import temporary_copy
from online_migrate.postgres.sqlstate import Trouble, trouble_of

Columns = AbstractSet[tuple[str, str]]
"""(table, column)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanContext:
    """What the plan's other steps do."""

    added: Mapping[tuple[str, str], str]
    """columns that the plan adds, by (table, column), and their types"""
    filled_before: Columns
    """columns that are backfilled above this step, or added with a value for old rows"""
    filled_later: Columns
    """columns that are backfilled, but not before this step"""
    made: AbstractSet[str]
    """tables that the plan creates, or makes a row in"""


def read_value_traps(
    catalog: Catalog,
    table: TableInfo,
    column: str,
    value: object,
    around: PlanContext,
    *,
    given: sql.Composable | None,
) -> list[Hazard]:
    """What stands between a row and its value; ``given`` is what a batch sets, None while a reference in it is not known."""
    if isinstance(value, SqlValue):
        return list(_expression(catalog, table, column, value, around, given))
    if not isinstance(value, FromParent):
        return list(_constant(catalog, table, column, given, around))
    wrong = [*_joins(catalog, table, value, around), *_unfilled(catalog, value, around)]
    links = _links(catalog, table, value)
    if not wrong and given is not None and links and value.joins[-1].column in links[-1][1].columns:
        wrong = list(_refused(catalog, table, column, given, around))
    return wrong or list(_rows_without(catalog, table, column, value, around))


def _joins(catalog: Catalog, table: TableInfo, value: FromParent, around: PlanContext) -> Iterator[Hazard]:
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
    catalog: Catalog, table: TableInfo, column: str, value: FromParent, around: PlanContext
) -> Iterator[Hazard]:
    """Rows that have no parent, or whose parent has no value; not looked for where the schema promises both."""
    links = _links(catalog, table, value)
    if value.else_ is not None or not links or read_right_traps(catalog.connection, table):
        return
    last = links[-1][1]
    if _may_be_null(catalog, last, value, around):
        derived = value_sql(value, schema=table.schema, table=table.name, literal=sql.Literal)
        why = f"{last.name}.{value.joins[-1].column} is NULL, or there is none"
        yield from _underivable(catalog, table, column, derived, why)
    elif not all(_is_bound(*link) for link in links):
        exists = parent_exists_sql(value, schema=table.schema, table=table.name)
        yield from _underivable(catalog, table, column, exists, f"they have no {last.name}")


def _links(catalog: Catalog, table: TableInfo, value: FromParent) -> list[tuple[TableInfo, TableInfo, Join]]:
    """Each join between its tables; none where a table or a column of the way is still to be made by the plan."""
    path = [table, *(p for j in value.joins if (p := catalog.table(j.table)) is not None)]
    links = list(zip(path, path[1:], value.joins, strict=False))
    are_there = len(links) == len(value.joins) and all(
        j.on in child.columns and j.key in parent.columns for child, parent, j in links
    )
    return links if are_there else []


def _missing(before: TableInfo, parent: TableInfo, join: Join, around: PlanContext) -> str:
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


def _may_be_null(catalog: Catalog, parent: TableInfo, value: FromParent, around: PlanContext) -> bool:
    """Can the parent be there and have no value itself, and nothing above fills it?"""
    column = parent.columns.get(value.joins[-1].column or "")
    filled = around.filled_before | around.filled_later
    return (
        column is not None
        and not column.is_not_null
        and not all((name, column.name) in filled for name in _holders(catalog, parent))
    )


def _holders(catalog: Catalog, table: TableInfo) -> list[str]:
    """The tables that hold its rows: of a partitioned one its leaves."""
    if table.kind != "p":
        return [table.name]
    descendants = {name: catalog.table(name) for schema, name in table.descendants if schema == table.schema}
    return [name for name, heir in descendants.items() if heir is None or heir.kind != "p"]


def _unfilled(catalog: Catalog, value: FromParent, around: PlanContext) -> Iterator[Hazard]:
    """The parent's value must be there when its children ask for it."""
    last = value.joins[-1]
    parent = catalog.table(last.table)
    names = [last.table] if parent is None else _holders(catalog, parent)
    places = {(name, last.column or "") for name in names}
    if places & around.filled_later:
        yield _stop(
            "parents_first",
            f"{last.table}.{last.column} is backfilled after the rows that take their value from it",
            "name the parent's backfill above this one: parents first",
        )
    elif (
        parent is not None
        and last.column not in parent.columns
        and (last.table, last.column) in around.added
        and not ({(last.table, last.column)} <= around.filled_before or places <= around.filled_before)
    ):
        yield _stop(
            "parents_unfilled",
            f"{last.table}.{last.column}, from which rows take their value, is added by the plan and never filled",
            "name a backfill of it above this one: parents first",
        )


def _constant(
    catalog: Catalog, table: TableInfo, column: str, given: sql.Composable | None, around: PlanContext
) -> Iterator[Hazard]:
    """Does it fit the column, which the plan may add, and is there the row to which an existing foreign key leads it?"""
    if given is None:
        return
    refused = list(_refused(catalog, table, column, given, around))
    yield from refused
    if not refused and column in table.columns:
        yield from _orphans(catalog, table, column, given, around)


def _orphans(
    catalog: Catalog, table: TableInfo, column: str, given: sql.Composable, around: PlanContext
) -> Iterator[Hazard]:
    """Not where the plan itself makes rows in the parent: by then it may be there."""
    for key in table.foreign_keys:
        row = catalog.connection.execute(
            """SELECT has_table_privilege(confrelid, 'SELECT') AND NOT row_security_active(confrelid)
                      AND coalesce((to_jsonb(c) ->> 'conenforced')::bool, true) FROM pg_constraint c WHERE oid = %s""",
            [key.oid],
        ).fetchone()
        if key.columns != (column,) or key.ref_table in around.made or row is None or not row[0]:
            continue
        referred = sql.Identifier(key.ref_columns[0])
        parent = sql.SQL("(SELECT {} FROM {} WHERE {} = CAST({} AS {}))").format(
            referred,
            sql.Identifier(str(key.ref_schema), str(key.ref_table)),
            referred,
            given,
            sql.SQL(table.columns[column].type),
        )
        text = given.as_string(None)
        why = f"{key.ref_table} has no row of {key.ref_columns[0]} = {text}, which foreign key {key.name} asks for"
        yield from _underivable(catalog, table, column, parent, why)


def _refused(
    catalog: Catalog, table: TableInfo, column: str, given: sql.Composable, around: PlanContext
) -> Iterator[Hazard]:
    """Let the server read the batch's own UPDATE, which it does not run: does the value fit the column?"""
    planned = planned_columns(table, around)
    if table.kind != "r" or read_right_traps(catalog.connection, table):
        return
    if column not in table.columns and column not in planned:
        return
    is_copied = any(name == column or name in given.as_string(None) for name in planned)
    rows, name = sql.SQL("ctid = '(0,1)'"), sql.Identifier(column)
    try:
        with ExitStack() as stack:
            target = sql.Identifier(table.schema, table.name)
            if is_copied:
                target = stack.enter_context(temporary_copy(catalog.connection, table, planned))
            _explain(catalog.connection, update_statement(target, name, given, rows))
    except (psycopg.errors.GeneratedAlways, psycopg.errors.ObjectNotInPrerequisiteState):
        return  # a generated column, or no replica identity: traps of their own
    except psycopg.Error as error:
        trouble = trouble_of(error)
        is_about_value = str(error.sqlstate).startswith("22") or error.sqlstate == "42804"
        if trouble is Trouble.PROGRAM and (is_about_value or not is_copied):
            yield _bad_value(table, column, given, text_of(error))
        elif trouble in (Trouble.PROGRAM, Trouble.LOCK):
            fact = (
                f"{table.name}: whether {column} takes {given.as_string(None)} was not seen: {text_of(error)}"
            )
            remedy = "run check again" if trouble is Trouble.LOCK else "see that it is of the column's type"
            yield Hazard(level="warn", code="values_unknown", fact=fact, remedy=remedy)
        else:
            raise


def planned_columns(table: TableInfo, around: PlanContext) -> dict[str, str]:
    """Columns that the plan is still to add to the table, and their types."""
    return {
        name: of_type
        for (owner, name), of_type in around.added.items()
        if owner == table.name and name not in table.columns
    }


def _explain(connection: Connection, statement: sql.Composable) -> None:
    """With ``binary`` psycopg takes the extended protocol: one statement only, whatever stands in an expression."""
    connection.execute(sql.SQL("EXPLAIN {}").format(statement), binary=True)


def _bad_value(table: TableInfo, column: str, given: sql.Composable, why: str) -> Hazard:
    fact = f"{table.name}.{column} cannot be given {given.as_string(None)}: {why}"
    return _stop("bad_value", fact, "correct `value`")


def _expression(
    catalog: Catalog,
    table: TableInfo,
    column: str,
    value: SqlValue,
    around: PlanContext,
    given: sql.Composable | None,
) -> Iterator[Hazard]:
    """Let the server read it; what it gives each row is seen only where all columns that it names are there."""
    if read_right_traps(catalog.connection, table):
        return
    names_planned = any(name in value.sql for name in planned_columns(table, around))
    derived = sql.SQL("({})").format(sql.SQL(value.sql))
    try:
        if not names_planned:
            source = sql.Identifier(table.schema, table.name)
            _explain(catalog.connection, sql.SQL("SELECT {} FROM ONLY {}").format(derived, source))
    except psycopg.Error as error:
        if trouble_of(error) is not Trouble.PROGRAM:
            raise
        yield _bad_value(table, column, derived, text_of(error))
        return
    refused = [] if given is None else list(_refused(catalog, table, column, given, around))
    yield from refused
    if not refused and value.else_ is None and not names_planned:
        yield from _underivable(catalog, table, column, derived, f"({value.sql}) is NULL")
    if not refused and not names_planned:
        yield from _too_large(catalog, table, column, derived, around)


def _too_large(
    catalog: Catalog, table: TableInfo, column: str, derived: sql.Composable, around: PlanContext
) -> Iterator[Hazard]:
    """A row whose value has the type of the column and not its length or range, as far as a look of some seconds finds it.

    A cast would cut a text that is too long; an assignment in PL/pgSQL refuses it, as an UPDATE does, and writes nothing.
    """
    is_there = column in table.columns
    of_type = table.columns[column].type if is_there else around.added.get((table.name, column), "")
    if "(" not in of_type and of_type != "smallint":
        return
    empty = sql.SQL("{} IS NULL" if is_there else "true").format(sql.Identifier(column))
    body = sql.SQL(
        "DECLARE online_migrate_value {}; BEGIN"
        " FOR online_migrate_value IN SELECT {} FROM ONLY {} WHERE {} LOOP NULL; END LOOP; END"
    ).format(sql.SQL(of_type), derived, sql.Identifier(table.schema, table.name), empty)
    look = sql.SQL("DO {}").format(sql.Literal(body.as_string(None)))
    begin = f"{table.name}: whether every row's value fits {column} {of_type}"
    try:
        with catalog.connection.transaction():
            limit_look(catalog.connection)
            catalog.connection.execute(look)
    except psycopg.errors.DataError as error:
        fact = f"{table.name}: a row's value does not fit {column} {of_type}: {kind_of(error)}"
        yield _stop("value_fails", fact, "mend the row, or have the expression cut it to what fits")
    except psycopg.errors.QueryCanceled as error:
        fact, remedy = f"{begin} was not seen: {text_of(error)}", "look for such rows before"
        yield Hazard(level="warn", code="values_unknown", fact=fact, remedy=remedy)
    except psycopg.Error as error:
        if trouble_of(error) is not Trouble.PROGRAM and error.sqlstate != "25006":
            raise


def _underivable(
    catalog: Catalog, table: TableInfo, column: str, derived: sql.Composable, why: str
) -> Iterator[Hazard]:
    """Rows that have no value and would get none, as far as a look of some seconds finds them; it writes nothing."""
    empty = (
        sql.SQL(" AND {} IS NULL").format(sql.Identifier(column)) if column in table.columns else sql.SQL("")
    )
    query = sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {} IS NULL{} LIMIT 3").format(
        sql.Identifier(table.schema, table.name), derived, empty
    )
    try:
        found = look_for_rows(catalog.connection, query)
    except psycopg.errors.QueryCanceled as error:
        fact = f"{table.name}: whether every row's value can be derived was not seen: {text_of(error)}"
        remedy = "such a row would stop the run at the end of the pass: look for them before, or name a value for them by `else:`"
        yield Hazard(level="warn", code="values_unknown", fact=fact, remedy=remedy)
        return
    except psycopg.errors.ReadOnlySqlTransaction:
        return  # nextval(), say: what it would give cannot be asked for without giving it
    except psycopg.Error as error:
        if trouble_of(error) is not Trouble.PROGRAM:
            raise
        fact = f"{table.name}: a row's value cannot be derived: {kind_of(error)}"
        yield _stop("value_fails", fact, "mend the row, or have the expression pass it over")
        return
    if found:
        rows = describe_rows(catalog.connection, table, found)
        yield _stop(
            "no_value",
            f"{table.name}: rows whose value cannot be derived, for {why}: {rows}",
            "give them what is missing, or name a value for them by `else:`",
        )


def _stop(code: str, fact: str, remedy: str) -> Hazard:
    return Hazard(level="stop", code=code, fact=fact, remedy=remedy)
