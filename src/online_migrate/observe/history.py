"""Writes events to the journal's history, from a thread of its own, so that the work never waits for it.

Frequent events are reduced: the batches of a table become one record every ten seconds.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Final

import psycopg

from online_migrate.clock import Clock, SystemClock
from online_migrate.errors import OnlineMigrateError
from online_migrate.events import (
    BatchDone,
    BlockersSeen,
    Event,
    LongStatement,
    Reading,
    RunEnded,
    RunStarted,
    StepEnded,
    StepFailed,
    TablesMeasured,
    Throughput,
)
from online_migrate.journal.changes import read_step_tables
from online_migrate.journal.store import Journal
from online_migrate.observe.session import Session
from online_migrate.postgres.connection import Connection, role_path_of

SUM_S: Final = 10.0
"""batches of a table are summed over this"""
KEPT: Final = 20_000
"""events that are kept while the server is unreachable; after that the oldest ones are dropped"""
RETRY_S: Final = 2.0
"""between attempts to reach an unreachable server"""
CLOSE_S: Final = 5.0
"""for so long close() waits until the remaining events are written"""

MEASURE_MS: Final = 500
"""for so long reading the tables' sizes may wait for a lock: it takes ACCESS SHARE"""

_SIZES: Final = """
    SELECT c.relname, pg_table_size(c.oid), pg_indexes_size(c.oid) FROM pg_class c
     WHERE c.relkind IN ('r', 'm')
       AND c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = %s)
       AND c.relname = ANY (%s)"""

Key = tuple[str, str, str]


class Summary:
    """Which events are kept, and the sums of the others.  Pure: ``now`` is an argument."""

    def __init__(self) -> None:
        self._sums: dict[Key, Throughput] = {}
        self._since: dict[Key, float] = {}
        self._last: dict[tuple[str, ...], object] = {}

    def take(self, event: Event, now: float) -> list[Event]:
        """The events to write because of ``event``, in order."""
        if isinstance(event, BatchDone):
            self._add(event, now)
            return self.due(now)
        if isinstance(event, Throughput | TablesMeasured | LongStatement) or not self._is_news(event):
            return []
        if isinstance(event, StepEnded | StepFailed):
            return [*self._close((event.stage, event.step, event.table)), event]
        if isinstance(event, RunEnded):
            return [*self.rest(), event]
        return [event]

    def due(self, now: float) -> list[Event]:
        """Sums that are complete."""
        over = [key for key, since in self._since.items() if now - since >= SUM_S]
        return [event for key in over for event in self._close(key)]

    def rest(self) -> list[Event]:
        """All remaining sums."""
        return [event for key in list(self._sums) for event in self._close(key)]

    def _add(self, event: BatchDone, now: float) -> None:
        key = (event.stage, event.step, event.table)
        self._since.setdefault(key, now)
        before = self._sums.get(key)
        self._sums[key] = Throughput(
            stage=event.stage,
            step=event.step,
            table=event.table,
            rows=event.rows + (before.rows if before else 0),
            batches=1 + (before.batches if before else 0),
            pages=event.pages + (before.pages if before else 0),
            worked_s=event.seconds + (before.worked_s if before else 0.0),
            paused_s=event.pause_s + (before.paused_s if before else 0.0),
            rows_done=event.rows_done,
            share_done=event.share_done,
            skipped_locked=int(event.skipped_locked) + (before.skipped_locked if before else 0),
        )

    def _close(self, key: Key) -> list[Event]:
        self._since.pop(key, None)
        event = self._sums.pop(key, None)
        return [] if event is None else [event]

    def _is_news(self, event: Event) -> bool:
        """A reading is news if it begins or ceases to hold the run, blockers if they are not the same as
        before.
        """
        key: tuple[str, ...]
        seen: object
        if isinstance(event, Reading):
            key, seen = (event.name, event.throttler), event.utilisation >= 1
        elif isinstance(event, BlockersSeen):
            key, seen = (event.name, event.stage, event.step, event.table), event.blockers
        else:
            return True
        is_news = self._last.get(key) != seen
        self._last[key] = seen
        return is_news


class HistorySink:
    """Writes to the journal on ``session``; neither blocks nor raises.

    Events wait in a queue until :class:`RunStarted` gives the run's id (unless ``run_id`` is given), while
    the server is unreachable, and while another listener uses the session.
    """

    def __init__(self, session: Session, *, run_id: int | None = None, clock: Clock | None = None) -> None:
        self.dropped = 0
        """events that were dropped, because the server was unreachable for long"""
        self._session = session
        self._run_id = run_id
        self._clock = clock or SystemClock()
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._summary = Summary()
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._try_at = 0.0
        self._thread = threading.Thread(target=self._keep, name="history", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Queue the event for the thread."""
        self._queue.put(event)

    def close(self) -> None:
        """Write the remaining events, for a few seconds at most; safe to call twice."""
        self._queue.put(None)
        self._thread.join(timeout=CLOSE_S)

    def _keep(self) -> None:
        while self._take():
            self._write()
        self._append(self._summary.rest())
        for _ in range(2):  # the first may find that the connection was lost
            self._try_at = 0.0
            self._write()

    def _take(self) -> bool:
        """Take all queued events, or wait up to a second for one; False after :meth:`close`."""
        try:
            event = self._queue.get(timeout=1.0)
            while event is not None:
                if isinstance(event, RunStarted):
                    self._run_id = event.run_id
                self._append(self._summary.take(event, self._clock.monotonic()))
                event = self._queue.get_nowait()
        except queue.Empty:
            self._append(self._summary.due(self._clock.monotonic()))
            return True
        return False

    def _append(self, events: list[Event]) -> None:
        for event in events:
            self.dropped += len(self._kept) == KEPT
            self._kept.append(event)

    def _write(self) -> None:
        """Write the kept events; each is removed only after it was written."""
        if self._run_id is None or not self._kept or self._clock.monotonic() < self._try_at:
            return
        try:
            journal = Journal(self._session.get())
            while self._kept:
                self._append_one(journal, self._run_id, self._kept[0])
                self._kept.popleft()
        except (psycopg.OperationalError, psycopg.InterfaceError, OnlineMigrateError, OSError):
            self._try_at = self._clock.monotonic() + RETRY_S

    def _append_one(self, journal: Journal, run_id: int, event: Event) -> None:
        try:
            journal.append_history(run_id, event)
            if isinstance(event, RunStarted | RunEnded) and (sizes := _measure(journal.connection, run_id)):
                journal.append_history(run_id, TablesMeasured(sizes=sizes))
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except (psycopg.Error, TypeError, ValueError):  # this event cannot be written; the next ones can
            self.dropped += 1


def _measure(connection: Connection, run_id: int) -> dict[str, tuple[int, int]]:
    """Bytes of the run's tables and of their indexes; empty if another session's strong lock blocks the
    query.
    """
    try:
        with connection.transaction():
            connection.execute(
                "SELECT set_config('lock_timeout', %(ms)s, true), set_config('statement_timeout', %(ms)s,"
                " true)",
                {"ms": str(MEASURE_MS)},
            )
            rows = connection.execute(
                _SIZES, [role_path_of(connection)[1], list(read_step_tables(connection, run_id))]
            ).fetchall()
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
        return {}
    return {table: (size, indexes) for table, size, indexes in rows if size is not None}
