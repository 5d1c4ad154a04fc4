"""analyze: refresh the statistics of the planner."""

from __future__ import annotations

from typing import ClassVar

from psycopg import sql

from online_migrate.findings import (
    Finding,
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
from online_migrate.operations.shared.steps import need, run_long
from online_migrate.plan.model import Phase
from online_migrate.postgres.locks import LockMode


class AnalyzeParams(TableParams):
    """The tables whose statistics are refreshed."""


class Analyze(Operation[AnalyzeParams]):
    """Refresh the statistics of the planner, so that it knows what the new column holds.

    What it does: ANALYZE, which reads a sample of the table and of its partitions.

    Locks: SHARE UPDATE EXCLUSIVE on each of them while it reads. It blocks no reads or writes.

    On a crash: nothing is left behind; the next run starts it again.

    How to undo: nothing to undo.
    """

    name = "analyze"
    phase = Phase.CONTRACT
    summary = "refresh the planner's statistics"
    Params: ClassVar[type[AnalyzeParams]] = AnalyzeParams

    def statements(self, place: Place, params: AnalyzeParams) -> tuple[Statement, ...]:  # noqa: ARG002
        locks = tuple(need(*t, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True) for t in place.family)
        return (Statement(sql=sql.SQL("ANALYZE {}").format(place.sql_table), kind=Kind.LONG, locks=locks),)

    def preflight(self, place: Place, params: AnalyzeParams) -> list[Finding]:  # noqa: ARG002
        return []

    def state(self, place: Place, params: AnalyzeParams) -> State:  # noqa: ARG002
        return State.ABSENT

    def execute(self, context: Context, params: AnalyzeParams) -> int:
        run_long(context, self.statements(context.place, params)[0])
        return 0

    def verify(self, place: Place, params: AnalyzeParams) -> list[Finding]:  # noqa: ARG002
        return []
