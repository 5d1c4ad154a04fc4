"""Which tables a terminal shows if not all fit, and a summary of the others: pure, from a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from online_migrate.observe.snapshot.views import Key, Snapshot, StepView, WaitView, wait_at

NO_TABLE: Final = "(no table)"
WORDS: Final = {
    "failed": "failed",
    "waiting": "waiting",
    "moving": "at work",
    "passed": "filled",
    "done": "done",
    "pending": "pending",
}
"""the word for each state, in the order in which they are listed"""
_RANK: Final = ("failed", "waiting", "moving", "passed", "pending", "done")
"""which tables are shown first"""

Waits = Mapping[Key, WaitView]


def waits_of(snapshot: Snapshot) -> Waits:
    """The waits by their place."""
    return {wait.key: wait for wait in snapshot.waits}


def wait_of(step: StepView, waits: Waits) -> WaitView | None:
    """What the step waits for now; a pending step only has a wait of its own."""
    if step.state == "running":
        return None if step.is_parked else wait_at(step.key, waits)
    return waits.get(step.key) if step.state == "pending" else None


def state_of(step: StepView, waits: Waits) -> str:
    """Its state; for a running step whether it waits, moves or is filled."""
    if wait_of(step, waits) is not None:
        return "waiting"
    if step.state == "running":
        return "passed" if step.is_passed else "moving"
    return step.state


def most_urgent(steps: Sequence[StepView], waits: Waits) -> StepView | None:
    """The most urgent of several steps: failed, waiting, moving or filled; None if there is none."""
    busy = [step for step in steps if state_of(step, waits) in _RANK[:4]]
    return min(busy, key=lambda step: _RANK.index(state_of(step, waits)), default=None)


class Row:
    """One table over all stages."""

    def __init__(self, name: str, cells: Sequence[tuple[StepView, ...]], waits: Waits) -> None:
        self.name = name
        self.cells = cells
        self._steps = [step for cell in cells for step in cell]
        states = {state_of(step, waits) for step in self._steps}
        busy = [state for state in _RANK[:4] if state in states]
        self.state = busy[0] if busy else "done" if states == {"done"} else "pending"

    @property
    def share(self) -> float:
        """The share of its steps that are done."""
        return sum(step.state == "done" for step in self._steps) / len(self._steps)


def rows_of(snapshot: Snapshot) -> list[Row]:
    """In the plan's order; steps without a table come last."""
    names, waits = dict.fromkeys(step.table for step in snapshot.steps), waits_of(snapshot)
    ordered = [n for n in names if n] + [n for n in names if not n]
    return [
        Row(
            n or NO_TABLE, [tuple(s for s in stage.steps if s.table == n) for stage in snapshot.stages], waits
        )
        for n in ordered
    ]


def fitting(rows: list[Row], room: int) -> list[Row]:
    """If not all fit: those that failed, wait, move or are filled, then those with the least done; in the
    plan's order.
    """
    if len(rows) <= room:
        return rows
    best = sorted(rows, key=lambda row: (_RANK.index(row.state), row.share if row.state == "pending" else 0))
    kept = {id(row) for row in best[: max(1, room)]}
    return [row for row in rows if id(row) in kept]


def left_out(rows: list[Row], shown: list[Row]) -> str:
    """How many tables are not shown, by their state."""
    kept = {id(row) for row in shown}
    counts: Counter[str] = Counter(row.state for row in rows if id(row) not in kept)
    states = ", ".join(f"{counts[state]} {word}" for state, word in WORDS.items() if counts[state])
    return f"and {counts.total()} more tables: {states}" if counts else ""
