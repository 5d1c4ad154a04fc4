"""One step, as transitions.py decides: what it gets, what it is told, what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from online_migrate.backfill.throttlers import Throttles
from online_migrate.clock import Clock, Signal
from online_migrate.engine.groups import Part
from online_migrate.engine.secrets import Secrets
from online_migrate.engine.sessions import Sessions
from online_migrate.engine.transitions import Action, decide_action
from online_migrate.engine.workers import WorkerContext
from online_migrate.errors import Conflict, OnlineMigrateError, PreflightFailed
from online_migrate.events import Event, Sink, StepEnded, StepStarted
from online_migrate.journal.lease import Lease
from online_migrate.journal.states import StepState
from online_migrate.journal.store import Journal
from online_migrate.operations.contract.base import Context, Operation, Place
from online_migrate.operations.contract.effects import PlanEffects
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.plan.model import Plan, Stage, Step
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.ladder import Exposure
from online_migrate.postgres.standbys import Standbys


@dataclass(slots=True, kw_only=True)
class StepExecutor:
    """Takes the steps of one run, of a crew's workers several at once."""

    plan: Plan
    run_id: int
    sessions: Sessions
    lease: Lease
    clock: Clock
    sink: Sink
    secrets: Secrets
    show_secret: Callable[[str, str], str]
    ensure_going: Callable[[Step, Signal], None]
    """raises where the run is to stop"""
    is_stop_asked: Callable[[], bool]
    standbys: Standbys
    exposure: Exposure = field(default_factory=Exposure)
    """of all lock windows of this run"""
    throttles: Throttles = field(default_factory=Throttles)
    """of all backfills of this run"""
    _begun: dict[tuple[str, str, str], float] = field(init=False, default_factory=dict)
    """when the steps of this group began"""
    _effects: PlanEffects = field(init=False, default_factory=PlanEffects)
    """of the steps that were asked for last"""

    def forget(self) -> None:
        """Another group of steps, or the same one after a loss: all of it is told anew."""
        self._begun.clear()

    def take(
        self, stage: Stage, steps: tuple[Step, ...], step: Step, worker: WorkerContext, part: Part
    ) -> None:
        """Do it, or that part of it, unless it is done.  Raises what ends a run, and errors of psycopg."""
        self.ensure_going(step, worker.signal)
        record = self.journal.read_step(self.run_id, step.key)
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
            self._finish(step, "adopted", began=self.clock.monotonic(), rows=record.rows_done)
        else:
            if part is not Part.SETTLE or step.key not in self._begun:
                self._begin(step, is_resumed=action is Action.RESUME)
            context = self._context(stage, place, worker)
            if part is Part.PASS:
                operation.execute_pass(context, step.spec.params)
            else:
                self._execute(operation, context)

    def _conflict(self, step: Step, operation: Operation[Any], place: Place) -> Conflict:
        found = operation.preflight(place, step.spec.params)
        facts = "; ".join(f.fact for f in found) or "something of that name is there with another definition"
        remedy = "; ".join(dict.fromkeys(f.remedy for f in found if f.remedy)) or "mend it"
        return Conflict(f"{step}: {facts}", remedy=f"{remedy}; then run the same command again")

    def _begin(self, step: Step, *, is_resumed: bool) -> None:
        self.journal.set_step(self.run_id, step.key, StepState.RUNNING)
        self.emit(StepStarted, step, resumed=is_resumed)
        self._begun[step.key] = self.clock.monotonic()

    def _execute(self, operation: Operation[Any], context: Context) -> None:
        step, place = context.step, context.place
        rows = operation.execute(context, step.spec.params)
        fresh = replace(place, catalog=Catalog(context.work, place.schema))
        left = operation.verify(fresh, step.spec.params) if operation.is_verified_at_once else []
        if left:
            raise OnlineMigrateError(
                f"{step} was executed, but: {'; '.join(f.fact for f in left)}", remedy=left[0].remedy
            )
        self._finish(step, "done", began=self._begun[step.key], rows=rows)

    def _finish(self, step: Step, outcome: str, *, began: float, rows: int) -> None:
        self.journal.set_step(self.run_id, step.key, StepState.DONE, rows_done=rows)
        self.emit(StepEnded, step, outcome=outcome, seconds=self.clock.monotonic() - began, rows=rows)

    # what a step gets

    def place(self, step: Step, steps: tuple[Step, ...], worker: WorkerContext) -> Place:
        """Where the step works."""
        return Place(
            plan=self.plan,
            step=step,
            catalog=Catalog(worker.work, self.plan.schema),
            references=self.journal.read_references(self.run_id),
            journal=self.journal,
            run_id=self.run_id,
            effects=self._effects_of(steps),
        )

    def _effects_of(self, steps: tuple[Step, ...]) -> PlanEffects:
        """Made once for all steps: there may be thousands."""
        if self._effects.steps != steps:
            self._effects = effects_of(self.plan, steps)
        return self._effects

    def _context(self, stage: Stage, place: Place, worker: WorkerContext) -> Context:
        return Context(
            place=place,
            work=worker.work,
            watch=self.sessions.watch,
            journal=self.journal,
            run_id=self.run_id,
            fence=self.lease.fence,
            locks=self.plan.locks,
            pace=stage.pace,
            hold_when=stage.hold_when,
            sink=self.sink,
            clock=self.clock,
            signal=worker.signal,
            secrets=self.secrets.value,
            show_secret=self.show_secret,
            is_stop_asked=self.is_stop_asked,
            exposure=self.exposure,
            standbys=self.standbys,
            throttles=self.throttles,
            share=worker.share,
        )

    @property
    def journal(self) -> Journal:
        """The journal, on the session that is open now."""
        return Journal(self.sessions.journal, self.lease.fence)

    def _ensure_table(self, step: Step, place: Place) -> None:
        if step.table is None or place.creates_table:
            return
        if place.known.table(step.table) is None:
            remedy = "restore it, or take it out of the plan and run with --accept-changed-plan"
            raise PreflightFailed(f"{step}: table {self.plan.schema}.{step.table} is gone", remedy=remedy)

    def emit(self, event_type: type[Event], step: Step, **fields: Any) -> None:
        """An event of the step."""
        stage, title, table = step.key
        self.sink.emit(event_type(stage=stage, step=title, table=table, **fields))
