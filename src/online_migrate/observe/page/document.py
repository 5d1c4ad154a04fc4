"""What the page shows, as JSON: decided here from one frozen snapshot; the browser only lays it out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import online_migrate
from online_migrate.journal.records import HistoryRecord
from online_migrate.journal.steering import KIND as PAUSED
from online_migrate.observe.page.throughput import Curve, Hold, draw_curve, find_holds, find_work, recent_rate
from online_migrate.observe.snapshot.memory import Memory
from online_migrate.observe.snapshot.read import approval_json, pause_json
from online_migrate.observe.snapshot.views import Snapshot, StageView, StepView, WaitView, where
from online_migrate.observe.words import describe, place_text

EVENTS: Final = 30
"""events that are shown, the newest first"""
LONGEST_S: Final = 3_600.0
"""the rate is shown over the last hour"""
_QUIET: Final = {"check_found", "statement_executed", "step_started", "tables_measured", "throughput"}
"""events that add nothing to the others"""
_HOLDING: Final = {
    "blockers_seen", "gate_waiting", "late_rows", "lock_attempt_failed",
    "reconnected", "retried",
    "wait_started",
}  # fmt: skip


def to_document(snapshot: Snapshot) -> dict[str, Any]:
    """What ``status --json`` says of the run, and all else that the page draws.  Times are ISO 8601,
    durations seconds.
    """
    return {**_facts(snapshot), "stages": [_stage_json(stage) for stage in snapshot.stages]}


def draw_text(snapshot: Snapshot, memory: Memory) -> str:
    """The document as JSON.  A stage that has not changed is not encoded again: most of a plan is done or
    pending.
    """
    stages = ",".join(
        memory.get(stage.stage, stage, lambda stage=stage: to_text(_stage_json(stage)))  # type: ignore[misc]
        for stage in snapshot.stages
    )
    return f'{to_text(_facts(snapshot))[:-1]},"stages":[{stages}]}}'


def to_text(document: Mapping[str, Any]) -> str:
    """JSON without spaces between its tokens."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    """All but the stages."""
    steps = snapshot.steps
    work = find_work(snapshot.history, steps, snapshot.read_at)
    curve = draw_curve(work, until=snapshot.read_at if is_filling(snapshot) else None, longest_s=LONGEST_S)
    stage = snapshot.stage
    rate = recent_rate(work, snapshot.read_at) if is_filling(snapshot) and not snapshot.is_holding else None
    return {
        "plan": snapshot.plan,
        "state": snapshot.state,
        "version": online_migrate.__version__,
        "word": decide_word(snapshot),
        "notes": list(snapshot.notes),
        "pause": None if snapshot.pause is None else pause_json(snapshot.pause),
        "approvals": [approval_json(a, snapshot.read_at) for a in snapshot.approvals],
        "reason": snapshot.reason,
        "run_id": snapshot.run_id,
        "started_at": snapshot.started_at.isoformat(),
        "ended_at": _iso(snapshot.ended_at),
        "read_at": snapshot.read_at.isoformat(),
        "seconds": snapshot.seconds,
        "is_live": snapshot.is_live,
        "runner": snapshot.holder.runner if snapshot.holder else None,
        "steps_done": sum(step.state == "done" for step in steps),
        "steps_total": len(steps),
        "passes": None if (passes := snapshot.passes) is None else [passes.passed, passes.total],
        "stage": stage.stage if stage else None,
        "rows_done": sum(step.rows_done for step in steps),
        "rate": rate,
        "eta_s": None if stage is None or snapshot.waits else stage_eta_s(stage, rate),
        "waits": [_wait_json(wait, snapshot.read_at) for wait in snapshot.waits],
        "blockers": [b.to_json() for b in find_blockers(snapshot)],
        "curve": None if curve is None else curve_json(curve),
        "holds": [
            hold_json(h) for h in find_holds(snapshot.history, is_live=snapshot.is_live) if is_in(h, curve)
        ],
        "events": [event_json(r) for r in newest_events(snapshot.history)],
    }


def decide_word(snapshot: Snapshot) -> str:
    """The run's state in a word: running, holding, paused, no runner, at a gate, stopped, failed or done."""
    if snapshot.state == "running" and not snapshot.is_live:
        return "no runner"
    if snapshot.state == "running" and any(wait.kind == PAUSED for wait in snapshot.waits):
        return "paused"
    if snapshot.state == "running" and snapshot.is_holding:
        return "holding"
    return "at a gate" if snapshot.state == "waiting" else snapshot.state


def is_filling(snapshot: Snapshot) -> bool:
    """Whether a backfill is running, also while it is held."""
    return snapshot.is_live and any(s.state == "running" and s.share_done is not None for s in snapshot.steps)


