"""Lock windows of a run, summed for the report: how long they held and waited, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from online_migrate.figures import percentile
from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.words import place_text

LONGEST: Final = 20
"""windows that are shown one by one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A lock window that committed, or a lock attempt that failed."""

    record: HistoryRecord
    held_s: float | None
    """None: the attempt failed"""
    waited_s: float

    def to_json(self) -> dict[str, Any]:
        fields = self.record.fields
        return {
            "at": self.record.at.isoformat(),
            "place": place_text(self.record.stage, self.record.step, self.record.table),
            "relation": str(fields.get("relation", "")),
            "lock": str(fields.get("lock", "")),
            "attempts": fields.get("attempts", 1),
            "waited_s": self.waited_s,
            "held_s": self.held_s,
        }


def sum_locks(history: Iterable[HistoryRecord]) -> dict[str, Any]:
    """All lock windows, by stage, and those for which an application statement can have waited longest."""
    windows = [_window(r) for r in history if r.event in {"lock_held", "lock_attempt_failed"}]
    stages = dict.fromkeys(window.record.stage for window in windows)
    longest = sorted(
        (w for w in windows if w.held_s is not None), key=lambda w: -(w.waited_s + (w.held_s or 0))
    )
    held = sorted(w.held_s for w in windows if w.held_s is not None)
    return _sum(windows) | {
        "held_p50_s": percentile(held, 0.5),
        "held_p99_s": percentile(held, 0.99),
        "stages": [{"stage": s, **_sum([w for w in windows if w.record.stage == s])} for s in stages],
        "longest": [window.to_json() for window in longest[:LONGEST]],
    }


def _sum(windows: Sequence[Window]) -> dict[str, Any]:
    held = [w.held_s for w in windows if w.held_s is not None]
    return {
        "windows": len(held),
        "failed_attempts": len(windows) - len(held),
        "held_longest_s": max(held, default=None),
        "waited_longest_s": max((w.waited_s for w in windows), default=None),
    }


def _window(record: HistoryRecord) -> Window:
    held = record.fields.get("held_s")
    waited = record.fields.get("waited_s")
    return Window(
        record=record,
        held_s=float(held) if record.event == "lock_held" and isinstance(held, int | float) else None,
        waited_s=float(waited) if isinstance(waited, int | float) else 0.0,
    )
