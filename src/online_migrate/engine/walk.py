"""Walks the stages of a plan, and the steps of each, in order or by several workers at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import psycopg

from online_migrate.backfill.throttlers import Throttles
from online_migrate.engine.drift import fact_lines, find_drift
from online_migrate.engine.executor import StepExecutor
from online_migrate.engine.groups import Group, Part, groups_of
from online_migrate.engine.late_partitions import steps_of, take_late_partitions
from online_migrate.engine.lock_retry import LockRetry
from online_migrate.engine.survey import survey
from online_migrate.engine.workers import WorkerPool
from online_migrate.errors import (
    ConnectionFailed,
    GateClosed,
    Interrupted,
    OnlineMigrateError,
    VerificationFailed,
)
from online_migrate.events import GateApproved, GateWaiting, Note, StageEnded, StageStarted
from online_migrate.findings import Finding
from online_migrate.journal.records import StageRecord
from online_migrate.journal.sessions import translating_errors
from online_migrate.journal.states import StageState, StepState
from online_migrate.plan.model import Stage, Step
from online_migrate.run import RunContext, WorkerContext


@dataclass(slots=True, kw_only=True)
class Walk:
    """Takes what the journal says is open, from the first step to the last or to where the run is stopped.

    :meth:`to` may be called again after a lost connection: each call starts at the first step that is open in
    the journal, which a failover may have made older than our memory.
    """

    run: RunContext
    failed: Step | None = field(init=False, default=None)
    """the step that ended the run; others that had begun were stopped because of it, or wait for their second
    part"""
    where: str = field(init=False, default="the journal")
    """the stage, or the step, that the walk is at"""
    _lock_retry: LockRetry = field(init=False)
    _executor: StepExecutor = field(init=False)
    _began_at: dict[str, float] = field(init=False, default_factory=dict)
    """when this process began a stage: a stage that is walked again after a lost connection is no news"""

    def __post_init__(self) -> None:
        self._lock_retry = LockRetry(run=self.run)
        self._executor = StepExecutor(run=self.run, throttles=Throttles(self.run.steering.dismissals))

    def to(self, last: str | None) -> bool:
        """Walk through the stage of that name, or to the end; True if nothing is left.

        Raises what ends a run: a closed gate, a stop, an error of ours; and psycopg.Error for a lost
        connection.
        """
        self.failed, self.where = None, "the journal"
        stages = self.run.plan.stages
        try:
            for stage in stages:
                if take_late_partitions(self.run):
                    return self.to(last)
                self._walk_stage(stage)
                if stage.name == last and stage is not stages[-1]:
                    return False
            return True
        finally:
            self.run.standbys.close()

    def _walk_stage(self, stage: Stage) -> None:
        journal, run_id = self.run.journal, self.run.run_id
        record = journal.read_stage(run_id, stage.name)
        assert record is not None  # the run froze its stages in the journal
        if record.state is StageState.DONE and not self._open_steps(stage):
            return
        self.where = stage.name
        self.run.ensure_going(self.run.signal, f"before stage {stage.name}")
        self._pass_gate(stage, record)
        journal.set_stage(run_id, stage.name, StageState.RUNNING)
        if stage.name not in self._began_at:
            self._began_at[stage.name] = self.run.clock.monotonic()
            self.run.emit(StageStarted, stage=stage.name, phase=stage.phase.value)
        steps = steps_of(self.run)
        for group in groups_of(stage, steps, lambda s: self._executor.place(s, steps, self._only_worker)):
            self._take_all(stage, group, steps)
        self.where = stage.name
        self._end_stage(stage)

    def _end_stage(self, stage: Stage) -> None:
        """Only the journal says that a stage is done."""
        if not self.run.journal.finish_stage(self.run.run_id, stage.name):
            steps = ", ".join(" / ".join(filter(None, key)) for key in self._open_steps(stage))
            raise OnlineMigrateError(f"stage {stage.name} has steps that the journal has as open: {steps}")
        seconds = self.run.clock.monotonic() - self._began_at[stage.name]
        self.run.emit(StageEnded, stage=stage.name, seconds=seconds)

    def _open_steps(self, stage: Stage) -> tuple[tuple[str, str, str], ...]:
        steps = self.run.journal.read_steps(self.run.run_id)
        return tuple(s.key for s in steps if s.stage == stage.name and s.state is not StepState.DONE)

    def _pass_gate(self, stage: Stage, record: StageRecord) -> None:
        if stage.gate is None or record.started_at is not None:
            return
        self._ensure_no_drift(stage)
        journal, plan = self.run.journal, self.run.plan
        given = journal.pass_gate(self.run.run_id, plan.name, stage.name)
        if given is None:
            journal.set_stage(self.run.run_id, stage.name, StageState.WAITING, stage.gate.approval)
            self.run.emit(GateWaiting, stage=stage.name, approval=stage.gate.approval)
            raise GateClosed(
                f"stage {stage.name} waits at its gate: {stage.gate.approval}",
                remedy=f"when that is true: online-migrate approve {plan.path} {stage.name},"
                " then run the same command again",
            )
        self.run.emit(
            GateApproved,
            stage=stage.name,
            approved_by=given.approved_by,
            approval=stage.gate.approval,
        )

    def _ensure_no_drift(self, stage: Stage) -> None:
        """A stage behind a gate may have no rollback: what finished steps made must
        still be what they made.
        """
        found: list[Finding] = []

        def look() -> None:
            found[:] = find_drift(survey(self.run.plan, self.run.sessions.work))

        emit, signal = partial(self.run.emit, stage=stage.name), self.run.signal
        ensure_going = partial(self.run.ensure_going, signal, f"before stage {stage.name}")
        self._lock_retry.take(look, None, emit, ensure_going, signal)
        if found:
            raise VerificationFailed(
                f"finished steps have changed since; stage {stage.name} was not started:\n"
                f"{fact_lines(found)}",
                remedy="fix each of these, then run the same command again",
            )

    # which steps

    def _take_all(self, stage: Stage, group: Group, steps: tuple[Step, ...]) -> None:
        self._executor.forget()
        if group.workers > 1:
            self._take_side_by_side(stage, group, steps)
            return
        for part in group.parts:
            for step in group.steps:
                self._take_alone(stage, steps, step, part)

    def _take_alone(self, stage: Stage, steps: tuple[Step, ...], step: Step, part: Part) -> None:
        self.failed, self.where = step, str(step)
        with translating_errors(step.__str__):
            self._take_with_retry(stage, steps, step, self._only_worker, part)
        self.failed = None

    def _take_side_by_side(self, stage: Stage, group: Group, steps: tuple[Step, ...]) -> None:
        """First all passes, then the rest of each: a proof's snapshot would keep the other tables from being
        pruned.
        """
        self.where = str(group.steps[0])
        ordered = self._largest_first(group.steps)
        pool = WorkerPool(signal=self.run.signal, shared=(self.run.sessions.watch,))
        self.failed = None
        try:
            count = min(group.workers, len(ordered))
            with self.run.sessions.workers(count, self._report_fewer) as sessions:
                for part in group.parts:
                    take = partial(self._take_in_pool, stage, steps, part=part)
                    pool.run(take, ordered, sessions)
        finally:
            self.failed = pool.failed

    def _take_with_retry(
        self, stage: Stage, steps: tuple[Step, ...], step: Step, worker: WorkerContext, part: Part
    ) -> None:
        with self.run.steering.at_work():
            self._lock_retry.take(
                partial(self._executor.take, stage, steps, step, worker, part),
                step.table,
                partial(self._executor.emit, step=step),
                partial(self.run.ensure_going, worker.signal, f"before {step}"),
                worker.signal,
            )

    def _take_in_pool(
        self, stage: Stage, steps: tuple[Step, ...], step: Step, worker: WorkerContext, part: Part
    ) -> None:
        """An error is raised with the name of the step that met it: the group has several."""
        with translating_errors(step.__str__):
            try:
                self._take_with_retry(stage, steps, step, worker, part)
            except psycopg.errors.QueryCanceled as error:
                if not worker.signal.is_aborting:
                    raise
                raise Interrupted(f"{step}: cancelled: {worker.signal.reason}") from error

    def _largest_first(self, group: Iterable[Step]) -> list[Step]:
        """Those that are open, by the planner's figures, which no lock hides: the longest begins first, so
        that it does not run alone at the end.
        """
        records = self.run.journal.read_steps(self.run.run_id)
        done = {r.key for r in records if r.state is StepState.DONE}
        rows = self.run.sessions.work.execute(
            "SELECT c.relname, c.relpages FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s",
            [self.run.plan.schema],
        ).fetchall()
        pages: dict[str | None, int] = dict(rows)
        return sorted(
            (s for s in group if s.key not in done), key=lambda s: -pages.get(s.partition or s.table, 0)
        )

    def _report_fewer(self, sessions: int, error: ConnectionFailed) -> None:
        self.run.emit(
            Note,
            message=f"only {sessions} workers, fewer than the plan has: {error}; {error.remedy}",
            is_warning=True,
        )

    @property
    def _only_worker(self) -> WorkerContext:
        return WorkerContext(work=self.run.sessions.work, signal=self.run.signal)
