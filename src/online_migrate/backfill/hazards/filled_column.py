"""The column that a backfill fills, and what the plan's other steps do to its table and its parents."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from psycopg import sql

from online_migrate.postgres.catalog import Catalog, TableInfo
from online_migrate.postgres.connection import Connection

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


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledColumn:
    """A column of a table, which may be one that the plan still adds."""

    catalog: Catalog
    table: TableInfo
    name: str
    plan: PlanContext

    @property
    def connection(self) -> Connection:
        return self.catalog.connection

    @property
    def sql_table(self) -> sql.Identifier:
        return sql.Identifier(self.table.schema, self.table.name)

    @property
    def sql_name(self) -> sql.Identifier:
        return sql.Identifier(self.name)

    @property
    def exists(self) -> bool:
        return self.name in self.table.columns

    @property
    def type(self) -> str:
        """Its type, or that with which the plan adds it; empty if neither is known."""
        if self.exists:
            return self.table.columns[self.name].type
        return self.plan.added.get((self.table.name, self.name), "")

    @property
    def planned(self) -> dict[str, str]:
        """Columns of the table that the plan still adds, and their types."""
        return planned_columns(self.table, self.plan)


def planned_columns(table: TableInfo, plan: PlanContext) -> dict[str, str]:
    """Columns that the plan still adds to the table, and their types."""
    return {
        name: type_
        for (owner, name), type_ in plan.added.items()
        if owner == table.name and name not in table.columns
    }
