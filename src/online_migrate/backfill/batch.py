"""One batch: a transaction that checks the fence, changes the rows, and moves the cursor; all of it or none.

It waits at most 50 ms for a row lock of the application, then changes the rows that are not locked and leaves
the others to the sweep.  It does not wait in the queue for a table lock: it rolls back, pauses, and tries
again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from online_migrate.backfill.chunks import Position
from online_migrate.backfill.context import BackfillContext, By, Target
from online_migrate.backfill.lock_waits import LockWaits
from online_migrate.backfill.rows import RowSet, late_rows_statement
from online_migrate.backfill.values import Expression
from online_migrate.errors import LeaseLost, LockNotAcquired
from online_migrate.journal.cursors import CursorMove
from online_migrate.journal.records import CursorRecord
from online_migrate.postgres.blockers import describe_blockers, read_blockers
from online_migrate.postgres.connection import Connection, Sql
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.search_path import SearchPath, with_path
from online_migrate.postgres.server_errors import translate_error
from online_migrate.postgres.sqlstate import ErrorClass, error_class
from online_migrate.waiting import Waiting

ROW_LOCK_TIMEOUT = "50ms"
"""a batch never waits longer for an application's row lock"""
TABLE_LOCK_PAUSE_S = 0.25
"""between two attempts while another session locks the whole table: five times as long as an attempt waits in
the queue"""
IDLE_TIMEOUT = "1s"
"""between a batch's two messages its rows are locked while the server waits for us, usually for less than a
millisecond: a runner that is stopped, or has lost its network, must not keep these locks.  Its session ends,
and is opened again"""
TRANSACTION_TIMEOUT = "5min"
"""from 17 on, the last bound: a hundred times the longest batch of a usual plan, so that triggers may be slow
"""
WAITING_TARGETS = 20
"""times the target of a batch: the limit of an attempt that waits for row locks.  It waits at most 50 ms for
each, but may wait for many, one after another, while it locks the rows that it has changed.  The next attempt
skips locked rows, and has no such limit"""
WAITING_LEAST_S = 1.0
"""lower bound of that limit, however short batches are: a busy disk alone may take some tenths of a second"""
CURSOR_LOCK_S = 5.0
"""how long a locked cursor is tried again: an autovacuum that truncates the journal's table locks it for
milliseconds"""


class CursorLocked(Exception):
    """Another session locks the cursor, or cancelled our statement; the batch was rolled back."""


class TableRewritten(Exception):  # restarts the pass; never reaches the user
    """The relfilenode has changed: rows have other TIDs now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a batch has changed."""

    rows: int
    wal_bytes: int | None
    """None if it was not measured"""
    lock_wait_s: float
    skipped_locked: bool
    cursor_s: float = 0.0
    """duration of the cursor's move and the commit"""


