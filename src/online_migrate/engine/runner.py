"""One run of a plan: check, lease, journal, walk.  However it ends, the state is kept, and the error says
why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from online_migrate.engine.changed_steps import ensure_no_changed_step
from online_migrate.engine.check.plan import check, is_stopping
from online_migrate.engine.drift import DRIFT, fact_lines
from online_migrate.engine.late_partitions import take_late_partitions
from online_migrate.engine.survey import Survey, survey
from online_migrate.engine.walk import Walk
from online_migrate.errors import (
    Conflict,
    Defect,
    Interrupted,
    LeaseLost,
    OnlineMigrateError,
    PlanChanged,
    PreflightFailed,
    UsageError,
    VerificationFailed,
)
from online_migrate.events import PlanAccepted, RunEnded, RunStarted, StepFailed
from online_migrate.findings import Finding, Severity
from online_migrate.journal.commit_waits import reporting_commits
from online_migrate.journal.lease import person, read_holder, whoami
from online_migrate.journal.records import RunRecord
from online_migrate.journal.requests import approve, close_earlier_stops, close_stops
from online_migrate.journal.schema import ensure_readable, ensure_schema, upgrade_schema
from online_migrate.journal.states import RunState, StageState, StepState
from online_migrate.journal.steering import TIME_OVER
from online_migrate.journal.store import Journal
from online_migrate.operations.contract.effects import MakesRow
from online_migrate.plan.model import Plan, changes_between
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.server_errors import translate_error
from online_migrate.run import RunContext

_OUTCOME = {75: "gate", 130: "interrupted"}
_RUN_STATE = {75: RunState.WAITING, 130: RunState.STOPPED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator said on the command line."""

    through: str | None = None
    """stop after this stage"""
    approve: Collection[str] = ()
    accept_changed_plan: bool = False