def stage_eta_s(stage: StageView, rate: float | None) -> float | None:
    """Seconds until the stage is done, at ``rate`` rows per second; a running step by its own pace, if it
    has one.

    Tables that run side by side share the pending ones: the first that is done takes the next.  Filled
    tables do not count: how long their proof takes is not known.  None if no step moves, if there is no
    measure, or if the number of pending rows is not known.
    """
    running = [step for step in stage.steps if step.state == "running" and not step.is_passed]
    pending = [step.rows_expected for step in stage.steps if step.state == "pending"]
    if not rate or not running or None in pending:
        return None
    own = [step.eta_s if step.eta_s is not None else _rows_left(step, rate) for step in running]
    known = [eta for eta in own if eta is not None]
    if len(known) < len(own):
        return None
    return max(*known, sum(known) / len(known) + sum(rows or 0 for rows in pending) / rate)


def _rows_left(step: StepView, rate: float) -> float | None:
    return None if step.rows_expected is None else max(0, step.rows_expected - step.rows_done) / rate


def _stage_json(stage: StageView) -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "phase": stage.phase,
        "state": stage.state,
        "reason": stage.reason,
        "steps": [_step_json(step) for step in stage.steps],
    }


def _step_json(step: StepView) -> dict[str, Any]:
    return {
        "step": step.step,
        "table": step.table or None,
        "state": step.state,
        "rows_done": step.rows_done,
        "rows_expected": step.rows_expected,
        "share_done": step.share_done,
        "rate": step.rate,
        "eta_s": step.eta_s,
        "seconds": step.seconds,
        "reason": step.reason,
        "is_passed": step.is_passed,
    }


def _wait_json(wait: WaitView, now: datetime) -> dict[str, Any]:
    seconds = (now - wait.since).total_seconds()
    return {"kind": wait.kind, "reason": wait.reason, "place": where(wait), "seconds": seconds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """Sessions that were seen blocking a step that still runs."""

    at: datetime
    place: str
    waiting_for: str
    blockers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(),
            "place": self.place,
            "waiting_for": self.waiting_for,
            "blockers": list(self.blockers),
        }


def find_blockers(snapshot: Snapshot) -> tuple[Blocking, ...]:
    """The sessions that last blocked each running step, until it acquired its lock."""
    running = {step.key for step in snapshot.steps if step.state == "running"} if snapshot.is_live else set()
    seen = dict[tuple[str, str, str], Blocking]()
    for record in snapshot.history:
        names = record.fields.get("blockers")
        if not names and not seen:  # the usual case
            continue
        key = (record.stage, record.step, record.table)
        if record.event in {"run_started", "run_ended"}:
            seen.clear()
        elif record.event in {"lock_held", "step_ended", "step_failed", "wait_ended"}:
            seen.pop(key, None)
        elif key in running and isinstance(names, Sequence) and names:
            seen[key] = Blocking(
                at=record.at,
                place=place_text(*key),
                waiting_for=str(record.fields.get("waiting_for") or record.fields.get("relation", "")),
                blockers=tuple(map(str, names)),
            )
    return tuple(seen.values())


def newest_events(history: Iterable[HistoryRecord], limit: int = EVENTS) -> list[HistoryRecord]:
    """The events that are worth a line, the newest first."""
    return [r for r in history if r.event not in _QUIET][-limit:][::-1]


def event_json(record: HistoryRecord) -> dict[str, Any]:
    """An event as a sentence; its level is bad, hold, or empty."""
    is_bad = record.event == "step_failed" or record.fields.get("outcome") == "failed"
    return {
        "at": record.at.isoformat(),
        "place": place_text(record.stage, record.step, record.table),
        "text": describe(record.event, record.fields),
        "level": "bad" if is_bad else "hold" if record.event in _HOLDING else "",
    }


def curve_json(curve: Curve) -> dict[str, Any]:
    """A curve for the browser to draw."""
    return {
        "begins_at": curve.begins_at.isoformat(),
        "ends_at": curve.ends_at.isoformat(),
        "bucket_s": curve.bucket_s,
        "rates": [round(rate, 1) for rate in curve.rates],
    }


def hold_json(hold: Hold) -> dict[str, Any]:
    """A hold for the browser; ``ends_at`` is null while it lasts."""
    return {
        "kind": hold.kind,
        "reason": hold.reason,
        "place": hold.place,
        "begins_at": hold.begins_at.isoformat(),
        "ends_at": _iso(hold.ends_at),
    }


def is_in(hold: Hold, curve: Curve | None) -> bool:
    """Whether the hold is within the time of the curve."""
    return curve is not None and (hold.ends_at is None or hold.ends_at > curve.begins_at)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
