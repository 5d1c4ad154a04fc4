"""How fast rows were written over time, and when the run was held: pure, from the journal's history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.snapshot.views import StepView, WaitView
from online_migrate.observe.snapshot.waits import Place, take
from online_migrate.observe.words import place_text

BUCKETS: Final = 120
"""points of a curve at most: a page cannot show more"""
RECENT_S: Final = 10.0
"""the current rate is measured over this: one batch says little, a small table is done between two reads"""
AROUND_A_RUN: Final = frozenset({"check_found", "tables_measured"})
"""events that do not come from a runner at work"""
_WIDTHS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Rows that were written between two times."""

    begins_at: datetime
    ends_at: datetime
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Rows per second, one figure a bucket; the last bucket ends at ``ends_at``."""

    begins_at: datetime
    ends_at: datetime
    bucket_s: int
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A time in which the run, a stage or a step was held."""

    kind: str
    reason: str
    place: str
    begins_at: datetime
    ends_at: datetime | None
    """None: still held"""


def find_work(
    history: Iterable[HistoryRecord], steps: Iterable[StepView] = (), now: datetime | None = None
) -> tuple[Work, ...]:
    """Each sum of batches with its time; for running ``steps`` also the rows since their last sum."""
    work = list[Work]()
    last = dict[tuple[str, str, str], tuple[datetime, int]]()
    for record in history:
        if record.event not in {"backfill_started", "throughput"}:
            continue
        key = (record.stage, record.step, record.table)
        if record.event == "backfill_started":
            last[key] = (record.at, _count(record, "rows_done"))
        else:
            took = _number(record, "worked_s") + _number(record, "paused_s")
            begins = record.at - timedelta(seconds=max(took, 0.001))
            work.append(Work(begins_at=begins, ends_at=record.at, rows=_count(record, "rows")))
            last[key] = (record.at, _count(record, "rows_done"))
    for step in steps:
        at, rows = last.get(step.key, (None, 0))
        if (
            now is not None
            and at is not None
            and at < now
            and step.rate is not None
            and step.rows_done > rows
        ):
            work.append(Work(begins_at=at, ends_at=now, rows=step.rows_done - rows))
    return tuple(work)


def recent_rate(work: Sequence[Work], now: datetime) -> float | None:
    """Rows per second over the last :data:`RECENT_S`; None if that time has less than a second of work."""
    begin = now - timedelta(seconds=RECENT_S)
    parts = [(w, max(w.begins_at, begin), min(w.ends_at, now)) for w in work if w.ends_at > begin]
    if not parts:
        return None
    seconds = (now - min(since for _, since, _ in parts)).total_seconds()
    rows = sum(w.rows * ((until - since) / (w.ends_at - w.begins_at)) for w, since, until in parts)
    return rows / seconds if seconds >= 1 else None


def draw_curve(
    work: Sequence[Work], *, until: datetime | None = None, longest_s: float | None = None
) -> Curve | None:
    """The work as a curve, to its end or to ``until``, over ``longest_s`` at most; None if no row was
    written.
    """
    if not work:
        return None
    end = max(w.ends_at for w in work).timestamp()
    end = end if until is None else max(end, until.timestamp())
    begin = min(w.begins_at for w in work).timestamp()
    if longest_s is not None:
        begin = max(begin, end - longest_s)
    width = next((w for w in _WIDTHS_S if (end - begin) / w <= BUCKETS - 1), _WIDTHS_S[-1])
    first = int(begin // width)  # buckets begin at round times, so that the curve does not jump
    rows = [0.0] * (int(end // width) - first + 1)
    for one in work:
        _spread(rows, one, first, width)
    covered = [float(width)] * len(rows)
    covered[-1] = max(end - (first + len(rows) - 1) * width, 0.05 * width)
    zone = work[0].ends_at.tzinfo
    return Curve(
        begins_at=datetime.fromtimestamp(first * width, zone),
        ends_at=datetime.fromtimestamp(end, zone),
        bucket_s=width,
        rates=tuple(r / seconds for r, seconds in zip(rows, covered, strict=True)),
    )


def _spread(rows: list[float], work: Work, first: int, width: int) -> None:
    """Add the rows to the buckets that their time covers, evenly."""
    begin, end = work.begins_at.timestamp(), work.ends_at.timestamp()
    for bucket in range(max(int(begin // width), first), int(end // width) + 1):
        overlap = min(end, (bucket + 1) * width) - max(begin, bucket * width)
        if overlap > 0 and bucket - first < len(rows):
            rows[bucket - first] += work.rows * overlap / (end - begin)


def find_holds(history: Iterable[HistoryRecord], *, is_live: bool) -> tuple[Hold, ...]:
    """Every wait with its last reason, oldest first.

    If a runner was killed during a wait, the wait ends with its last event.
    """
    holds, waits = list[Hold](), dict[Place, WaitView]()
    last_event_at: datetime | None = None
    for record in history:
        over = take(waits, record)
        until = last_event_at if record.event == "run_started" else record.at
        holds += [_hold(wait, until or record.at) for wait in over]
        if record.event not in AROUND_A_RUN:
            last_event_at = record.at
    holds += [_hold(wait, None if is_live else last_event_at) for wait in waits.values()]
    return tuple(sorted(holds, key=lambda hold: hold.begins_at))


def covered_s(holds: Iterable[Hold], now: datetime) -> float:
    """Seconds in which at least one hold was open: two tables that wait at the same time count once."""
    covered, until = 0.0, None
    for hold in sorted(holds, key=lambda hold: hold.begins_at):
        begin = hold.begins_at if until is None else max(hold.begins_at, until)
        end = hold.ends_at or now
        covered += max(0.0, (end - begin).total_seconds())
        until = end if until is None else max(end, until)
    return covered


def _hold(wait: WaitView, ends_at: datetime | None) -> Hold:
    return Hold(
        kind=wait.kind,
        reason=wait.reason,
        place=place_text(wait.stage, wait.step, wait.table),
        begins_at=wait.since,
        ends_at=ends_at,
    )


def _number(record: HistoryRecord, field: str) -> float:
    value = record.fields.get(field, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _count(record: HistoryRecord, field: str) -> int:
    return int(_number(record, field))
