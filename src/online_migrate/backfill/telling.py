"""What a backfill tells while it goes: that it began and why so, each batch, how long it will take yet."""

from __future__ import annotations

from online_migrate.backfill.batch import Change
from online_migrate.backfill.bench import Bench
from online_migrate.backfill.chunks import Slice, position_of, share_done, walk_of
from online_migrate.backfill.forecast import Rates, seconds_text
from online_migrate.backfill.strategy import Strategy
from online_migrate.events import BackfillStarted, BatchDone, Note
from online_migrate.journal.store import CursorRecord

FORECAST_AFTER_S = 60.0
"""the first minute of a pass says more than the catalog does"""
FORECAST_AGAIN_S = 600.0


class Teller:
    """Of one table's backfill."""

    def __init__(self, bench: Bench, table: str) -> None:
        self._bench = bench
        self._table = table
        self._rates = Rates()
        self._forecast_at = bench.clock.monotonic() + FORECAST_AFTER_S

    def forget_rate(self) -> None:
        """After a hold, and at the beginning of a pass: nothing is known of how fast it goes."""
        self._rates.clear()

    def say_started(self, cursor: CursorRecord, strategy: Strategy) -> None:
        """A pass begins or goes on."""
        share = share_done(walk_of(cursor), position_of(cursor))
        self._bench.emit(
            BackfillStarted,
            pass_name=cursor.pass_name,
            stripes=cursor.stripes,
            chunk_pages=cursor.chunk_pages,
            pages_done=round(share * cursor.pages_total),
            pages_total=cursor.pages_total,
            rows_expected=max(round(strategy.rows_per_page * cursor.pages_total), cursor.rows_done),
            rows_done=cursor.rows_done,
            why=strategy.why,
        )

    def say_batch(
        self, done: CursorRecord, part: Slice, change: Change, seconds: float, pause_s: float
    ) -> None:
        """A batch has committed; now and then, what is left."""
        share, now = share_done(walk_of(done), position_of(done)), self._bench.clock.monotonic()
        self._rates.note(now, share)
        is_sweep = done.pass_name == "sweep"
        self._bench.emit(
            BatchDone,
            rows=change.rows,
            pages=part.pages,
            seconds=seconds,
            pause_s=pause_s,
            rows_done=done.rows_done,
            share_done=1.0 if is_sweep else share,
            eta_s=None if is_sweep else self._rates.eta_s,
            skipped_locked=change.skipped_locked,
        )
        left = self._rates.eta_range
        if now >= self._forecast_at and left is not None and not is_sweep:
            self._forecast_at = now + FORECAST_AGAIN_S
            text = f"{seconds_text(left.low)} to {seconds_text(left.high)}"
            message = f"{self._table}: {text} left, by the rate of the last half minute"
            self._bench.emit(Note, message=message)
