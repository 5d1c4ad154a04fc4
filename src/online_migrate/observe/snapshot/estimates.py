"""How far a backfill is, how fast it is and when it will be done: pure, from what the journal says.

What cannot be known is None.  A time left is never invented: not for a step that does not move, not without
a measure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from online_migrate.backfill.chunks import Position, Walk, share_done
from online_migrate.journal.records import CursorRecord, HistoryRecord

SWEEP: Final = "sweep"
"""the pass after the main pass, for rows that are left"""
STALE_S: Final = 15.0
"""a cursor that has not moved for longer has no known rate; a batch takes 50 ms, its pause little more"""
WINDOW_S: Final = 10.0
"""the rate is measured over at least this, if there is enough: throughput is recorded every 10 s"""
SHORTEST_S: Final = 0.2
"""a shorter time is no measure"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """How far a pass was at a time."""

    at: datetime
    rows_done: int
    share_done: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a pass is; None if it is not known."""

    rate: float | None
    """rows per second"""
    eta_s: float | None


UNKNOWN: Final = Pace(rate=None, eta_s=None)


def share_of(cursor: CursorRecord) -> float:
    """Pages done ÷ pages at the start, 0…1.  The sweep follows after all pages: its share is 1."""
    if cursor.pass_name == SWEEP:
        return 1.0
    walk = Walk(pages_total=cursor.pages_total, chunk_pages=cursor.chunk_pages, stripes=cursor.stripes)
    return share_done(walk, Position(chunk=cursor.chunk, stripe=cursor.stripe, slice=cursor.slice))


def is_sweep(cursor: CursorRecord | None) -> bool:
    """Whether all pages are filled."""
    return cursor is not None and cursor.pass_name == SWEEP


def points_of(history: Iterable[HistoryRecord]) -> dict[tuple[str, str, str], tuple[Point, ...]]:
    """The points of each step's current pass, oldest first."""
    points: dict[tuple[str, str, str], tuple[Point, ...]] = {}
    for record in history:
        if record.event == "backfill_started":
            points[record.stage, record.step, record.table] = (_start(record),)
        elif record.event == "throughput":
            key = (record.stage, record.step, record.table)
            points[key] = (*points.get(key, ()), _sum(record))
    return points


def pace_of(cursor: CursorRecord, points: tuple[Point, ...], now: datetime) -> Pace:
    """The pace of a pass, from a point some seconds ago to the cursor's place now; the sweep has none."""
    since = _base(cursor, points)
    if cursor.pass_name == SWEEP or since is None or (now - cursor.moved_at).total_seconds() > STALE_S:
        return UNKNOWN
    seconds = (cursor.moved_at - since.at).total_seconds()
    if seconds < SHORTEST_S or cursor.rows_done < since.rows_done:
        return UNKNOWN
    rate = (cursor.rows_done - since.rows_done) / seconds
    share = share_of(cursor)
    moved = share - since.share_done
    return Pace(rate=rate, eta_s=(1 - share) / moved * seconds if moved > 0 else None)


def _base(cursor: CursorRecord, points: tuple[Point, ...]) -> Point | None:
    """The newest point that is at least a window old, else the oldest."""
    far = [p for p in points if (cursor.moved_at - p.at).total_seconds() >= WINDOW_S]
    return far[-1] if far else next(iter(points), None)


def _start(record: HistoryRecord) -> Point:
    pages = _number(record, "pages_total")
    share = _number(record, "pages_done") / pages if pages else 0.0
    return Point(at=record.at, rows_done=int(_number(record, "rows_done")), share_done=share)


def _sum(record: HistoryRecord) -> Point:
    return Point(
        at=record.at, rows_done=int(_number(record, "rows_done")), share_done=_number(record, "share_done")
    )


def _number(record: HistoryRecord, field: str) -> float:
    value = record.fields.get(field, 0)
    return float(value) if isinstance(value, int | float) else 0.0
