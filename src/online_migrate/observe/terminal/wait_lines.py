"""Why a run waits, in a few lines: one line for each kind of wait, however many tables wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from online_migrate.figures import seconds_text
from online_migrate.observe.snapshot.views import Snapshot, WaitView
from online_migrate.observe.words import place_text

NAMED: Final = 2
"""tables that are named for each reason; the others are counted"""

_WORDS: Final = {
    "soak": "soaking", "table_lock": "locked", "row_lock": "locked", "blocker": "locked", "cursor": "locked",
    "connection": "offline", "standby_commit": "standby", "paused": "paused",
}  # fmt: skip


def wait_word(kind: str) -> str:
    """A wait of this kind in one word, short enough for a cell."""
    return _WORDS.get(kind, "held")


def wait_lines(snapshot: Snapshot, reasons: int = 2) -> Iterable[str]:
    """The runner's notes, the run's reason, gates and waits; at most ``reasons`` of each kind of wait, the
    others counted.
    """
    yield from snapshot.notes
    if snapshot.reason and not snapshot.waits:
        yield snapshot.reason
    for stage in snapshot.stages:
        is_approved = any(
            a.stage == stage.stage and a.is_in_force(snapshot.read_at) for a in snapshot.approvals
        )
        if stage.state == "waiting" and stage.reason not in snapshot.reason and not is_approved:
            yield f"gate of {stage.stage}: {stage.reason}"
    for kind in dict.fromkeys(wait.kind for wait in snapshot.waits):
        yield _kind_line(snapshot, [wait for wait in snapshot.waits if wait.kind == kind], reasons)


def _kind_line(snapshot: Snapshot, waits: Sequence[WaitView], most: int) -> str:
    """Each reason with its tables; the longest wait first."""
    by_age = sorted(waits, key=lambda wait: wait.since)
    reasons = list(dict.fromkeys(wait.reason for wait in by_age))
    shown = reasons if len(reasons) <= most else reasons[:1]
    parts = []
    for reason in shown:
        same = [wait for wait in by_age if wait.reason == reason]
        seconds = (snapshot.read_at - same[0].since).total_seconds()
        where = ", ".join(filter(None, (_places(same), f"for {seconds_text(seconds)}")))
        parts.append(f"{where}: {reason}")
    rest = [wait for wait in by_age if wait.reason not in shown]
    if rest:
        word = wait_word(waits[0].kind)
        parts.append(f"{len(rest)} more ({word}): {_names([wait.table or wait.stage for wait in rest])}")
    return "; ".join(parts)


def _places(waits: Sequence[WaitView]) -> str:
    """Where they wait, grouped by step."""
    steps = dict.fromkeys((wait.stage, wait.step) for wait in waits)
    return " and ".join(
        place_text(*step, _names([wait.table for wait in waits if (wait.stage, wait.step) == step]))
        for step in steps
    )


def _names(names: Sequence[str]) -> str:
    if len(names) > NAMED + 1:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
