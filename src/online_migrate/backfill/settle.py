"""After the pass: sweep up rows that are left, then prove, by one statement in one snapshot, that none is.

Left are rows that were locked, that the application moved behind the pass, or that somebody writes without a value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from psycopg import sql

from online_migrate.backfill.batch import Writer
from online_migrate.backfill.bench import Bench
from online_migrate.backfill.chunks import position_of
from online_migrate.backfill.rows import describe_rows, read_free_rows, read_holders, read_late_rows
from online_migrate.backfill.writing import Calls, read_calls, statements_since
from online_migrate.errors import LockNotHad, VerificationFailed
from online_migrate.events import LateRows, WaitEnded, WaitStarted
from online_migrate.journal.store import CursorRecord

LATE_LIMIT = 1000
"""rows without a value that one proof looks for; from this many on the whole table is walked again"""
LATE_ROUNDS = 30
"""proofs in a row that found new rows without a value, before it is said that somebody keeps writing them"""
ROW_LOCK_LOOK_S = 0.2
"""how often rows that others hold are tried again"""
QUIET_PROOFS = 4
"""proofs within the time in which no row without a value may be seen"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Sweep and proof of one table."""

    bench: Bench
    writer: Writer
    sweep: Callable[[CursorRecord], CursorRecord]
    """walks the whole table once more"""
    quiet_s: float = 0.0
    """so long no row without a value may be seen before the step is done"""

    def prove(self, limit: int = LATE_LIMIT) -> tuple[str, ...]:
        """TIDs of rows without a value, by one statement in one snapshot; locked rows count.  Empty: nothing is left."""
        return read_late_rows(self.bench.work, self.writer.target, limit)

    def settle(self, cursor: CursorRecord) -> int:
        """Sweep until the proof finds nothing, and has found nothing for ``quiet_s``; returns all rows done.

        Raises :class:`VerificationFailed` where rows keep coming, or where a row cannot be given its value.
        """
        clock, calls = self.bench.clock, read_calls(self.bench.watch, self.writer.target.table.name)
        quiet_since, rounds, waited_s = clock.monotonic(), 0, 0.0
        while True:
            late = self.prove()
            if late:
                rounds += 1
                if rounds > LATE_ROUNDS:
                    raise self._keep_coming(late, calls)
                self.bench.ensure_going()
                self.bench.emit(LateRows, rows=len(late), more=len(late) == LATE_LIMIT)
                cursor = self.sweep(cursor) if len(late) == LATE_LIMIT else self._mend(cursor, late)
                quiet_since = clock.monotonic()
            elif clock.monotonic() - quiet_since >= self.quiet_s:
                if waited_s:
                    self.bench.emit(WaitEnded, kind="coverage", seconds=waited_s)
                return cursor.rows_done
            else:
                waited_s += self._stay_quiet(is_first=waited_s == 0)

    def _stay_quiet(self, *, is_first: bool) -> float:
        bench, seconds = self.bench, self.quiet_s / QUIET_PROOFS
        if is_first:
            target = self.writer.target
            reason = f"{target.table.full_name}: no row without {target.column} may be written for {self.quiet_s:.0f} s"
            bench.emit(WaitStarted, kind="coverage", reason=reason)
        bench.clock.wait(seconds, bench.signal)
        bench.ensure_going()
        return seconds

    def _mend(self, cursor: CursorRecord, late: tuple[str, ...]) -> CursorRecord:
        """A few rows by their TIDs; those that are locked are waited for, and it is said who has them."""
        rows = sql.SQL("ctid = ANY ({}::tid[])").format(sql.Literal(list(late)))
        began = self.bench.clock.monotonic()
        is_waiting = False
        while True:
            change = self.writer.write(rows, cursor, position_of(cursor))
            cursor = replace(cursor, rows_done=cursor.rows_done + change.rows, batches=cursor.batches + 1)
            if change.rows or not self._is_held(late):
                break
            self._wait_for_holders(late, began, is_first=not is_waiting)
            is_waiting = True
        if is_waiting:
            self.bench.emit(WaitEnded, kind="row_lock", seconds=self.bench.clock.monotonic() - began)
        return cursor

    def _is_held(self, late: tuple[str, ...]) -> bool:
        """Are they there still, in others' hands?  False where the application has changed or removed them meanwhile.

        Raises :class:`VerificationFailed` where a row is free and yet was not given a value.
        """
        work, target = self.bench.work, self.writer.target
        free = read_free_rows(work, target, late)
        if free:
            rows = describe_rows(work, target.table, free[:3])
            raise VerificationFailed(
                f"{target.table.full_name}: {len(free)} rows cannot be given {target.column}, e.g. {rows}: its value is NULL for them,"
                " or a trigger takes it away again",
                remedy="give these rows a value, or name one for them by `else:`; then run the same command again",
            )
        return bool(read_late_rows(work, target, 1, among=late))

    def _wait_for_holders(self, late: tuple[str, ...], began: float, *, is_first: bool) -> None:
        bench, table = self.bench, self.writer.target.table
        elapsed = bench.clock.monotonic() - began
        if is_first or elapsed > bench.locks.lock_wait:
            holders = read_holders(bench.watch, bench.work, table, late)
            if elapsed > bench.locks.lock_wait:
                raise LockNotHad(
                    f"rows of {table.full_name} stay locked for {bench.locks.lock_wait:.0f} s",
                    blockers=holders,
                    remedy="let them end, then run the same command again",
                )
            reason = f"rows of {table.full_name} are locked: {holders[0] if holders else 'by whom is not to be seen'}"
            bench.emit(WaitStarted, kind="row_lock", reason=reason)
        bench.clock.wait(ROW_LOCK_LOOK_S, bench.signal)
        bench.ensure_going()

    def _keep_coming(self, late: tuple[str, ...], calls: Calls) -> VerificationFailed:
        target = self.writer.target
        rows = describe_rows(self.bench.work, target.table, late[:3])
        now = read_calls(self.bench.watch, target.table.name)
        texts = statements_since(calls, now)
        seen = f"; statements that wrote {target.table.name} meanwhile: " + "; ".join(texts) if texts else ""
        return VerificationFailed(
            f"{target.table.full_name}: rows without {target.column} keep coming, after {LATE_ROUNDS} sweeps {len(late)} are left,"
            f" e.g. {rows}{seen}",
            remedy=f"find the statement that writes NULL into {target.column} explicitly (the default covers those that leave it out),"
            " then run the same command again",
        )
