"""redo: reopen finished steps whose objects were changed or dropped; the next run repeats them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from online_migrate.clock import Clock, Signal
from online_migrate.engine.changed_steps import find_changed_steps
from online_migrate.engine.drift import verify_step
from online_migrate.engine.survey import Survey, survey
from online_migrate.errors import UsageError
from online_migrate.events import StepReopened
from online_migrate.journal.commit_waits import reporting_commits
from online_migrate.journal.lease import Lease
from online_migrate.journal.store import Journal
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Plan, Step
from online_migrate.postgres.connection import Connector


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator names: a step's title, or the name of its operation, and where."""

    step: str
    stage: str | None = None
    table: str | None = None

    def __str__(self) -> str:
        stage = "" if self.stage is None else f" in stage {self.stage}"
        return f"{self.step!r}{stage}{'' if self.table is None else f' on {self.table}'}"

    def is_meant(self, step: Step) -> bool:
        return (
            self.step in (step.spec.title, step.spec.title.partition(" ")[0])
            and self.stage in (None, step.stage)
            and self.table in (None, step.table, step.key[2])
        )


def redo(
    plan: Plan,
    connector: Connector,
    wanted: Wanted,
    *,
    by: str,
    note: str,
    clock: Clock,
    emit: Callable[..., None],
) -> tuple[Step, ...]:
    """Reopen the steps, with who asked in the journal's history; returns them.

    Only steps whose objects differ from what they made, or that the plan now defines otherwise; a step that
    is proven by a scan of rows, in any case.
    Raises :class:`UsageError` where there is no such step, and :class:`LeaseLost` while a runner works.
    """
    with connector.open("redo") as connection:
        _meant(survey(plan, connection), wanted)  # a wrong name is refused without waiting for the lease
        lease = Lease(connector, clock, Signal(), plan.name, emit=emit)
        try:
            fence = lease.acquire()
            seen = survey(plan, connection)
            steps = _changed(seen, _meant(seen, wanted))
            journal = Journal(connection, fence)
            with reporting_commits(connector, emit, clock, connection):
                for step in steps:
                    journal.reopen_step(_run_id(seen), step.key, StepReopened(by=by, note=note))
            return steps
        finally:
            lease.release()


def _run_id(seen: Survey) -> int:
    if seen.run_id is None:
        raise UsageError(
            f"there is no run of plan {seen.plan.name} in this database",
            remedy=f"start one: online-migrate run {seen.plan.path}",
        )
    return seen.run_id


def _meant(seen: Survey, wanted: Wanted) -> tuple[Step, ...]:
    _run_id(seen)
    named = [s for s in seen.steps if wanted.is_meant(s)]
    if not named:
        done = dict.fromkeys(s.spec.title for s in seen.steps if s.key in seen.done)
        raise UsageError(
            f"the plan has no step {wanted}",
            remedy=f"its finished steps: {', '.join(done) or 'none'}",
        )
    finished = tuple(s for s in named if s.key in seen.done)
    if not finished:
        raise UsageError(
            f"{named[0]} is not done", remedy=f"the next run does it: online-migrate run {seen.plan.path}"
        )
    return finished


def _changed(seen: Survey, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    in_plan = {found.key for found in find_changed_steps(seen)}
    changed = tuple(
        s
        for s in steps
        if s.key in in_plan
        or not OPERATIONS[s.spec.operation].is_verified_at_once
        or verify_step(seen.place(s))
    )
    if not changed:
        raise UsageError(
            f"{steps[0]} is as the step made it: there is nothing to do again",
            remedy=f"compare all finished steps: online-migrate verify {seen.plan.path}",
        )
    return changed
