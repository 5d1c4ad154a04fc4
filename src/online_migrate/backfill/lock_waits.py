"""How long a batch waited for row locks that it then acquired: not work, and no measure for the next batch.

The server does not record it, so a second session samples batches that take long; the others cost nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import psycopg

from online_migrate.backfill.context import BackfillContext

SAMPLE_FROM = 1.5
"""times the target of a batch, or the duration of the last one if that is longer: most batches are shorter"""
SAMPLE_EVERY_S = 0.02

_IS_WAITING = """
SELECT wait_event_type = 'Lock' AND wait_event <> 'extend' FROM pg_stat_get_activity(%s)"""
"""a wait to extend the table does not count, it is part of the work (manual, table "Wait Events of Type
Lock")"""


class LockWaits:
    """Samples the context's work session from a thread of its own, inside the ``with`` block."""

    def __init__(self, context: BackfillContext) -> None:
        self._context = context
        self._pid = context.work.info.backend_pid
        self._over = threading.Event()
        self._since: float | None = None
        self._work_s = self._usual_s = 0.0
        self._samples = self._waits = 0
        self.waited_s = 0.0
        """of the last statement, as sampled; 0 if it was short"""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        threading.Thread(target=self._sample_until, args=[self._over], name="lock waits", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @contextmanager
    def of_statement(self) -> Iterator[None]:
        """Sample the statement that the block executes; :attr:`waited_s` is about it afterwards.

        Its usual duration, in which it was not sampled, counts as work: otherwise a batch that waits would
        seem a cheap one.
        """
        self._samples = self._waits = 0
        self._usual_s = max(self._context.pace.batch_target, self._work_s)
        began = self._since = self._context.clock.monotonic()
        try:
            yield
        finally:
            self._since = None
        took_s = self._context.clock.monotonic() - began
        share = self._waits / self._samples if self._samples else 0.0
        self.waited_s = min(took_s * share, max(took_s - self._usual_s, 0.0))
        self._work_s = took_s * (1 - share)  # if that is too short, sampling of the next starts earlier

    def _sample_until(self, over: threading.Event) -> None:
        clock = self._context.clock
        while not over.wait(SAMPLE_EVERY_S):
            since = self._since
            if since is None or clock.monotonic() - since < SAMPLE_FROM * self._usual_s:
                continue
            try:
                row = self._context.watch.execute(_IS_WAITING, [self._pid]).fetchone()
            except psycopg.Error:  # the runner itself detects a lost session
                continue
            if self._since == since:
                self._samples += 1
                self._waits += bool(row and row[0])
