"""The value that a row's column will have once the plan has filled it, as SQL, for `check`."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from online_migrate.backfill.value_params import ExpressionParams, FromParentParams
from online_migrate.backfill.values import Constant
from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import FillsColumn
from online_migrate.operations.schema_before import schema_before

_DEPTH = 8
"""joins of backfills that are followed, one above the other"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """The value as SQL over the row."""

    sql: sql.Composable
    is_constant: bool = False
    """the same for every row, whatever the row has"""
    along: tuple[str, str] | None = None
    """(column, parent table) where the value is that of a parent one join away and of nothing else"""


def derived_value(place: Place, table: str, column: str, row: str, depth: int = 0) -> Derived | None:
    """What ``table.column`` of the row ``row`` holds when the step starts; None where it is not known."""
    info = place.known.table(table)
    type_ = None if info is None else _type(place, table, column)
    if info is None or type_ is None or depth > _DEPTH:
        return None
    filled = _filled(place, table, column, row, depth)
    if column not in info.columns:
        return None if filled is None else _cast(filled, filled.sql, type_)
    own: sql.Composable = sql.SQL("{}.{}").format(sql.Identifier(row), sql.Identifier(column))
    if filled is not None:
        own = sql.SQL("coalesce({}, {})").format(own, filled.sql)
    return Derived(sql=_as_type(own, type_))


def _type(place: Place, table: str, column: str) -> str | None:
    found = schema_before(place).column(table, column)
    return None if found is None else found.type


def _cast(filled: Derived, value: sql.Composable, type_: str) -> Derived:
    return Derived(sql=_as_type(value, type_), is_constant=filled.is_constant, along=filled.along)


def _as_type(value: sql.Composable, type_: str) -> sql.Composed:
    return sql.SQL("CAST({} AS {})").format(value, sql.SQL(type_))


def _filled(place: Place, table: str, column: str, row: str, depth: int) -> Derived | None:
    """By the last step before this one that fills the column."""
    effects = [c.effect for c in schema_before(place).changes(table)]
    values = [e.value for e in effects if isinstance(e, FillsColumn) and e.column == column]
    if not values:
        return None
    value = values[-1]
    if isinstance(value, FromParentParams):
        return _of_parent(place, table, value, row, depth)
    if isinstance(value, ExpressionParams):
        names = (sql.SQL(value.sql), sql.Identifier(row), sql.Identifier(table))
        derived = sql.SQL("(SELECT ({}) FROM (SELECT {}.*) AS {})").format(*names)
        return _or_else(place, Derived(sql=derived), value)
    constant = place.constant(value)
    return Derived(sql=constant.literal, is_constant=True) if isinstance(constant, Constant) else None


def _of_parent(place: Place, table: str, value: FromParentParams, row: str, depth: int) -> Derived | None:
    """A scalar subquery along the joins; the taken column may itself be filled from further above."""
    aliases = [f"owner{depth}_{number}" for number, _ in enumerate(value.joins)]
    before, child, joined = row, table, list[sql.Composed]()
    for join, alias in zip(value.joins, aliases, strict=True):
        infos = place.known.table(child), place.known.table(join.table)
        if infos[0] is None or infos[1] is None:
            return None
        if join.on not in infos[0].columns or join.key not in infos[1].columns:
            return None
        condition = sql.SQL("{}.{} {} {}.{}").format(
            sql.Identifier(alias),
            sql.Identifier(join.key),
            place.equals(join.table, join.key),
            sql.Identifier(before),
            sql.Identifier(join.on),
        )
        source = sql.SQL("{} {}").format(sql.Identifier(place.schema, join.table), sql.Identifier(alias))
        joined.append(sql.SQL("{} WHERE {}").format(source, condition))
        before, child = alias, join.table
    last = value.joins[-1]
    taken = derived_value(place, last.table, str(last.column), aliases[-1], depth + 1)
    if taken is None:
        return None
    query = _nested(joined, taken.sql)
    along = (value.joins[0].on, last.table) if len(value.joins) == 1 and value.else_ is None else None
    return _or_else(place, Derived(sql=query, along=along), value)


def _nested(joined: list[sql.Composed], taken: sql.Composable) -> sql.Composable:
    """One scalar subquery in the other, so that each join sees the row of the join before."""
    query = taken
    for source in reversed(joined):
        query = sql.SQL("(SELECT {} FROM {})").format(query, source)
    return query


def _or_else(place: Place, derived: Derived, value: FromParentParams | ExpressionParams) -> Derived | None:
    if value.else_ is None:
        return derived
    otherwise = place.constant(value.else_)
    if not isinstance(otherwise, Constant):
        return None
    return Derived(sql=sql.SQL("coalesce({}, {})").format(derived.sql, otherwise.literal))
