"""Reads a snapshot at intervals and on request, and passes it to its listeners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import psycopg

from online_migrate.clock import Clock, Signal, SystemClock
from online_migrate.errors import OnlineMigrateError
from online_migrate.observe.session import Session
from online_migrate.observe.snapshot.memory import Memory
from online_migrate.observe.snapshot.read import read_snapshot
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.postgres.connection import Connection

REST_S = 1.0
"""between two reads at least, however many requests there are"""
REST = 40
"""between two reads at least this many times the CPU time of the last one: with 2,700 steps some 80 ms, so
3 s"""
FRESH_S = 0.3
"""for so long a request waits for a read: a few milliseconds, unless the server is slow or unreachable"""
IDLE_S = 20.0
"""between reads without a request or a live table: often enough to know that the server is reachable"""
CLOSE_S = 5.0
"""for so long close() waits for a read that is running"""

T = TypeVar("T")


class SnapshotWatch:
    """A thread that reads every ``every_s``, and at each :meth:`freshen`, from :meth:`start` to
    :meth:`close`.

    While the server is unreachable, the listeners are not called: they show what was last known.
    ``readers`` read more on the same session.  If a listener or reader fails, ``on_error`` is called; the
    others are called all the same, and the one that failed again next time.  All may be set until
    :meth:`start`.
    """

    def __init__(
        self,
        session: Session,
        plan: str,
        listeners: Iterable[Callable[[Snapshot], None]] = (),
        *,
        readers: Iterable[Callable[[Connection, Snapshot], None]] = (),
        every_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.listeners = list(listeners)
        self.readers = list(readers)
        self.every_s = every_s
        self.on_error: Callable[[], None] = lambda: None
        self._session = session
        self._plan = plan
        self._clock = clock or SystemClock()
        self._over = Signal()
        self._asked = Signal()
        self._was_read = threading.Condition()
        self._read_at = float("-inf")
        self._memory = Memory()
        self._thread = threading.Thread(target=self._watch, name="snapshot", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Read and show the end, then stop; safe to call twice, and without a start."""
        self._over.stop("closed")
        self._asked.stop("closed")
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_S)

    def freshen(self) -> None:
        """Pass a current snapshot to the listeners; if that takes more than a moment, return before it."""
        asked_at = self._clock.monotonic()
        with self._was_read:
            if not self._thread.is_alive() or asked_at - self._read_at < REST_S:
                return
            self._asked.stop("asked")
            self._was_read.wait_for(lambda: self._read_at >= asked_at, timeout=FRESH_S)

    def _watch(self) -> None:
        least_s = min(REST_S, self.every_s)
        rest_s, every_s = 0.0, least_s
        while not self._is_over_after(rest_s, every_s):
            began = time.thread_time()
            every_s = self.every_s if self._read_once() else least_s
            rest_s = max(least_s, REST * (time.thread_time() - began))
            self._announce()
        self._read_once()

    def _is_over_after(self, rest_s: float, every_s: float) -> bool:
        """Rest, then wait until it is time or a request comes."""
        if not self._clock.wait(rest_s, self._over):
            self._clock.wait(every_s - rest_s, self._asked)
        self._asked = Signal()
        return self._over.is_stopping

    def _announce(self) -> None:
        with self._was_read:
            self._read_at = self._clock.monotonic()
            self._was_read.notify_all()

    def _read_once(self) -> bool:
        """Whether there was a snapshot."""
        found = self._safely(self._read)
        if found is None:
            return False
        connection, snapshot = found
        for listener in self.listeners:
            self._safely(listener, snapshot)
        for reader in self.readers:
            self._safely(reader, connection, snapshot)
        return True

    def _read(self) -> tuple[Connection, Snapshot] | None:
        connection = self._session.get()
        snapshot = read_snapshot(connection, self._plan, self._memory)
        return None if snapshot is None else (connection, snapshot)

    def _safely(self, work: Callable[..., T], *given: object) -> T | None:
        """A terminal that was closed must not stop the page and the metrics."""
        try:
            return work(*given)
        except (psycopg.Error, OnlineMigrateError):
            return None  # the server is unreachable, or a right is missing: the age of what is shown says so
        except Exception:  # noqa: BLE001  # whatever it was, the next read may succeed
            self.on_error()
            return None
