"""analyze: the planner learns what the new column holds."""

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
    """The tables to sample."""


class Analyze(Operation[AnalyzeParams]):
    """ANALYZE: SHARE UPDATE EXCLUSIVE while it samples."""

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
