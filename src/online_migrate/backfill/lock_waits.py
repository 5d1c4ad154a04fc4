"""How much of a long batch was waiting for row locks that it then had: that is not work, and tells nothing of the next batch.

The server keeps no account of it, so a second session looks at batches that take long; the others cost nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import psycopg

from online_migrate.backfill.context import BackfillContext

LOOK_FROM = 1.5
"""times the target of a batch, or what the last one took where that is more: most are over by then"""
LOOK_EVERY_S = 0.02

_IS_WAITING = """
SELECT wait_event_type = 'Lock' AND wait_event <> 'extend' FROM pg_stat_get_activity(%s)"""
"""not for the right to make the table longer, which is part of the work (manual, table "Wait Events of Type Lock")"""


class LockWaits:
    """Of the bench's work session.  Looks while the ``with`` block lasts, from a thread of its own."""

    def __init__(self, context: BackfillContext) -> None:
        self._context = context
        self._pid = context.work.info.backend_pid
        self._over = threading.Event()
        self._since: float | None = None
        self._work_s = self._usual_s = 0.0
        self._looks = self._waits = 0
        self.waited_s = 0.0
        """of the last statement, as far as looks have shown; 0 where it was over soon"""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        threading.Thread(target=self._look_until, args=[self._over], name="lock waits", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @contextmanager
    def of_statement(self) -> Iterator[None]:
        """A statement begins, and is over with the block; :attr:`waited_s` then speaks of it.

        Nobody looked while it took no longer than usual: that much is work, or each batch that waits would seem a light one.
        """
        self._looks = self._waits = 0
        self._usual_s = max(self._context.pace.batch_target, self._work_s)
        began = self._since = self._context.clock.monotonic()
        try:
            yield
        finally:
            self._since = None
        took_s = self._context.clock.monotonic() - began
        share = self._waits / self._looks if self._looks else 0.0
        self.waited_s = min(took_s * share, max(took_s - self._usual_s, 0.0))
        self._work_s = took_s * (1 - share)  # if too little, the next is looked at earlier

    def _look_until(self, over: threading.Event) -> None:
        clock = self._context.clock
        while not over.wait(LOOK_EVERY_S):
            since = self._since
            if since is None or clock.monotonic() - since < LOOK_FROM * self._usual_s:
                continue
            try:
                row = self._context.watch.execute(_IS_WAITING, [self._pid]).fetchone()
            except psycopg.Error:  # the runner notices a lost session by itself
                continue
            if self._since == since:
                self._looks += 1
                self._waits += bool(row and row[0])
