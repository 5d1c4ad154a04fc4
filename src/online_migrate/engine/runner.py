"""Walks stages and steps: check, lease, then each step as transitions.py decides; keeps the state on whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import psycopg

from online_migrate.clock import Clock, Signal
from online_migrate.control import take_stop
from online_migrate.engine.check import Survey, check, is_stopping, survey
from online_migrate.engine.secrets import Secrets
from online_migrate.engine.sessions import Sessions
from online_migrate.engine.transitions import Action, decide_action
from online_migrate.errors import (
    Conflict,
    GateClosed,
    Interrupted,
    LeaseLost,
    OnlineMigrateError,
    PlanChanged,
    PreflightFailed,
)
from online_migrate.events import (
    Event,
    GateApproved,
    GateWaiting,
    RunEnded,
    RunStarted,
    Sink,
    StageEnded,
    StageStarted,
    StepEnded,
    StepFailed,
    StepStarted,
)
from online_migrate.journal.lease import Lease, whoami
from online_migrate.journal.store import Journal, RunRecord, approve, ensure_schema
from online_migrate.operations.base import Context, Finding, Operation, Place, Severity
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.expand import expand
from online_migrate.plan.model import Plan, Stage, Step, changes_between
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.connection import Connector, ensure_supported
from online_migrate.postgres.sqlstate import Trouble, trouble_of

LOOK_FOR_STOP_EVERY_S = 1.0
_WORD = {0: "done", 75: "gate", 130: "interrupted"}
_RUN_STATE = {75: "waiting", 130: "stopped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator said on the command line."""

    through: str | None = None
    """stop after this stage"""
    approve: Collection[str] = ()
    accept_changed_plan: bool = False


