"""add_column: add a nullable column and the default of new rows in one short lock window."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from psycopg import sql
from pydantic import AfterValidator, model_validator

from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Context,
    Kind,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import AddsColumn, Effect, FillsColumn, SetsDefault, Source
from online_migrate.operations.shared.steps import need, run_window
from online_migrate.plan.model import Phase
from online_migrate.plan.type_name import read_type_name
from online_migrate.postgres.catalog import ColumnInfo
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.rehearsal import ColumnTrial, TrialFailed, try_column

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html"
_MOMENT = re.compile(r"\b(?:now|today|tomorrow|yesterday)\b(?:\(\))?", re.IGNORECASE)
_CONSTANT = re.compile(r"'((?:[^']|'')*)'::[\w ]+(?:\([\d,]+\))?(?:\[\])?")


class AddColumnParams(TableParams):
    """A new column of one table, of some tables, or of a table set."""

    column: str
    """name of the new column"""
    type: Annotated[str, AfterValidator(read_type_name)]
    """its type, as in CREATE TABLE: integer, varchar(40), timestamp(3) with time zone, "PlanTier"[]"""
    new_rows: str | int | bool | None = None
    """default of the column: a constant, or a reference such as <master.id>; old rows keep NULL"""
    instant: bool = False
    """old rows get the default too, and no row is written: PostgreSQL stores it once, in the catalog"""

    @model_validator(mode="after")
    def _has_what_is_instant(self) -> AddColumnParams:
        if self.instant and self.new_rows is None:
            raise ValueError("instant gives old rows what new rows get: it needs new_rows")
        return self


class AddColumn(Operation[AddColumnParams]):
    """Add a nullable column, and with `new_rows` its default, by one ALTER TABLE.

    What it does: ADD COLUMN and SET DEFAULT in one statement. No row is written or scanned. Rows that exist
    already keep NULL until a backfill fills them; rows written from then on get the default. With `instant`
    the default is part of ADD COLUMN, so that old rows show it too (manual, ALTER TABLE, Notes). A column
    that exists already with this type and default is adopted. A domain with a default or a constraint makes
    the server write or scan every row under the lock, so it is refused.

    Locks: ACCESS EXCLUSIVE on the table, and on its partitions and inheriting tables, in one lock window.

    On a crash: the ALTER TABLE either committed or did not. The next run reads the catalog, and sets a
    default that is still missing.

    How to undo: ALTER TABLE … DROP COLUMN, once no release uses the column. It takes the same lock, and its
    values are lost.
    """

    name = "add_column"
    phase = Phase.EXPAND
    summary = "add a nullable column, and the default of new rows"
    descendants = Descendants.ALONG
    Params: ClassVar[type[AddColumnParams]] = AddColumnParams

    def title(self, params: AddColumnParams) -> str:
        return f"add_column {params.column}"

    def effects(self, place: Place, params: AddColumnParams) -> tuple[Effect, ...]:
        table, column, default = place.table, params.column, params.new_rows
        found: list[Effect] = [AddsColumn(table=table, column=column, type=place.type_name(params.type))]
        if default is not None:
            found.append(SetsDefault(table=table, column=column, default=default))
        if default is not None and params.instant:
            found.append(FillsColumn(table=table, column=column, source=Source.INSTANT, value=default))
        return tuple(found)

    def statements(self, place: Place, params: AddColumnParams) -> tuple[Statement, ...]:
        column, changes = sql.Identifier(params.column), []
        is_new = place.catalog is None or self._column(place, params) is None
        if is_new:
            changes.append(sql.SQL("ADD COLUMN {} {}").format(column, sql.SQL(place.type_name(params.type))))
        if is_new and params.instant:
            changes = [sql.SQL("{} DEFAULT {}").format(changes[0], place.value(params.new_rows))]
        elif params.new_rows is not None:
            changes.append(
                sql.SQL("ALTER COLUMN {} SET DEFAULT {}").format(column, place.value(params.new_rows))
            )
        if not changes:
            return ()
        alter = sql.SQL("ALTER TABLE {} {}").format(place.sql_table, sql.SQL(", ").join(changes))
        return (
            Statement(
                sql=alter,
                kind=Kind.WINDOW,
                locks=tuple(need(*table, LockMode.ACCESS_EXCLUSIVE) for table in place.family),
            ),
        )

    def preflight(self, place: Place, params: AddColumnParams) -> list[Finding]:
        column = self._column(place, params)
        try:
            wanted = self._wanted(place, params)
        except TrialFailed as error:
            fact = (
                f"the server refuses a column {params.column} {params.type} with what new_rows says: {error}"
            )
            return [_stop("column_refused", fact, "correct `type` or `new_rows`")]
        if column is None and self._is_moment(place, params):
            fact = (
                f"new_rows: {params.new_rows!r} of {place.table}.{params.column} would be the moment of the"
                " migration for all later rows: PostgreSQL evaluates it once, when the default is set"
            )
            return [
                _stop(
                    "moment_frozen",
                    fact,
                    "write a fixed moment, or leave new_rows out and set the default yourself",
                )
            ]
        if column is None and wanted.is_written:
            fact = (
                f"{params.type} is a domain with a default or a constraint: adding {params.column} would"
                f" write or scan every row of {place.table} under the lock"
            )
            return [_stop("rewrite", fact, "add the column with the domain's base type")]
        if column is None or self.state(place, params) is not State.CONFLICT:
            return []
        fact = (
            f"{place.table}.{params.column} already exists as {column.type}, {_default(column.default)};"
            f" the plan wants {wanted.type}, {_default(wanted.default)}"
        )
        remedy = "rename or drop that column, or change the plan to what is there"
        return [_stop("column_conflict", fact, remedy)]

    def state(self, place: Place, params: AddColumnParams) -> State:
        column = self._column(place, params)
        if column is None:
            return State.ABSENT
        try:
            wanted = self._wanted(place, params)
        except TrialFailed:  # preflight says it
            return State.CONFLICT
        if column.type != wanted.type:
            return State.CONFLICT
        if _constant(column.default) == _constant(wanted.default):
            return State.DONE
        if wanted.default is None and params.new_rows is not None:
            return State.DONE  # a reference that is not known yet: what is there was set by an earlier run
        return State.PARTIAL if column.default is None else State.CONFLICT

    def _is_moment(self, place: Place, params: AddColumnParams) -> bool:
        """Is it a word that the type's input reads as a time?  Then the server refuses another word."""
        value = params.new_rows
        if not isinstance(value, str) or not _MOMENT.search(value):
            return False
        try:
            try_column(place.known.connection, params.type, sql.Literal(_MOMENT.sub("no moment", value)))
        except TrialFailed:
            return True
        return False

    def _wanted(self, place: Place, params: AddColumnParams) -> ColumnTrial:
        """As the server spells it; a reference that is not known yet is left out."""
        default = None if params.new_rows is None else place.value(params.new_rows)
        if default is not None and default.as_string(None) == params.new_rows:
            default = None
        return try_column(place.known.connection, params.type, default)

    def execute(self, context: Context, params: AddColumnParams) -> int:
        if self.state(context.place, params) is not State.DONE:
            run_window(context, self.statements(context.place, params))
        return 0

    def verify(self, place: Place, params: AddColumnParams) -> list[Finding]:
        column = self._column(place, params)
        if column is not None and column.type == try_column(place.known.connection, params.type, None).type:
            return []
        there = "missing" if column is None else column.type
        fact = f"{place.table}.{params.column} is {there}, not {params.type}"
        return [_stop("column_gone", fact, "find out who changed it")]

    def _column(self, place: Place, params: AddColumnParams) -> ColumnInfo | None:
        table = place.known.table(place.table)
        return None if table is None else table.columns.get(params.column)


def _stop(code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.STOP, code=code, fact=fact, remedy=remedy, manual=MANUAL)


def _default(expression: str | None) -> str:
    return "no default" if expression is None else f"default {expression}"


def _constant(expression: str | None) -> str | None:
    """``1``, ``'1'::integer`` and ``'1'::bigint`` are one constant of one column; any other expression is as
    it is.
    """
    found = None if expression is None else _CONSTANT.fullmatch(expression)
    return expression if found is None else found[1]
