"""One frozen picture of a run, read from the journal: what the terminal, the metrics and every page draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from online_migrate.figures import seconds_text
from online_migrate.journal.changes import RunJournal, RunReader
from online_migrate.journal.commit_waits import KIND, commit_waits_text
from online_migrate.journal.lease import STALE_AFTER_S, Holder
from online_migrate.journal.records import (
    ApprovalRecord,
    CursorRecord,
    HistoryRecord,
    RunRecord,
    StageRecord,
    StepRecord,
)
from online_migrate.journal.requests import Pause
from online_migrate.journal.schema import ensure_readable
from online_migrate.journal.steering import pause_text
from online_migrate.observe.snapshot.estimates import UNKNOWN, Point, is_sweep, pace_of, points_of, share_of
from online_migrate.observe.snapshot.memory import Memory
from online_migrate.observe.snapshot.views import Key, Snapshot, StageView, StepView, WaitView, wait_at
from online_migrate.observe.snapshot.waits import EVENTS, OpenWaits
from online_migrate.observe.words import approval_state
from online_migrate.plan.model import Phase
from online_migrate.postgres.connection import Connection, role_path_of

__all__ = ["Snapshot", "StageView", "StepView", "WaitView", "read_snapshot", "to_json"]

EXPECTED_S: Final = 10
"""for so long an estimate of rows is kept: it changes with the next ANALYZE"""
LATE_AFTER_S: Final = 15
"""a heartbeat is sent every 5 s: two are missing by then"""
PARKED: Final = "; the proof starts when the other tables are filled"
PROVING: Final = "; proving that no row is left"


def read_snapshot(connection: Connection, plan: str, memory: Memory | None = None) -> Snapshot | None:
    """The newest run of ``plan``, its journal read in one snapshot of the database; None if it never ran.

    A caller that reads again and again passes the same ``memory``: what has not changed is not read again.
    Raises :class:`JournalVersion` if the journal has another version.
    """
    memory = memory or Memory()
    if not memory.is_true("readable", lambda: ensure_readable(connection)):
        return None
    journal = memory.get("reader", plan, lambda: RunReader(plan, followed=EVENTS)).read(connection)
    return None if journal is None else _draw(connection, journal, memory)


def _draw(connection: Connection, journal: RunJournal, memory: Memory) -> Snapshot:
    run, holder = journal.run, journal.holder
    open_waits = memory.get("waits", run.plan, OpenWaits).follow(journal)
    ours = holder if holder is not None and holder.plan == run.plan else None
    is_live = ours is not None and ours.heartbeat_age_s < STALE_AFTER_S and journal.is_connected
    is_at_work = is_live and run.state == "running"
    waits = open_waits if is_at_work else ()
    tables = {step.table for steps in journal.steps.values() for step in steps if step.table}
    facts = _Facts(
        now=journal.now,
        until=journal.now if is_at_work else _until(run, ours, journal.now),
        is_live=is_at_work,
        cursors=journal.cursors,
        points=memory.get("points", journal.history, lambda: points_of(journal.history)),
        waits={w.key: w for w in waits},
        expected=memory.get(
            "expected",
            (tables, journal.now.timestamp() // EXPECTED_S),
            lambda: _read_expected(connection, tables),
        ),
        memory=memory,
    )
    snapshot = Snapshot(
        plan=run.plan,
        state=run.state,
        reason=_approved(journal) or _reason(run, ours, is_live=is_live),
        run_id=run.run_id,
        started_at=run.started_at,
        ended_at=run.ended_at,
        read_at=journal.now,
        holder=ours,
        is_live=is_live,
        stages=tuple(_stage(stage, journal.steps.get(stage.stage, ()), facts) for stage in journal.stages),
        waits=waits,
        history=journal.history,
        approvals=journal.approvals,
        pause=journal.pause,
        notes=(
            *(_notes(journal, ours) if is_at_work else ()),
            *_tuning_notes(journal),
            *_pause_notes(journal, is_at_work=is_at_work),
            *_commit_notes(journal, waits),
        ),
    )
    if snapshot.reason or not snapshot.is_holding:
        return snapshot
    return replace(snapshot, reason="; ".join(dict.fromkeys(wait.reason for wait in waits)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """Read once and used for every step."""

    now: datetime
    until: datetime | None
    """the end of the time that running steps took: now, or without a runner the run's end or its last
    heartbeat, if known"""
    is_live: bool
    cursors: Mapping[Key, CursorRecord]
    points: Mapping[Key, tuple[Point, ...]]
    waits: Mapping[Key, WaitView]
    expected: Mapping[str, int]
    memory: Memory

    def mark(self, stage: StageRecord, steps: tuple[StepRecord, ...]) -> object:
        """What the views of a stage's steps depend on; if one is running, also the time."""
        if any(step.state == "running" for step in steps):
            return self.now
        cursors = [cursor for cursor in self.cursors.values() if cursor.stage == stage.stage]
        waits = [wait for wait in self.waits.values() if wait.stage == stage.stage]
        return (stage.phase, steps, cursors, waits, self.expected)


