"""After the pass: sweep the rows that are left, then prove by one statement in one snapshot that no row is.

Rows are left that were locked, that the application moved behind the pass, or that are written without a
value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from online_migrate.backfill.batch import Writer
from online_migrate.backfill.chunks import position_of
from online_migrate.backfill.context import BackfillContext, By, Target
from online_migrate.backfill.refused_rows import find_refused_among, is_about_rows
from online_migrate.backfill.rows import RowSet, read_holders, read_late_rows
from online_migrate.backfill.writing import Calls, read_calls, statements_since
from online_migrate.errors import LockNotAcquired, VerificationFailed
from online_migrate.events import LateRows
from online_migrate.figures import short_seconds_text
from online_migrate.journal.records import CursorRecord
from online_migrate.postgres.blockers import describe_blockers
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.long_statement import report_meanwhile
from online_migrate.waiting import Waiting

LATE_LIMIT = 1000
"""rows without a value that one proof reads at most; if it finds so many, the whole table is walked again"""
LATE_ROUNDS = 30
"""proofs in a row that found no fewer rows than before: from then on the run says that rows keep being
written"""
LATE_PAUSE_S = 0.05
"""added to the pause after each such proof: all of them take some 20 s, independent of the speed of our loop
"""
LATE_LONGEST_PAUSE_S = 1.0
TRIED_BEFORE_WALK = 50
"""late rows that are tried before the table is walked again: a row that cannot be given a value is found at
once, not after hours"""
ROW_LOCK_RETRY_S = 0.2
"""how often rows that other sessions lock are tried again"""
WRITERS_READ_S = 5.0
"""between two reads of the statements that write late rows"""
QUIET_PROOFS = 4
"""proofs within the soak time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Sweep and proof of one table."""

    context: BackfillContext
    writer: Writer
    sweep: Callable[[CursorRecord], CursorRecord]
    """walks the whole table once more"""
    quiet_s: float = 0.0
    """soak time: the step is done once no row without a value was seen for so long"""

    def prove(self, limit: int = LATE_LIMIT) -> RowSet:
        """Rows without a value, by one statement in one snapshot; locked rows count.  Empty if no row is
        left.
        """
        context, target = self.context, self.writer.target
        promise = f"no row of {target.table.full_name} without {target.column}"
        with report_meanwhile(promise, clock=context.clock, emit=context.emit):
            return read_late_rows(context.work, target, limit)

    def sweep_and_prove(self, cursor: CursorRecord) -> int:
        """Sweep until a proof finds no row, ``quiet_s`` after the last row was given its value; returns all
        rows done.

        A proof also covers the time before it: it would find a row that was written without a value since
        then.

        Raises :class:`VerificationFailed` if rows keep being written, or if a row cannot be given its value.
        """
        with Waiting(self.context.emit, self.context.clock, "soak") as waiting:
            return self._sweep_until_proven(cursor, waiting)

    def _sweep_until_proven(self, cursor: CursorRecord, waiting: Waiting) -> int:
        clock, writers = self.context.clock, _Writers(self.context, self.writer.target)
        clean_s = self._read_clean_s()  # first: the round trip must not count as soak time
        clean_since = clock.monotonic() - clean_s
        rounds, fewest = 0, LATE_LIMIT
        while True:
            # A proof covers the time up to its start, however long it reads.
            asked_at = clock.monotonic()
            late = self.prove()
            if late:
                waiting.end()
                rounds += not rounds or len(late) >= fewest
                fewest = min(fewest, len(late))
                writers.note(late, at_once=rounds > LATE_ROUNDS)
                if rounds > LATE_ROUNDS:
                    raise self._keep_coming(late, writers)
                self.context.ensure_going()
                self.context.emit(LateRows, rows=len(late), more=len(late) == LATE_LIMIT)
                cursor = (
                    self._walk_again(cursor, late)
                    if len(late) == LATE_LIMIT
                    else self._write_late(cursor, late)
                )
                clean_since = clock.monotonic()
                clock.wait(min(LATE_PAUSE_S * (rounds - 1), LATE_LONGEST_PAUSE_S), self.context.signal)
            elif (left_s := self.quiet_s - (asked_at - clean_since)) <= 0:
                return cursor.rows_done
            else:
                rounds, fewest = 0, LATE_LIMIT
                self._soak(left_s, writers, waiting)

    def _read_clean_s(self) -> float:
        """Seconds since a row was given its value, or since the pass ended, by the server's clock."""
        return self.context.journal.read_cursor_age_s(self.context.run_id, self.context.key)

    def _soak(self, left_s: float, writers: _Writers, waiting: Waiting) -> None:
        """Wait until the next proof.  The reason becomes a metric's label, so it names no row: a key may be
        personal data.
        """
        context, target = self.context, self.writer.target
        last = (
            f"; the last proof that found any found {writers.rows} rows{writers.text}" if writers.rows else ""
        )
        waiting.report(
            f"{target.table.full_name}: soak time, {short_seconds_text(left_s)} left in which no row without"
            f" {target.column} may be written{last}"
        )
        context.clock.wait(min(left_s, self.quiet_s / QUIET_PROOFS), context.signal)
        context.ensure_going()

    def _walk_again(self, cursor: CursorRecord, late: RowSet) -> CursorRecord:
        """There are many: walk the whole table, after a try of the first TRIED_BEFORE_WALK."""
        self._was_free(replace(late, names=late.names[:TRIED_BEFORE_WALK]))
        return self.sweep(cursor)

    def _write_late(self, cursor: CursorRecord, late: RowSet) -> CursorRecord:
        """Write a few rows by their keys; wait for those that are locked, and report the session that locks
        them.
        """
        began, before = self.context.clock.monotonic(), cursor.rows_done
        with Waiting(self.context.emit, self.context.clock, "row_lock") as waiting:
            while True:
                cursor = self._write(cursor, late.condition, late.by)
                if cursor.rows_done > before:
                    return cursor
                if self._was_free(late):  # its lock was released between our two statements
                    continue
                if not read_late_rows(self.context.work, self.writer.target, 1, among=late):
                    break
                began += self._wait_for_holders(late, began, waiting)
        return self._search(cursor) if late.by is By.TID else cursor

    def _search(self, cursor: CursorRecord) -> CursorRecord:
        """Without a key, find rows that have moved: by a walk, then by scans for single rows."""
        if not self.prove(1):  # they were deleted, or another session has written their value
            return cursor
        swept = self.sweep(cursor)
        return swept if swept.rows_done > cursor.rows_done else self._write(swept, sql.SQL("true"), By.SCAN)

    def _write(self, cursor: CursorRecord, rows: sql.Composable, by: By) -> CursorRecord:
        with self._naming_refused(rows):
            change = self.writer.write(rows, cursor, position_of(cursor), by=by)
        return replace(cursor, rows_done=cursor.rows_done + change.rows, batches=cursor.batches + 1)

    @contextmanager
    def _naming_refused(self, rows: sql.Composable) -> Iterator[None]:
        """Turn an error that one of the rows may have caused into one that names the row."""
        try:
            yield
        except psycopg.Error as error:
            if self.context.work.closed or not is_about_rows(error):
                raise
            raise find_refused_among(self.writer, rows, "late rows", error) from error

    def _was_free(self, late: RowSet) -> bool:
        """Whether any of them can be changed now; not if other sessions lock them, or have changed or deleted
        them.

        Raises :class:`VerificationFailed` if we locked a row, changed it, and it still has no value.
        """
        target = self.writer.target
        with self._naming_refused(late.condition):
            free, refused = self.writer.try_free(late)
        if refused:
            more = " or more" if len(late) == TRIED_BEFORE_WALK else ""
            raise VerificationFailed(
                f"{target.table.full_name}: {target.column} of {len(refused)} rows{more} cannot be filled,"
                f" for example {refused}: their value is NULL, or a trigger sets it back to NULL",
                remedy="give these rows a value, manually or with `else:`; then run the same command again",
            )
        self.context.ensure_going()
        return bool(free)

    def _wait_for_holders(self, late: RowSet, began: float, waiting: Waiting) -> float:
        """Wait, and report who locks the rows; seconds for which the run was paused.  Raises
        :class:`LockNotAcquired` after ``lock_wait``.
        """
        context, table = self.context, self.writer.target.table
        is_over = context.clock.monotonic() - began > context.locks.lock_wait
        if is_over or waiting.may_report:
            holders = read_holders(context.watch, context.work, late)
            if is_over:
                raise LockNotAcquired(
                    f"could not lock rows of {table.full_name} within {context.locks.lock_wait:.0f} s"
                    " (lock_wait); all other rows are filled",
                    blockers=tuple(map(str, holders)),
                    remedy="wait for the blocking sessions to end, or end them;"
                    " then run the same command again",
                )
            blocked_by = (
                describe_blockers(holders, context.locks.lock_wait)
                if holders
                else "by a session that could not be identified"
            )
            waiting.report(
                f"rows of {table.full_name} are locked: {blocked_by}",
                cause=holders[0].pid if holders else None,
            )
        context.clock.wait(ROW_LOCK_RETRY_S, context.signal)
        return context.ensure_going()

    def _keep_coming(self, late: RowSet, writers: _Writers) -> VerificationFailed:
        target = self.writer.target
        column = target.column
        return VerificationFailed(
            f"{target.table.full_name}: rows without {column} keep being written;"
            f" after {LATE_ROUNDS} sweeps {len(late)} are left, for example {late}{writers.text}",
            remedy=(
                f"find the statement that writes NULL into {column} explicitly (the default covers statements"
                " that omit the column), then run the same command again"
                if self._has_default()
                else f"{column} has no default, so each INSERT that omits it writes NULL: set a default"
                " (`new_rows` of add_column, or ALTER TABLE), or deploy the release that writes the column;"
                " then run the same command again"
            ),
        )

    def _has_default(self) -> bool:
        """Whether the column has a default now."""
        target = self.writer.target
        table = Catalog(self.context.work, target.table.schema).table(target.table.name)
        return table is not None and table.columns[target.column].default is not None


class _Writers:
    """The statements that wrote the table since this was created: one of them wrote the late rows."""

    def __init__(self, context: BackfillContext, target: Target) -> None:
        self._context, self._target = context, target
        self._before, self._read_at = self._read(), -math.inf
        self.rows = ""
        """how many the last proof found that found any"""
        self.text = ""

    def note(self, late: RowSet, *, at_once: bool = False) -> None:
        """Late rows were found; pg_stat_statements, which may be large, is read only every WRITERS_READ_S."""
        self.rows = f"{len(late)}{' or more' * (len(late) == LATE_LIMIT)}"
        now = self._context.clock.monotonic()
        if at_once or now - self._read_at >= WRITERS_READ_S:
            self._read_at = now
            texts = statements_since(self._before, self._read(), self._target.column)
            name = self._target.table.name
            self.text = f"; statements that wrote {name} meanwhile: {'; '.join(texts)}" if texts else ""

    def _read(self) -> Calls:
        return read_calls(self._context.watch, self._target.table.name)
