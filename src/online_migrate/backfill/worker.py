"""Chunk → fence, write, cursor in one transaction → feedback → wait; then sweep and prove.

Nothing is lost and nothing done twice, because the cursor moves in the transaction of its batch, by compare-and-set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from online_migrate.backfill.chunks import Position, Slice, Walk, next_slice, share_done
from online_migrate.backfill.pacer import Pacer
from online_migrate.backfill.strategy import Strategy, decide_strategy, index_with, read_pages
from online_migrate.backfill.throttlers import Throttle, throttlers_for
from online_migrate.clock import Clock, Signal
from online_migrate.errors import Interrupted, LeaseLost, LockNotHad, OnlineMigrateError, VerificationFailed
from online_migrate.events import BackfillStarted, BatchDone, LateRows, Note, Reading, WaitEnded, WaitStarted
from online_migrate.journal.store import CursorRecord, Fence, Journal
from online_migrate.plan.model import HoldWhen, LockRules, Pace
from online_migrate.postgres.blockers import read_blockers
from online_migrate.postgres.catalog import Catalog, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.long_statement import run_long_statement
from online_migrate.postgres.sqlstate import FENCE_LOST, Trouble, trouble_of

ROW_LOCK_TIMEOUT = "50ms"
"""a batch never waits longer for an application's row lock"""
LATE_LIMIT = 1000
"""rows without a value that one proof looks for; from this many on the whole table is walked again"""
LATE_ROUNDS = 30
"""proofs in a row that found new rows without a value, before it is said that somebody keeps writing them"""
VACUUM_EVERY = 0.1
"""of the table, where an index holds the column: dead entries are cleaned before the table has grown by more"""
VACUUM_FROM_PAGES = 1000
RATE_WINDOW_S = 30.0
HOLD_LOOK_S = 0.5
"""how often the throttlers are looked at, red or green"""

Key = tuple[str, str, str]


class _TableRewritten(Exception):  # a turn of the pass, not an error that anyone meets
    """The relfilenode changed: rows have moved to other TIDs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a backfill works with."""

    work: Connection
    watch: Connection
    journal: Journal
    run_id: int
    key: Key
    schema: str
    fence: Fence
    pace: Pace
    hold_when: HoldWhen
    locks: LockRules
    emit: Callable[..., None]
    clock: Clock
    signal: Signal
    is_stop_asked: Callable[[], bool]