def _stage(stage: StageRecord, steps: tuple[StepRecord, ...], facts: _Facts) -> StageView:
    """The view of a stage; made again only if something in it can have changed."""
    views = facts.memory.get(
        ("views", stage.stage),
        facts.mark(stage, steps),
        lambda: _step_views(stage, steps, facts),
    )
    return facts.memory.get(
        ("stage", stage.stage),
        (stage, views),
        lambda: StageView(
            stage=stage.stage, phase=stage.phase, state=stage.state, reason=stage.reason, steps=views
        ),
    )


def _step_views(stage: StageRecord, steps: tuple[StepRecord, ...], facts: _Facts) -> tuple[StepView, ...]:
    awaited = _awaited(steps, facts)
    return tuple(_remembered(step, stage, facts, is_awaited=step.step in awaited) for step in steps)


def _awaited(steps: tuple[StepRecord, ...], facts: _Facts) -> frozenset[str]:
    """Steps whose filled tables are not proven before the step's other tables are filled too.

    A pending table alone is no sign of it: one worker without a soak time proves each table before the next
    one.
    """
    running = [step for step in steps if step.state == "running"]
    several = {title for title, count in Counter(step.step for step in running).items() if count > 1}
    ahead = [step for step in steps if step.state == "pending" and step.step in several]
    passing = [step for step in running if not is_sweep(facts.cursors.get(step.key))]
    return frozenset(step.step for step in (*ahead, *passing))


def _remembered(step: StepRecord, stage: StageRecord, facts: _Facts, *, is_awaited: bool) -> StepView:
    """The view of a step; made again only if something in it can have changed."""
    if step.state == "running":
        view = _step(step, stage, facts)
        is_passed = is_sweep(facts.cursors.get(step.key))
        return _passed(view, facts, is_awaited=is_awaited) if is_passed else view
    mark = (step, facts.cursors.get(step.key), facts.waits.get(step.key), facts.expected.get(step.table))
    return facts.memory.get(step.key, mark, lambda: _step(step, stage, facts))


def _step(step: StepRecord, stage: StageRecord, facts: _Facts) -> StepView:
    cursor = facts.cursors.get(step.key)
    wait = wait_at(step.key, facts.waits) if step.state == "running" else facts.waits.get(step.key)
    is_backfill = cursor is not None or stage.phase == Phase.BACKFILL.value
    rows = max(step.rows_done, cursor.rows_done if cursor else 0)
    moves = cursor is not None and step.state == "running" and facts.is_live and wait is None
    pace = pace_of(cursor, facts.points.get(step.key, ()), facts.now) if cursor and moves else UNKNOWN
    end = step.ended_at or (facts.until if step.state == "running" else None)
    return StepView(
        stage=step.stage,
        step=step.step,
        table=step.table,
        state=step.state,
        rows_done=rows,
        rows_expected=rows
        if step.state == "done"
        else facts.expected.get(step.table)
        if is_backfill
        else None,
        share_done=_share(step, cursor, is_backfill=is_backfill),
        rate=pace.rate,
        eta_s=pace.eta_s,
        seconds=None if step.started_at is None or end is None else (end - step.started_at).total_seconds(),
        reason=step.reason or (wait.reason if wait else ""),
    )


def _passed(view: StepView, facts: _Facts, *, is_awaited: bool) -> StepView:
    note = "all pages are filled"
    if facts.is_live:
        note += PARKED if is_awaited else PROVING
    is_parked = is_awaited and not view.reason
    return replace(view, reason=view.reason or note, is_passed=True, is_parked=is_parked)


def _share(step: StepRecord, cursor: CursorRecord | None, *, is_backfill: bool) -> float | None:
    if step.state == "done":
        return 1.0
    if cursor is not None:
        return share_of(cursor)
    return 0.0 if is_backfill else None


def _reason(run: RunRecord, holder: Holder | None, *, is_live: bool) -> str:
    """Why the run is not at work; while it is, its waits say why it is held."""
    if run.reason or run.state != "running" or is_live:
        return run.reason
    heartbeat = ""
    if holder:
        heartbeat = f" (last heartbeat {seconds_text(holder.heartbeat_age_s)} ago, {holder.runner})"
    return f"no runner is at work{heartbeat}; repeat the `online-migrate run` command to continue"


def _approved(journal: RunJournal) -> str:
    """Who opened the gate at which the run has stopped, and what comes next; empty where none is open."""
    waiting = {stage.stage for stage in journal.stages if stage.state == "waiting"}
    given = [a for a in journal.approvals if a.stage in waiting and a.is_in_force(journal.now)]
    if not given or journal.run.state == "running":
        return ""
    names = ", ".join(f"{a.approved_by}{f' ({a.note})' if a.note else ''}" for a in given)
    return (
        f"gate of stage {given[0].stage} is approved by {names};"
        " repeat the `online-migrate run` command to continue"
    )


