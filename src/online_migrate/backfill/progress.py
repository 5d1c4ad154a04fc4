"""Progress events of a backfill: the start of a pass and the reason for its strategy, each batch, and
forecasts.
"""

from __future__ import annotations

import psycopg

from online_migrate.backfill.batch import Change
from online_migrate.backfill.chunks import Slice, position_of, share_done, walk_of
from online_migrate.backfill.context import BackfillContext
from online_migrate.backfill.forecast import Costs, Mark, Range, Rates
from online_migrate.backfill.strategy import Strategy
from online_migrate.events import BackfillStarted, BatchDone, Note
from online_migrate.figures import bytes_text, short_seconds_text
from online_migrate.journal.records import CursorRecord
from online_migrate.plan.model import Pace
from online_migrate.postgres.catalog import TableInfo

FORECAST_AFTER_S = 60.0
"""the rate of a pass's first minute gives a better forecast than the catalog"""
FORECAST_AGAIN_S = 600.0
SIZE_LOCK_TIMEOUT = "50ms"
"""reading a table's size takes ACCESS SHARE on it; if that is blocked, the size is unknown"""
FLOOR_TIMES = 10.0
"""times the target of a batch: from here on a smallest batch that is longer is reported; a stall rarely is"""
TENTH = 0.1
"""of the table: the length of a round where an index contains the column, from one vacuum to the next"""


class ProgressReporter:
    """Reports the progress of one table's backfill."""

    def __init__(self, context: BackfillContext, table: TableInfo) -> None:
        self._context = context
        self._names = (table.schema, table.name)
        self._table = table.full_name
        self._rates = Rates()
        self._costs = Costs()
        self._round: int | None = None
        self._forecast_at = context.clock.monotonic() + FORECAST_AFTER_S
        self._owes_costs = self._is_floor_reported = False

    def forget_rate(self) -> None:
        """After a hold, and at the start of a pass: the rate is unknown until some seconds were measured."""
        self._rates.clear()

    def report_started(self, cursor: CursorRecord, strategy: Strategy) -> None:
        """A pass starts or continues."""
        share = share_done(walk_of(cursor), position_of(cursor))
        self._costs, self._round = Costs(), _round_of(cursor, share)
        if cursor.pass_name == "interleaved" and not cursor.stripe and cursor.slice == cursor.chunk:
            self._end_round(self._context.clock.monotonic(), share)  # otherwise at the next chunk
        self._context.emit(
            BackfillStarted,
            pass_name=cursor.pass_name,
            stripes=cursor.stripes,
            chunk_pages=cursor.chunk_pages,
            pages_done=round(share * cursor.pages_total),
            pages_total=cursor.pages_total,
            rows_expected=max(round(strategy.rows_per_page * strategy.walk.pages_total), cursor.rows_done),
            rows_done=cursor.rows_done,
            reason=strategy.reason,
        )

    def report_batch(
        self, done: CursorRecord, part: Slice, change: Change, seconds: float, pause_s: float
    ) -> None:
        """A batch has committed after ``seconds``, waits for locks included; from time to time also a
        forecast.
        """
        share, now = share_done(walk_of(done), position_of(done)), self._context.clock.monotonic()
        self._rates.note(now, share)
        is_sweep = done.pass_name == "sweep"
        self._context.emit(
            BatchDone,
            rows=change.rows,
            pages=part.pages,
            seconds=max(seconds - change.lock_wait_s, 0.0),
            pause_s=pause_s,
            rows_done=done.rows_done,
            share_done=1.0 if is_sweep else share,
            eta_s=None if is_sweep else self._rates.eta_s,
            skipped_locked=change.skipped_locked,
        )
        if not is_sweep:
            self._measure(done, change, share, now)
            self._forecast(done, share, now)

    def report_floor(self, floor_s: float, pace: Pace) -> None:
        """Once: the smallest batch that the pace allows takes far longer than its target."""
        if self._is_floor_reported or floor_s < FLOOR_TIMES * pace.batch_target:
            return
        self._is_floor_reported = True
        message = (
            f"{self._table}: the smallest batch (pace: min_rows {pace.min_rows}) takes"
            f" {short_seconds_text(floor_s)}, longer than batch_target"
            f" {short_seconds_text(pace.batch_target)};"
            " it locks its rows for so long. Set a lower min_rows, or make the triggers of the table faster"
        )
        self._context.emit(Note, message=message)

    def _measure(self, done: CursorRecord, change: Change, share: float, now: float) -> None:
        self._costs.note(change.rows, change.wal_bytes)
        before, self._round = self._round, _round_of(done, share)
        if self._round != before and self._costs.is_long_enough(now):
            self._end_round(now, share)

    def _end_round(self, now: float, share: float) -> None:
        self._costs.end_round(Mark(at_s=now, share=share, table_bytes=self._read_table_bytes()))

    def _forecast(self, done: CursorRecord, share: float, now: float) -> None:
        """Time by the rate of the last 30 s, WAL and growth by earlier rounds; repeated once WAL and growth
        are known.
        """
        wal, growth = self._costs.wal_left(share), self._costs.growth_left(share)
        has_costs = wal is not None and growth is not None
        left = self._rates.eta_range
        if left is None or share >= 1 or not (now >= self._forecast_at or (self._owes_costs and has_costs)):
            return
        self._forecast_at, self._owes_costs = now + FORECAST_AGAIN_S, not has_costs
        text = f"{short_seconds_text(left.low)} to {short_seconds_text(left.high)}"
        costs = _costs_text(wal, growth, is_sequential=done.pass_name == "sequential")
        message = f"{self._table}: {text} left at the rate of the last 30 s; {costs}"
        self._context.emit(Note, message=message)

    def _read_table_bytes(self) -> int | None:
        """None if a lock blocks the read, or on a lost connection, which the runner reports."""
        watch = self._context.watch
        try:
            with watch.transaction():
                watch.execute(f"SET LOCAL lock_timeout = '{SIZE_LOCK_TIMEOUT}'")
                row = watch.execute(
                    "SELECT pg_relation_size(to_regclass(format('%%I.%%I', %s::text, %s::text)))",
                    self._names,
                ).fetchone()
        except psycopg.Error:
            return None
        return None if row is None else row[0]


def _round_of(cursor: CursorRecord, share: float) -> int:
    """The chunk, by its first page; in a sequential pass the tenth of the table."""
    return cursor.chunk if cursor.pass_name == "interleaved" else int(share / TENTH)


def _costs_text(wal: Range | None, growth: Range | None, *, is_sequential: bool) -> str:
    rounds = "tenths of the table" if is_sequential else "chunks"
    if wal is None and growth is None:
        return f"WAL and growth n/a until two {rounds} are done"
    vacuum = " (without VACUUM's own)" if is_sequential else ""
    return (
        f"{_bytes_range(wal)} more WAL{vacuum}, the table grows by {_bytes_range(growth)} more,"
        f" measured on the {rounds} done so far"
    )


def _bytes_range(found: Range | None) -> str:
    if found is None:
        return "n/a"
    low, high = bytes_text(found.low), bytes_text(found.high)
    return f"{low} to {high}" if low != high else f"about {low}"
