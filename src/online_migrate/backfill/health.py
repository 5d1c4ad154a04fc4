"""Hold while a throttler is red, and watch the oldest snapshot, from which the length of a chunk follows."""

from __future__ import annotations

import psycopg

from online_migrate.backfill.context import BackfillContext
from online_migrate.backfill.throttlers.oldest_snapshot import Holder, OldestSnapshot
from online_migrate.events import Note, Reading
from online_migrate.waiting import Waiting

THROTTLE_CHECK_S = 0.5
"""between two checks of the throttlers, red or green"""
SNAPSHOT_CHECK_S = 1.0
"""between two checks of the oldest snapshot"""
REPORT_AGAIN_S = 600.0
"""between two reports of an old snapshot"""


class Health:
    """Checks the server's health on the context's watch connection, between batches."""

    def __init__(self, context: BackfillContext) -> None:
        self._context = context
        self._throttle = context.throttles.of(context.hold_when, context.clock)
        self._snapshots = OldestSnapshot(limit_s=3600)
        self._read_at = self._snapshots_read_at = self._reported_at = float("-inf")
        self._oldest: Holder | None = None

    def hold(self) -> bool:
        """Wait while a throttler is red, and report why; whether there was a wait."""
        context = self._context
        self._read()
        red = self._throttle.held_by()
        if red is None:
            return False
        with Waiting(context.emit, context.clock, red.name) as waiting:
            while red is not None:
                waiting.report(f"{red.reason}; holding", red.name)
                context.clock.wait(THROTTLE_CHECK_S, context.signal)
                context.ensure_going()
                self._read()
                red = self._throttle.held_by(red.name)
        return True

    def is_red(self) -> bool:
        """Whether a throttler is red now; does not wait."""
        self._read()
        return self._throttle.held_by() is not None

    def _read(self) -> None:
        self._ensure_seeing()
        now = self._context.clock.monotonic()
        if not self._throttle.throttlers or now - self._read_at < THROTTLE_CHECK_S:
            return
        self._read_at = now
        for r in self._throttle.read(self._context.watch):
            self._note(Holder(description=f"our own reading of {r.name}", age_s=r.took_s))
            self._context.emit(
                Reading, throttler=r.name, utilisation=r.utilisation, reason=r.reason, age_s=r.age_s
            )

    def _ensure_seeing(self) -> None:
        """With a lost watch connection we would stay red permanently: the runner reopens all connections."""
        if self._context.watch.closed:
            raise psycopg.OperationalError("lost the connection that watches the server")

    def watch_snapshots(self) -> None:
        """Remember the oldest snapshot since :meth:`take_oldest`; checks at most once a second."""
        now = self._context.clock.monotonic()
        if now - self._snapshots_read_at < SNAPSHOT_CHECK_S:
            return
        self._snapshots_read_at = now
        try:
            holders = self._snapshots.read_holders(self._context.watch)
        except psycopg.Error:  # no right to see: a finding of check, and the default chunk remains
            return
        for holder in holders:
            self._note(holder)

    def _note(self, holder: Holder) -> None:
        if self._oldest is None or holder.age_s > self._oldest.age_s:
            self._oldest = holder

    def take_oldest(self) -> Holder | None:
        """The oldest snapshot that was seen since the last call; our own readings count too."""
        oldest, self._oldest = self._oldest, None
        return oldest

    def report_too_old(self, table: str, holder: Holder, revisit_s: float) -> None:
        """No chunk is long enough for this snapshot: while it is open, updates are not heap-only."""
        now = self._context.clock.monotonic()
        if now - self._reported_at < REPORT_AGAIN_S:
            return
        self._reported_at = now
        self._context.emit(
            Note,
            message=f"{table}: a snapshot that is {holder.age_s:.0f} s old keeps dead rows from being pruned"
            f" ({holder.description}); the revisit interval of a page is {revisit_s:.0f} s. Until the"
            " snapshot ends, the table and its indexes grow as with a plain UPDATE;"
            " hold_when: {oldest_snapshot: …} would wait for it instead",
        )
