"""One run of a plan: check, lease, journal, walk; whatever ends it is told in our words, with the state kept."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg

from online_migrate.clock import Clock, Signal
from online_migrate.engine.check.plan import check, is_stopping
from online_migrate.engine.secrets import Secrets
from online_migrate.engine.sessions import Sessions
from online_migrate.engine.survey import Survey, survey
from online_migrate.engine.walk import Walk
from online_migrate.errors import (
    Conflict,
    Interrupted,
    LeaseLost,
    OnlineMigrateError,
    PlanChanged,
    PreflightFailed,
    UsageError,
)
from online_migrate.events import Event, Note, RunEnded, RunStarted, Sink, StepFailed
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.journal.lease import Lease, read_holder, whoami
from online_migrate.journal.records import RunRecord
from online_migrate.journal.requests import approve
from online_migrate.journal.schema import ensure_readable, ensure_schema
from online_migrate.journal.states import RunState, StageState, StepState
from online_migrate.journal.store import Journal
from online_migrate.operations.contract.effects import MakesRow
from online_migrate.plan.model import Plan, changes_between
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.postgres.server_errors import translate_error
from online_migrate.run import take_stop

_WORD = {75: "gate", 130: "interrupted"}
_RUN_STATE = {75: RunState.WAITING, 130: RunState.STOPPED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator said on the command line."""

    through: str | None = None
    """stop after this stage"""
    approve: Collection[str] = ()
    accept_changed_plan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended that ended well: at its end, where it was asked to stop, or before it began since all was done."""

    what: str
    next: str


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
    _walking: Walk | None = field(init=False, default=None)

    def run(self) -> Ended:
        """Raises nothing but errors of ours."""
        self._ensure_stages_named()
        began = self.clock.monotonic()
        self._sessions = Sessions(
            connector=self.connector, signal=self.signal, emit=self._emit, clock=self.clock
        )
        self._lease = Lease(
            self.connector,
            self.clock,
            self.signal,
            self.plan.name,
            say=lambda text: self._emit(Note, message=text),
        )
        code, word = 1, "failed"
        try:
            ended, word = self._carry_out()
            code = 0
            return ended
        except (OnlineMigrateError, psycopg.Error, KeyboardInterrupt) as caught:
            error = self._in_our_words(caught)
            code, word = error.exit_code, _WORD.get(error.exit_code, "failed")
            self._keep(error)
            if error is caught:
                raise
            raise error from caught
        finally:
            if word:
                seconds = self.clock.monotonic() - began
                self._emit(RunEnded, outcome=word, exit_code=code, seconds=seconds)
            self._sessions.close()
            self._lease.release()

    def _carry_out(self) -> tuple[Ended, str]:
        """Check on a connection of its own, so that nothing is written while a finding stops us; then do it."""
        with self.connector.open("check") as connection:
            seen = self._look(connection)
            if not seen.is_over and seen.journal is None:
                self._begin_journal(seen, connection)
            if not seen.is_over:
                self._lease.acquire()
                seen = self._look_again(seen, connection)
            if seen.run is not None and seen.is_over:
                return self._over_already(seen.run), ""
        self._sessions.open()
        self._with_reconnect(partial(self._open_run, seen), "the journal")
        return self._walk()

    def _look(self, connection: Connection) -> Survey:
        seen = survey(self.plan, connection)
        self._ensure_same_plan(seen.run)
        return seen

    def _begin_journal(self, seen: Survey, connection: Connection) -> None:
        """The check comes before the first thing that is written."""
        try:
            self._ensure_no_stop(seen)
        except PreflightFailed:
            if not ensure_readable(connection):
                raise
            return  # another runner has begun while we looked: what we saw is its work, and the lease says who it is
        ensure_schema(connection)

    def _look_again(self, seen: Survey, connection: Connection) -> Survey:
        """Under the lease nobody else changes what a check sees; not needed where nobody has begun a run since the first."""
        if seen.journal is None and Journal(connection).read_run(self.plan.name) is None:
            return seen
        seen = self._look(connection)
        if not seen.is_over:
            self._ensure_no_stop(seen)
        return seen

    # beginning

    def _ensure_stages_named(self) -> None:
        through = [] if self.options.through is None else [self.options.through]
        for name in (*self.options.approve, *through):
            if self.plan.stage(name) is None:
                stages = ", ".join(s.name for s in self.plan.stages)
                raise UsageError(f"the plan has no stage {name}", remedy=f"its stages: {stages}")
        for name in self.options.approve:
            stage = self.plan.stage(name)
            if stage is not None and stage.gate is None:
                raise UsageError(f"stage {name} has no gate", remedy="nothing needs to be approved for it")

    def _over_already(self, run: RunRecord) -> Ended:
        at = "" if run.ended_at is None else f" since {run.ended_at:%Y-%m-%d %H:%M:%S %Z}"
        return Ended(what=f"plan {self.plan.name} is done{at}; nothing was run", next=self._how_to_verify())

    def _ensure_no_stop(self, seen: Survey) -> None:
        findings = check(seen, missing_secrets=self._missing_secrets(seen))
        is_new = seen.run_id is None  # questions are put once, before there is anything to go back from
        self.on_findings([f for f in findings if is_new or f.severity is not Severity.ASK])
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
        is_needed = any(isinstance(c.effect, MakesRow) for c in seen.open_changes)
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
                journal.accept_plan(run.run_id, self.plan, seen.sets, seen.steps)
            journal.set_run(run.run_id, RunState.RUNNING)
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
            steps_done=sum(r.state is StepState.DONE for r in records),
        )

    def _walk(self) -> tuple[Ended, str]:
        self._walking = walk = Walk(
            plan=self.plan,
            run_id=self._run_id,
            sessions=self._sessions,
            lease=self._lease,
            clock=self.clock,
            signal=self.signal,
            sink=self.sink,
            secrets=self.secrets,
            show_secret=self.show_secret,
        )
        if walk.to(self.options.through):
            self._with_reconnect(lambda: self._journal.set_run(self._run_id, RunState.DONE), "the journal")
            return Ended(what=f"plan {self.plan.name} is done", next=self._how_to_verify()), "done"
        what = f"stopped after stage {self.options.through}, as asked"
        self._with_reconnect(
            lambda: self._journal.set_run(self._run_id, RunState.STOPPED, what), "the journal"
        )
        return Ended(what=what, next=f"online-migrate run {self.plan.path} goes on from here"), "stopped"

    def _with_reconnect(self, work: Callable[[], None], what: str) -> None:
        self._sessions.with_reconnect(work, self._lease.fence.sql, what)

    # ending

    def _in_our_words(self, caught: BaseException) -> OnlineMigrateError:
        """What is raised, with how to go on; no secret stands in it, whatever the server has said."""
        error = caught if isinstance(caught, OnlineMigrateError) else None
        if self._lease.lost and (error is None or isinstance(error, Interrupted)):
            error = LeaseLost(self._lease.lost)
        elif isinstance(caught, psycopg.Error):
            error = translate_error(caught)
        elif error is None:
            error = Interrupted(f"cancelled: {self.signal.reason}")
        if not error.remedy and isinstance(error, LeaseLost):
            error.remedy = self._leave_it()
        elif not error.remedy:
            error.remedy = f"the state is kept: online-migrate run {self.plan.path} goes on from here"
        error.message = self.secrets.redact(error.message)
        return error

    def _leave_it(self) -> str:
        """What to do where another runner took over: nothing; and who that is, where the journal can be asked."""
        holder = None
        with suppress(OnlineMigrateError, psycopg.Error), self.connector.open("holder") as connection:
            holder = read_holder(connection)
        who = "it" if holder is None else f"{holder.who}, which holds the lease since {holder.since},"
        return f"leave {who} at work; see how far it is: online-migrate status {self.plan.path}"

    def _keep(self, error: OnlineMigrateError) -> None:
        """Write down why we ended; whoever fenced us off, or a server that is gone, makes that impossible."""
        if not self._run_id or isinstance(error, LeaseLost) or self._sessions.journal.closed:
            return
        try:
            if error.exit_code not in _RUN_STATE:
                self._mark_failed(error.message)
            self._journal.set_run(
                self._run_id, _RUN_STATE.get(error.exit_code, RunState.FAILED), error.message
            )
        except (psycopg.Error, LeaseLost):
            return

    def _mark_failed(self, reason: str) -> None:
        failed = None if self._walking is None else self._walking.failed
        if failed is not None:
            stage_name, step, table = failed.key
            self._journal.set_step(self._run_id, failed.key, StepState.FAILED, reason=reason)
            self._emit(StepFailed, stage=stage_name, step=step, table=table, error=reason)
        for stage in self._journal.read_stages(self._run_id):
            if stage.state is StageState.RUNNING:
                self._journal.set_stage(self._run_id, stage.stage, StageState.FAILED, reason)

    @property
    def _journal(self) -> Journal:
        return Journal(self._sessions.journal, self._lease.fence)

    def _how_to_verify(self) -> str:
        return f"online-migrate verify {self.plan.path} compares the database with what the plan promises"

    def _emit(self, event_type: type[Event], **fields: Any) -> None:
        self.sink.emit(event_type(**fields))
