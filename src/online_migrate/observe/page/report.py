"""A whole run, read from its journal alone: the sections that only the report has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from online_migrate.journal.records import ApprovalRecord, HistoryRecord, StageRecord
from online_migrate.journal.store import Journal
from online_migrate.observe.page.document import curve_json, event_json, hold_json, newest_events, to_document
from online_migrate.observe.page.locks import sum_locks
from online_migrate.observe.page.throughput import (
    AROUND_A_RUN,
    Hold,
    covered_s,
    draw_curve,
    find_holds,
    find_work,
)
from online_migrate.observe.page.verified import sum_verified
from online_migrate.observe.snapshot.read import read_snapshot
from online_migrate.observe.snapshot.views import Snapshot, StepView
from online_migrate.observe.words import approval_state, describe
from online_migrate.postgres.connection import Connection

EVENTS: Final = 1_000
"""the newest; a night of a large plan has many more, which add little"""
ALLOWED: Final = ("plan_accepted", "step_reopened")
HOLDS: Final = 200
"""the longest; the sums have all of them"""


def read_report(connection: Connection, plan: str) -> dict[str, Any] | None:
    """The page's document of the newest run of ``plan``, with its whole history; None if it never ran."""
    snapshot = read_snapshot(connection, plan)
    if snapshot is None:
        return None
    journal = Journal(connection)
    history = journal.read_history(snapshot.run_id)
    work = find_work(history, snapshot.steps, snapshot.read_at)
    curve, holds = draw_curve(work), find_holds(history, is_live=snapshot.is_live)
    return to_document(snapshot) | {
        "curve": None if curve is None else curve_json(curve),
        "holds": [hold_json(hold) for hold in holds],
        "events": [event_json(record) for record in newest_events(history, EVENTS)],
        "report": make_report(
            snapshot,
            history,
            stages=journal.read_stages(snapshot.run_id),
            approvals=snapshot.approvals,
        ),
    }


def make_report(
    snapshot: Snapshot,
    history: Sequence[HistoryRecord],
    *,
    stages: Iterable[StageRecord],
    approvals: Iterable[ApprovalRecord],
) -> dict[str, Any]:
    """The report's own part; pure."""
    now = snapshot.read_at
    holds = find_holds(history, is_live=snapshot.is_live)
    longest = sorted(holds, key=lambda hold: -_seconds(hold, now))[:HOLDS]
    shown = sorted(longest, key=lambda hold: hold.begins_at)
    return {
        "begins_at": snapshot.started_at.isoformat(),
        "ends_at": (snapshot.ended_at or now).isoformat(),
        "stages": [_stage(record, snapshot) for record in stages],
        "away": find_away(history, snapshot),
        "holds": [{**hold_json(hold), "seconds": _seconds(hold, now)} for hold in shown],
        "holds_left_out": len(holds) - len(shown),
        "hold_kinds": _sum_holds(holds, now),
        "locks": sum_locks(history),
        "throughput": sum_throughput(history, snapshot.steps),
        "growth": find_growth(history),
        "approvals": find_approvals(approvals, history, now),
        "findings": find_findings(history),
        **sum_verified(snapshot, history),
    }


def _stage(record: StageRecord, snapshot: Snapshot) -> dict[str, Any]:
    steps = [step for step in snapshot.steps if step.stage == record.stage]
    end = record.ended_at or (snapshot.ended_at or snapshot.read_at)
    return {
        "stage": record.stage,
        "phase": record.phase,
        "state": record.state,
        "begins_at": _iso(record.started_at),
        "ends_at": _iso(record.ended_at),
        "seconds": None if record.started_at is None else (end - record.started_at).total_seconds(),
        "steps_done": sum(step.state == "done" for step in steps),
        "steps_total": len(steps),
    }


def find_away(history: Iterable[HistoryRecord], snapshot: Snapshot) -> list[dict[str, str]]:
    """When no runner was at work, and how the one before ended; without an end event it was killed."""
    away = list[dict[str, str]]()
    last: HistoryRecord | None = None
    for record in history:
        if record.event == "run_started" and last is not None:
            away.append(_away(last, record.at))
        if record.event not in AROUND_A_RUN:
            last = record
    is_over = snapshot.state == "done" or snapshot.is_live or snapshot.ended_at is not None
    if last is not None and not is_over:
        away.append(_away(last, snapshot.read_at))
    return away


