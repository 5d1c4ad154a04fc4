"""The pass over a table: one batch after another with its cursor, the pace between them; then sweep and
proof.

Nothing is lost and nothing is done twice, because the cursor moves in the transaction of its batch, by
compare-and-set. batch.py has that transaction, sweep.py the sweep and the proof, health.py the holds.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import psycopg

from online_migrate.backfill.batch import TableRewritten, Writer
from online_migrate.backfill.chunks import Slice, Walk, next_slice, position_of, walk_of
from online_migrate.backfill.context import BackfillContext, Target
from online_migrate.backfill.health import Health
from online_migrate.backfill.pacer import Pacer
from online_migrate.backfill.progress import ProgressReporter
from online_migrate.backfill.refused_rows import find_refused_row, is_about_rows
from online_migrate.backfill.rows import RowSet
from online_migrate.backfill.strategy import (
    decide_chunk_pages,
    decide_strategy,
    most_chunk_pages,
    read_pages,
)
from online_migrate.backfill.sweep import LATE_LIMIT, Sweep
from online_migrate.backfill.vacuum import VacuumRounds
from online_migrate.backfill.values import Value
from online_migrate.errors import PreflightFailed
from online_migrate.events import Note
from online_migrate.journal.records import CursorRecord
from online_migrate.postgres.catalog import Catalog, TableInfo

MEASURE_WAL_EVERY = 17
"""batches, and when the pacer asks for it; such a batch runs under EXPLAIN (ANALYZE, WAL), which alone
separates our WAL from others', and takes up to a twelfth longer.  A prime: with 16 it would always measure
the same stripe"""
CURSOR_SHARE = 0.05
"""of a batch's time that the cursor's move may take; above it, with an old snapshot open, batches are longer
and fewer"""
CURSOR_LEAST_S = 0.0025
"""lower bound of that time, however short batches are: on a busy machine a commit alone takes a millisecond
"""
FULLEST_KEPT = 0.9
"""share of the fullest pages' row count that is kept from batch to batch: emptier pages may follow"""
LONGEST_RELAXED = 4.0
"""times the target time of a batch, however slow the cursor is"""


