"""VACUUM after every tenth of a table where an index contains the column, so that the space of dead rows is
reused.

The rounds skip the indexes, which would be read completely each time.  A dead row leaves its line pointer,
and autovacuum removes its index entries, as after one UPDATE: ANALYZE counts dead line pointers as dead
rows.  Only if rows are so short that a page does not have line pointers for twice as many, the rounds also
clean the indexes.

A round is optional: it is skipped if it would wait for a lock, and cancelled if a throttler turns red or a
stop or a pause is requested.  The next round does its work.

Sources: manual, VACUUM, INDEX_CLEANUP; vacuumlazy.c and heapam_handler.c of 14 to 18: a page's free space is
recorded at once if no index is vacuumed, and heapam_scan_analyze_next_tuple() counts dead line pointers.
"""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from online_migrate.backfill.chunks import position_of, share_done, walk_of
from online_migrate.backfill.context import BackfillContext, Target
from online_migrate.errors import Interrupted, LockNotAcquired
from online_migrate.events import StatementExecuted
from online_migrate.journal.records import CursorRecord
from online_migrate.postgres.connection import Sql
from online_migrate.postgres.long_statement import run_long_statement
from online_migrate.postgres.search_path import SearchPath, session_path

VACUUM_EVERY = 0.1
"""of the table: at most this share is dead before its space is freed"""
VACUUM_FROM_PAGES = 1000
VACUUM_DELAY_MS = 2.0
"""the default of autovacuum_vacuum_cost_delay"""
MOST_LINE_POINTERS = 291
"""on a page of 8 kB, dead ones included (MaxHeapTuplesPerPage, htup_details.h)"""


class VacuumRounds:
    """The rounds of one pass, which starts at ``after``; ``is_red`` says whether a throttler is red."""

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
        """Run a plain VACUUM with a cost delay after each further tenth of the table, but not at its end."""
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
        context, began = self._context, self._context.clock.monotonic()
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
                is_wanted=lambda: (
                    not (context.is_stopping or context.run.steering.is_paused() or self._is_red())
                ),
                path=session_path(context.work, SearchPath.ROLE),
            )
        except (Interrupted, LockNotAcquired):
            if context.signal.is_aborting:
                raise
        else:
            seconds = context.clock.monotonic() - began
            text = self._statement.as_string(None)
            context.emit(StatementExecuted, statements=(text,), kind="long", seconds=seconds)


def vacuum_statement(table: sql.Composable, rows_per_page: float) -> Sql:
    """The statement of a round.  TRUNCATE would lock the table, and truncate pages that the next round fills
    again.
    """
    is_short = 2 * rows_per_page > MOST_LINE_POINTERS
    return sql.SQL("VACUUM (SKIP_LOCKED, TRUNCATE OFF, INDEX_CLEANUP {}) {}").format(
        sql.SQL("ON" if is_short else "OFF"), table
    )


def vacuum_delay_ms(duty: float) -> float:
    """Autovacuum's own 2 ms at the default duty of 50 %; none at full duty."""
    return VACUUM_DELAY_MS * min((1 - duty) / 0.5, 1.9)


def _share(cursor: CursorRecord) -> float:
    return share_done(walk_of(cursor), position_of(cursor))
