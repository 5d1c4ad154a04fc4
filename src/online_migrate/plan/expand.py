"""From a plan and the tables of its sets to the list of steps; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from online_migrate.plan.model import Plan, Step
from online_migrate.plan.operation_type import OperationType


def expand(
    plan: Plan, tables: Mapping[str, Sequence[str]], operations: Mapping[str, OperationType]
) -> tuple[Step, ...]:
    """Every step in the order of the run: step-major, all tables of a set, then the next step.

    ``tables`` gives the tables of each set; see :func:`listed_tables` for those known without a database.
    """
    steps: list[Step] = []
    for stage in plan.stages:
        for spec in stage.steps:
            targets = operations[spec.operation].targets(spec.params)
            named = tables[targets] if isinstance(targets, str) else targets
            steps.extend(Step(stage=stage.name, spec=spec, table=table) for table in named)
    return tuple(steps)


def listed_tables(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The tables of each set that the plan itself names."""
    return {name: tuple(s.tables) for name, s in plan.table_sets.items()}
