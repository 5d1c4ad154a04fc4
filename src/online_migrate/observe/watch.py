"""Reads a snapshot every second while somebody looks, more seldom of a very large plan, and hands it to who draws it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import psycopg

from online_migrate.clock import Clock, Signal, SystemClock
from online_migrate.errors import OnlineMigrateError
from online_migrate.observe.memory import Memory
from online_migrate.observe.snapshot import read_snapshot
from online_migrate.observe.views import Snapshot
from online_migrate.postgres.connection import Connection, Connector

REST = 40
"""times what looking and drawing cost of the processor: with 2,700 steps some 80 ms, so every 3 s then"""
IDLE_S = 5.0
"""between readings while nobody looks: a page that is opened then is that old at most"""
CLOSE_S = 5.0
"""how long close() waits for a reading that is under way"""


class SnapshotWatch:
    """A thread with a connection of its own, open from :meth:`start` to :meth:`close`.

    While the server is away the listeners hear nothing: they go on showing what was last known.  ``looks`` read more on
    the same connection, since a runner has at most six.  ``is_watched`` says whether anybody looks at the moment.
    """

    def __init__(
        self,
        connector: Connector,
        plan: str,
        listeners: Iterable[Callable[[Snapshot], None]],
        *,
        looks: Iterable[Callable[[Connection, Snapshot], None]] = (),
        is_watched: Callable[[], bool] = lambda: True,
        every_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self._connector = replace(connector, on_statement=None)  # not among the runner's statements
        self._plan = plan
        self._listeners = tuple(listeners)
        self._looks = tuple(looks)
        self._is_watched = is_watched
        self._every_s = every_s
        self._clock = clock or SystemClock()
        self._over = Signal()
        self._memory = Memory()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._watch, name="snapshot", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Read and show the end, then let go; safe to call twice, and without a start."""
        self._over.stop("closed")
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_S)

    def _watch(self) -> None:
        is_over, cost_s, idle_until = False, 0.0, 0.0
        while not is_over:
            is_over = self._clock.wait(max(self._every_s, REST * cost_s), self._over)
            if not (is_over or self._is_watched() or self._clock.monotonic() >= idle_until):
                continue
            idle_until = self._clock.monotonic() + IDLE_S
            began = time.thread_time()
            self._look()
            cost_s = time.thread_time() - began
        if self._connection is not None:
            self._connection.close()

    def _look(self) -> None:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connector.open("snapshot", may_be_standby=True)
            snapshot = read_snapshot(self._connection, self._plan, self._memory)
        except (psycopg.Error, OnlineMigrateError, OSError):
            return
        if snapshot is None:
            return
        for listener in self._listeners:
            listener(snapshot)
        for look in self._looks:
            with suppress(psycopg.Error, OnlineMigrateError, OSError):  # it tries again next time
                look(self._connection, snapshot)
