"""Concurrent builds, VALIDATE, VACUUM: long statements that block no application statement.

They run without a short lock_timeout, which would count the wait for old snapshots (postgres-facts 1), but
watched: phase, blocks done and who is waited for are read by a second session, its locks are compared with
what was declared, and a limit cancels it.  If two checks in a row find a blocker, a wait is reported, as by a
lock window. No view shows the progress of a long read: :func:`report_meanwhile` reports that it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import psycopg

from online_migrate.clock import Clock, Signal
from online_migrate.errors import Interrupted, LockNotAcquired, OnlineMigrateError, UndeclaredLock
from online_migrate.events import BlockersSeen, LongStatement, StopAsked
from online_migrate.postgres.blockers import Blocker, describe_blockers, read_sessions
from online_migrate.postgres.connection import Connection, Sql
from online_migrate.postgres.locks import LockNeed
from online_migrate.postgres.observed_locks import read_held, surplus
from online_migrate.postgres.snapshots import SnapshotHolder, read_snapshot_holders
from online_migrate.waiting import Waiting

FIRST_LOOK_S = 0.02
"""the first look comes early: a build of a small table is over in some 10 ms, and its locks should have been
seen"""
LOOK_EVERY_S = 0.5
REPORT_EVERY_S = 1.0
"""how often a long read is reported; a shorter one never is"""
PROVING = "proving"
"""the phase of a read that looks whether all is as it should be"""
SHOWN_HOLDERS = 3

_PROGRESS = """
SELECT phase, blocks_done, blocks_total, current_locker_pid
  FROM pg_stat_progress_create_index WHERE pid = %(pid)s
