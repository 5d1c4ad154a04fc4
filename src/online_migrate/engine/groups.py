"""Which steps are taken together: one after the other, or the tables of one backfill side by side.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Stage, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The steps of one line of the plan, of which ``workers`` are taken at once."""

    steps: tuple[Step, ...]
    workers: int


def groups_of(stage: Stage, steps: Iterable[Step]) -> tuple[Group, ...]:
    """The stage's steps in the plan's order, the tables of each line together."""
    mine = (s for s in steps if s.stage == stage.name)
    return tuple(_group(stage, tuple(same)) for _, same in groupby(mine, key=lambda s: id(s.spec)))


def _group(stage: Stage, steps: tuple[Step, ...]) -> Group:
    spec = steps[0].spec
    may = OPERATIONS[spec.operation].may_run_beside(spec.params, [s.table for s in steps if s.table])
    return Group(steps=steps, workers=min(stage.pace.workers, len(steps)) if may else 1)
