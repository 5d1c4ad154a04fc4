"""Health readings that can hold a backfill, one file each."""

from __future__ import annotations

from online_migrate.backfill.throttlers.base import AgedReading, Blind, Reading, Throttle, Throttler
from online_migrate.backfill.throttlers.oldest_snapshot import OldestSnapshot
from online_migrate.backfill.throttlers.standby_lag import StandbyLag
from online_migrate.backfill.throttlers.wal_since_checkpoint import WalSinceCheckpoint
from online_migrate.plan.model import HoldWhen

__all__ = [
    "AgedReading",
    "Blind",
    "OldestSnapshot",
    "Reading",
    "StandbyLag",
    "Throttle",
    "Throttler",
    "WalSinceCheckpoint",
    "throttlers_for",
]


def throttlers_for(hold_when: HoldWhen) -> tuple[Throttler, ...]:
    """The throttlers that a plan's ``hold_when`` names, in the order of its keys; what is not named does not hold."""
    throttlers: list[Throttler] = []
    if hold_when.standby_lag is not None:
        throttlers.append(StandbyLag(limit_bytes=hold_when.standby_lag))
    if hold_when.wal_since_checkpoint is not None:
        throttlers.append(WalSinceCheckpoint(limit_share=hold_when.wal_since_checkpoint))
    if hold_when.oldest_snapshot is not None:
        throttlers.append(OldestSnapshot(limit_s=hold_when.oldest_snapshot))
    return tuple(throttlers)