def _until(run: RunRecord, holder: Holder | None, now: datetime) -> datetime | None:
    """When a runner that has ended was last at work."""
    if run.ended_at is not None or holder is None:
        return run.ended_at
    return now - timedelta(seconds=holder.heartbeat_age_s)


def _notes(journal: RunJournal, holder: Holder | None) -> Iterable[str]:
    """What the operator should know about a runner at work."""
    by = journal.stop_requested_by or _stop_reason(journal.history)
    if by:
        yield f"stop requested ({by}): the run ends after the current batch or statement"
    if holder is not None and holder.heartbeat_age_s >= LATE_AFTER_S:
        yield (
            f"no heartbeat for {seconds_text(holder.heartbeat_age_s)} from {holder.runner};"
            f" after {STALE_AFTER_S} s another runner may take over"
        )


def _tuning_notes(journal: RunJournal) -> Iterable[str]:
    if journal.tuning.tables and journal.run.state != "done":
        yield f"pace tuned by {journal.tuning.by}: {journal.tuning}"


def _pause_notes(journal: RunJournal, *, is_at_work: bool) -> Iterable[str]:
    """A pause that does not show as a wait of the runner."""
    if journal.pause is None or journal.run.state == "done":
        return
    text = pause_text(journal.pause, "PLAN")
    if not is_at_work:
        yield f"{text}; the next run starts paused"
    elif journal.pause.taken_at is None:
        yield f"{text}; the run pauses after the current batch or statement"


def _commit_notes(journal: RunJournal, waits: Iterable[WaitView]) -> Iterable[str]:
    """A commit that waits for a synchronous standby, unless the runner has reported it; also one of a runner
    that was killed.
    """
    if journal.commit_waits and not any(wait.kind == KIND for wait in waits):
        yield commit_waits_text(journal.commit_waits)


def _stop_reason(history: Iterable[HistoryRecord]) -> str:
    """The reason of a stop that was requested since the run last started; else empty."""
    last = next((r for r in reversed(tuple(history)) if r.event in {"stop_asked", "run_started"}), None)
    return str(last.fields.get("reason", "")) if last is not None and last.event == "stop_asked" else ""


def _read_expected(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    """Rows by the planner's estimate; a table that was never analyzed has none (reltuples is -1 since
    release 14).
    """
    rows = connection.execute(
        "SELECT relname, reltuples::bigint FROM pg_class"
        " WHERE relname = ANY (%s) AND relkind IN ('r', 'p') AND reltuples >= 0"
        " AND relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = %s)",
        [list(tables), role_path_of(connection)[1]],
    ).fetchall()
    return {str(name): int(estimate) for name, estimate in rows}


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """What ``status --json`` prints; ``null`` stands for a step without a table, and for what is not known.

    ``state`` is the journal's: after a runner was killed it is still running, and ``is_live`` is false.
    """
    return {
        "plan": snapshot.plan,
        "state": snapshot.state,
        "is_live": snapshot.is_live,
        "reason": "; ".join(filter(None, (*snapshot.notes, snapshot.reason))),
        "pause": None if snapshot.pause is None else pause_json(snapshot.pause),
        "approvals": [approval_json(a, snapshot.read_at) for a in snapshot.approvals],
        "stages": [
            {
                "stage": stage.stage,
                "phase": stage.phase,
                "state": stage.state,
                "steps": [_step_json(step) for step in stage.steps],
            }
            for stage in snapshot.stages
        ],
    }


def pause_json(pause: Pause) -> dict[str, Any]:
    """A pause that is in force; ``paused_at`` is ``null`` before the runner has paused."""
    return {
        "by": pause.by,
        "since": pause.since.isoformat(),
        "until": None if pause.until is None else pause.until.isoformat(),
        "paused_at": None if pause.taken_at is None else pause.taken_at.isoformat(),
    }


def approval_json(approval: ApprovalRecord, now: datetime) -> dict[str, Any]:
    """An approval, in force or not; ``null`` stands for never."""
    return {
        "stage": approval.stage,
        "approved_by": approval.approved_by,
        "account": approval.account,
        "note": approval.note,
        "approved_at": approval.approved_at.isoformat(),
        "expires_at": None if approval.expires_at is None else approval.expires_at.isoformat(),
        "revoked_at": None if approval.revoked_at is None else approval.revoked_at.isoformat(),
        "revoked_by": approval.revoked_by,
        "in_force": approval.is_in_force(now),
        "state": approval_state(approval, now),
    }


def _step_json(step: StepView) -> dict[str, Any]:
    return {
        "step": step.step,
        "table": step.table or None,
        "state": step.state,
        "rows_done": step.rows_done,
        "share_done": step.share_done,
        "eta_s": step.eta_s,
        "reason": step.reason,
    }
