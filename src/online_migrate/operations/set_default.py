"""set_default: set the default of an existing column, for rows that are written from then on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from psycopg import sql
from pydantic import AfterValidator, model_validator

from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import (
    Context,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import Effect, SetsDefault
from online_migrate.operations.shared.index_text import ensure_expression
from online_migrate.operations.shared.steps import alter_column, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import ColumnInfo
from online_migrate.postgres.insert_values import Source, read_givers
from online_migrate.postgres.rehearsal import TrialFailed, try_column

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html"
_NO_DEFAULT = {Source.IDENTITY: "an identity column", Source.GENERATED: "a generated column"}


class SetDefaultParams(TableParams):
    """A column, and the default of new rows."""

    column: str
    """column that gets the default"""
    value: str | int | bool | None = None
    """a constant, or a reference such as <master.id>; give exactly one of value and sql"""
    sql: Annotated[str, AfterValidator(ensure_expression)] | None = None
    """an expression, evaluated for each new row: ``now()``, ``gen_random_uuid()``"""

    @model_validator(mode="after")
    def _is_one_default(self) -> SetDefaultParams:
        if (self.value is None) == (self.sql is None):
            raise ValueError("give exactly one of value (a constant or a reference) and sql (an expression)")
        return self


class SetDefault(Operation[SetDefaultParams]):
    """Set the default of a column.

    What it does: ALTER COLUMN … SET DEFAULT. Rows written from then on that do not name the column get the
    default; rows that exist already keep their values, and no row is written or scanned. An expression is
    evaluated for each new row. A default that the column has already is replaced; `check` shows it.

    Locks: ACCESS EXCLUSIVE on the table, and on its partitions and inheriting tables, in one lock window.

    On a crash: the ALTER TABLE either committed or did not; the next run reads the catalog.

    How to undo: ALTER COLUMN … DROP DEFAULT, or SET DEFAULT with the earlier default.
    """

    name = "set_default"
    phase = Phase.EXPAND
    summary = "set the default of a column, for new rows"
    descendants = Descendants.ALONG
    Params: ClassVar[type[SetDefaultParams]] = SetDefaultParams

    def title(self, params: SetDefaultParams) -> str:
        return f"set_default {params.column}"

    def effects(self, place: Place, params: SetDefaultParams) -> tuple[Effect, ...]:
        if params.sql is not None:
            return (
                SetsDefault(table=place.table, column=params.column, default=params.sql, is_expression=True),
            )
        assert params.value is not None  # its validator has seen to it
        return (SetsDefault(table=place.table, column=params.column, default=params.value),)

    def statements(self, place: Place, params: SetDefaultParams) -> tuple[Statement, ...]:
        change = sql.SQL("SET DEFAULT {}").format(self._default(place, params))
        return (alter_column(place, params.column, change),)

    def _default(self, place: Place, params: SetDefaultParams) -> sql.Composable:
        return place.value(params.value) if params.sql is None else sql.SQL(params.sql)

    def preflight(self, place: Place, params: SetDefaultParams) -> list[Finding]:
        column = self._column(place, params)
        return [] if column is None else list(self._findings(place, params, column))

    def _findings(self, place: Place, params: SetDefaultParams, column: ColumnInfo) -> Iterator[Finding]:
        name = f"{place.table}.{params.column}"
        for giver in read_givers(place.known.connection, self._oid(place), params.column):
            if giver.source in _NO_DEFAULT and not giver.is_below:
                fact = f"{name} is {_NO_DEFAULT[giver.source]}, which can have no default"
                yield _finding(Severity.STOP, "no_default_possible", fact, "take the step out of the plan")
                return
        try:
            wanted = self._wanted(place, params, column)
        except TrialFailed as error:
            fact = f"the server refuses this default of {name} ({column.type}): {error}"
            yield _finding(Severity.STOP, "default_refused", fact, "correct `value` or `sql`")
            return
        if column.default is not None and wanted is not None and column.default != wanted:
            fact = f"{name} has the default {column.default}, which {wanted} replaces"
            remedy = (
                "note it for a rollback: ALTER TABLE"
                f" {place.sql_table.as_string(None)} ALTER COLUMN"
                f" {sql.Identifier(params.column).as_string(None)} SET DEFAULT {column.default}"
            )
            yield _finding(Severity.INFO, "default_replaced", fact, remedy)

    def _oid(self, place: Place) -> int:
        table = place.known.table(place.table)
        assert table is not None  # asked for tables that exist
        return table.oid

    def _wanted(self, place: Place, params: SetDefaultParams, column: ColumnInfo) -> str | None:
        """As the server spells it; None for a reference that is not known yet."""
        default = self._default(place, params)
        if params.sql is None and default.as_string(None) == params.value:
            return None
        return try_column(place.known.connection, column.type, default).default

    def state(self, place: Place, params: SetDefaultParams) -> State:
        """Done where the table, and each below it, has the default."""
        column = self._column(place, params)
        if column is None or column.default is None:
            return State.ABSENT
        try:
            wanted = self._wanted(place, params, column)
        except TrialFailed:  # preflight reports it
            return State.ABSENT
        tables = (place.known.in_schema(schema).table(name) for schema, name in place.family)
        columns = [t.columns.get(params.column) for t in tables if t is not None]
        is_set = all(c is not None and c.default == wanted for c in columns)
        return State.DONE if is_set else State.ABSENT

    def execute(self, context: Context, params: SetDefaultParams) -> int:
        if self.state(context.place, params) is not State.DONE:
            run_window(context, self.statements(context.place, params))
        return 0

    def verify(self, place: Place, params: SetDefaultParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        column = self._column(place, params)
        there = "was dropped" if column is None else f"has the default {column.default or 'NULL'}"
        fact = f"{place.table}.{params.column} {there}, or a table below it has another than the planned one"
        return [_finding(Severity.STOP, "default_changed", fact, "find out who changed it")]

    def _column(self, place: Place, params: SetDefaultParams) -> ColumnInfo | None:
        table = place.known.table(place.table)
        return None if table is None else table.columns.get(params.column)


def _finding(severity: Severity, code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=severity, code=code, fact=fact, remedy=remedy, manual=MANUAL)