class Backfill:
    """Fills ``column`` of one table in every row in which it is NULL.

    ``schema`` is the plan's by default; the cursor is that of the context's key.

    ``quiet_s`` is the soak time: how long no row without a value may be seen at the end.
    """

    def __init__(
        self,
        context: BackfillContext,
        *,
        table: str,
        column: str,
        value: Value,
        schema: str | None = None,
        skip_triggers: bool = False,
        quiet_s: float = 0.0,
    ) -> None:
        self._context = context
        self._quiet_s = quiet_s
        self._set_target(
            Target(
                table=self._read_table(schema or context.schema, table),
                column=column,
                value=value,
                skip_triggers=skip_triggers,
            )
        )
        pace = context.pace
        self._pacer = Pacer(
            target_s=pace.batch_target,
            duty=context.duty,
            min_rows=pace.min_rows,
            max_rows=pace.max_rows,
            max_wal_bytes=pace.max_wal,
        )
        self._health = Health(context)
        self._reporter = ProgressReporter(context, self.target.table)
        self._batches = 0
        self._cursor_s = 0.0
        self._page_s: float | None = None
        self._rows_per_page_seen = 0.0

    @property
    def target(self) -> Target:
        return self._writer.target

    def walk(self) -> None:
        """The pass alone, without sweep and proof; see :meth:`run` for what it raises."""
        while True:
            try:
                self._walk_unless_done()
            except TableRewritten:
                self._reread_target()
            else:
                return

    def run(self) -> int:
        """Walk, sweep, prove; returns the rows that were given a value, earlier runs included.

        Raises :class:`Interrupted` after the current batch if a stop is requested; the same call then
        continues.
        """
        while True:
            try:
                return self._sweeper.sweep_and_prove(self._walk_unless_done())
            except TableRewritten:
                self._reread_target()

    def prove(self, limit: int = LATE_LIMIT) -> RowSet:
        """See :meth:`Sweep.prove`."""
        return self._sweeper.prove(limit)

    # the pass

    def _walk_unless_done(self) -> CursorRecord:
        cursor = self._context.journal.read_cursor(self._context.run_id, self._context.key)
        if cursor is None and not self._sweeper.prove(1):
            return self._begin("sweep", _NO_WALK, None)
        if cursor is None or cursor.pass_name != "sweep" or self._is_changed(cursor):
            return self._walk_main(cursor)
        return cursor

    def _walk_main(self, cursor: CursorRecord | None) -> CursorRecord:
        strategy = decide_strategy(self._context.work, self.target.table, self.target.column)
        reason = "" if cursor is None else self._reason_to_restart(cursor)
        if cursor is None or reason:
            if reason:
                self._context.emit(Note, message=f"{self.target.table.full_name} {reason}")
            cursor = self._begin(strategy.pass_name, strategy.walk, cursor)
        self._reporter.report_started(cursor, strategy)
        with self._writer.lock_waits:
            cursor = self._walk(cursor, strategy.rows_per_page)
        return self._begin("sweep", _NO_WALK, cursor)

    def _is_changed(self, cursor: CursorRecord) -> bool:
        return (cursor.column, cursor.value) != (self.target.column, self.target.value_text)

    def _reason_to_restart(self, cursor: CursorRecord) -> str:
        """Why the pass cannot continue at the cursor; empty if it can."""
        if self._is_changed(cursor):
            return (
                f"gets another value from the changed plan: {self.target.column} = {self.target.value_text},"
                f" before {cursor.column} = {cursor.value}; its pass restarts,"
                f" and the {cursor.rows_done:,} rows that were filled keep their value"
            )
        if cursor.relfilenode != self.target.table.relfilenode:
            return "was rewritten (VACUUM FULL, CLUSTER): its pass restarts"
        return ""

    def _walk(self, cursor: CursorRecord, rows_per_page: float) -> CursorRecord:
        """From the cursor to the end of the pass."""
        self._reporter.forget_rate()
        is_red = self._health.is_red
        rounds = VacuumRounds(self._context, self.target, rows_per_page, after=cursor, is_red=is_red)
        narrow: int | None = None
        while True:
            paused_s = self._context.ensure_going()
            if self._health.hold() or paused_s:
                self._reporter.forget_rate()
            if cursor.pass_name == "sequential":
                rounds.run_when_due(cursor)
            cursor = self._begin_chunk(cursor)
            if cursor.slice == cursor.chunk:
                self._pacer.begin_stripe(cursor.stripe)
            walk = walk_of(cursor)
            pages = self._decide_pages(walk, rows_per_page)
            part = next_slice(walk, position_of(cursor), narrow or pages)
            if part is None:
                return cursor
            try:
                cursor = self._batch(cursor, part, rows_per_page)
            except psycopg.Error as error:
                if self._context.work.closed or not is_about_rows(error):
                    raise
                if part.pages == 1:
                    raise find_refused_row(self._writer, part, error) from error
                narrow = part.pages // 2
            else:
                narrow = None if narrow is None else min(narrow * 2, pages)

    def _decide_pages(self, walk: Walk, rows_per_page: float) -> int:
        """The pages of the next batch; if pages were fuller than those that were sampled, the ceiling follows
        them.
        """
        wanted = self._pacer.rows * walk.stripes / rows_per_page
        most = self._context.pace.max_rows * walk.stripes / max(self._rows_per_page_seen, 1.0)
        return max(int(min(wanted, most)), 1)

    def _begin_chunk(self, cursor: CursorRecord) -> CursorRecord:
        """At the first batch of a chunk, size it for the oldest snapshot that was seen in the last chunk."""
        if cursor.pass_name != "interleaved":
            return cursor
        self._health.watch_snapshots()
        if cursor.stripe or cursor.slice != cursor.chunk or cursor.chunk >= cursor.pages_total:
            return cursor
        oldest = self._health.take_oldest()
        if oldest is None or self._page_s is None:
            return cursor
        most = most_chunk_pages(self._context.work)
        pages = decide_chunk_pages(page_s=self._page_s, oldest_s=oldest.age_s, most=most)
        revisit_s = pages * self._page_s
        if oldest.age_s > revisit_s:
            self._health.report_too_old(self.target.table.full_name, oldest, revisit_s)
        if pages == cursor.chunk_pages:
            return cursor
        cursor = replace(cursor, chunk_pages=pages)
        self._context.journal.write_cursor(self._context.run_id, cursor)
        return cursor

    def _batch(self, cursor: CursorRecord, part: Slice, rows_per_page: float) -> CursorRecord:
        """One transaction: fence, rows, cursor.  Then the pause."""
        clock = self._context.clock
        began = clock.monotonic()
        self._batches += 1
        measure_wal = self._batches % MEASURE_WAL_EVERY == 0 or self._pacer.wants_wal
        change = self._writer.write(part.condition, cursor, part.then, measure_wal=measure_wal)
        seconds = clock.monotonic() - began
        self._relax(change.cursor_s)
        pacing = self._pacer.decide(
            rows=max(int(part.pages * rows_per_page / part.stripes), 1),
            batch_s=seconds,
            wal_bytes=change.wal_bytes,
            lock_wait_s=change.lock_wait_s,
        )
        seen = change.rows * part.stripes / part.pages
        self._rows_per_page_seen = max(seen, FULLEST_KEPT * self._rows_per_page_seen)
        page_s = (seconds + pacing.pause_s) / part.pages
        self._page_s = page_s if self._page_s is None else 0.9 * self._page_s + 0.1 * page_s
        done = replace(
            cursor,
            chunk=part.then.chunk,
            stripe=part.then.stripe,
            slice=part.then.slice,
            rows_done=cursor.rows_done + change.rows,
            batches=cursor.batches + 1,
        )
        self._reporter.report_batch(done, part, change, seconds, pacing.pause_s)
        self._reporter.report_floor(self._pacer.floor_s, self._context.pace)
        clock.wait(pacing.pause_s, self._context.signal)
        return done

    def _relax(self, cursor_s: float) -> None:
        """While an old snapshot is open, moving the cursor gets slower (postgres-facts): then fewer, longer
        batches.
        """
        self._cursor_s = 0.9 * self._cursor_s + 0.1 * cursor_s
        pace = self._context.pace
        may_s = max(pace.batch_target * CURSOR_SHARE, CURSOR_LEAST_S)
        times = min(max(self._cursor_s / may_s, 1.0), LONGEST_RELAXED)
        self._pacer.retune(
            target_s=pace.batch_target * times,
            duty=self._context.duty,
            min_rows=pace.min_rows,
            max_rows=pace.max_rows,
            max_wal_bytes=pace.max_wal,
        )

    def _sweep(self, cursor: CursorRecord) -> CursorRecord:
        """Walk the whole table once more, in one stripe."""
        strategy = decide_strategy(self._context.work, self.target.table, self.target.column)
        pages = read_pages(self._context.work, self.target.table)
        walk = Walk(pages_total=pages, chunk_pages=max(pages, 1), stripes=1)
        with self._writer.lock_waits:
            return self._walk(self._begin("sweep", walk, cursor), strategy.rows_per_page)

    def _reread_target(self) -> None:
        self._set_target(
            replace(self.target, table=self._read_table(self.target.table.schema, self.target.table.name))
        )

    def _set_target(self, target: Target) -> None:
        self._writer = Writer(self._context, target)
        self._sweeper = Sweep(
            context=self._context, writer=self._writer, sweep=self._sweep, quiet_s=self._quiet_s
        )

    def _begin(self, pass_name: str, walk: Walk, before: CursorRecord | None) -> CursorRecord:
        stage, step, table = self._context.key
        cursor = CursorRecord(
            stage=stage,
            step=step,
            table=table,
            column=self.target.column,
            value=self.target.value_text,
            pass_name=pass_name,
            relfilenode=self.target.table.relfilenode,
            pages_total=walk.pages_total,
            chunk_pages=walk.chunk_pages,
            stripes=walk.stripes,
            chunk=0,
            stripe=0,
            slice=0,
            rows_done=0 if before is None else before.rows_done,
            batches=0 if before is None else before.batches,
            moved_at=datetime.now(UTC),
        )
        self._context.journal.write_cursor(self._context.run_id, cursor)
        return cursor

    def _read_table(self, schema: str, name: str) -> TableInfo:
        table = Catalog(self._context.work, schema).table(name)
        if table is None:
            raise PreflightFailed(
                f"table {schema}.{name} was dropped or renamed",
                remedy="restore it, or remove it from the plan and run with --accept-changed-plan",
            )
        return table


_NO_WALK = Walk(pages_total=0, chunk_pages=1, stripes=1)
