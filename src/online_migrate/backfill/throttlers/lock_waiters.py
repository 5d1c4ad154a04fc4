"""Holds while sessions of the application stand in lock queues: not the time to lock more rows.

Source: PostgreSQL manual, 54.12 "pg_locks": waitstart, from 14 on.
"""

from __future__ import annotations

from typing import Final

from online_migrate.backfill.throttlers.base import OUR_PIDS, Reading, bounded
from online_migrate.figures import short_seconds_text
from online_migrate.postgres.connection import Connection

LONG_S: Final = 0.1
"""seconds; twice a batch of the default target: shorter waits are the application's own everyday"""

_QUERY: Final = f"""
    WITH waiting AS MATERIALIZED (
        SELECT l.pid, extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS waited_s,
               coalesce(a.usename, '-') AS who, coalesce(nullif(a.application_name, ''), '-') AS application
          FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE NOT l.granted AND l.waitstart < clock_timestamp() - interval '{LONG_S} s'
           AND a.datname = current_database() AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
           AND l.pid NOT IN {OUR_PIDS}),
    first AS (SELECT * FROM waiting ORDER BY waited_s DESC LIMIT 1)
    SELECT (SELECT count(*) FROM waiting), waited_s, pid, who, application,
           array_to_string(pg_blocking_pids(pid), ', ')
      FROM first"""  # noqa: S608  # constants of ours


class LockWaiters:
    """Red from ``limit`` sessions on that have waited for a lock for longer than :data:`LONG_S`; ours do not count.

    Every role sees who waits.
    """

    name = "lock_waiters"

    def __init__(self, *, limit: int) -> None:
        self._limit = limit

    def blind(self, connection: Connection) -> str | None:  # noqa: ARG002  # pg_locks is everybody's
        return None

    def read(self, connection: Connection) -> Reading:
        with bounded(connection):
            row = connection.execute(_QUERY).fetchone()
        if row is None:
            return Reading(name=self.name, utilisation=0.0, reason="no session waits on a lock")
        count, waited_s, pid, who, application, behind = row
        sessions = "1 session waits" if count == 1 else f"{count} sessions wait"
        return Reading(
            name=self.name,
            utilisation=count / self._limit,
            reason=f"{sessions} on locks (limit {self._limit}), the longest for {short_seconds_text(waited_s)}:"
            f" process {pid}, user {who}, application {application}"
            + (f", behind process {behind}" if behind else ""),
        )