class Writer:
    """Runs the batches of one table on the context's work connection."""

    def __init__(self, context: BackfillContext, target: Target) -> None:
        self._context = context
        self.target = target
        self._begins: dict[tuple[By, float | None], bytes] = {}
        self._free_s = 0.0
        self.lock_waits = LockWaits(context)
        node = sql.SQL("SELECT pg_relation_filenode({}::oid)").format(sql.Literal(target.table.oid))
        self._node = node.as_bytes(context.work)
        self._cursor_move = CursorMove.of(context.work, context.run_id, context.key)

    @property
    def connection(self) -> Connection:
        return self._context.work

    def _with_path(self, update: Sql) -> Sql:
        """Triggers, and the value of an expression, find the objects that they find in the application's
        sessions.

        The setting of the application's role is not known; `check` has a finding for triggers that fire.
        """
        path = SearchPath.PLAN if isinstance(self.target.value, Expression) else SearchPath.ROLE
        return with_path(self._context.work, path, update)

    def write(
        self,
        rows: sql.Composable,
        cursor: CursorRecord,
        then: Position,
        *,
        by: By = By.TID,
        measure_wal: bool = False,
    ) -> Change:
        """Change the rows that are not locked, move the cursor, and commit.  See :meth:`change` for what it
        raises.
        """
        clock = self._context.clock
        began = clock.monotonic()
        locked_since: float | None = None
        with Waiting(self._context.emit, clock, "cursor") as waiting:
            while True:
                tried_at = clock.monotonic()
                change = self.change(rows, by=by, measure_wal=measure_wal)
                written_at = clock.monotonic()
                try:
                    self.commit(cursor, then, change.rows)
                except CursorLocked as error:
                    now = clock.monotonic()
                    if locked_since is None or isinstance(error.__cause__, psycopg.errors.QueryCanceled):
                        locked_since = now
                    locked_since += self._wait_for_cursor(now - locked_since, waiting, error)
                else:
                    waited_s = change.lock_wait_s + tried_at - began
                    return replace(change, lock_wait_s=waited_s, cursor_s=clock.monotonic() - written_at)

    def _wait_for_cursor(self, locked_s: float, waiting: Waiting, error: CursorLocked) -> float:
        """Wait for a session of a dead runner; seconds for which the run was paused."""
        context, name = self._context, self.target.table.full_name
        if locked_s > CURSOR_LOCK_S:
            raise LeaseLost(
                f"the cursor of {name} has been locked for {locked_s:.0f} s:"
                " a session of a dead runner is still active",
                remedy="wait a few seconds, then run the same command again",
            ) from error
        waiting.report(f"the cursor of {name} is locked, or another session cancels our statements")
        context.clock.wait(TABLE_LOCK_PAUSE_S, context.signal)
        return context.ensure_going()

    def change(self, rows: sql.Composable, *, by: By = By.TID, measure_wal: bool = False) -> Change:
        """Begin the transaction and change the rows that are not locked; the caller moves the cursor and
        commits.

        Raises :class:`TableRewritten`, :class:`LeaseLost`, :class:`LockNotAcquired` if the table stays locked
        for ``lock_wait``, and any other error of the server; no transaction is open then.
        """
        clock = self._context.clock
        began, paused_s = clock.monotonic(), 0.0
        with Waiting(self._context.emit, clock, "table_lock") as waiting:
            while True:
                for skip_locked in (False, True):
                    tried_at = clock.monotonic()
                    try:
                        with self.lock_waits.of_statement():
                            count, wal = self._write(
                                rows, by=by, skip_locked=skip_locked, measure_wal=measure_wal
                            )
                    except psycopg.Error as error:
                        self._roll_back_or_raise(error)
                        continue
                    took_s = clock.monotonic() - tried_at
                    if skip_locked:
                        self._free_s = took_s
                    waited_s = tried_at - began + self.lock_waits.waited_s
                    return Change(rows=count, wal_bytes=wal, lock_wait_s=waited_s, skipped_locked=skip_locked)
                paused_s += self._wait_outside(began + paused_s + self._context.locks.lock_wait, waiting)

    def commit(self, cursor: CursorRecord, then: Position, rows: int) -> None:
        """Move the cursor by compare-and-set in the batch's transaction, and commit; raises
        :class:`CursorLocked`.
        """
        work = self._context.work
        after = (then.chunk, then.stripe, then.slice)
        try:
            work.execute(self._cursor_move.statement(cursor, after, rows))
        except psycopg.Error as error:
            if error_class(error) is ErrorClass.LOST or work.closed:
                raise
            work.rollback()
            if error_class(error) is ErrorClass.LOCK and not self._context.signal.is_aborting:
                raise CursorLocked from error
            raise

    def probe(self, rows: sql.Composable) -> psycopg.Error | None:
        """Change these rows and roll back: the server's error, or None; None also if another session locks
        them.
        """
        try:
            self._write(rows, skip_locked=True)
            fire = sql.SQL("SET CONSTRAINTS ALL IMMEDIATE")
            self._context.work.execute(with_path(self._context.work, SearchPath.ROLE, fire))
        except psycopg.Error as error:
            self._roll_back_or_raise(error, but=error)
            return None if error_class(error) is ErrorClass.LOCK else error
        self._context.work.rollback()
        return None

    def try_free(self, late: RowSet) -> tuple[RowSet, RowSet]:
        """Lock the rows that are not locked, change them, and roll back: (locked by us, of these still
        without a value).

        No session can write between lock and change: a row that we locked and that then has no value cannot
        be given one.  For a composite key the condition names more rows than the locked ones
        (:attr:`RowSet.condition`), which other sessions may write meanwhile: those do not count.
        """
        work = self._context.work
        try:
            look = late_rows_statement(self.target, among=late)
            begin = sql.SQL("{}; {} FOR NO KEY UPDATE SKIP LOCKED").format(self._settings(by=late.by), look)
            cursor = work.execute(begin)
            while cursor.nextset():
                pass
            free = RowSet(target=self.target, names=tuple(cursor.fetchall()))
            refused = replace(free, names=())
            if free:
                work.execute(self._with_path(self.target.update(free.condition)))
                still = set(work.execute(late_rows_statement(self.target, among=free)).fetchall())
                refused = replace(free, names=tuple(n for n in free.names if n in still))
        except psycopg.Error as error:
            self._roll_back_or_raise(error)  # a parent's row is locked: the rows are not refused
            return replace(late, names=()), replace(late, names=())
        work.rollback()
        return free, refused

    def _write(
        self, rows: sql.Composable, *, skip_locked: bool, by: By = By.TID, measure_wal: bool = False
    ) -> tuple[int, int | None]:
        """Rows changed and, if measured, bytes of WAL; the transaction is open afterwards."""
        begin = self._begin(by, None if skip_locked else self._waiting_s())
        if by is By.SCAN:
            begin, rows = b"SELECT", self._lock_one(begin, skip_locked=skip_locked)
        update = self.target.update(rows, skip_locked=skip_locked, by=by)
        if measure_wal:
            update = (
                sql.SQL(
                    "EXPLAIN (ANALYZE, WAL, COSTS OFF, TIMING OFF, SUMMARY OFF, FORMAT JSON) {} RETURNING 1"
                )
            ).format(update)
        changed = self._with_path(update).as_bytes(self._context.work)
        cursor = self._context.work.execute(b"; ".join([begin, changed, self._node]))
        count, wal = 0, None
        while cursor.nextset():
            if (cursor.statusmessage or "").startswith("UPDATE"):
                count = cursor.rowcount
            elif cursor.statusmessage == "EXPLAIN":
                count, wal = _measured(cursor.fetchone())
        row = cursor.fetchone()
        if row is None or row[0] != self.target.table.relfilenode:
            self._context.work.rollback()
            raise TableRewritten
        return count, wal

    def _lock_one(self, begin: bytes, *, skip_locked: bool) -> sql.Composable:
        """Scan up to the first row without a value, and lock it: it keeps its TID from then on."""
        look = late_rows_statement(self.target, limit=1)
        lock = sql.SQL("{} FOR NO KEY UPDATE{}").format(look, sql.SQL(" SKIP LOCKED" * skip_locked))
        cursor = self._context.work.execute(b"; ".join([begin, lock.as_bytes(self._context.work)]))
        while cursor.nextset():
            pass
        one = RowSet(target=self.target, names=tuple(cursor.fetchall()))
        return one.condition if one else sql.SQL("false")

    def _waiting_s(self) -> float:
        """The limit of an attempt that waits for rows: by the target, and by the last attempt that did not
        wait.

        Slow triggers make each batch slow; it must not be executed twice each time.
        """
        waiting_s = max(WAITING_TARGETS * self._context.pace.batch_target, WAITING_LEAST_S)
        while waiting_s < 2 * self._free_s:
            waiting_s *= 2
        return waiting_s

    def _begin(self, by: By, waiting_s: float | None) -> bytes:
        """:meth:`_settings` as text, composed once: it is the same for every batch, and most of our own CPU
        time.
        """
        if (by, waiting_s) not in self._begins:
            self._begins[by, waiting_s] = self._settings(by=by, waiting_s=waiting_s).as_bytes(
                self._context.work
            )
        return self._begins[by, waiting_s]

    def _settings(self, *, by: By = By.TID, waiting_s: float | None = None) -> sql.Composed:
        """BEGIN and settings.  A crash that loses the commit loses the cursor's move too, so it need not wait
        for the disk.
        """
        by_place, by_index = ("off", "on") if by is By.KEY else ("on", "off")
        values: dict[str, str] = {
            "lock_timeout": ROW_LOCK_TIMEOUT,
            "synchronous_commit": "off",
            "enable_seqscan": "off",
            # an index scan would read dead entries, and no TID range
            "enable_tidscan": by_place,
            "enable_indexscan": by_index,
            "enable_bitmapscan": by_index,
            "enable_indexonlyscan": by_index,
            "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        }
        if by is not By.SCAN:  # its duration depends on the size of the table
            values |= self._bounds(waiting_s)
        if self.target.skip_triggers:
            values["session_replication_role"] = "replica"
        settings = sql.SQL("; ").join(
            sql.SQL("SET LOCAL {} = {}").format(
                sql.SQL(name), sql.SQL(value) if value in ("on", "off") else sql.Literal(value)
            )
            for name, value in values.items()
        )
        return sql.SQL("; ").join([sql.SQL("BEGIN"), settings, self._context.fence.sql])

    def _bounds(self, waiting_s: float | None) -> dict[str, str]:
        """Timeouts of a statement that may wait for rows, and of any batch."""
        bounds = {} if waiting_s is None else {"statement_timeout": f"{waiting_s * 1000:.0f}ms"}
        if self._context.work.info.server_version >= 170000:
            bounds["transaction_timeout"] = TRANSACTION_TIMEOUT
        return bounds

    def _roll_back_or_raise(self, error: psycopg.Error, but: psycopg.Error | None = None) -> None:
        """Return if a lock timed out, or if the error is ``but``, which the caller expects; raise any other
        error.
        """
        trouble = error_class(error)
        if not self._context.work.closed:
            self._context.work.rollback()
        if trouble is ErrorClass.FENCE:
            raise translate_error(error) from error
        if self._context.signal.is_aborting or trouble in (ErrorClass.LOST, ErrorClass.UNAVAILABLE):
            raise error
        if trouble is not ErrorClass.LOCK and error is not but:
            raise error

    def _wait_outside(self, deadline: float, waiting: Waiting) -> float:
        """Wait outside the queue of a lock on the whole table; seconds for which the run was paused."""
        context = self._context
        blockers = read_blockers(
            context.watch,
            [(self.target.table.oid, LockMode.ROW_EXCLUSIVE)],
            mine=[context.work.info.backend_pid],
        )
        blocked_by = (
            describe_blockers(blockers, context.locks.lock_wait)
            if blockers
            else "by a session that locks a referenced row, or that has ended since"
        )
        waiting.report(
            f"{self.target.table.full_name} is locked: {blocked_by}",
            cause=blockers[0].pid if blockers else None,
        )
        if context.clock.monotonic() > deadline:
            raise LockNotAcquired(
                f"could not acquire ROW EXCLUSIVE on {self.target.table.full_name} within"
                f" {context.locks.lock_wait:.0f} s (lock_wait); the batches before this one are committed",
                blockers=tuple(map(str, blockers)),
                remedy="wait for the blocking sessions to end, or end them; then run the same command again",
            )
        context.clock.wait(TABLE_LOCK_PAUSE_S, context.signal)
        return context.ensure_going()


def _measured(row: tuple[Any, ...] | None) -> tuple[int, int]:
    """Rows and WAL bytes from EXPLAIN (ANALYZE, WAL, FORMAT JSON); from 18 on rows have decimals."""
    assert row is not None  # EXPLAIN in JSON has one row
    plan = row[0][0]["Plan"]
    return round(float(plan["Actual Rows"])), int(plan.get("WAL Bytes", 0))
