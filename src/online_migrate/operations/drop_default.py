"""drop_default: drop the default of a column, so that an INSERT must name the column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from psycopg import sql

from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Context,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import DropsDefault, Effect
from online_migrate.operations.shared.steps import alter_column, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.insert_values import Giver, Source, read_givers

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html"
_REMEDIES: Final = {
    Source.DOMAIN: "ALTER DOMAIN … DROP DEFAULT, or give the column the domain's base type",
    Source.IDENTITY: "ALTER COLUMN … DROP IDENTITY, once every release writes the column",
    Source.TRIGGER: "take the column out of the trigger's function, or drop the trigger",
}


class DropDefaultParams(TableParams):
    """The column that loses its default."""

    column: str
    """column whose default is dropped"""


class DropDefault(Operation[DropDefaultParams]):
    """Drop the default of a column.

    What it does: ALTER COLUMN … DROP DEFAULT. From then on an INSERT that does not name the column writes
    NULL, or fails where the column is NOT NULL (23502). Rows that exist already keep their values. `check`
    names each table where a domain, an identity or a trigger still gives a value, and each partition or
    inheriting table with a default of its own.

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
        return (alter_column(place, params.column, sql.SQL("DROP DEFAULT")),)

    def preflight(self, place: Place, params: DropDefaultParams) -> list[Finding]:
        return [*self._refused(place, params), *self._still_given(place, params)]

    def _refused(self, place: Place, params: DropDefaultParams) -> Iterator[Finding]:
        """What is no default is not dropped by DROP DEFAULT: the server refuses it."""
        for giver in self._givers(place, params):
            if giver.source is Source.GENERATED:
                yield Finding(
                    severity=Severity.STOP,
                    code="column_generated",
                    fact=f"{giver.table}.{params.column} is a generated column, which has no default to drop",
                    remedy="take it out of the plan, or ALTER COLUMN … DROP EXPRESSION first",
                    manual=MANUAL,
                )

    def _still_given(self, place: Place, params: DropDefaultParams) -> Iterator[Finding]:
        """Each table of the family in which an INSERT without the column stores a value all the same."""
        givers = self._givers(place, params)
        own = {g.name for g in givers if g.source is Source.DEFAULT and not g.is_below}
        for giver in givers:
            name = f"{giver.table}.{params.column}"
            if giver.source in _REMEDIES:
                fact = f"{name} still gets a value in an INSERT that does not name it: {giver}"
                yield _given(fact, _REMEDIES[giver.source])
            elif giver.source is Source.DEFAULT and giver.is_below and giver.name not in own:
                fact = f"{name}, below {place.table}, has its own default, which is dropped as well: {giver}"
                yield _given(fact, "if it must remain, set it again after the run")

    def _givers(self, place: Place, params: DropDefaultParams) -> tuple[Giver, ...]:
        table = place.known.table(place.table)
        return () if table is None else read_givers(place.known.connection, table.oid, params.column)

    def state(self, place: Place, params: DropDefaultParams) -> State:
        """Done where neither the table nor one below it has a default of the column."""
        table = place.known.table(place.table)
        if table is None or params.column not in table.columns:
            return State.ABSENT
        has_default = any(g.source is Source.DEFAULT for g in self._givers(place, params))
        return State.ABSENT if has_default else State.DONE

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
                remedy="find out who changed it",
            )
        ]


def _given(fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.WARN, code="still_given", fact=fact, remedy=remedy, manual=MANUAL)
