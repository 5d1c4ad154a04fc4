"""After the pass: sweep up rows that are left, then prove, by one statement in one snapshot, that none is.

Left are rows that were locked, that the application moved behind the pass, or that somebody writes without a value.
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
from online_migrate.postgres.long_statement import tell_meanwhile
from online_migrate.waiting import Waiting

LATE_LIMIT = 1000
"""rows without a value that one proof looks for; from this many on the whole table is walked again"""
LATE_ROUNDS = 30
"""proofs without a clean one between that found no fewer rows than before, before it is said that somebody keeps writing them"""
LATE_PAUSE_S = 0.05
"""longer by this from one such proof to the next, so that all of them bound a time, some 20 s, and not the speed of our loop"""
LATE_LONGEST_PAUSE_S = 1.0
TRIED_BEFORE_WALK = 50
"""of so many late rows, before the table is walked again: a row that cannot be given a value is met at once, not after hours"""
ROW_LOCK_LOOK_S = 0.2
"""how often rows that others hold are tried again"""
WRITERS_LOOK_S = 5.0
"""between two looks at who writes the rows that come late"""
QUIET_PROOFS = 4
"""proofs within the time in which no row without a value may be seen"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Sweep and proof of one table."""

    context: BackfillContext
    writer: Writer
    sweep: Callable[[CursorRecord], CursorRecord]
    """walks the whole table once more"""
    quiet_s: float = 0.0
    """so long no row without a value may be seen before the step is done"""

    def prove(self, limit: int = LATE_LIMIT) -> RowSet:
        """Rows without a value, by one statement in one snapshot; locked rows count.  Empty: nothing is left."""
        context, target = self.context, self.writer.target
        promise = f"no row of {target.table.full_name} without {target.column}"
        with tell_meanwhile(promise, clock=context.clock, emit=context.emit):
            return read_late_rows(context.work, target, limit)

    def settle(self, cursor: CursorRecord) -> int:
        """Sweep until the proof finds nothing, ``quiet_s`` after the last row was given its value; returns all rows done.

        A proof speaks for the time before it, too: a row written without a value since then would still be found.

        Raises :class:`VerificationFailed` where rows keep coming, or where a row cannot be given its value.
        """
        with Waiting(self.context.emit, self.context.clock, "soak") as waiting:
            return self._settle(cursor, waiting)

    def _settle(self, cursor: CursorRecord, waiting: Waiting) -> int:
        clock, writers = self.context.clock, _Writers(self.context, self.writer.target)
        quiet_since = clock.monotonic() - self._read_quiet_s()
        rounds, fewest = 0, LATE_LIMIT
        while True:
            # A proof speaks for the time up to its beginning, however long it reads.
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
                    self._walk_again(cursor, late) if len(late) == LATE_LIMIT else self._mend(cursor, late)
                )
                quiet_since = clock.monotonic()
                clock.wait(min(LATE_PAUSE_S * (rounds - 1), LATE_LONGEST_PAUSE_S), self.context.signal)
            elif (left_s := self.quiet_s - (asked_at - quiet_since)) <= 0:
                return cursor.rows_done
            else:
                rounds, fewest = 0, LATE_LIMIT
                self._stay_quiet(left_s, writers, waiting)

    def _read_quiet_s(self) -> float:
        """Seconds since a row was given its value, or since the pass ended, by the server's clock."""
        return self.context.journal.read_cursor_age_s(self.context.run_id, self.context.key)

    def _stay_quiet(self, left_s: float, writers: _Writers, waiting: Waiting) -> None:
        """Until the next proof; the reason names no row, which would be a label of a metric: its key may be a person's."""
        context, target = self.context, self.writer.target
        last = (
            f"; at the last proof that was not clean {writers.rows} came{writers.text}"
            if writers.rows
            else ""
        )
        waiting.report(
            f"{target.table.full_name}: {short_seconds_text(left_s)} more in which no row without {target.column} may be written{last}"
        )
        context.clock.wait(min(left_s, self.quiet_s / QUIET_PROOFS), context.signal)
        context.ensure_going()

    def _walk_again(self, cursor: CursorRecord, late: RowSet) -> CursorRecord:
        """So many that the whole table is walked; a few are tried first."""
        self._was_free(replace(late, names=late.names[:TRIED_BEFORE_WALK]))
        return self.sweep(cursor)

    def _mend(self, cursor: CursorRecord, late: RowSet) -> CursorRecord:
        """A few rows by their keys; those that are locked are waited for, and it is said who has them."""
        began, before = self.context.clock.monotonic(), cursor.rows_done
        with Waiting(self.context.emit, self.context.clock, "row_lock") as waiting:
            while True:
                cursor = self._write(cursor, late.condition, late.by)
                if cursor.rows_done > before:
                    return cursor
                if self._was_free(late):  # it was let go between our change and our look
                    continue
                if not read_late_rows(self.context.work, self.writer.target, 1, among=late):
                    break
                self._wait_for_holders(late, began, waiting)
        return self._search(cursor) if late.by is By.TID else cursor

    def _search(self, cursor: CursorRecord) -> CursorRecord:
        """Without a key, rows that have moved: by a walk; what moves faster than that, one by one."""
        if not self.prove(1):  # they were deleted, or given their value by others
            return cursor
        swept = self.sweep(cursor)
        return swept if swept.rows_done > cursor.rows_done else self._write(swept, sql.SQL("true"), By.SCAN)

    def _write(self, cursor: CursorRecord, rows: sql.Composable, by: By) -> CursorRecord:
        with self._naming_refused(rows):
            change = self.writer.write(rows, cursor, position_of(cursor), by=by)
        return replace(cursor, rows_done=cursor.rows_done + change.rows, batches=cursor.batches + 1)

    @contextmanager
    def _naming_refused(self, rows: sql.Composable) -> Iterator[None]:
        """An error that one of the rows may have caused becomes one that names it."""
        try:
            yield
        except psycopg.Error as error:
            if self.context.work.closed or not is_about_rows(error):
                raise
            raise find_refused_among(self.writer, rows, "late rows", error) from error

    def _was_free(self, late: RowSet) -> bool:
        """Can any of them be changed now?  False where others hold them, or have changed or removed them meanwhile.

        Raises :class:`VerificationFailed` where a row was ours alone, was changed, and has no value all the same.
        """
        target = self.writer.target
        with self._naming_refused(late.condition):
            free, refused = self.writer.try_free(late)
        if refused:
            more = " or more" if len(late) == TRIED_BEFORE_WALK else ""
            raise VerificationFailed(
                f"{target.table.full_name}: {len(refused)} rows{more} cannot be given {target.column}, e.g. {refused}: its value is NULL"
                " for them, or a trigger takes it away again",
                remedy="give these rows a value, or name one for them by `else:`; then run the same command again",
            )
        self.context.ensure_going()
        return bool(free)

    def _wait_for_holders(self, late: RowSet, began: float, waiting: Waiting) -> None:
        """Wait a moment, and tell who has the rows.  Raises :class:`LockNotAcquired` after ``lock_wait``."""
        context, table = self.context, self.writer.target.table
        is_over = context.clock.monotonic() - began > context.locks.lock_wait
        if is_over or waiting.may_report:
            holders = read_holders(context.watch, context.work, late)
            if is_over:
                raise LockNotAcquired(
                    f"rows of {table.full_name} stay locked for {context.locks.lock_wait:.0f} s",
                    blockers=tuple(map(str, holders)),
                    remedy="let them end, then run the same command again",
                )
            who = (
                describe_blockers(holders, context.locks.lock_wait)
                if holders
                else "by whom is not to be seen"
            )
            waiting.report(
                f"rows of {table.full_name} are locked: {who}", cause=holders[0].pid if holders else None
            )
        context.clock.wait(ROW_LOCK_LOOK_S, context.signal)
        context.ensure_going()

    def _keep_coming(self, late: RowSet, writers: _Writers) -> VerificationFailed:
        target = self.writer.target
        column = target.column
        return VerificationFailed(
            f"{target.table.full_name}: rows without {column} keep coming, after {LATE_ROUNDS} sweeps {len(late)} are left,"
            f" e.g. {late}{writers.text}",
            remedy=(
                f"find the statement that writes NULL into {column} explicitly (the default covers those that leave it out),"
                " then run the same command again"
                if self._has_default()
                else f"{column} has no default: every INSERT that leaves it out writes NULL; give it one (`new_rows` of add_column,"
                " or ALTER TABLE), or deploy the release that writes it, then run the same command again"
            ),
        )

    def _has_default(self) -> bool:
        """As the catalog has it now."""
        target = self.writer.target
        table = Catalog(self.context.work, self.context.schema).table(target.table.name)
        return table is not None and table.columns[target.column].default is not None


class _Writers:
    """Who may have written the late rows: the statements that wrote the table since this was made."""

    def __init__(self, context: BackfillContext, target: Target) -> None:
        self._context, self._target = context, target
        self._before, self._looked_at = self._read(), -math.inf
        self.rows = ""
        """how many the last proof found that was not clean"""
        self.text = ""

    def note(self, late: RowSet, *, at_once: bool = False) -> None:
        """Late rows were found; pg_stat_statements, which may be large, is read every WRITERS_LOOK_S only."""
        self.rows = f"{len(late)}{' or more' * (len(late) == LATE_LIMIT)}"
        now = self._context.clock.monotonic()
        if at_once or now - self._looked_at >= WRITERS_LOOK_S:
            self._looked_at = now
            texts = statements_since(self._before, self._read(), self._target.column)
            name = self._target.table.name
            self.text = f"; statements that wrote {name} meanwhile: {'; '.join(texts)}" if texts else ""

    def _read(self) -> Calls:
        return read_calls(self._context.watch, self._target.table.name)
