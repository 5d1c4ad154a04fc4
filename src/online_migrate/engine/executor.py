"""Executes one step, as transitions.py decides, and writes to the journal what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from online_migrate.backfill.throttlers import Throttles
from online_migrate.engine.groups import Part
from online_migrate.engine.transitions import Action, decide_action
from online_migrate.errors import Conflict, PreflightFailed, VerificationFailed
from online_migrate.events import Event, StepEnded, StepStarted
from online_migrate.journal.states import StepState
from online_migrate.operations.contract.base import Context, Operation, Place
from online_migrate.operations.contract.effects import PlanEffects
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.plan.model import Stage, Step
from online_migrate.postgres.catalog import Catalog
from online_migrate.run import RunContext, WorkerContext


@dataclass(slots=True, kw_only=True)
class StepExecutor:
    """Takes the steps of one run; several workers may call it at once."""

    run: RunContext
    throttles: Throttles = field(default_factory=Throttles)
    """of all backfills of this run"""
    _began_at: dict[tuple[str, str, str], float] = field(init=False, default_factory=dict)
    """when the steps of this group began"""
    _effects: PlanEffects = field(init=False, default_factory=PlanEffects)
    """of the steps that were asked for last"""

    def forget(self) -> None:
        """Start another group of steps, or the same one again after a lost connection."""
        self._began_at.clear()

    def take(
        self, stage: Stage, steps: tuple[Step, ...], step: Step, worker: WorkerContext, part: Part
    ) -> None:
        """Do the step, or that part of it, unless it is done.  Raises what ends a run, and psycopg.Error."""
        self.run.ensure_going(worker.signal, f"before {step}")
        record = self.run.journal.read_step(self.run.run_id, step.key)
        assert record is not None  # the run froze its steps in the journal
        if record.state is StepState.DONE:
            return
        operation = OPERATIONS[step.spec.operation]
        place = self.place(step, steps, worker)
        self._ensure_table(step, place)
        action = decide_action(record.state, operation.state(place, step.spec.params))
        if action is Action.STOP:
            raise self._conflict(step, operation, place)
        if action is Action.ADOPT:
            self._finish(step, "adopted", began=self.run.clock.monotonic(), rows=record.rows_done)
        else:
            if part is not Part.FINISH or step.key not in self._began_at:
                self._begin(step, is_resumed=action is Action.RESUME)
            context = self._context(stage, place, worker)
            if part is Part.PASS:
                operation.execute_pass(context, step.spec.params)
            else:
                self._execute(operation, context)

    def _conflict(self, step: Step, operation: Operation[Any], place: Place) -> Conflict:
        found = operation.preflight(place, step.spec.params)
        facts = "; ".join(f.fact for f in found) or "an object of that name exists with another definition"
        remedy = "; ".join(dict.fromkeys(f.remedy for f in found if f.remedy)) or "fix it"
        return Conflict(f"{step}: {facts}", remedy=f"{remedy}; then run the same command again")

    def _begin(self, step: Step, *, is_resumed: bool) -> None:
        self.run.journal.set_step(self.run.run_id, step.key, StepState.RUNNING)
        self.emit(StepStarted, step, resumed=is_resumed)
        self._began_at[step.key] = self.run.clock.monotonic()

    def _execute(self, operation: Operation[Any], context: Context) -> None:
        step, place = context.step, context.place
        rows = operation.execute(context, step.spec.params)
        fresh = replace(place, catalog=Catalog(context.work, place.schema))
        left = operation.verify(fresh, step.spec.params) if operation.is_verified_at_once else []
        if left:
            raise VerificationFailed(
                f"{step} was executed, but: {'; '.join(f.fact for f in left)}",
                remedy=f"{left[0].remedy}; then run the same command again",
            )
        self._finish(step, "done", began=self._began_at[step.key], rows=rows)

    def _finish(self, step: Step, outcome: str, *, began: float, rows: int) -> None:
        self.run.journal.set_step(self.run.run_id, step.key, StepState.DONE, rows_done=rows)
        self.emit(StepEnded, step, outcome=outcome, seconds=self.run.clock.monotonic() - began, rows=rows)

    # what a step gets

    def place(self, step: Step, steps: tuple[Step, ...], worker: WorkerContext) -> Place:
        """The plan and the database as the step finds them."""
        return Place(
            plan=self.run.plan,
            step=step,
            catalog=Catalog(worker.work, self.run.plan.schema),
            references=self.run.journal.read_references(self.run.run_id),
            journal=self.run.journal,
            run_id=self.run.run_id,
            effects=self._effects_of(steps),
        )

    def _effects_of(self, steps: tuple[Step, ...]) -> PlanEffects:
        """Made once for all steps: there may be thousands."""
        if self._effects.steps != steps:
            self._effects = effects_of(self.run.plan, steps)
        return self._effects

    def _context(self, stage: Stage, place: Place, worker: WorkerContext) -> Context:
        return Context(
            run=self.run,
            worker=worker,
            key=place.step.key,
            place=place,
            pace=stage.pace,
            hold_when=stage.hold_when,
            throttles=self.throttles,
        )

    def _ensure_table(self, step: Step, place: Place) -> None:
        if step.table is None or place.creates_table:
            return
        if place.known.table(step.table) is None:
            remedy = "restore it, or take it out of the plan and run with --accept-changed-plan"
            raise PreflightFailed(
                f"{step}: table {self.run.plan.schema}.{step.table} does not exist", remedy=remedy
            )

    def emit(self, event_type: type[Event], step: Step, **fields: Any) -> None:
        """An event of the step."""
        stage, title, table = step.key
        self.run.sink.emit(event_type(stage=stage, step=title, table=table, **fields))
