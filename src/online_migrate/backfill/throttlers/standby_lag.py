"""Holds while a streaming standby lags behind, or one that we have seen is gone.

Source: PostgreSQL manual, pg_stat_replication.  Its replay_lag is of the last WAL that *was* replayed: while a standby
replays nothing it stands still or is NULL.  So seconds are measured here, by where the WAL stood when.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from online_migrate.backfill.throttlers.base import (
    SEES_ALL,
    Reading,
    blind_without_stats,
    bounded,
    ensure_sees_all,
)
from online_migrate.backfill.throttlers.trail import Trail
from online_migrate.figures import bytes_text, short_seconds_text
from online_migrate.postgres.connection import Connection

_QUERY: Final = f"""
    SELECT {SEES_ALL}, extract(epoch FROM clock_timestamp())::float8,
           pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
           r.pid, coalesce(s.slot_name, nullif(r.application_name, ''), 'standby'),
           pg_wal_lsn_diff(r.replay_lsn, '0/0')::bigint
      FROM (VALUES (1)) AS one
      LEFT JOIN pg_stat_replication r ON r.state IN ('streaming', 'catchup') AND r.replay_lsn IS NOT NULL
                                     AND r.pid NOT IN (SELECT active_pid FROM pg_replication_slots
                                                        WHERE slot_type = 'logical' AND active_pid IS NOT NULL)
      LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
     ORDER BY r.backend_start, r.pid"""  # noqa: S608  # a constant of ours
"""Standbys only: pg_receivewal and pg_basebackup replay nothing, a logical subscriber holds a logical slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """A standby as it is now.  ``name`` is its slot, else its application_name; ``#2`` is the second of a name."""

    name: str
    lag_bytes: int
    lag_s: float


class StandbyLag:
    """Red where a standby has ``limit_bytes`` of WAL to replay, or is ``limit_s`` seconds behind, or is gone.

    A standby that was once seen and is gone stays red until it is back; a run that begins anew has not seen it.
    """

    name = "standby_lag"

    def __init__(self, *, limit_bytes: int | None = None, limit_s: float | None = None) -> None:
        if limit_bytes is None and limit_s is None:
            raise ValueError("standby_lag needs a limit, in bytes or in seconds")
        self._limit_bytes = limit_bytes
        self._limit_s = limit_s
        self._trail = Trail(keep_s=2 * (limit_s or 60.0))
        self._seen: set[str] = set()

    def blind(self, connection: Connection) -> str | None:
        return blind_without_stats(connection)

    def read(self, connection: Connection) -> Reading:
        standbys = self.read_standbys(connection)
        gone = sorted(self._seen - {s.name for s in standbys})
        self._seen.update(s.name for s in standbys)
        if gone:
            return Reading(name=self.name, utilisation=1.0, reason=_gone_text(gone))
        readings = [self._judge(standby) for standby in standbys]
        green = Reading(name=self.name, utilisation=0.0, reason="no streaming standby is connected")
        return max(readings, key=lambda r: r.utilisation, default=green)

    def read_standbys(self, connection: Connection) -> list[Standby]:
        """All streaming standbys as they are now; raises :class:`~online_migrate.backfill.throttlers.base.Blind`."""
        with bounded(connection):
            rows = connection.execute(_QUERY).fetchall()
        ensure_sees_all(rows[0][0])
        at_s, written = float(rows[0][1]), int(rows[0][2])
        self._trail.note(at_s, written)
        counts: Counter[str] = Counter()
        standbys = []
        for _, _, _, pid, name, replayed in rows:
            if pid is None:
                continue
            counts[name] += 1
            standbys.append(
                Standby(
                    name=name if counts[name] == 1 else f"{name} #{counts[name]}",
                    lag_bytes=max(written - replayed, 0),
                    lag_s=self._trail.age_s(at_s, replayed) if replayed < written else 0.0,
                )
            )
        return standbys

    def _judge(self, standby: Standby) -> Reading:
        by_bytes = standby.lag_bytes / self._limit_bytes if self._limit_bytes else 0.0
        by_time = standby.lag_s / self._limit_s if self._limit_s else 0.0
        if by_time > by_bytes:
            facts = (
                f"{short_seconds_text(standby.lag_s)} behind (limit {short_seconds_text(self._limit_s or 0)})"
            )
        elif self._limit_bytes:
            facts = f"{bytes_text(standby.lag_bytes)} behind (limit {bytes_text(self._limit_bytes)})"
        else:
            facts = f"{bytes_text(standby.lag_bytes)} behind (limit {short_seconds_text(self._limit_s or 0)})"
        return Reading(
            name=self.name,
            utilisation=max(by_bytes, by_time),
            reason=f"standby {standby.name} is {facts}",
        )


def _gone_text(gone: list[str]) -> str:
    names = ", ".join(gone)
    return (
        f"standby {names} was streaming and is gone: bring it back; if it is gone for good, stop and run again"
        if len(gone) == 1
        else f"standbys {names} were streaming and are gone: bring them back; if they are gone for good, stop and run again"
    )
