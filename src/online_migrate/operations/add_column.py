"""add_column: a nullable column, and the value that new rows get, in one short window.  Old rows stay NULL."""

from __future__ import annotations

import re
from typing import ClassVar

from psycopg import sql
from pydantic import Field

from online_migrate.operations.base import (
    Context,
    Finding,
    Kind,
    Operation,
    Place,
    Severity,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.steps import need, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import ColumnInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html"


class AddColumnParams(TableParams):
    """A column for one table or a set."""

    column: str
    type: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_ ]*(\(\d+(,\s*\d+)?\))?(\[\])?$")
    new_rows: str | int | bool | None = None
    """the default that rows written from now on get; old rows stay NULL for the backfill"""


class AddColumn(Operation[AddColumnParams]):
    """ADD COLUMN and SET DEFAULT in one ALTER TABLE: no row is written, old rows stay NULL (postgres-facts)."""

    name = "add_column"
    phase = Phase.EXPAND
    summary = "add a nullable column; rows written from now on get its default"
    Params: ClassVar[type[AddColumnParams]] = AddColumnParams

    def title(self, params: AddColumnParams) -> str:
        return f"add_column {params.column}"

    def statements(self, place: Place, params: AddColumnParams) -> tuple[Statement, ...]:
        column, changes = sql.Identifier(params.column), []
        if place.catalog is None or self._column(place, params) is None:
            changes.append(sql.SQL("ADD COLUMN {} {}").format(column, sql.SQL(params.type)))
        if params.new_rows is not None:
            changes.append(
                sql.SQL("ALTER COLUMN {} SET DEFAULT {}").format(column, place.value(params.new_rows))
            )
        alter = sql.SQL("ALTER TABLE {} {}").format(place.sql_table, sql.SQL(", ").join(changes))
        return (
            Statement(
                sql=alter,
                kind=Kind.WINDOW,
                locks=(need(place.schema, place.table, LockMode.ACCESS_EXCLUSIVE),),
            ),
        )

    def preflight(self, place: Place, params: AddColumnParams) -> list[Finding]:
        column = self._column(place, params)
        if self.state(place, params) is not State.CONFLICT or column is None:
            return []
        wanted = f"{params.type}{'' if params.new_rows is None else f' default {params.new_rows}'}"
        fact = f"{place.table}.{params.column} is there already as {column.type}, default {column.default}; the plan wants {wanted}"
        return [
            Finding(
                severity=Severity.STOP,
                code="column_conflict",
                fact=fact,
                remedy="rename or drop that column, or change the plan to what is there",
                manual=MANUAL,
            )
        ]

    def state(self, place: Place, params: AddColumnParams) -> State:
        column = self._column(place, params)
        if column is None:
            return State.ABSENT
        if column.type != read_type(place.known.connection, params.type):
            return State.CONFLICT
        if params.new_rows is None or _is_default(column.default, place, params.new_rows):
            return State.DONE
        return State.PARTIAL if column.default is None else State.CONFLICT

    def execute(self, context: Context, params: AddColumnParams) -> int:
        run_window(context, self.statements(context.place, params))
        return 0

    def verify(self, place: Place, params: AddColumnParams) -> list[Finding]:
        column = self._column(place, params)
        if column is not None and column.type == read_type(place.known.connection, params.type):
            return []
        fact = (
            f"{place.table}.{params.column} is {'gone' if column is None else column.type}, not {params.type}"
        )
        return [
            Finding(
                severity=Severity.STOP,
                code="column_gone",
                fact=fact,
                remedy="someone changed it: find out who, then run again",
            )
        ]

    def _column(self, place: Place, params: AddColumnParams) -> ColumnInfo | None:
        table = place.known.table(place.table)
        return None if table is None else table.columns.get(params.column)


def read_type(connection: Connection, name: str) -> str:
    """A type's name as format_type() spells it: ``int`` → ``integer``."""
    result = connection.execute(sql.SQL("SELECT NULL::{}").format(sql.SQL(name))).pgresult
    if result is None:
        return name
    row = connection.execute(
        "SELECT format_type(%s::oid, %s::int)", [result.ftype(0), result.fmod(0)]
    ).fetchone()
    return name if row is None else str(row[0])


def _is_default(expression: str | None, place: Place, wanted: object) -> bool:
    """Is the column's default this constant?  PostgreSQL prints constants as ``1``, ``'x'::text``, ``true``."""
    if expression is None:
        return False
    text = place.value(wanted).as_string(None).strip()
    if text.startswith("<"):
        return True  # a reference that is not known yet: whatever constant is there was set by an earlier run
    constant = re.sub(r"::[\w ]+(\(\d+\))?$", "", expression)
    return constant.strip("'()").lower() == re.sub(r"::[\w ]+$", "", text).strip("'").lower()


__all__ = ["AddColumn", "AddColumnParams", "read_type"]
