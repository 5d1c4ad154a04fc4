"""Walks stages, and the steps of each, one after the other or by a crew; a connection that is lost is regained in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg

from online_migrate.clock import Clock, Signal
from online_migrate.engine.executor import StepExecutor
from online_migrate.engine.groups import Group, Part, groups_of
from online_migrate.engine.lock_retry import LockRetry
from online_migrate.engine.secrets import Secrets
from online_migrate.engine.sessions import Sessions, translating_errors
from online_migrate.engine.workers import WorkerContext, WorkerPool
from online_migrate.errors import (
    ConnectionFailed,
    GateClosed,
    Interrupted,
    LeaseLost,
)
from online_migrate.events import (
    Event,
    GateApproved,
    GateWaiting,
    Note,
    Sink,
    StageEnded,
    StageStarted,
)
from online_migrate.journal.lease import Lease
from online_migrate.journal.records import StageRecord
from online_migrate.journal.states import StageState, StepState
from online_migrate.journal.store import Journal
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.expand import expand
from online_migrate.plan.model import Plan, Stage, Step
from online_migrate.postgres.standbys import Standbys
from online_migrate.run import take_stop

LOOK_FOR_STOP_EVERY_S = 1.0


@dataclass(slots=True, kw_only=True)
class Walk:
    """From the first step that is open to the last, or to where it is stopped; the journal says which are open."""

    plan: Plan
    run_id: int
    sessions: Sessions
    lease: Lease
    clock: Clock
    signal: Signal
    sink: Sink
    secrets: Secrets
    show_secret: Callable[[str, str], str]
    failed: Step | None = field(init=False, default=None)
    """the step that ended the run; others that had begun were stopped on its account, or wait for their second part"""
    _standbys: Standbys = field(init=False)
    _patience: LockRetry = field(init=False)
    _taker: StepExecutor = field(init=False)
    _stop_looked_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._standbys = Standbys(connector=self.sessions.connector, names=self.plan.locks.standbys)
        self._patience = LockRetry(
            sessions=self.sessions,
            schema=self.plan.schema,
            lock_wait_s=self.plan.locks.lock_wait,
            clock=self.clock,
        )
        self._taker = StepExecutor(
            plan=self.plan,
            run_id=self.run_id,
            sessions=self.sessions,
            lease=self.lease,
            clock=self.clock,
            sink=self.sink,
            secrets=self.secrets,
            show_secret=self.show_secret,
            ensure_going=self._ensure_going,
            is_stop_asked=self._is_stop_asked,
            standbys=self._standbys,
        )

    def to(self, last: str | None) -> bool:
        """Walk through the stage of that name, or to the end; True when nothing is left.

        Raises what ends a run: a closed gate, a stop, an error of ours.  Errors of psycopg do not come out.
        """
        try:
            for stage in self.plan.stages:
                self._with_reconnect(partial(self._walk_stage, stage), stage.name)
                if stage.name == last and stage is not self.plan.stages[-1]:
                    return False
            return True
        finally:
            self._standbys.close()

    def _walk_stage(self, stage: Stage) -> None:
        began = self.clock.monotonic()
        record = self.journal.read_stage(self.run_id, stage.name)
        assert record is not None  # the run froze its stages in the journal
        if record.state is StageState.DONE and not self._has_open_steps(stage):
            return
        self._pass_gate(stage, record)
        self.journal.set_stage(self.run_id, stage.name, StageState.RUNNING)
        self._emit(StageStarted, stage=stage.name, phase=stage.phase.value)
        steps = expand(self.plan, self.journal.read_tables(self.run_id), OPERATIONS)
        for group in groups_of(stage, steps, lambda s: self._taker.place(s, steps, self._context_of_worker)):
            self._take_all(stage, group, steps)
        self.journal.set_stage(self.run_id, stage.name, StageState.DONE)
        self._emit(StageEnded, stage=stage.name, seconds=self.clock.monotonic() - began)

    def _has_open_steps(self, stage: Stage) -> bool:
        return any(
            r.stage == stage.name and r.state is not StepState.DONE
            for r in self.journal.read_steps(self.run_id)
        )

    def _pass_gate(self, stage: Stage, record: StageRecord) -> None:
        if stage.gate is None or record.started_at is not None:
            return
        run = self.journal.read_run(self.plan.name)
        given = self.journal.read_approvals(self.plan.name, None if run is None else run.started_at)
        if stage.name not in given:
            self.journal.set_stage(self.run_id, stage.name, StageState.WAITING, stage.gate.approval)
            self._emit(GateWaiting, stage=stage.name, approval=stage.gate.approval)
            raise GateClosed(
                f"stage {stage.name} waits at its gate: {stage.gate.approval}",
                remedy=f"when that is true: online-migrate approve {self.plan.path} {stage.name}, then run the same command again",
            )
        self._emit(GateApproved, stage=stage.name, approved_by=given[stage.name].approved_by)

    def _with_reconnect(self, work: Callable[[], None], what: object) -> None:
        self.sessions.with_reconnect(work, self.lease.fence.sql, str(what))

    # which steps

    def _take_all(self, stage: Stage, group: Group, steps: tuple[Step, ...]) -> None:
        """Each step for itself is tried anew after a loss; a crew's together."""
        self._taker.forget()
        if group.workers == 1:
            for part in group.parts:
                for step in group.steps:
                    self._with_reconnect(partial(self._take_alone, stage, steps, step, part), step)
        else:
            self._with_reconnect(partial(self._take_side_by_side, stage, group, steps), group.steps[0])

    def _take_alone(self, stage: Stage, steps: tuple[Step, ...], step: Step, part: Part) -> None:
        self.failed = step
        self._with_lock_retry(stage, steps, step, self._context_of_worker, part)
        self.failed = None

    def _take_side_by_side(self, stage: Stage, group: Group, steps: tuple[Step, ...]) -> None:
        """All the passes, then all that is left of each: a proof's snapshot would keep the others' pages from being pruned."""
        self._taker.forget()
        ordered = self._largest_first(group.steps)
        crew = WorkerPool(signal=self.signal, shared=(self.sessions.watch,))
        self.failed = None
        try:
            with self.sessions.workers(min(group.workers, len(ordered)), self._report_fewer) as sessions:
                for part in group.parts:
                    take = partial(self._in_crew, stage, steps, part=part)
                    crew.run(take, ordered, sessions)
        finally:
            self.failed = crew.failed

    def _with_lock_retry(
        self, stage: Stage, steps: tuple[Step, ...], step: Step, worker: WorkerContext, part: Part
    ) -> None:
        self._patience.take(
            partial(self._taker.take, stage, steps, step, worker, part),
            step.table,
            partial(self._taker.emit, step=step),
            partial(self._ensure_going, step, worker.signal),
            worker.signal,
        )

    def _in_crew(
        self, stage: Stage, steps: tuple[Step, ...], step: Step, worker: WorkerContext, part: Part
    ) -> None:
        """Other errors than a loss are told with the step where they came up: the group has several."""
        with translating_errors(step):
            try:
                self._with_lock_retry(stage, steps, step, worker, part)
            except psycopg.errors.QueryCanceled as error:
                if not worker.signal.is_aborting:
                    raise
                raise Interrupted(f"{step}: cancelled: {worker.signal.reason}") from error

    def _largest_first(self, group: Iterable[Step]) -> list[Step]:
        """Those that are open, by the planner's figures, which no lock is in the way of: the longest begins first, so that it
        does not run on alone at the end.
        """
        done = {r.key for r in self.journal.read_steps(self.run_id) if r.state is StepState.DONE}
        rows = self.sessions.work.execute(
            "SELECT c.relname, c.relpages FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s",
            [self.plan.schema],
        ).fetchall()
        pages: dict[str | None, int] = dict(rows)
        return sorted((s for s in group if s.key not in done), key=lambda s: -pages.get(s.table, 0))

    def _report_fewer(self, sessions: int, error: ConnectionFailed) -> None:
        self._emit(
            Note,
            message=f"fewer workers than the plan has, {sessions} at work: {error}; {error.remedy}",
            is_warning=True,
        )

    @property
    def _context_of_worker(self) -> WorkerContext:
        """That of the only worker."""
        return WorkerContext(work=self.sessions.work, signal=self.signal)

    @property
    def journal(self) -> Journal:
        """The journal, on the session that is open now."""
        return Journal(self.sessions.journal, self.lease.fence)

    # stopping

    def _ensure_going(self, step: Step, signal: Signal) -> None:
        if self.lease.lost:
            raise LeaseLost(self.lease.lost)
        if signal.is_stopping or self._is_stop_asked():
            raise Interrupted(f"stopped before {step}: {signal.reason}")

    def _is_stop_asked(self) -> bool:
        now = self.clock.monotonic()
        if now - self._stop_looked_at < LOOK_FOR_STOP_EVERY_S:
            return False
        self._stop_looked_at = now
        who = take_stop(self.sessions.journal, plan=self.plan.name)
        if who is not None:
            self.signal.stop(f"asked for by {who}")
        return who is not None

    def _emit(self, event_type: type[Event], **fields: Any) -> None:
        self.sink.emit(event_type(**fields))
