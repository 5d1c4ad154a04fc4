"""What a row gets: a constant, its parent's value along foreign keys, or an expression over the row itself.

A derived value stands in parentheses: so a batch knows that it may be NULL, and leaves such a row as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from psycopg import sql
from pydantic import Field, model_validator

from online_migrate.plan.model import Strict, TableName


class Join(Strict):
    """One join towards the parent."""

    table: TableName
    """the parent"""
    on: str
    """the column that refers to it: of the row, or of the table before"""
    key: str = "id"
    """the parent's column that is referred to; unique"""
    column: str | None = None
    """what is taken from it; of the last join only"""


class FromParent(Strict):
    """The value of a parent, one or several joins away."""

    from_: Join | list[Join] = Field(alias="from")
    """from the row to the parent, in this order"""
    else_: str | int | bool | None = Field(default=None, alias="else")
    """what a row gets that has no such parent; without it such a row stops the run at check"""

    @property
    def joins(self) -> list[Join]:
        return self.from_ if isinstance(self.from_, list) else [self.from_]

    @model_validator(mode="after")
    def _ends_in_a_column(self) -> FromParent:
        if not self.joins:
            raise ValueError("from needs one join at least")
        if any(j.column is not None for j in self.joins[:-1]) or self.joins[-1].column is None:
            raise ValueError("the last join names the column that is taken, the others do not")
        return self


class SqlValue(Strict):
    """An expression over the row."""

    sql: str = Field(min_length=1)
    """in PostgreSQL's words; columns are those of the row"""
    else_: str | int | bool | None = Field(default=None, alias="else")
    """what a row gets for which the expression is NULL"""


Value = str | int | bool | FromParent | SqlValue


def value_sql(
    value: Value, *, schema: str, table: str, literal: Callable[[object], sql.Composable]
) -> sql.Composable:
    """The expression that a batch sets; ``literal`` turns constants and references into SQL."""
    if not isinstance(value, FromParent | SqlValue):
        return literal(value)
    if isinstance(value, SqlValue):
        derived: sql.Composable = sql.SQL("({})").format(sql.SQL(value.sql))
    else:
        derived = _from_parent(value.joins, schema, table)
    if value.else_ is None:
        return derived
    return sql.SQL("(coalesce({}, {}))").format(derived, literal(value.else_))


def _from_parent(joins: list[Join], schema: str, table: str, *, exists: bool = False) -> sql.Composed:
    """A scalar subquery: one look into the parent's key per row; ``exists`` asks only whether there is a parent."""
    alias = (
        "above" if table.startswith("parent") else "parent"
    )  # never the table's own name, which it would hide
    aliases = [sql.Identifier(f"{alias}{n}") for n in range(1, len(joins) + 1)]
    last = joins[-1].column or ""
    taken: sql.Composable = (
        sql.SQL("1") if exists else sql.SQL("{}.{}").format(aliases[-1], sql.Identifier(last))
    )
    text = sql.SQL("(SELECT {} FROM {} {}").format(taken, sql.Identifier(schema, joins[0].table), aliases[0])
    for (_, join), (before, name) in zip(pairwise(joins), pairwise(aliases), strict=True):
        text += sql.SQL(" JOIN {} {} ON {}.{} = {}.{}").format(
            sql.Identifier(schema, join.table),
            name,
            name,
            sql.Identifier(join.key),
            before,
            sql.Identifier(join.on),
        )
    return text + sql.SQL(" WHERE {}.{} = {}.{})").format(
        aliases[0], sql.Identifier(joins[0].key), sql.Identifier(table), sql.Identifier(joins[0].on)
    )


def parent_exists_sql(value: FromParent, *, schema: str, table: str) -> sql.Composed:
    """NULL for a row that has no parent at the end of the joins."""
    return _from_parent(value.joins, schema, table, exists=True)
