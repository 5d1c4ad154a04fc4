"""drop_default: drop the default of a column, so that an INSERT must name the column."""

from __future__ import annotations

from typing import ClassVar

from psycopg import sql

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
from online_migrate.operations.contract.effects import DropsDefault, Effect
from online_migrate.operations.shared.steps import need, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.locks import LockMode


class DropDefaultParams(TableParams):
    """The column that loses its default."""

    column: str
    """column whose default is dropped"""


class DropDefault(Operation[DropDefaultParams]):
    """Drop the default of a column.

    What it does: ALTER COLUMN … DROP DEFAULT. From then on an INSERT that does not name the column writes
    NULL, or fails where the column is NOT NULL (23502). Rows that exist already keep their values.

    Locks: ACCESS EXCLUSIVE on the table, and on its partitions and inheriting tables, in one lock window.

    On a crash: the ALTER TABLE either committed or did not; the next run reads the catalog.

    How to undo: ALTER COLUMN … SET DEFAULT with the value from the add_column of the plan.
    """

    name = "drop_default"
    phase = Phase.CONTRACT
    summary = "drop the default of a column"
    descendants = Descendants.ALONG
    Params: ClassVar[type[DropDefaultParams]] = DropDefaultParams

    def title(self, params: DropDefaultParams) -> str:
        return f"drop_default {params.column}"

    def effects(self, place: Place, params: DropDefaultParams) -> tuple[Effect, ...]:
        return (DropsDefault(table=place.table, column=params.column),)

    def statements(self, place: Place, params: DropDefaultParams) -> tuple[Statement, ...]:
        alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT").format(
            place.sql_table, sql.Identifier(params.column)
        )
        return (
            Statement(
                sql=alter,
                kind=Kind.WINDOW,
                locks=tuple(need(*table, LockMode.ACCESS_EXCLUSIVE) for table in place.family),
            ),
        )

    def preflight(self, place: Place, params: DropDefaultParams) -> list[Finding]:  # noqa: ARG002
        return []

    def state(self, place: Place, params: DropDefaultParams) -> State:
        table = place.known.table(place.table)
        column = None if table is None else table.columns.get(params.column)
        return State.DONE if column is not None and column.default is None else State.ABSENT

    def execute(self, context: Context, params: DropDefaultParams) -> int:
        if self.state(context.place, params) is not State.DONE:
            run_window(context, self.statements(context.place, params))
        return 0

    def verify(self, place: Place, params: DropDefaultParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = f"{place.table}.{params.column} has a default again, or was dropped"
        return [
            Finding(
                severity=Severity.STOP,
                code="default_back",
                fact=fact,
                remedy="ALTER COLUMN … DROP DEFAULT, and find out who set it",
            )
        ]