UNION ALL
SELECT phase, heap_blks_scanned, heap_blks_total, 0 FROM pg_stat_progress_vacuum WHERE pid = %(pid)s
UNION ALL
SELECT phase, sample_blks_scanned, sample_blks_total, 0 FROM pg_stat_progress_analyze WHERE pid = %(pid)s"""


def run_long_statement(  # noqa: PLR0913  # all by name, each a thing of its own
    statement: Sql,
    *,
    work: Connection,
    watch: Connection,
    fence: Sql,
    limit_s: float,
    clock: Clock,
    signal: Signal,
    emit: Callable[..., None],
    needs: Iterable[LockNeed] | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    path: AbstractContextManager[None] | None = None,
) -> None:
    """Run ``statement`` alone on ``work``, watched through ``watch``.

    A stop lets it finish; an abort cancels it and raises :class:`Interrupted`, and so does a look at which it
    is no longer ``is_wanted``.  After ``limit_s`` it is cancelled and :class:`LockNotAcquired` names who was
    waited for.  Where ``needs`` are given and it holds more, it is cancelled and :class:`UndeclaredLock`
    raised.  Errors of the server are raised as they are.
    """
    declared = None if needs is None else tuple(needs)
    watcher = _Watcher(
        statement=statement,
        work=work,
        watch=watch,
        clock=clock,
        emit=emit,
        declared=declared,
        is_wanted=is_wanted,
        limit_s=limit_s,
    )
    work.execute(fence)
    work.execute("SET lock_timeout = 0")
    try:
        with path or nullcontext():
            watcher.run(signal)
    finally:
        watcher.restore_lock_timeout()


@contextmanager
def report_meanwhile(promise: str, *, clock: Clock, emit: Callable[..., None]) -> Iterator[None]:
    """While the block reads whether ``promise`` is kept: tell that it does, and for how long it has."""
    began, over = clock.monotonic(), Signal()

    def report() -> None:
        while not clock.wait(REPORT_EVERY_S, over):
            seconds = clock.monotonic() - began
            emit(LongStatement, statement=promise, phase=PROVING, share_done=None, seconds=seconds)

    thread = threading.Thread(target=report, name="long read", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.stop("over")
        thread.join()


@dataclass(slots=True, kw_only=True)
class _Watcher:
    statement: Sql
    work: Connection
    watch: Connection
    clock: Clock
    emit: Callable[..., None]
    declared: tuple[LockNeed, ...] | None
    is_wanted: Callable[[], bool]
    limit_s: float
    _error: psycopg.Error | None = None
    _done: Signal = field(default_factory=Signal)
    _seen: tuple[str, ...] = ()
    _said: frozenset[str] = frozenset()
    _is_stop_reported: bool = False
    _was_blocked: bool = False
    """at the check before"""
    _waiting: Waiting = field(init=False)

    def __post_init__(self) -> None:
        self._waiting = Waiting(self.emit, self.clock, "blocker")

    @property
    def _text(self) -> str:
        return self.statement.as_string(None)

    def run(self, signal: Signal) -> None:
        thread = threading.Thread(target=self._execute, name="long statement", daemon=True)
        thread.start()
        try:
            reason = self._watch_until_over(signal)
        except KeyboardInterrupt:
            reason = Interrupted(f"{self._text}: cancelled: {signal.reason or 'interrupted'}")
        except BaseException:
            self._cancel(thread)
            raise
        if reason is not None:
            self._cancel(thread)
        thread.join()
        if isinstance(self._error, psycopg.errors.QueryCanceled) and reason is not None:
            raise reason
        if self._error is not None:
            raise self._error

    def _watch_until_over(self, signal: Signal) -> OnlineMigrateError | None:
        """Why it must be cancelled, or None when it has ended."""
        with self._waiting:
            return self._look_until_over(self.clock.monotonic(), signal)

    def _look_until_over(self, began: float, signal: Signal) -> OnlineMigrateError | None:
        pause_s = FIRST_LOOK_S
        while not self.clock.wait(pause_s, self._done):
            pause_s = LOOK_EVERY_S
            elapsed_s = self.clock.monotonic() - began
            self._look(elapsed_s)
            self._report_stop(signal)
            if more := self._undeclared():
                return UndeclaredLock(held=more, declared=tuple(map(str, self.declared or ())))
            if signal.is_aborting or not self.is_wanted():
                return Interrupted(f"{self._text}: cancelled: {signal.reason or 'no longer wanted'}")
            if elapsed_s > self.limit_s:
                return LockNotAcquired(
                    f"{self._text}: cancelled, it took longer than {self.limit_s:.0f} s",
                    blockers=self._seen,
                    remedy="wait until the blocking sessions end, or end them, then run the same command"
                    " again",
                )
        return None

    def restore_lock_timeout(self) -> None:
        """As every session of ours has it; its owner reopens a session that is lost."""
        if not self.work.closed and not self.work.broken:
            self.work.execute("SET lock_timeout = '5s'")

    def _execute(self) -> None:
        try:
            self.work.execute(self.statement)
        except psycopg.Error as error:
            self._error = error
        finally:
            self._done.stop("over")

    def _cancel(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            self.work.cancel_safe(timeout=5)
            thread.join(timeout=1)

    def _undeclared(self) -> str:
        if self.declared is None:
            return ""
        held = read_held(self.watch, self.work.info.backend_pid)
        return ", ".join(map(str, surplus(held, self.declared)))

    def _look(self, elapsed_s: float) -> None:
        pid = self.work.info.backend_pid
        row = self.watch.execute(_PROGRESS, {"pid": pid}).fetchone()
        blocking = self.watch.execute("SELECT pg_blocking_pids(%s)", [pid]).fetchone()
        pids = set(blocking[0] if blocking else ())
        is_behind_prepared = 0 in pids  # a prepared transaction has no pid (manual, pg_blocking_pids)
        pids.discard(0)
        phase = "" if row is None else str(row[0])
        if row is not None and row[3]:
            pids.add(row[3])
        sessions, holders = (
            read_sessions(self.watch, pids),
            self._snapshots(phase, is_behind_prepared=is_behind_prepared),
        )
        waits_for = (*map(str, sessions), *map(str, holders))
        self.emit(
            LongStatement,
            statement=self._text,
            phase=phase,
            share_done=None if row is None or not row[2] else float(row[1]) / float(row[2]),
            seconds=elapsed_s,
            waits_for=waits_for,
        )
        self._seen = waits_for or self._seen
        if pids and frozenset(map(str, pids)) != self._said:
            self.emit(BlockersSeen, waiting_for=self._text, blockers=waits_for)
        self._said = frozenset(map(str, pids))
        cause = self._said or frozenset(h.name for h in holders)
        self._report_wait(cause, self._reason(phase, sessions, waits_for))

    def _report_stop(self, signal: Signal) -> None:
        if signal.is_stopping and not signal.is_aborting and not self._is_stop_reported:
            self._is_stop_reported = True
            self.emit(StopAsked, reason=signal.reason)

    def _report_wait(self, blockers: frozenset[str], reason: str) -> None:
        """A wait begins when two checks in a row found a blocker: most statements are blocked for a moment
        only.
        """
        was_blocked, self._was_blocked = self._was_blocked, bool(blockers)
        if not blockers:
            self._waiting.end()
        elif was_blocked:
            self._waiting.report(reason, cause=blockers)

    def _reason(self, phase: str, sessions: Sequence[Blocker], waits_for: Sequence[str]) -> str:
        """The first blocker, how long we wait, and what ends it; with the phase if the server waits."""
        where = f"{phase}: " if phase.startswith("waiting") else ""
        return where + (describe_blockers(sessions, self.limit_s) if sessions else "; ".join(waits_for))

    def _snapshots(self, phase: str, *, is_behind_prepared: bool) -> tuple[SnapshotHolder, ...]:
        """While it waits: who holds the oldest snapshots, or is a prepared transaction, which has no pid."""
        if not (phase.startswith("waiting") or is_behind_prepared):
            return ()
        holders = read_snapshot_holders(self.watch, mine=(self.work.info.backend_pid,))
        return tuple(h for h in holders if h.holds_builds)[:SHOWN_HOLDERS]
