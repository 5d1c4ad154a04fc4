"""What was verified: steps that were compared with the catalog, and steps that only verify."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.snapshot.kinds import is_backfill, operation_of
from online_migrate.observe.snapshot.views import Snapshot, StepView


def sum_verified(snapshot: Snapshot, history: Iterable[HistoryRecord]) -> dict[str, Any]:
    """A sentence, and the steps that only verify, with the number of tables that passed."""
    done = [step for step in snapshot.steps if step.state == "done"]
    compared = [step for step in done if (op := operation_of(step.step)) and op.is_verified_at_once]
    proven = [step for step in done if is_backfill(step.step)]
    verifying = [step for step in snapshot.steps if (op := operation_of(step.step)) and op.only_verifies]
    ended = {(r.stage, r.step, r.table): r.at for r in history if r.event == "step_ended"}
    text = (
        f"{len(compared):,} steps were compared with the catalog when they ended."
        f" {len(proven):,} backfills ended with a proof that no row is left."
        f" {sum(s.state == 'done' for s in verifying):,} of {len(verifying):,} verification steps passed."
    )
    titles = dict.fromkeys((step.stage, step.step) for step in verifying)
    return {
        "verified_text": text,
        "verified": [
            _verifying([s for s in verifying if (s.stage, s.step) == title], ended) for title in titles
        ],
    }


def _verifying(steps: Sequence[StepView], ended: dict[tuple[str, str, str], datetime]) -> dict[str, Any]:
    times = [ended[step.key] for step in steps if step.key in ended]
    return {
        "stage": steps[0].stage,
        "step": steps[0].step,
        "tables": sum(bool(step.table) for step in steps),
        "done": sum(step.state == "done" for step in steps),
        "total": len(steps),
        "at": max(times).isoformat() if times else None,
    }