def _away(last: HistoryRecord, until: datetime) -> dict[str, str]:
    outcome = str(last.fields.get("outcome", "")) if last.event == "run_ended" else "killed"
    return {"begins_at": last.at.isoformat(), "ends_at": until.isoformat(), "outcome": outcome}


def _sum_holds(holds: Iterable[Hold], now: datetime) -> list[dict[str, Any]]:
    kinds = defaultdict[str, list[Hold]](list)
    for hold in holds:
        kinds[hold.kind].append(hold)
    sums = [
        {
            "kind": kind,
            "times": len(each),
            "seconds": covered_s(each, now),
            "longest_s": max(_seconds(hold, now) for hold in each),
        }
        for kind, each in kinds.items()
    ]
    return sorted(sums, key=lambda kind: -kind["seconds"])


def sum_throughput(history: Iterable[HistoryRecord], steps: Iterable[StepView]) -> list[dict[str, Any]]:
    """Batches of each table, the most rows first; ``rate`` is rows divided by the time of batches and pauses.

    ``rows`` are the cursors': when a runner is killed, the other sums lose up to its last ten seconds.
    """
    sums_kept = [record for record in history if record.event == "throughput"]
    sums = defaultdict[str, dict[str, float]](lambda: defaultdict(float))
    for record in sums_kept:
        for name in ("rows", "batches", "worked_s", "paused_s", "skipped_locked"):
            value = record.fields.get(name, 0)
            sums[record.table][name] += value if isinstance(value, int | float) else 0
    keys = {(record.stage, record.step, record.table) for record in sums_kept}
    done = Counter[str]()
    for step in steps:
        done[step.table] += step.rows_done if step.key in keys else 0
    tables = []
    for table, one in sums.items():
        seconds = one["worked_s"] + one["paused_s"]
        rate = one["rows"] / seconds if seconds else None
        tables.append({"table": table, **one, "rows": max(one["rows"], done[table]), "rate": rate})
    return sorted(tables, key=lambda one: -one["rows"])


def find_growth(history: Iterable[HistoryRecord]) -> list[dict[str, Any]]:
    """Bytes of each table and of its indexes at the first and the last measurement, the largest first."""
    measured = [r for r in history if r.event == "tables_measured"]
    first, last = _sizes(measured), _sizes(reversed(measured))
    is_again = len(measured) > 1
    tables = [
        {
            "table": table,
            "table_before": size,
            "indexes_before": indexes,
            "table_after": last[table][0] if is_again else None,
            "indexes_after": last[table][1] if is_again else None,
        }
        for table, (size, indexes) in first.items()
    ]
    return sorted(tables, key=lambda one: -one["table_before"])


def _sizes(records: Iterable[HistoryRecord]) -> dict[str, Sequence[Any]]:
    """Each table's sizes, from the first of the records that has it."""
    sizes = dict[str, Sequence[Any]]()
    for record in records:
        found = record.fields.get("sizes")
        if isinstance(found, Mapping):
            sizes = {**found, **sizes}
    return sizes


def find_approvals(
    approvals: Iterable[ApprovalRecord], history: Iterable[HistoryRecord], now: datetime
) -> list[dict[str, str]]:
    """What people allowed, oldest first: each approval, each accepted change of the plan, each redo."""
    found = [
        {
            "stage": a.stage,
            "approved_by": a.approved_by,
            "account": a.account,
            "note": a.note,
            "at": a.approved_at.isoformat(),
            "state": approval_state(a, now),
        }
        for a in approvals
    ]
    found += [
        {
            "stage": record.stage,
            "approved_by": str(record.fields.get("by", "")),
            "account": "",
            "note": describe(record.event, record.fields),
            "at": record.at.isoformat(),
            "state": "",
        }
        for record in history
        if record.event in ALLOWED
    ]
    return sorted(found, key=lambda one: one["at"])


def find_findings(history: Iterable[HistoryRecord]) -> list[dict[str, str]]:
    """The findings of the checks before each start of the run, each finding once."""
    findings = dict[tuple[str, ...], dict[str, str]]()
    for record in history:
        if record.event == "check_found":
            names = ("severity", "fact", "where", "remedy")
            finding = {name: str(record.fields.get(name, "")) for name in names}
            findings[tuple(finding.values())] = finding
    return list(findings.values())


def _seconds(hold: Hold, now: datetime) -> float:
    return max(0.0, ((hold.ends_at or now) - hold.begins_at).total_seconds())


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
