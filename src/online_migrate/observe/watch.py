"""Reads a snapshot now and then, and when somebody asks, and hands it to who draws it."""

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
"""between two looks at least, however many ask"""
REST = 40
"""times what looking and drawing cost of the processor, if that is longer: with 2,700 steps some 80 ms, so every 3 s then"""
FRESH_S = 0.3
"""how long who asks waits for a look: a few milliseconds, unless the server is slow or away"""
IDLE_S = 20.0
"""between looks where nobody asks and nothing is drawn by itself: often enough to know that the server is there"""
CLOSE_S = 5.0
"""how long close() waits for a reading that is under way"""

T = TypeVar("T")


class SnapshotWatch:
    """A thread that looks every ``every_s``, and at once where somebody asks to :meth:`freshen`, from :meth:`start` to :meth:`close`.

    While the server is away the listeners hear nothing: they go on showing what was last known.  ``looks`` read more on
    the same session.  One that fails is told to ``on_error`` and asked again next time, as are the others.  All may be
    set until :meth:`start`.
    """

    def __init__(
        self,
        session: Session,
        plan: str,
        listeners: Iterable[Callable[[Snapshot], None]] = (),
        *,
        looks: Iterable[Callable[[Connection, Snapshot], None]] = (),
        every_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.listeners = list(listeners)
        self.looks = list(looks)
        self.every_s = every_s
        self.on_error: Callable[[], None] = lambda: None
        self._session = session
        self._plan = plan
        self._clock = clock or SystemClock()
        self._over = Signal()
        self._asked = Signal()
        self._looked = threading.Condition()
        self._looked_at = float("-inf")
        self._memory = Memory()
        self._thread = threading.Thread(target=self._watch, name="snapshot", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Read and show the end, then let go; safe to call twice, and without a start."""
        self._over.stop("closed")
        self._asked.stop("closed")
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_S)

    def freshen(self) -> None:
        """Have the listeners see what is now, or not long ago; where that takes more than a moment, they see it later."""
        asked_at = self._clock.monotonic()
        with self._looked:
            if not self._thread.is_alive() or asked_at - self._looked_at < REST_S:
                return
            self._asked.stop("asked")
            self._looked.wait_for(lambda: self._looked_at >= asked_at, timeout=FRESH_S)

    def _watch(self) -> None:
        least_s = min(REST_S, self.every_s)
        rest_s, every_s = 0.0, least_s
        while not self._is_over_after(rest_s, every_s):
            began = time.thread_time()
            every_s = self.every_s if self._look() else least_s
            rest_s = max(least_s, REST * (time.thread_time() - began))
            self._say_looked()
        self._look()

    def _is_over_after(self, rest_s: float, every_s: float) -> bool:
        """Rest, then wait until it is time or somebody asks."""
        if not self._clock.wait(rest_s, self._over):
            self._clock.wait(every_s - rest_s, self._asked)
        self._asked = Signal()
        return self._over.is_stopping

    def _say_looked(self) -> None:
        with self._looked:
            self._looked_at = self._clock.monotonic()
            self._looked.notify_all()

    def _look(self) -> bool:
        """Whether there was something to be seen."""
        seen = self._safely(self._read)
        if seen is None:
            return False
        connection, snapshot = seen
        for listener in self.listeners:
            self._safely(listener, snapshot)
        for look in self.looks:
            self._safely(look, connection, snapshot)
        return True

    def _read(self) -> tuple[Connection, Snapshot] | None:
        connection = self._session.get()
        snapshot = read_snapshot(connection, self._plan, self._memory)
        return None if snapshot is None else (connection, snapshot)

    def _safely(self, work: Callable[..., T], *given: object) -> T | None:
        """A terminal that is gone must not take the page and the metrics with it."""
        try:
            return work(*given)
        except (
            psycopg.Error,
            OnlineMigrateError,
        ):  # the server is away, or a right is missing: the age of what is shown says so
            return None
        except Exception:  # noqa: BLE001  # whatever it was, the next look may be better
            self.on_error()
            return None
