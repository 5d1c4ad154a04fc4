"""Where an index holds the column: VACUUM after every tenth of the table, so that the room of dead rows is used again.

The rounds do not look at the indexes, which would be read from end to end each time.  A dead row leaves its line pointer, and its
index entries are autovacuum's, as after one UPDATE: ANALYZE counts dead line pointers as dead rows.  Only where rows are so slim
that a page has not line pointers for twice as many are the indexes cleaned each time, too.

A round is a service, not a duty: where it would wait for a lock it is skipped, and where a throttler turns red or a stop is asked
for it is cancelled.  The next one does its work.
Sources: manual, VACUUM, INDEX_CLEANUP; vacuumlazy.c and heapam_handler.c of 14 to 18: a page's free space is recorded at once
where no index is vacuumed, and heapam_scan_analyze_next_tuple() counts dead line pointers.
"""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from online_migrate.backfill.chunks import position_of, share_done, walk_of
from online_migrate.backfill.context import BackfillContext, Target
from online_migrate.errors import Interrupted, LockNotAcquired
from online_migrate.journal.records import CursorRecord
from online_migrate.postgres.connection import Sql
from online_migrate.postgres.long_statement import run_long_statement

VACUUM_EVERY = 0.1
"""of the table: no more than this is dead before its room is freed"""
VACUUM_FROM_PAGES = 1000
VACUUM_DELAY_MS = 2.0
"""autovacuum_vacuum_cost_delay's default"""
MOST_LINE_POINTERS = 291
"""of a page of 8 kB, dead ones included (MaxHeapTuplesPerPage, htup_details.h)"""


class VacuumRounds:
    """Of one pass over a table; ``after`` is where the pass begins, and ``is_red`` looks at the throttlers."""

    def __init__(
        self,
        context: BackfillContext,
        target: Target,
        rows_per_page: float,
        *,
        after: CursorRecord,
        is_red: Callable[[], bool],
    ) -> None:
        self._context = context
        self._is_red = is_red
        self._statement = vacuum_statement(target.sql_table, rows_per_page)
        self._next = _share(after) + VACUUM_EVERY

    def run_when_due(self, cursor: CursorRecord) -> None:
        """A plain VACUUM with a cost delay, where a tenth more of the table has been walked, and there is some to walk yet."""
        share = _share(cursor)
        is_over = share > 1 - VACUUM_EVERY / 2
        if share < self._next or is_over or cursor.pages_total < VACUUM_FROM_PAGES:
            return
        self._next = share + VACUUM_EVERY
        context = self._context
        delay = sql.Literal(f"{vacuum_delay_ms(context.duty):.1f}ms")
        context.work.execute(sql.SQL("SET vacuum_cost_delay = {}").format(delay))
        try:
            self._run()
        finally:
            if not context.work.closed:
                context.work.execute("RESET vacuum_cost_delay")

    def _run(self) -> None:
        context = self._context
        try:
            run_long_statement(
                self._statement,
                work=context.work,
                watch=context.watch,
                fence=context.fence.sql,
                limit_s=context.locks.long_statement,
                clock=context.clock,
                signal=context.signal,
                emit=context.emit,
                is_wanted=lambda: not (context.is_stopping or self._is_red()),
            )
        except (Interrupted, LockNotAcquired):
            if context.signal.is_aborting:
                raise


def vacuum_statement(table: sql.Composable, rows_per_page: float) -> Sql:
    """What a round runs.  TRUNCATE would lock the table, and cut pages that the next round fills again."""
    is_slim = 2 * rows_per_page > MOST_LINE_POINTERS
    return sql.SQL("VACUUM (SKIP_LOCKED, TRUNCATE OFF, INDEX_CLEANUP {}) {}").format(
        sql.SQL("ON" if is_slim else "OFF"), table
    )


def vacuum_delay_ms(duty: float) -> float:
    """Autovacuum's own 2 ms at the default pace of a half, none where we do not rest either."""
    return VACUUM_DELAY_MS * min((1 - duty) / 0.5, 1.9)


def _share(cursor: CursorRecord) -> float:
    return share_done(walk_of(cursor), position_of(cursor))