@dataclass(slots=True, kw_only=True)
class Runner:
    """One run of one plan on one database.  :meth:`run` returns when done, or where it was asked to stop; else it raises
    an :class:`OnlineMigrateError` whose exit code says why, with the state kept.
    """

    plan: Plan
    connector: Connector
    clock: Clock
    signal: Signal
    sink: Sink
    secrets: Secrets
    show_secret: Callable[[str, str], str]
    options: Options = field(default_factory=Options)
    on_findings: Callable[[list[Finding]], None] = lambda _: None
    on_begun: Callable[[int], None] = lambda _: None
    """told the run's id once the journal has it"""
    _sessions: Sessions = field(init=False)
    _lease: Lease = field(init=False)
    _run_id: int = field(init=False, default=0)
    _stop_looked_at: float = field(init=False, default=0.0)

    def run(self) -> None:
        began = self.clock.monotonic()
        self._ensure_stages_named()
        self._sessions = Sessions(
            connector=self.connector, signal=self.signal, emit=self._emit, monotonic=self.clock.monotonic
        )
        self._lease = Lease(self.connector, self.clock, self.signal, self.plan.name)
        code = 1
        try:
            self._begin()
            self._walk()
            code = 0
        except KeyboardInterrupt:
            code = 130
            raise Interrupted("cancelled", remedy=self._how_to_go_on()) from None
        except OnlineMigrateError as error:
            code = error.exit_code
            raise
        finally:
            self._emit(
                RunEnded,
                outcome=_WORD.get(code, "failed"),
                exit_code=code,
                seconds=self.clock.monotonic() - began,
            )
            self._sessions.close()
            self._lease.release()

    # beginning

    def _ensure_stages_named(self) -> None:
        for name in (*self.options.approve, *([self.options.through] if self.options.through else [])):
            if self.plan.stage(name) is None:
                stages = ", ".join(s.name for s in self.plan.stages)
                raise PreflightFailed(f"the plan has no stage {name}", remedy=f"its stages: {stages}")

    def _begin(self) -> None:
        """Check first, on a connection of its own: nothing is written while a finding stops us."""
        with self.connector.open("check") as connection:
            ensure_supported(connection.info.server_version)
            seen = survey(self.plan, connection)
            run = None if seen.journal is None else seen.journal.read_run(self.plan.name)
            self._ensure_same_plan(run)
            self._ensure_no_stop(seen, run)
            ensure_schema(connection)
        self._lease.acquire()
        self._sessions.open()
        self._open_run(seen)

    def _ensure_no_stop(self, seen: Survey, run: RunRecord | None) -> None:
        if run is not None and run.state == "done":
            return
        findings = check(seen, missing_secrets=self._missing_secrets(seen))
        self.on_findings(findings)
        if is_stopping(findings):
            stops = [f for f in findings if f.severity is Severity.STOP]
            kind = Conflict if any("conflict" in f.code for f in stops) else PreflightFailed
            facts = "\n".join(f"  - {f.fact}\n    → {f.remedy}" for f in stops)
            raise kind(
                f"the database is not ready for the plan; nothing was run:\n{facts}",
                remedy="mend each, then run the same command again",
            )

    def _missing_secrets(self, seen: Survey) -> tuple[str, ...]:
        """Secrets matter only until the rows that hold them are there."""
        is_needed = any(s.spec.operation == "ensure_row" and s.key not in seen.done for s in seen.steps)
        return self.secrets.missing() if is_needed else ()

    def _ensure_same_plan(self, run: RunRecord | None) -> None:
        if run is None or run.fingerprint == self.plan.fingerprint() or self.options.accept_changed_plan:
            return
        remedy = "put the plan back as it was, or run with --accept-changed-plan: steps that are done stay done, new ones are run in their order"
        raise PlanChanged(changes_between(run.parts, self.plan.parts()), remedy=remedy)

    def _open_run(self, seen: Survey) -> None:
        """Go on with the plan's run, or begin one; its sets and steps are frozen here."""
        journal = self._journal
        run = journal.read_run(self.plan.name)
        if run is None:
            self._run_id = journal.begin_run(self.plan, seen.sets, seen.steps)
        else:
            self._run_id = run.run_id
            if run.fingerprint != self.plan.fingerprint():
                journal.accept_plan(run.run_id, self.plan)
                journal.replace_steps(run.run_id, self.plan, seen.steps)
            journal.set_run(run.run_id, "running")
        take_stop(self._sessions.journal, plan=self.plan.name)
        for stage in self.options.approve:
            approve(
                self._sessions.journal,
                plan=self.plan.name,
                stage=stage,
                approved_by=whoami(),
                note="run --approve",
            )
        records = journal.read_steps(self._run_id)
        self.on_begun(self._run_id)
        self._emit(
            RunStarted,
            plan=self.plan.name,
            run_id=self._run_id,
            resumed=run is not None,
            steps_total=len(records),
            steps_done=sum(r.state == "done" for r in records),
        )

    # walking

    def _walk(self) -> None:
        try:
            sets = self._journal.read_tables(self._run_id)
            steps = expand(self.plan, sets, OPERATIONS)
            for stage in self.plan.stages:
                self._walk_stage(stage, steps)
                if stage.name == self.options.through and stage is not self.plan.stages[-1]:
                    self._journal.set_run(self._run_id, "stopped", f"through stage {stage.name}, as asked")
                    return
            self._journal.set_run(self._run_id, "done")
        except (OnlineMigrateError, KeyboardInterrupt) as error:
            self._keep(error)
            raise

    def _walk_stage(self, stage: Stage, steps: tuple[Step, ...]) -> None:
        began = self.clock.monotonic()
        record = next(r for r in self._journal.read_stages(self._run_id) if r.stage == stage.name)
        if record.state == "done" and not self._has_open_steps(stage):
            return
        self._pass_gate(stage, is_begun=record.started_at is not None)
        self._journal.set_stage(self._run_id, stage.name, "running")
        self._emit(StageStarted, stage=stage.name, phase=stage.phase.value)
        for step in steps:
            if step.stage == stage.name:
                self._take(stage, step, steps)
        self._journal.set_stage(self._run_id, stage.name, "done")
        self._emit(StageEnded, stage=stage.name, seconds=self.clock.monotonic() - began)

    def _has_open_steps(self, stage: Stage) -> bool:
        return any(
            r.stage == stage.name and r.state != "done" for r in self._journal.read_steps(self._run_id)
        )

    def _pass_gate(self, stage: Stage, *, is_begun: bool) -> None:
        if stage.gate is None or is_begun:
            return
        run = self._journal.read_run(self.plan.name)
        given = self._journal.read_approvals(self.plan.name, None if run is None else run.started_at).get(
            stage.name
        )
        if given is None:
            self._journal.set_stage(self._run_id, stage.name, "waiting", stage.gate.approval)
            self._emit(GateWaiting, stage=stage.name, approval=stage.gate.approval)
            raise GateClosed(
                f"stage {stage.name} waits at its gate: {stage.gate.approval}",
                remedy=f"when that is true: online-migrate approve {self.plan.path} {stage.name}, then run the same command again",
            )
        self._emit(GateApproved, stage=stage.name, approved_by=given.approved_by)

    def _take(self, stage: Stage, step: Step, steps: tuple[Step, ...]) -> None:
        """One step; after a lost connection the world is read again and the same step goes on."""
        while True:
            try:
                self._ensure_going(step)
                self._decide(stage, step, steps)
            except psycopg.Error as error:
                if trouble_of(error) not in (Trouble.LOST, Trouble.UNAVAILABLE):
                    raise self._refused(step, error) from error
                self._sessions.reopen()
                self._ensure_fence()
            else:
                return

    def _decide(self, stage: Stage, step: Step, steps: tuple[Step, ...]) -> None:
        record = next(r for r in self._journal.read_steps(self._run_id) if r.key == step.key)
        if record.state == "done":
            return
        operation = OPERATIONS[step.spec.operation]
        place = self._place(step, steps)
        self._ensure_table(step, place)
        action = decide_action(record.state, operation.state(place, step.spec.params))
        if action is Action.STOP:
            facts = (
                "; ".join(f.fact for f in operation.preflight(place, step.spec.params))
                or f"{step}: another definition is there"
            )
            raise Conflict(facts, remedy="mend it, then run the same command again")
        if action is Action.ADOPT:
            self._finish(step, "adopted", began=self.clock.monotonic(), rows=record.rows_done)
        else:
            self._execute(stage, step, operation, place, is_resumed=action is Action.RESUME)

    def _execute(
        self, stage: Stage, step: Step, operation: Operation[Any], place: Place, *, is_resumed: bool
    ) -> None:
        began = self.clock.monotonic()
        self._journal.set_step(self._run_id, step.key, "running")
        self._emit_step(StepStarted, step, resumed=is_resumed)
        rows = operation.execute(self._context(stage, place), step.spec.params)
        fresh = self._place(step, place.all_steps)
        left = operation.verify(fresh, step.spec.params) if operation.is_verified_at_once else []
        if left:
            raise OnlineMigrateError(
                f"{step} was executed, but: {'; '.join(f.fact for f in left)}", remedy=left[0].remedy
            )
        self._finish(step, "done", began=began, rows=rows)

    def _finish(self, step: Step, outcome: str, *, began: float, rows: int) -> None:
        self._journal.set_step(self._run_id, step.key, "done", rows_done=rows)
        self._emit_step(StepEnded, step, outcome=outcome, seconds=self.clock.monotonic() - began, rows=rows)

    # what a step gets

    def _place(self, step: Step, steps: tuple[Step, ...]) -> Place:
        return Place(
            plan=self.plan,
            step=step,
            catalog=Catalog(self._sessions.work, self.plan.schema),
            references=self._journal.read_references(self._run_id),
            journal=self._journal,
            run_id=self._run_id,
            all_steps=steps,
        )

    def _context(self, stage: Stage, place: Place) -> Context:
        return Context(
            place=place,
            work=self._sessions.work,
            watch=self._sessions.watch,
            journal=self._journal,
            run_id=self._run_id,
            fence=self._lease.fence,
            locks=self.plan.locks,
            pace=stage.pace,
            hold_when=stage.hold_when,
            sink=self.sink,
            clock=self.clock,
            signal=self.signal,
            secrets=self.secrets.value,
            show_secret=self.show_secret,
            is_stop_asked=self._is_stop_asked,
        )

    @property
    def _journal(self) -> Journal:
        return Journal(self._sessions.journal, self._lease.fence)

    # stopping

    def _ensure_going(self, step: Step) -> None:
        if self._lease.lost:
            raise LeaseLost(self._lease.lost)
        if self.signal.is_stopping or self._is_stop_asked():
            raise Interrupted(f"stopped before {step}: {self.signal.reason}")

    def _is_stop_asked(self) -> bool:
        now = self.clock.monotonic()
        if now - self._stop_looked_at < LOOK_FOR_STOP_EVERY_S:
            return False
        self._stop_looked_at = now
        who = take_stop(self._sessions.journal, plan=self.plan.name)
        if who is not None:
            self.signal.stop(f"asked for by {who}")
        return who is not None

    def _ensure_table(self, step: Step, place: Place) -> None:
        if step.table is None or step.spec.operation == "create_tables":
            return
        if place.known.table(step.table) is None:
            remedy = "restore it, or take it out of the plan and run with --accept-changed-plan"
            raise PreflightFailed(f"{step}: table {self.plan.schema}.{step.table} is gone", remedy=remedy)

    def _ensure_fence(self) -> None:
        """After every reconnect the epoch is read again: memory is never ahead of the journal."""
        try:
            self._sessions.journal.execute(self._lease.fence.sql)
        except psycopg.Error as error:
            if trouble_of(error) is Trouble.FENCE:
                raise LeaseLost(str(error.diag.message_primary)) from error
            raise

    def _refused(self, step: Step, error: psycopg.Error) -> OnlineMigrateError:
        """The server's answer in our words; DETAIL may hold rows, and is left out."""
        message = f"{step}: {error.diag.message_primary or error}"
        if trouble_of(error) is Trouble.FENCE:
            return LeaseLost(message)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return PreflightFailed(
                message, remedy="give the role that right, then run the same command again"
            )
        if isinstance(error, psycopg.errors.UndefinedTable):
            return PreflightFailed(
                message,
                remedy="the table vanished: restore it, or take it out of the plan and run with --accept-changed-plan",
            )
        return OnlineMigrateError(
            message, remedy="the state is kept; mend the cause, then run the same command again"
        )

    def _keep(self, error: BaseException) -> None:
        """Write down why we ended; whoever fenced us off, or a server that is gone, makes that impossible."""
        code = error.exit_code if isinstance(error, OnlineMigrateError) else 130
        reason = error.message if isinstance(error, OnlineMigrateError) else "cancelled"
        if isinstance(error, OnlineMigrateError) and not error.remedy:
            error.remedy = self._how_to_go_on()
        if isinstance(error, LeaseLost):
            return
        try:
            if self._sessions.journal.closed:
                return
            if code not in _RUN_STATE:
                self._mark_failed(reason)
            self._journal.set_run(self._run_id, _RUN_STATE.get(code, "failed"), reason)
        except (psycopg.Error, LeaseLost):
            return

    def _mark_failed(self, reason: str) -> None:
        for record in self._journal.read_steps(self._run_id):
            if record.state == "running":
                self._journal.set_step(self._run_id, record.key, "failed", reason=reason)
                self._journal.set_stage(self._run_id, record.stage, "failed", reason)
                self._emit(StepFailed, stage=record.stage, step=record.step, table=record.table, error=reason)

    def _how_to_go_on(self) -> str:
        return f"the state is kept: online-migrate run {self.plan.path} goes on from here"

    def _emit(self, event_type: type[Event], **fields: Any) -> None:
        self.sink.emit(event_type(**fields))

    def _emit_step(self, event_type: type[Event], step: Step, **fields: Any) -> None:
        stage, title, table = step.key
        self.sink.emit(event_type(stage=stage, step=title, table=table, **fields))