def _not_ready(stops: list[Finding]) -> OnlineMigrateError:
    """The findings as one error: exit 5 where what finished steps made has changed, else 3."""
    facts = fact_lines(stops)
    remedy = "fix each of these, then run the same command again"
    if any(f.code == DRIFT for f in stops):
        return VerificationFailed(
            f"finished steps have changed since; nothing was run:\n{facts}", remedy=remedy
        )
    kind = Conflict if any("conflict" in f.code for f in stops) else PreflightFailed
    return kind(f"the database is not ready for the plan; nothing was run:\n{facts}", remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A run that ended well: at its end, where it was asked to stop, or before it
    began because all was done.
    """

    what: str
    next: str


@dataclass(slots=True, kw_only=True)
class Runner:
    """Carries out one run.  :meth:`run` returns when it is done, or stopped where it was asked to; otherwise
    it raises an :class:`OnlineMigrateError` whose exit code says why.
    """

    context: RunContext
    options: Options = field(default_factory=Options)
    on_findings: Callable[[list[Finding]], None] = lambda _: None
    _walk: Walk = field(init=False)
    _is_announced: bool = field(init=False, default=False)

    def run(self) -> RunResult:
        """Raises only errors of ours."""
        self._ensure_stages_named()
        began = self.context.clock.monotonic()
        code, outcome = 1, "failed"
        try:
            result, outcome = self._carry_out()
            code = 0
            return result
        except (Exception, KeyboardInterrupt) as caught:
            error = self._translate(caught)
            code, outcome = error.exit_code, _OUTCOME.get(error.exit_code, "failed")
            self._keep_state(error)
            if error is caught:
                raise
            raise error from caught
        finally:
            if outcome:
                seconds = self.context.clock.monotonic() - began
                self.context.emit(RunEnded, outcome=outcome, exit_code=code, seconds=seconds)
            self.context.sessions.close()
            self.context.lease.release()

    def _carry_out(self) -> tuple[RunResult, str]:
        """Check first, on a connection of its own, so that nothing is written if a finding stops us."""
        run = self.context
        self._walk = Walk(run=run)
        with run.sessions.connector.open("check") as connection:
            with reporting_commits(run.sessions.connector, run.emit, run.clock, connection):
                upgrade_schema(connection)
            seen = self._survey(connection)
            if not seen.is_over and seen.journal is None:
                self._create_journal(seen, connection)
            if not seen.is_over:
                self.context.lease.acquire()
                seen = self._survey_again(seen, connection)
            if seen.run is not None and seen.is_over:
                return self._done_before(seen.run), ""
        self.context.sessions.open()
        close_earlier_stops(self.context.sessions.journal, plan=self._plan.name)
        try:
            return self.context.sessions.with_reconnect(
                lambda: self._walk_from_journal(seen), self.context.fence.sql, lambda: self._walk.where
            )
        except Interrupted:
            reason = self.context.signal.reason
            if self.context.sessions.journal.closed or not reason.startswith(TIME_OVER):
                raise
            return self._stop_as_asked(f"stopped: {reason}, as asked")

    def _survey(self, connection: Connection) -> Survey:
        seen = survey(self._plan, connection)
        self._ensure_same_plan(seen)
        return seen

    def _create_journal(self, seen: Survey, connection: Connection) -> None:
        """Check before the first write."""
        try:
            self._ensure_no_stop(seen)
        except PreflightFailed:
            if not ensure_readable(connection):
                raise
            return  # another runner began meanwhile: the findings are its work, and the lease says who it is
        run = self.context
        with reporting_commits(run.sessions.connector, run.emit, run.clock, connection):
            ensure_schema(connection)

    def _survey_again(self, seen: Survey, connection: Connection) -> Survey:
        """Under the lease no other runner changes what a check reads; needed unless no run has begun since
        the first.
        """
        if seen.journal is None and Journal(connection).read_run(self._plan.name) is None:
            return seen
        seen = self._survey(connection)
        if not seen.is_over:
            try:
                self._ensure_no_stop(seen)
            except (PreflightFailed, VerificationFailed) as refused:
                self._keep_refusal(seen.run, refused, connection)
                raise
        return seen

    def _keep_refusal(
        self, run: RunRecord | None, refused: OnlineMigrateError, connection: Connection
    ) -> None:
        """So that `status` says why the run does not continue, not how it ended before."""
        if run is not None:
            reason = self.context.secrets.redact(refused.message)
            Journal(connection, self.context.fence).set_run(run.run_id, RunState.FAILED, reason)

    # what has to be true before

    def _ensure_stages_named(self) -> None:
        through = [] if self.options.through is None else [self.options.through]
        for name in (*self.options.approve, *through):
            if self._plan.stage(name) is None:
                stages = ", ".join(s.name for s in self._plan.stages)
                raise UsageError(f"the plan has no stage {name}", remedy=f"its stages: {stages}")
        for name in self.options.approve:
            stage = self._plan.stage(name)
            if stage is not None and stage.gate is None:
                raise UsageError(
                    f"stage {name} has no gate", remedy="it needs no approval: leave --approve out"
                )

    def _ensure_no_stop(self, seen: Survey) -> None:
        findings = check(seen, missing_secrets=self._missing_secrets(seen))
        is_new = seen.run_id is None  # questions are asked once, before anything would have to be rolled back
        self.on_findings([f for f in findings if is_new or f.severity is not Severity.ASK])
        if is_stopping(findings):
            raise _not_ready([f for f in findings if f.severity is Severity.STOP])

    def _missing_secrets(self, seen: Survey) -> tuple[str, ...]:
        """Secrets are needed only until the rows that hold them exist."""
        is_needed = any(isinstance(c.effect, MakesRow) for c in seen.open_changes)
        return self.context.secrets.missing() if is_needed else ()

    def _ensure_same_plan(self, seen: Survey) -> None:
        run = seen.run
        if run is None or run.fingerprint == self._plan.fingerprint():
            return
        if self.options.accept_changed_plan:
            ensure_no_changed_step(seen)
            return
        remedy = (
            "restore the plan as it was, or run with --accept-changed-plan: steps that are done stay done,"
            " new ones are run in their order"
        )
        raise PlanChanged(changes_between(run.parts, self._plan.parts()), remedy=remedy)

    # the run

    def _walk_from_journal(self, seen: Survey) -> tuple[RunResult, str]:
        """Read where the run is, and walk on from there.  Done again after each lost connection."""
        self._walk.where = "the journal"
        self._open_run(seen)
        is_at_end = self._walk.to(self.options.through)
        self._walk.where = "the journal"
        if is_at_end:
            return self._finish()
        return self._stop_as_asked(f"stopped after stage {self.options.through}, as asked")

    def _open_run(self, seen: Survey) -> None:
        """Continue the plan's run, or begin one; its sets and steps are frozen here."""
        journal, plan = self.context.journal, self._plan
        run = journal.read_run(plan.name)
        if run is None:
            self.context.run_id = journal.begin_run(plan, seen.frozen, seen.steps)
        else:
            self.context.run_id = run.run_id
            if run.fingerprint != plan.fingerprint():
                changes = changes_between(run.parts, plan.parts())
                event = PlanAccepted(by=whoami(), changes=changes)
                journal.accept_plan(run.run_id, plan, seen.frozen, seen.steps, event=event)
            else:
                take_late_partitions(self.context)
            journal.set_run(run.run_id, RunState.RUNNING)
        if not self._is_announced:  # after a lost connection an approval may have been revoked
            self._approve(run)
            self._is_announced = True
            self._announce(is_resumed=run is not None)

    def _approve(self, run: RunRecord | None) -> None:
        """The gates that the command line names, unless the journal has the approval."""
        plan = self._plan
        given = () if run is None else self.context.journal.read_approvals(plan.name, run.started_at)
        for stage in self.options.approve:
            if stage not in given:
                approve(
                    self.context.sessions.journal,
                    plan=plan.name,
                    stage=stage,
                    approved_by=person(),
                    note="run --approve",
                )

    def _announce(self, *, is_resumed: bool) -> None:
        records = self.context.journal.read_steps(self.context.run_id)
        self.context.emit(
            RunStarted,
            plan=self._plan.name,
            run_id=self.context.run_id,
            resumed=is_resumed,
            by=person(),
            steps_total=len(records),
            steps_done=sum(r.state is StepState.DONE for r in records),
        )

    # ending

    def _done_before(self, run: RunRecord) -> RunResult:
        at = "" if run.ended_at is None else f" since {run.ended_at:%Y-%m-%d %H:%M:%S %Z}"
        return RunResult(
            what=f"plan {self._plan.name} is done{at}; nothing was run", next=self._how_to_verify()
        )

    def _finish(self) -> tuple[RunResult, str]:
        """Only the journal says that a run is done."""
        if not self.context.journal.finish_run(self.context.run_id):
            raise OnlineMigrateError("the journal has steps as open although each stage is done")
        close_stops(self.context.sessions.journal, plan=self._plan.name)
        return RunResult(what=f"plan {self._plan.name} is done", next=self._how_to_verify()), "done"

    def _stop_as_asked(self, what: str) -> tuple[RunResult, str]:
        self.context.journal.set_run(self.context.run_id, RunState.STOPPED, what)
        close_stops(self.context.sessions.journal, plan=self._plan.name)
        next_command = f"online-migrate run {self._plan.path}"
        return RunResult(what=what, next=next_command), "stopped"

    def _translate(self, caught: BaseException) -> OnlineMigrateError:
        """The error that is raised, with what to do next; it contains no secret, whatever the server said."""
        error = caught if isinstance(caught, OnlineMigrateError) else None
        lost = self.context.lease.lost
        if lost and (error is None or isinstance(error, Interrupted)):
            error = LeaseLost(lost)
        elif isinstance(caught, psycopg.Error):
            error = translate_error(caught)
        elif error is None and isinstance(caught, KeyboardInterrupt):
            error = Interrupted(f"cancelled: {self.context.signal.reason}")
        elif error is None:
            error = Defect(f"a defect of online-migrate: {type(caught).__name__}: {caught}")
        if not error.remedy and isinstance(error, LeaseLost):
            error.remedy = self._remedy_of_lost_lease()
        elif not error.remedy:
            error.remedy = f"the state is kept: online-migrate run {self._plan.path} continues from here"
        error.message = self.context.secrets.redact(error.message)
        return error

    def _remedy_of_lost_lease(self) -> str:
        """Nothing has to be done; names the other runner if the journal can be read."""
        holder = None
        connector = self.context.sessions.connector
        with suppress(OnlineMigrateError, psycopg.Error), connector.open("holder") as connection:
            holder = read_holder(connection)
        runner = "it" if holder is None else f"{holder.runner}, which holds the lease since {holder.since},"
        return f"let {runner} finish; see its progress: online-migrate status {self._plan.path}"

    def _keep_state(self, error: OnlineMigrateError) -> None:
        """Write why the run ended, unless another runner took over or the server is unreachable."""
        if not self.context.run_id or isinstance(error, LeaseLost):
            return  # before the journal has the run there is nothing to keep
        journal = self.context.sessions.journal
        if journal.closed:
            return
        with suppress(psycopg.Error, LeaseLost):
            if error.exit_code not in _RUN_STATE:
                self._mark_failed(error.message)
            state = _RUN_STATE.get(error.exit_code, RunState.FAILED)
            self.context.journal.set_run(self.context.run_id, state, error.message)
            close_stops(journal, plan=self._plan.name)

    def _mark_failed(self, reason: str) -> None:
        run_id, journal, failed = self.context.run_id, self.context.journal, self._walk.failed
        if failed is not None:
            stage_name, step, table = failed.key
            journal.set_step(run_id, failed.key, StepState.FAILED, reason=reason)
            self.context.emit(StepFailed, stage=stage_name, step=step, table=table, error=reason)
        for stage in journal.read_stages(run_id):
            if stage.state is StageState.RUNNING:
                journal.set_stage(run_id, stage.stage, StageState.FAILED, reason)

    @property
    def _plan(self) -> Plan:
        return self.context.plan

    def _how_to_verify(self) -> str:
        return f"online-migrate verify {self._plan.path}"
