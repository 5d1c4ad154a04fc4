"""explain: what run would do, step by step, from the same statements that run executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from online_migrate.engine.check.contradictions import ensure_no_contradiction
from online_migrate.engine.groups import Group, groups_of
from online_migrate.engine.lock_retry import naming_blockers
from online_migrate.engine.survey import Survey
from online_migrate.operations.contract.base import Kind, Place, Statement
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.plan.expand import expand, listed_tables
from online_migrate.plan.model import Plan, Step
from online_migrate.postgres.locks import LockNeed


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """One step: its SQL, its locks, and with a database its table's rows (an estimate) and bytes."""

    stage: str
    phase: str
    step: str
    operation: str
    table: str
    statements: tuple[Statement, ...]
    locks: tuple[LockNeed, ...]
    workers: int
    """tables of this line of the plan that are taken at once"""
    why_alone: str
    """why not more, where the plan has workers for more"""
    is_instant: bool
    is_done: bool
    rows: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    plan: Plan
    has_database: bool
    open_sets: Mapping[str, str]
    """without a database: sets that hold further tables, and the root that those reach"""
    steps: tuple[ExplainedStep, ...]


def explain(plan: Plan, seen: Survey | None) -> Explanation:
    """With a database the steps as they are now; without one those over the tables that the plan names.

    Raises :class:`LockNotAcquired` if a table cannot be read, with the session that locks it.
    """
    if seen is None:
        return _explain(plan, None)
    with naming_blockers(seen.catalog.connection, plan.schema):
        return _explain(plan, seen)


def _explain(plan: Plan, seen: Survey | None) -> Explanation:
    steps = expand(plan, listed_tables(plan), OPERATIONS) if seen is None else seen.steps
    effects = effects_of(plan, steps) if seen is None else seen.effects
    if seen is None:
        ensure_no_contradiction(effects)
    else:
        ensure_no_contradiction(effects, seen.catalog, done=seen.done)

    def place_of(step: Step) -> Place:
        return (
            Place(plan=plan, step=step, catalog=None, effects=effects) if seen is None else seen.place(step)
        )

    return Explanation(
        plan=plan,
        has_database=seen is not None,
        open_sets={
            n: s.also.referencing for n, s in plan.table_sets.items() if s.also is not None and seen is None
        },
        steps=tuple(
            _explain_step(place_of(step), group, seen)
            for stage in plan.stages
            for group in groups_of(stage, steps, place_of)
            for step in group.steps
        ),
    )


def _explain_step(place: Place, group: Group, seen: Survey | None) -> ExplainedStep:
    step, operation = place.step, OPERATIONS[place.step.spec.operation]
    statements = operation.statements(place, step.spec.params)
    table = None if seen is None or step.table is None else seen.catalog.table(step.table)
    stage = place.plan.stage(step.stage)
    return ExplainedStep(
        stage=step.stage,
        phase="" if stage is None else stage.phase.value,
        step=step.spec.title,
        operation=step.spec.operation,
        table=step.table or "",
        statements=statements,
        locks=operation.locks(place, step.spec.params),
        workers=group.workers,
        why_alone=group.why_alone,
        is_instant=all(s.kind in (Kind.WINDOW, Kind.WRITE) for s in statements),
        is_done=seen is not None and step.key in seen.done,
        rows=None if table is None else table.rows_estimate,
        bytes=None if table is None else table.bytes + table.index_bytes,
    )
