"""What was done in a database: the runs in its journal with steps, statements, approvals and events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from online_migrate.journal.records import ApprovalRecord, HistoryRecord, StepRecord
from online_migrate.journal.runs import RunSummary, read_run_approvals, read_runs
from online_migrate.journal.store import Journal
from online_migrate.observe.words import describe, place_text
from online_migrate.postgres.connection import Connection

KINDS: Final = (
    "run_started", "run_ended", "stage_started", "stage_ended", "gate_waiting", "gate_approved",
    "plan_accepted", "step_started", "step_ended", "step_failed", "step_reopened", "statement_executed",
    "stop_asked", "reconnected",
)  # fmt: skip
"""the events of a run's history: what was done, and what interrupted it"""
_CUT_OFF: Final = "the runner ended without a word: killed, or its host failed"
AT = "%Y-%m-%d %H:%M:%S %Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened in a run, in a sentence."""

    at: datetime
    place: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """One run as its journal has it."""

    summary: RunSummary
    steps: tuple[StepRecord, ...]
    approvals: tuple[ApprovalRecord, ...]
    history: tuple[HistoryRecord, ...]
    """of the kinds in :data:`KINDS`, oldest first"""

    def statements(self) -> tuple[HistoryRecord, ...]:
        """The executed statements, in the order of their commits."""
        return tuple(record for record in self.history if record.event == "statement_executed")

    def entries(self) -> tuple[Entry, ...]:
        """What happened, oldest first: events, approvals, and where a runner was cut off."""
        found = [*_events(self.history), *_approvals(self.approvals)]
        return tuple(sorted(found, key=lambda entry: entry.at))


def read_past(connection: Connection, plan: str | None = None) -> tuple[PastRun, ...]:
    """All runs, or those of ``plan``, oldest first.  The journal must be readable."""
    journal = Journal(connection)
    return tuple(
        PastRun(
            summary=run,
            steps=journal.read_steps(run.run_id),
            approvals=read_run_approvals(connection, run.run_id),
            history=journal.read_history(run.run_id, KINDS),
        )
        for run in read_runs(connection)
        if plan in (None, run.plan)
    )


def _events(history: Sequence[HistoryRecord]) -> Iterator[Entry]:
    last: HistoryRecord | None = None
    for record in history:
        if record.event == "run_started" and last is not None and last.event != "run_ended":
            yield Entry(at=last.at, place="", text=_CUT_OFF)
        text = describe(record.event, record.fields)
        if record.event == "run_started" and record.fields.get("by"):
            text += f"; started by {record.fields['by']}"
        yield Entry(at=record.at, place=place_text(record.stage, record.step, record.table), text=text)
        if record.event != "step_reopened":  # written by `redo`, while no runner is at work
            last = record


def _approvals(approvals: Iterable[ApprovalRecord]) -> Iterator[Entry]:
    for one in approvals:
        note = f": {one.note}" if one.note else ""
        until = f", until {one.expires_at:{AT}}" if one.expires_at else ""
        account = f", account {one.account}" if one.account not in ("", one.approved_by) else ""
        yield Entry(
            at=one.approved_at, place=one.stage, text=f"approved by {one.approved_by}{account}{until}{note}"
        )
        if one.revoked_at is not None:
            why = f": {one.revoke_note}" if one.revoke_note else ""
            text = f"approval by {one.approved_by} revoked by {one.revoked_by}{why}"
            yield Entry(at=one.revoked_at, place=one.stage, text=text)