class Backfill:
    """Gives ``column`` of one table its value in every row that has none."""

    def __init__(self, bench: Bench, *, table: str, column: str, value: str) -> None:
        self._bench = bench
        self._column = sql.Identifier(column)
        self._column_name = column
        self._value = value
        self._table = self._read_table(table)
        self._sql_table = sql.Identifier(bench.schema, table)
        pace = bench.pace
        self._pacer = Pacer(
            target_s=pace.batch_target, duty=pace.duty, min_rows=pace.min_rows, max_rows=pace.max_rows
        )
        self._throttle = Throttle(throttlers_for(bench.hold_when), bench.clock)
        self._rates: deque[tuple[float, float]] = deque()
        self._next_vacuum = VACUUM_EVERY
        self._health_read_at = float("-inf")

    def run(self) -> int:
        """Walk, sweep, prove; returns the rows that were given a value, earlier runs included.

        Raises :class:`Interrupted` after the current batch when a stop is asked for; the same call then goes on.
        """
        cursor = self._bench.journal.read_cursor(self._bench.run_id, self._bench.key)
        while True:
            try:
                if cursor is None or cursor.pass_name != "sweep":
                    cursor = self._walk_main(cursor)
                return self._settle(cursor)
            except _TableRewritten:
                self._table = self._read_table(self._table.name)
                self._bench.emit(
                    Note,
                    message=f"{self._table.full_name} was rewritten (VACUUM FULL, CLUSTER): its pass begins again",
                )
                cursor = None

    # the pass

    def _walk_main(self, cursor: CursorRecord | None) -> CursorRecord:
        strategy = decide_strategy(self._bench.work, self._table, self._column_name)
        if cursor is None or cursor.relfilenode != self._table.relfilenode:
            if cursor is not None:
                self._bench.emit(
                    Note, message=f"{self._table.full_name} was rewritten since: its pass begins again"
                )
            cursor = self._begin(strategy.pass_name, strategy.walk, cursor)
        walk = Walk(pages_total=cursor.pages_total, chunk_pages=cursor.chunk_pages, stripes=cursor.stripes)
        self._say_started(cursor, walk, strategy)
        cursor = self._walk(cursor, walk, strategy.rows_per_page)
        return self._begin("sweep", Walk(pages_total=0, chunk_pages=1, stripes=1), cursor)

    def _walk(self, cursor: CursorRecord, walk: Walk, rows_per_page: float) -> CursorRecord:
        """From the cursor to the end of the pass."""
        self._rates.clear()
        self._next_vacuum = share_done(walk, _position(cursor)) + VACUUM_EVERY
        while True:
            self._ensure_going()
            self._hold()
            pages = max(int(self._pacer.rows * walk.stripes / rows_per_page), 1)
            part = next_slice(walk, _position(cursor), pages)
            if part is None:
                return cursor
            cursor = self._batch(cursor, walk, part, rows_per_page)
            if cursor.pass_name == "sequential":
                self._vacuum_when_due(share_done(walk, part.then), walk)

    def _batch(self, cursor: CursorRecord, walk: Walk, part: Slice, rows_per_page: float) -> CursorRecord:
        """One transaction: fence, rows, cursor.  Then the pause."""
        clock = self._bench.clock
        began = clock.monotonic()
        lock_wait_s = 0.0
        skipped = False
        try:
            rows = self._write(part.condition, skip_locked=False)
        except psycopg.Error as error:
            self._roll_back_or_raise(error)
            lock_wait_s = clock.monotonic() - began
            rows = self._write(part.condition, skip_locked=True)
            skipped = True
        self._commit(cursor, part.then, rows)
        seconds = clock.monotonic() - began
        asked = max(int(part.pages * rows_per_page / part.stripes), 1)
        pacing = self._pacer.decide(rows=asked, batch_s=seconds, lock_wait_s=lock_wait_s)
        done = replace(
            cursor,
            chunk=part.then.chunk,
            stripe=part.then.stripe,
            slice=part.then.slice,
            rows_done=cursor.rows_done + rows,
            batches=cursor.batches + 1,
        )
        share = share_done(walk, part.then)
        self._bench.emit(
            BatchDone,
            rows=rows,
            pages=part.pages,
            seconds=seconds,
            pause_s=pacing.pause_s,
            rows_done=done.rows_done,
            share_done=share,
            eta_s=self._eta_s(share),
            skipped_locked=skipped,
        )
        clock.wait(pacing.pause_s, self._bench.signal)
        return done

    def _write(self, rows: sql.Composable, *, skip_locked: bool) -> int:
        """Begin the transaction and change the rows; the caller moves the cursor and commits."""
        settings = sql.SQL(
            "BEGIN; SET LOCAL lock_timeout = {lock}; SET LOCAL synchronous_commit = off; SET LOCAL enable_seqscan = off;"
            " SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; {fence}; "
        ).format(lock=sql.Literal(ROW_LOCK_TIMEOUT), fence=self._bench.fence.sql)
        message = (
            settings
            + self.update(rows, skip_locked=skip_locked)
            + sql.SQL("; SELECT pg_relation_filenode({}::oid)").format(sql.Literal(self._table.oid))
        )
        cursor = self._bench.work.execute(message)
        count = 0
        while cursor.nextset():
            if cursor.statusmessage is not None and cursor.statusmessage.startswith("UPDATE"):
                count = cursor.rowcount
        row = cursor.fetchone()
        if row is None or row[0] != self._table.relfilenode:
            self._bench.work.rollback()
            raise _TableRewritten
        return count

    def update(self, rows: sql.Composable, *, skip_locked: bool = False) -> sql.Composed:
        """The statement of a batch.  FOR NO KEY UPDATE: FOR UPDATE would skip and block rows under a child's insert."""
        if skip_locked:
            rows = sql.SQL(
                "ctid = ANY (ARRAY(SELECT ctid FROM ONLY {table} WHERE {rows} AND {column} IS NULL FOR NO KEY UPDATE SKIP LOCKED))"
            ).format(table=self._sql_table, rows=rows, column=self._column)
        return update_statement(self._sql_table, self._column, sql.SQL(self._value), rows)

    def _commit(self, cursor: CursorRecord, then: Position, rows: int) -> None:
        stage, step, table = self._bench.key
        arguments = [
            self._bench.run_id,
            stage,
            step,
            table,
            cursor.chunk,
            cursor.stripe,
            cursor.slice,
            then.chunk,
            then.stripe,
            then.slice,
            rows,
        ]
        moved = sql.SQL("SELECT online_migrate.advance({}); COMMIT").format(
            sql.SQL(", ").join(map(sql.Literal, arguments))
        )
        try:
            self._bench.work.execute(moved)
        except psycopg.Error as error:
            if trouble_of(error) is Trouble.LOST or self._bench.work.closed:
                raise
            self._bench.work.rollback()
            if trouble_of(error) is Trouble.LOCK:
                msg = f"the cursor's row of {self._table.full_name} is locked: a session of a dead runner is still at work"
                raise LeaseLost(msg, remedy="wait some seconds, then run the same command again") from error
            raise

    def _roll_back_or_raise(self, error: psycopg.Error) -> None:
        """After a row lock that was not had in time we go on without that row; anything else is the caller's."""
        trouble = trouble_of(error)
        if not self._bench.work.closed:
            self._bench.work.rollback()
        if error.sqlstate == FENCE_LOST:
            raise LeaseLost(str(error.diag.message_primary)) from error
        if trouble is not Trouble.LOCK or self._bench.signal.is_aborting:
            raise error

    def _vacuum_when_due(self, share: float, walk: Walk) -> None:
        if share < self._next_vacuum or walk.pages_total < VACUUM_FROM_PAGES:
            return
        self._next_vacuum += VACUUM_EVERY
        bench = self._bench
        bench.work.execute("SET vacuum_cost_delay = '2ms'")
        run_long_statement(
            sql.SQL("VACUUM (TRUNCATE OFF) {}").format(self._sql_table),
            work=bench.work,
            watch=bench.watch,
            fence=bench.fence.sql,
            limit_s=bench.locks.long_statement,
            clock=bench.clock,
            signal=bench.signal,
            emit=bench.emit,
        )

    # sweep and proof

    def prove(self, limit: int = LATE_LIMIT) -> tuple[str, ...]:
        """Rows without a value, by one statement in one snapshot; locked rows count.  Empty: nothing is left."""
        found = self._bench.work.execute(
            sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {} IS NULL LIMIT {}").format(
                self._sql_table, self._column, sql.Literal(limit)
            )
        ).fetchall()
        return tuple(r[0] for r in found)

    def _settle(self, cursor: CursorRecord) -> int:
        """Sweep until the proof finds nothing."""
        deadline = self._bench.clock.monotonic() + self._bench.locks.lock_wait
        late: tuple[str, ...] = ()
        for _ in range(LATE_ROUNDS):
            late = self.prove()
            if not late:
                return cursor.rows_done
            self._ensure_going()
            self._bench.emit(LateRows, rows=len(late), more=len(late) == LATE_LIMIT)
            cursor = self._sweep(cursor) if len(late) == LATE_LIMIT else self._mend(cursor, late, deadline)
        raise VerificationFailed(
            f"{self._table.full_name}: rows without {self._column_name} keep coming, after {LATE_ROUNDS} sweeps {len(late)} are left,"
            f" e.g. at ctid {', '.join(late[:3])}",
            remedy=f"find the statement that writes NULL into {self._column_name} explicitly (the default covers those that leave it out),"
            " then run the same command again",
        )

    def _sweep(self, cursor: CursorRecord) -> CursorRecord:
        """Walk the whole table once more, in one stripe."""
        pages = read_pages(self._bench.work, self._table)
        walk = Walk(pages_total=pages, chunk_pages=max(pages, 1), stripes=1)
        cursor = self._begin("sweep", walk, cursor)
        return self._walk(cursor, walk, 1.0)

    def _mend(self, cursor: CursorRecord, late: tuple[str, ...], deadline: float) -> CursorRecord:
        """A few rows by their TIDs; one that is locked is waited for, and it is said who has it."""
        rows = sql.SQL("ctid = ANY ({}::tid[])").format(sql.Literal(list(late)))
        try:
            count = self._write(rows, skip_locked=False)
        except psycopg.Error as error:
            self._roll_back_or_raise(error)
            count = self._write(rows, skip_locked=True)
        self._commit(cursor, _position(cursor), count)
        if count == 0:
            self._wait_for_row_locks(deadline)
        return replace(cursor, rows_done=cursor.rows_done + count, batches=cursor.batches + 1)

    def _wait_for_row_locks(self, deadline: float) -> None:
        """Rows that others hold: until one of those transactions is over."""
        bench = self._bench
        mine = [bench.work.info.backend_pid]
        began = bench.clock.monotonic()
        blockers = read_blockers(bench.watch, [(self._table.oid, LockMode.SHARE)], mine=mine)
        if not blockers:
            return
        bench.emit(
            WaitStarted, kind="row_lock", reason=f"rows of {self._table.full_name} are locked: {blockers[0]}"
        )
        pids = {b.pid for b in blockers}
        while pids & {
            b.pid for b in read_blockers(bench.watch, [(self._table.oid, LockMode.SHARE)], mine=mine)
        }:
            if bench.clock.monotonic() > deadline:
                msg = f"rows of {self._table.full_name} stay locked for {bench.locks.lock_wait:.0f} s"
                raise LockNotHad(
                    msg,
                    blockers=tuple(map(str, blockers)),
                    remedy="let them end, then run the same command again",
                )
            bench.clock.wait(0.2, bench.signal)
            self._ensure_going()
        bench.emit(WaitEnded, kind="row_lock", seconds=bench.clock.monotonic() - began)

    # small things

    def _begin(self, pass_name: str, walk: Walk, before: CursorRecord | None) -> CursorRecord:
        stage, step, table = self._bench.key
        cursor = CursorRecord(
            stage=stage,
            step=step,
            table=table,
            column=self._column_name,
            value=self._value,
            pass_name=pass_name,
            relfilenode=self._table.relfilenode,
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
        self._bench.journal.write_cursor(self._bench.run_id, cursor)
        return cursor

    def _say_started(self, cursor: CursorRecord, walk: Walk, strategy: Strategy) -> None:
        share = share_done(walk, _position(cursor))
        self._bench.emit(
            BackfillStarted,
            pass_name=cursor.pass_name,
            stripes=walk.stripes,
            chunk_pages=walk.chunk_pages,
            pages_done=round(share * walk.pages_total),
            pages_total=walk.pages_total,
            rows_expected=max(round(strategy.rows_per_page * walk.pages_total), cursor.rows_done),
            rows_done=cursor.rows_done,
            why=strategy.why,
        )

    def _hold(self) -> None:
        """While a throttler is red, wait, and say why."""
        bench = self._bench
        self._read_health()
        worst = self._throttle.worst()
        if worst is None or not worst.is_red:
            return
        began = bench.clock.monotonic()
        bench.emit(WaitStarted, kind=worst.name, reason=worst.reason)
        while self._throttle.is_red:
            bench.clock.wait(HOLD_LOOK_S, bench.signal)
            self._ensure_going()
            self._read_health()
        bench.emit(WaitEnded, kind=worst.name, seconds=bench.clock.monotonic() - began)
        self._rates.clear()

    def _read_health(self) -> None:
        now = self._bench.clock.monotonic()
        if not self._throttle.throttlers or now - self._health_read_at < HOLD_LOOK_S:
            return
        self._health_read_at = now
        for r in self._throttle.read(self._bench.watch):
            self._bench.emit(
                Reading, throttler=r.name, utilisation=r.utilisation, reason=r.reason, age_s=r.age_s
            )

    def _ensure_going(self) -> None:
        if self._bench.signal.is_stopping or self._bench.is_stop_asked():
            raise Interrupted(f"stopped after a batch: {self._bench.signal.reason}")

    def _eta_s(self, share: float) -> float | None:
        """From the rate of the last seconds, pauses included; None while it is not known."""
        now = self._bench.clock.monotonic()
        self._rates.append((now, share))
        while now - self._rates[0][0] > RATE_WINDOW_S:
            self._rates.popleft()
        seconds, gained = now - self._rates[0][0], share - self._rates[0][1]
        return None if gained <= 0 or seconds < 1 else (1 - share) * seconds / gained

    def _read_table(self, name: str) -> TableInfo:
        table = Catalog(self._bench.work, self._bench.schema).table(name)
        if table is None:
            msg = f"table {self._bench.schema}.{name} is gone"
            raise OnlineMigrateError(
                msg, remedy="restore it, or take it out of the plan and run with --accept-changed-plan"
            )
        return table


def update_statement(
    table: sql.Composable, column: sql.Composable, value: sql.Composable, rows: sql.Composable
) -> sql.Composed:
    """What a batch runs, and what explain prints."""
    return sql.SQL("UPDATE ONLY {table} SET {column} = {value} WHERE {rows} AND {column} IS NULL").format(
        table=table, column=column, value=value, rows=rows
    )


def _position(cursor: CursorRecord) -> Position:
    return Position(chunk=cursor.chunk, stripe=cursor.stripe, slice=cursor.slice)


__all__ = ["LATE_LIMIT", "Backfill", "Bench", "index_with", "update_statement"]
