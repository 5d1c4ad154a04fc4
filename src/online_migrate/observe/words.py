"""Events in words: one sentence for each kind of event, the same in logs, on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from online_migrate.figures import count_text, seconds_text, share_text
from online_migrate.journal.records import ApprovalRecord

Fields = Mapping[str, Any]


def place_text(stage: str, step: str, table: str) -> str:
    """Where something happened: ``backfill / backfill bot_id / users``."""
    return " / ".join(part for part in (stage, step, table) if part)


def describe(event: str, fields: Fields) -> str:
    """One sentence for an event with this name (:attr:`Event.name`) and these facts, without its place."""
    words = _SENTENCES.get(event)
    return (words(fields) if words else "") or event.replace("_", " ")


def approval_state(approval: ApprovalRecord, now: datetime) -> str:
    """Whether an approval opens its gate at ``now``: `in force`, `expired …`, `revoked by …`."""
    if approval.revoked_at is not None:
        note = f": {approval.revoke_note}" if approval.revoke_note else ""
        return f"revoked by {approval.revoked_by} at {approval.revoked_at:%Y-%m-%d %H:%M:%S %Z}{note}"
    if approval.expires_at is None:
        return "in force"
    word = "in force until" if approval.is_in_force(now) else "expired at"
    return f"{word} {approval.expires_at:%Y-%m-%d %H:%M:%S %Z}"


def _run_started(f: Fields) -> str:
    starts = "resumes" if f.get("resumed") else "starts"
    done, total = f.get("steps_done", 0), f.get("steps_total", "?")
    return f"plan {f.get('plan', '?')} {starts}: {done} of {total} steps are done"


def _backfill_started(f: Fields) -> str:
    starts = "resumes" if f.get("pages_done") or f.get("rows_done") else "starts"
    return (
        f"{f.get('pass_name', '')} pass {starts} at page {count_text(f.get('pages_done', 0))} of"
        f" {count_text(f.get('pages_total'))}, about {count_text(f.get('rows_expected'))} rows:"
        f" {f.get('reason', '')}"
    )


def _batch_done(f: Fields) -> str:
    left = f.get("eta_s")
    return (
        f"{share_text(f.get('share_done', 0))}, {count_text(f.get('rows_done'))} rows done;"
        f" last batch {count_text(f.get('rows'))} rows in {seconds_text(f.get('seconds'))},"
        f" pause {seconds_text(f.get('pause_s'))};"
        f" {'time left unknown' if left is None else seconds_text(left) + ' left'}"
    )


def _throughput(f: Fields) -> str:
    return (
        f"{share_text(f.get('share_done', 0))}, {count_text(f.get('rows_done'))} rows done;"
        f" {count_text(f.get('rows'))} of them in {count_text(f.get('batches'))} batches"
        f" that took {seconds_text(f.get('worked_s'))}"
    )


def _lock_attempt_failed(f: Fields) -> str:
    return (
        f"lock attempt {f.get('attempt', '?')} failed after {seconds_text(f.get('waited_s'))}:"
        f" {f.get('lock', '?')} on {f.get('relation', '?')}, {f.get('reason', '')};"
        f" retrying in {seconds_text(f.get('pause_s'))}{_blocked_by(f)}"
    )


def _lock_held(f: Fields) -> str:
    attempts = f.get("attempts", 1)
    return (
        f"{f.get('lock', '?')} on {f.get('relation', '?')} held for {seconds_text(f.get('held_s'))},"
        f" acquired after {seconds_text(f.get('waited_s'))}"
        + (f", attempt {attempts}" if attempts != 1 else "")
    )


def _long_statement(f: Fields) -> str:
    waits = f.get("waits_for") or ()
    share = share_text(f.get("share_done"))
    how_far = ", ".join(
        part for part in (f.get("phase"), share, f"for {seconds_text(f.get('seconds'))}") if part
    )
    return f"{f.get('statement', '')}: {how_far}" + (f"; waits for {', '.join(waits)}" if waits else "")


def _blocked_by(f: Fields) -> str:
    blockers = f.get("blockers") or ()
    return f"; blocked by {', '.join(blockers)}" if blockers else ""


def _after_colon(f: Fields, name: str) -> str:
    return f": {f[name]}" if f.get(name) else ""


def _step_ended(f: Fields) -> str:
    if f.get("outcome") == "adopted":
        return f"adopted: the catalog already matches; checked in {seconds_text(f.get('seconds'))}"
    rows = f", {count_text(f['rows'])} rows" if f.get("rows") else ""
    return f"{f.get('outcome')} in {seconds_text(f.get('seconds'))}{rows}"


_SENTENCES: Final[Mapping[str, Callable[[Fields], str]]] = {
    "run_started": _run_started,
    "run_ended": lambda f: (
        f"run ended: {f.get('outcome')}, exit code {f.get('exit_code')}, after"
        f" {seconds_text(f.get('seconds'))}"
    ),
    "stage_started": lambda f: f"stage starts ({f.get('phase', '')})",
    "stage_ended": lambda f: f"stage done in {seconds_text(f.get('seconds'))}",
    "gate_waiting": lambda f: f"waiting at its gate for approval: {f.get('approval', '')}",
    "step_reopened": lambda f: f"reopened by {f.get('by', '?')}{_after_colon(f, 'note')}",
    "plan_accepted": lambda f: (
        f"changed plan accepted by {f.get('by', '?')}: {'; '.join(f.get('changes') or ())}"
    ),
    "gate_approved": lambda f: f"gate approved by {f.get('approved_by', '?')}{_after_colon(f, 'approval')}",
    "step_started": lambda f: "resumes" if f.get("resumed") else "starts",
    "step_ended": _step_ended,
    "statement_executed": lambda f: (
        f"executed in {seconds_text(f.get('seconds'))}: {'; '.join(f.get('statements') or ())}"
    ),
    "step_failed": lambda f: f"failed: {f.get('error', '')}",
    "backfill_started": _backfill_started,
    "batch_done": _batch_done,
    "throughput": _throughput,
    "late_rows": lambda f: (
        f"{'at least ' if f.get('more') else ''}{count_text(f.get('rows'))} rows without a value found"
        " after the pass"
    ),
    "wait_started": lambda f: f"waiting ({f.get('kind', '')}): {f.get('reason', '')}",
    "wait_continues": lambda f: (
        f"still waiting ({f.get('kind', '')}), for {seconds_text(f.get('seconds'))}: {f.get('reason', '')}"
    ),
    "wait_ended": lambda f: f"continues after waiting {seconds_text(f.get('seconds'))} ({f.get('kind', '')})",
    "reading": lambda f: f"{f.get('throttler', '')} at {f.get('utilisation', 0):.2f}: {f.get('reason', '')}",
    "blockers_seen": lambda f: f"waiting for {f.get('waiting_for', '')}{_blocked_by(f)}",
    "lock_attempt_failed": _lock_attempt_failed,
    "lock_held": _lock_held,
    "long_statement": _long_statement,
    "stop_asked": lambda f: f"stop requested ({f.get('reason', '')}): the run ends after this statement",
    "retried": lambda f: (
        f"retrying in {seconds_text(f.get('pause_s'))} (attempt {f.get('attempt')}): {f.get('error', '')}"
    ),
    "reconnected": lambda f: (
        f"{f['lost'] + '; ' if f.get('lost') else ''}connected again after {seconds_text(f.get('seconds'))}"
    ),
    "secret_shown": lambda f: f"secret {f.get('secret', '')} was written to {f.get('where', '')}",
    "check_found": lambda f: f"check, {f.get('severity', '')}: {f.get('fact', '')}",
    "tables_measured": lambda f: f"sizes of {len(f.get('sizes', ()))} tables measured",
    "note": lambda f: str(f.get("message", "")),
}
