"""Concurrent builds, VALIDATE, VACUUM: statements that take long and that no statement of the application waits for.

They run without a short lock_timeout, which would count the wait for old snapshots (postgres-facts 1), but watched:
phase, blocks done and who is waited for are read by a second session, and a limit cancels them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg

from online_migrate.clock import Clock, Signal
from online_migrate.errors import Interrupted, LockNotHad
from online_migrate.events import BlockersSeen, LongStatement
from online_migrate.postgres.blockers import read_sessions
from online_migrate.postgres.connection import Connection, Sql

LOOK_EVERY_S = 0.5

_PROGRESS = """
SELECT phase, blocks_done, blocks_total, lockers_done, lockers_total, current_locker_pid
  FROM pg_stat_progress_create_index WHERE pid = %(pid)s
UNION ALL
SELECT phase, heap_blks_scanned, heap_blks_total, 0, 0, 0 FROM pg_stat_progress_vacuum WHERE pid = %(pid)s
UNION ALL
SELECT phase, sample_blks_scanned, sample_blks_total, 0, 0, 0 FROM pg_stat_progress_analyze WHERE pid = %(pid)s"""


def run_long_statement(
    statement: Sql,
    *,
    work: Connection,
    watch: Connection,
    fence: Sql,
    limit_s: float,
    clock: Clock,
    signal: Signal,
    emit: Callable[..., None],
) -> None:
    """Run ``statement`` alone on ``work``, watched through ``watch``.

    A stop lets it finish; an abort cancels it and raises :class:`Interrupted`.  After ``limit_s`` it is cancelled and
    :class:`LockNotHad` names who was waited for.  Errors of the server are raised as they are.
    """
    watcher = _Watcher(statement, work=work, watch=watch, clock=clock, emit=emit)
    work.execute(fence)
    work.execute("SET lock_timeout = 0")
    try:
        watcher.run(limit_s=limit_s, signal=signal)
    finally:
        if not work.closed:
            work.execute("RESET lock_timeout; SET lock_timeout = '5s'")


class _Watcher:
    def __init__(
        self,
        statement: Sql,
        *,
        work: Connection,
        watch: Connection,
        clock: Clock,
        emit: Callable[..., None],
    ) -> None:
        self._statement = statement
        self._text = statement.as_string(None)
        self._work = work
        self._watch = watch
        self._clock = clock
        self._emit = emit
        self._error: psycopg.Error | None = None
        self._done = Signal()
        self._seen: tuple[str, ...] = ()

    def run(self, *, limit_s: float, signal: Signal) -> None:
        began = self._clock.monotonic()
        thread = threading.Thread(target=self._execute, name="long statement", daemon=True)
        thread.start()
        why = ""
        try:
            while not self._clock.wait(LOOK_EVERY_S, self._done):
                elapsed = self._clock.monotonic() - began
                self._look(elapsed)
                why = (
                    "aborted"
                    if signal.is_aborting
                    else f"longer than {limit_s:.0f} s"
                    if elapsed > limit_s
                    else ""
                )
                if why:
                    break
        except KeyboardInterrupt:
            why = "aborted"
        if why:
            self._cancel(thread)
        thread.join()
        if self._error is not None and why and isinstance(self._error, psycopg.errors.QueryCanceled):
            raise self._cancelled(why, signal)
        if self._error is not None:
            raise self._error

    def _execute(self) -> None:
        try:
            self._work.execute(self._statement)
        except psycopg.Error as error:
            self._error = error
        finally:
            self._done.stop("over")

    def _cancel(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            self._work.cancel_safe(timeout=5)
            thread.join(timeout=1)

    def _cancelled(self, why: str, signal: Signal) -> Exception:
        if why == "aborted":
            return Interrupted(f"{self._text}: cancelled: {signal.reason or 'interrupted'}")
        return LockNotHad(
            f"{self._text}: cancelled, it took {why}",
            blockers=self._seen,
            remedy="let who is in the way end, then run the same command again",
        )

    def _look(self, elapsed_s: float) -> None:
        pid = self._work.info.backend_pid
        row = self._watch.execute(_PROGRESS, {"pid": pid}).fetchone()
        blocking = self._watch.execute("SELECT pg_blocking_pids(%s)", [pid]).fetchone()
        pids = {p for p in (blocking[0] if blocking else []) if p}
        if row is not None and row[5]:
            pids.add(row[5])
        blockers = tuple(map(str, read_sessions(self._watch, pids)))
        share = None if row is None or not row[2] else float(row[1]) / float(row[2])
        self._emit(
            LongStatement,
            statement=self._text,
            phase="" if row is None else row[0],
            share_done=share,
            seconds=elapsed_s,
            waits_for=blockers,
        )
        pids_seen = tuple(sorted(pids))
        if blockers and pids_seen != getattr(self, "_pids_seen", ()):
            self._emit(BlockersSeen, waiting_for=self._text, blockers=blockers)
        self._pids_seen = pids_seen
        self._seen = blockers or self._seen
