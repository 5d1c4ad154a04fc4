"""What a backfill gives a row: a constant, the value of a parent along foreign keys, or an expression over
the row.

A value is one of these records from the plan to the statement.  Only a constant is never NULL: a batch leaves
a row for which another value is NULL as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from psycopg import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same value for every row."""

    literal: sql.Composable
    is_constant: ClassVar[bool] = True
    is_known: ClassVar[bool] = True

    @classmethod
    def of(cls, value: object) -> Constant:
        """A Python value as a literal."""
        return cls(literal=sql.Literal(value))

    def as_sql(self, row: str) -> sql.Composable:  # noqa: ARG002  # the same for every row
        return self.literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A constant that is not known yet, as `<master.id>` before its row exists: printed, never executed."""

    name: str
    is_constant: ClassVar[bool] = True
    is_known: ClassVar[bool] = False

    def as_sql(self, row: str) -> sql.Composable:  # noqa: ARG002  # the same for every row
        return sql.SQL(f"<{self.name}>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """One join towards the parent: ``on`` of the table before references ``key`` of ``table``."""

    table: str
    on: str
    key: str = "id"
    column: str | None = None
    """the column whose value is taken; only in the last join"""
    equals_in: str = "pg_catalog"
    """the schema of the key's equality operator; another one for types of extensions, such as citext"""

    @property
    def equals_sql(self) -> sql.Composed:
        return sql.SQL("OPERATOR({}.=)").format(sql.Identifier(self.equals_in))


@dataclass(frozen=True, slots=True, kw_only=True)
class FromParent:
    """The value of a parent in ``schema``, one or several joins away; ``otherwise`` for rows without one."""

    schema: str
    joins: tuple[Join, ...]
    otherwise: Constant | Reference | None = None
    is_constant: ClassVar[bool] = False

    @property
    def is_known(self) -> bool:
        return self.otherwise is None or self.otherwise.is_known

    @property
    def parent(self) -> str:
        """The table whose value is taken."""
        return self.joins[-1].table

    @property
    def column(self) -> str:
        """The parent's column that is taken."""
        return self.joins[-1].column or ""

    def as_sql(self, row: str) -> sql.Composable:
        """A scalar subquery: one lookup of the parent's key per row of the table named ``row``."""
        return _or_else(self._subquery(row, self.column), self.otherwise, row)

    def exists_sql(self, row: str) -> sql.Composable:
        """An expression that is NULL for a row without a parent at the end of the joins."""
        return self._subquery(row, None)

    def _subquery(self, row: str, column: str | None) -> sql.Composed:
        # an alias must not be the name of the row's own table, which it would hide
        alias = "above" if row.startswith("parent") else "parent"
        aliases = [sql.Identifier(f"{alias}{n}") for n in range(1, len(self.joins) + 1)]
        taken: sql.Composable = sql.SQL("1")
        if column is not None:
            taken = sql.SQL("{}.{}").format(aliases[-1], sql.Identifier(column))
        first = self.joins[0]
        text = sql.SQL("(SELECT {} FROM {} {}").format(
            taken, sql.Identifier(self.schema, first.table), aliases[0]
        )
        for join, (before, name) in zip(self.joins[1:], pairwise(aliases), strict=True):
            text += sql.SQL(" JOIN {} {} ON {}.{} {} {}.{}").format(
                sql.Identifier(self.schema, join.table),
                name,
                name,
                sql.Identifier(join.key),
                join.equals_sql,
                before,
                sql.Identifier(join.on),
            )
        return text + sql.SQL(" WHERE {}.{} {} {}.{})").format(
            aliases[0],
            sql.Identifier(first.key),
            first.equals_sql,
            sql.Identifier(row),
            sql.Identifier(first.on),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """An SQL expression over columns of the row; ``otherwise`` for rows for which it is NULL."""

    text: str
    otherwise: Constant | Reference | None = None
    is_constant: ClassVar[bool] = False

    @property
    def is_known(self) -> bool:
        return self.otherwise is None or self.otherwise.is_known

    @property
    def bare_sql(self) -> sql.Composed:
        """The expression without ``otherwise``."""
        return sql.SQL("({})").format(sql.SQL(self.text))

    def as_sql(self, row: str) -> sql.Composable:
        return _or_else(self.bare_sql, self.otherwise, row)


Value = Constant | Reference | FromParent | Expression


def _or_else(derived: sql.Composable, otherwise: Constant | Reference | None, row: str) -> sql.Composable:
    if otherwise is None:
        return derived
    return sql.SQL("(coalesce({}, {}))").format(derived, otherwise.as_sql(row))
