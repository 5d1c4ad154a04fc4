"""What a plan says of a backfill's value: the parameters, and the typed value that they stand for."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, model_validator

from online_migrate.backfill.values import Constant, Expression, FromParent, Join, Reference, Value
from online_migrate.plan.model import Strict, TableName


class JoinParams(Strict):
    """One join towards the parent."""

    table: TableName
    """the parent"""
    on: str
    """the column that references it: a column of the row, or of the table of the join before"""
    key: str = "id"
    """the unique column of the parent that is referenced"""
    column: str | None = None
    """the column whose value is taken; only in the last join"""


class FromParentParams(Strict):
    """The value of a parent, one or several joins away."""

    from_: JoinParams | list[JoinParams] = Field(alias="from")
    """the joins from the row to the parent, in this order"""
    else_: str | int | bool | None = Field(default=None, alias="else")
    """the value of rows that have no such parent; without it, `check` stops at such a row"""

    @property
    def joins(self) -> list[JoinParams]:
        return self.from_ if isinstance(self.from_, list) else [self.from_]

    @model_validator(mode="after")
    def _ends_in_a_column(self) -> FromParentParams:
        if not self.joins:
            raise ValueError("`from` needs at least one join")
        if any(j.column is not None for j in self.joins[:-1]) or self.joins[-1].column is None:
            raise ValueError("the last join names the column whose value is taken, the others do not")
        return self


class ExpressionParams(Strict):
    """An expression over the row."""

    sql: str = Field(min_length=1)
    """an SQL expression over columns of the row"""
    else_: str | int | bool | None = Field(default=None, alias="else")
    """the value of rows for which the expression is NULL"""


ValueParams = str | int | bool | FromParentParams | ExpressionParams


def value_of(
    params: ValueParams,
    *,
    schema: str,
    constant: Callable[[object], Constant | Reference],
    equals_in: Callable[[str, str], str] = lambda _table, _column: "pg_catalog",
) -> Value:
    """The typed value; ``constant`` turns a plan's literal, or its reference, into one.

    ``equals_in`` gives the schema of the equality operator of a table's column.
    """
    if not isinstance(params, FromParentParams | ExpressionParams):
        return constant(params)
    otherwise = None if params.else_ is None else constant(params.else_)
    if isinstance(params, ExpressionParams):
        return Expression(text=params.sql, otherwise=otherwise)
    joins = tuple(
        Join(table=j.table, on=j.on, key=j.key, column=j.column, equals_in=equals_in(j.table, j.key))
        for j in params.joins
    )
    return FromParent(schema=schema, joins=joins, otherwise=otherwise)
