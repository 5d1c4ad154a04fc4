"""Holding back while a throttler is red, and what the oldest snapshot means for the way back to a page."""

from __future__ import annotations

import psycopg

from online_migrate.backfill.context import BackfillContext
from online_migrate.backfill.throttlers.oldest_snapshot import Holder, OldestSnapshot
from online_migrate.events import Note, Reading
from online_migrate.waiting import Waiting

HOLD_LOOK_S = 0.5
"""how often the throttlers are looked at, red or green"""
SNAPSHOT_LOOK_S = 1.0
"""how often the oldest snapshot is looked at"""
SAY_AGAIN_S = 600.0
"""an old snapshot is named again after this"""


class Health:
    """Looks at the server on the bench's watch connection, between batches."""

    def __init__(self, context: BackfillContext) -> None:
        self._context = context
        self._throttle = context.throttles.of(context.hold_when, context.clock)
        self._snapshots = OldestSnapshot(limit_s=3600)
        self._read_at = self._snapshots_read_at = self._said_at = float("-inf")
        self._oldest: Holder | None = None

    def hold(self) -> bool:
        """While a throttler is red, wait, and say why; True where we waited."""
        context = self._context
        self._read()
        red = self._throttle.held_by()
        if red is None:
            return False
        with Waiting(context.emit, context.clock, red.name) as waiting:
            while red is not None:
                waiting.report(red.reason, red.name)
                context.clock.wait(HOLD_LOOK_S, context.signal)
                context.ensure_going()
                self._read()
                red = self._throttle.held_by(red.name)
        return True

    def is_red(self) -> bool:
        """Looks, and does not wait."""
        self._read()
        return self._throttle.held_by() is not None

    def _read(self) -> None:
        self._ensure_seeing()
        now = self._context.clock.monotonic()
        if not self._throttle.throttlers or now - self._read_at < HOLD_LOOK_S:
            return
        self._read_at = now
        for r in self._throttle.read(self._context.watch):
            self._note(Holder(who=f"our own reading, {r.name}, beside other workers", age_s=r.took_s))
            self._context.emit(
                Reading, throttler=r.name, utilisation=r.utilisation, reason=r.reason, age_s=r.age_s
            )

    def _ensure_seeing(self) -> None:
        """A watch connection that is lost would leave us red for good: the runner opens all connections anew."""
        if self._context.watch.closed:
            raise psycopg.OperationalError("the connection that watches the server is lost")

    def watch_snapshots(self) -> None:
        """Remember the oldest snapshot since :meth:`take_oldest`; looks at most once a second."""
        now = self._context.clock.monotonic()
        if now - self._snapshots_read_at < SNAPSHOT_LOOK_S:
            return
        self._snapshots_read_at = now
        try:
            holders = self._snapshots.read_holders(self._context.watch)
        except psycopg.Error:  # no right to see: check has said so, and the default chunk stays
            return
        for holder in holders:
            self._note(holder)

    def _note(self, holder: Holder) -> None:
        if self._oldest is None or holder.age_s > self._oldest.age_s:
            self._oldest = holder

    def take_oldest(self) -> Holder | None:
        """The oldest snapshot that was seen since the last call; what our own readings took is one."""
        oldest, self._oldest = self._oldest, None
        return oldest

    def say_too_old(self, table: str, holder: Holder, way_back_s: float) -> None:
        """No chunk is long enough for this snapshot: heap-only updates are not to be had beside it."""
        now = self._context.clock.monotonic()
        if now - self._said_at < SAY_AGAIN_S:
            return
        self._said_at = now
        self._context.emit(
            Note,
            message=f"{table}: a snapshot of {holder.age_s:.0f} s keeps dead rows from being pruned ({holder.who}); a page is visited"
            f" again after {way_back_s:.0f} s. Until it ends the table and its indexes grow as with a plain UPDATE;"
            " hold_when: {oldest_snapshot: …} would wait for it instead",
        )
