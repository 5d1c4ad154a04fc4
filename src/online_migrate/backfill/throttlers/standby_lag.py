"""Holds while a streaming standby lags behind, or while one that was seen is disconnected.

Source: PostgreSQL manual, pg_stat_replication.  Its replay_lag is that of the last WAL that *was* replayed:
while a standby replays nothing, it does not change or is NULL.  So the lag in seconds is measured here, by
when that WAL position was current.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
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
           left(pg_walfile_name(pg_current_wal_lsn()), 8),
           r.pid, coalesce(s.slot_name, nullif(r.application_name, ''), 'standby'),
           pg_wal_lsn_diff(r.replay_lsn, '0/0')::bigint
      FROM (VALUES (1)) AS one
      LEFT JOIN pg_stat_replication r ON r.state IN ('streaming', 'catchup') AND r.replay_lsn IS NOT NULL
              AND r.pid NOT IN (SELECT active_pid FROM pg_replication_slots
                                 WHERE slot_type = 'logical' AND active_pid IS NOT NULL)
      LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
     ORDER BY r.backend_start, r.pid"""  # noqa: S608  # a constant of ours
"""Only standbys: pg_receivewal and pg_basebackup replay nothing, a logical subscriber uses a logical slot."""


Dismissed = Callable[[], Mapping[str, float]]
"""the standbys that were dismissed, and when: seconds since 1970 by the server's clock"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """The state of a standby.  ``name`` is its slot or its application_name; ``#2`` is the second of that
    name.
    """

    name: str
    lag_bytes: int
    lag_s: float


class StandbyLag:
    """Red if a standby has ``limit_bytes`` of WAL to replay, is ``limit_s`` seconds behind, or has
    disconnected.

    A standby that was seen and has disconnected stays red until it is back, or until it is dismissed
    afterwards; a new `run` has not seen it.
    Behind a failover one that is missing is the new primary: it was promoted, not lost.
    """

    name = "standby_lag"

    def __init__(
        self,
        *,
        limit_bytes: int | None = None,
        limit_s: float | None = None,
        dismissed: Dismissed = dict,
    ) -> None:
        if limit_bytes is None and limit_s is None:
            raise ValueError("standby_lag needs a limit, in bytes or in seconds")
        self._limit_bytes = limit_bytes
        self._limit_s = limit_s
        self._trail = Trail(keep_s=2 * (limit_s or 60.0))
        self._seen: set[str] = set()
        self._dismissed = dismissed
        self._read_at_s = 0.0
        """by the server's clock"""
        self._lost_at_s: dict[str, float] = {}
        self._timeline = ""
        self._promotions = 0
        """of standbys that were seen, while it is unknown which ones: their names are still in ``_seen``"""

    def blind(self, connection: Connection) -> str | None:
        return blind_without_stats(connection)

    def read(self, connection: Connection) -> Reading:
        standbys = self.read_standbys(connection)
        lost = self._without_dismissed(self._lost({s.name for s in standbys}))
        if lost:
            return Reading(name=self.name, utilisation=1.0, reason=_lost_text(lost))
        readings = [self._judge(standby) for standby in standbys]
        green = Reading(name=self.name, utilisation=0.0, reason="no streaming standby is connected")
        return max(readings, key=lambda r: r.utilisation, default=green)

    def _lost(self, connected: set[str]) -> list[str]:
        """Those that were seen and have disconnected, but for as many as have been promoted.

        Which one of several was promoted is known when all others are back.
        """
        missing = self._seen - connected
        if self._promotions and len(missing) <= self._promotions:
            self._seen -= missing
            self._promotions = 0
            missing = set()
        self._seen |= connected
        return sorted(missing)

    def _without_dismissed(self, lost: list[str]) -> list[str]:
        """One that was dismissed after it was lost is forgotten: it counts when it connects again."""
        self._lost_at_s = {name: self._lost_at_s.get(name, self._read_at_s) for name in lost}
        dismissed = self._dismissed()
        left = [name for name in lost if dismissed.get(name, float("-inf")) < self._lost_at_s[name]]
        self._seen.difference_update(set(lost) - set(left))
        return left

    def _note_timeline(self, timeline: str) -> None:
        """Each promotion begins another one (manual, 26.3.6 "Timelines")."""
        if self._timeline and timeline != self._timeline and self._seen:
            self._promotions += 1
        self._timeline = timeline

    def read_standbys(self, connection: Connection) -> list[Standby]:
        """All streaming standbys as they are now; raises
        :class:`~online_migrate.backfill.throttlers.base.Blind`.
        """
        with bounded(connection):
            rows = connection.execute(_QUERY).fetchall()
        ensure_sees_all(rows[0][0])
        at_s, written = float(rows[0][1]), int(rows[0][2])
        self._read_at_s = at_s
        self._note_timeline(str(rows[0][3]))
        self._trail.note(at_s, written)
        counts: Counter[str] = Counter()
        standbys = []
        for _, _, _, _, pid, name, replayed in rows:
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
            lag, limit = short_seconds_text(standby.lag_s), short_seconds_text(self._limit_s or 0)
        elif self._limit_bytes:
            lag, limit = bytes_text(standby.lag_bytes), bytes_text(self._limit_bytes)
        else:
            lag, limit = bytes_text(standby.lag_bytes), short_seconds_text(self._limit_s or 0)
        return Reading(
            name=self.name,
            utilisation=max(by_bytes, by_time),
            reason=f"standby {standby.name} lags {lag} behind (limit {limit})",
        )


def _lost_text(lost: list[str]) -> str:
    names = ", ".join(lost)
    if len(lost) == 1:
        return (
            f"standby {names} was streaming and has disconnected; reconnect it, or, if it was removed"
            f" permanently: online-migrate dismiss PLAN {shlex.quote(lost[0])}"
        )
    return (
        f"standbys {names} were streaming and have disconnected; reconnect them, or, for each that was"
        f" removed permanently: online-migrate dismiss PLAN {shlex.quote(lost[0])}"
    )
