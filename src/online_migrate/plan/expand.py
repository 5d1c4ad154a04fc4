"""From a plan and the tables of its sets to the list of steps; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from online_migrate.plan.model import Plan, Step
from online_migrate.plan.operation_type import OperationType

_PARTITIONS = "<partitions of "


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
            mine: dict[tuple[str, str, str], Step] = {}
            for table in named:
                partitions: Sequence[str | None] = (None,)
                if table is not None and operations[spec.operation].takes_each_partition:
                    partitions = tables.get(partitions_of(table), partitions)
                for name in partitions:
                    step = Step(stage=stage.name, spec=spec, table=table, partition=name)
                    mine.setdefault(step.key, step)
            steps.extend(mine.values())
    return tuple(steps)


def partitions_of(table: str) -> str:
    """The name under which ``tables`` of :func:`expand` have the partitions with rows of a partitioned table.

    No table set of a plan has such a name.
    """
    return f"{_PARTITIONS}{table}>"


def root_in(name: str) -> str | None:
    """The table of a name that :func:`partitions_of` has made; None for the name of a set."""
    return name.removeprefix(_PARTITIONS)[:-1] if name.startswith(_PARTITIONS) else None


def listed_tables(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The tables of each set that the plan itself names."""
    return {name: tuple(s.tables) for name, s in plan.table_sets.items()}
