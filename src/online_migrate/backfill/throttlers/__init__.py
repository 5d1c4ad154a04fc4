"""Health readings that can hold a backfill, one file each."""

from __future__ import annotations

from threading import Lock

from online_migrate.backfill.throttlers.base import AgedReading, Blind, Reading, Throttle, Throttler
from online_migrate.backfill.throttlers.commit_latency import CommitLatency
from online_migrate.backfill.throttlers.lock_waiters import LockWaiters
from online_migrate.backfill.throttlers.multixacts import Multixacts
from online_migrate.backfill.throttlers.oldest_snapshot import OldestSnapshot
from online_migrate.backfill.throttlers.query import Query
from online_migrate.backfill.throttlers.standby_lag import Dismissed, StandbyLag
from online_migrate.backfill.throttlers.wal_held import WalHeld
from online_migrate.backfill.throttlers.wal_since_checkpoint import WalSinceCheckpoint
from online_migrate.clock import Clock
from online_migrate.plan.model import HoldWhen

__all__ = [
    "AgedReading",
    "Blind",
    "CommitLatency",
    "LockWaiters",
    "Multixacts",
    "OldestSnapshot",
    "Query",
    "Reading",
    "StandbyLag",
    "Throttle",
    "Throttler",
    "Throttles",
    "WalHeld",
    "WalSinceCheckpoint",
    "throttlers_for",
]


class Throttles:
    """One throttle for each ``hold_when`` of a run: a standby that disconnects between two tables was seen at
    the first.
    """

    def __init__(self, dismissed: Dismissed = dict) -> None:
        self._dismissed = dismissed
        self._known: dict[str, Throttle] = {}
        self._lock = Lock()

    def of(self, hold_when: HoldWhen, clock: Clock) -> Throttle:
        """The same throttle for the same limits, with what it has seen."""
        key = repr(hold_when)
        with self._lock:  # two workers that call at once must not get one each
            if key not in self._known:
                self._known[key] = Throttle(throttlers_for(hold_when, self._dismissed), clock)
            return self._known[key]


def throttlers_for(hold_when: HoldWhen, dismissed: Dismissed = dict) -> tuple[Throttler, ...]:
    """The throttlers that a plan's ``hold_when`` names; others do not hold."""
    wanted = hold_when
    throttlers: list[Throttler] = []
    if wanted.standby_lag is not None or wanted.standby_delay is not None:
        throttlers.append(
            StandbyLag(limit_bytes=wanted.standby_lag, limit_s=wanted.standby_delay, dismissed=dismissed)
        )
    if wanted.wal_since_checkpoint is not None:
        throttlers.append(WalSinceCheckpoint(limit_share=wanted.wal_since_checkpoint))
    if wanted.oldest_snapshot is not None:
        throttlers.append(OldestSnapshot(limit_s=wanted.oldest_snapshot))
    if wanted.wal_held is not None:
        throttlers.append(WalHeld(limit_bytes=wanted.wal_held))
    if wanted.lock_waiters is not None:
        throttlers.append(LockWaiters(limit=wanted.lock_waiters))
    if wanted.commit_latency is not None:
        throttlers.append(CommitLatency(limit_s=wanted.commit_latency))
    if wanted.multixact_age is not None or wanted.multixact_members is not None:
        throttlers.append(Multixacts(age_share=wanted.multixact_age, members_share=wanted.multixact_members))
    throttlers += [Query(name=q.name, text=q.sql, limit=q.limit, timeout_s=q.timeout) for q in wanted.queries]
    return tuple(throttlers)
