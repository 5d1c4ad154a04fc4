"""Holds while sessions of the application wait for locks: locking more rows would make it worse.

Source: PostgreSQL manual, 54.12 "pg_locks": waitstart, from 14 on.
"""

from __future__ import annotations

from typing import Final

from online_migrate.backfill.throttlers.base import OUR_PIDS, Reading, bounded
from online_migrate.figures import short_seconds_text
from online_migrate.postgres.connection import Connection

LONG_S: Final = 0.1
"""seconds; twice the default target of a batch: shorter waits are normal for an application"""

_QUERY: Final = f"""
    WITH waiting AS MATERIALIZED (
        SELECT l.pid, extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS waited_s,
               coalesce(a.usename, '-') AS user_name,
               coalesce(nullif(a.application_name, ''), '-') AS application
          FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE NOT l.granted AND l.waitstart < clock_timestamp() - interval '{LONG_S} s'
           AND a.datname = current_database() AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
           AND l.pid NOT IN {OUR_PIDS}),
    first AS (SELECT * FROM waiting ORDER BY waited_s DESC LIMIT 1)
    SELECT (SELECT count(*) FROM waiting), waited_s, pid, user_name, application,
           array_to_string(pg_blocking_pids(pid), ', ')
      FROM first"""  # noqa: S608  # constants of ours


class LockWaiters:
    """Red if ``limit`` or more sessions have waited for a lock longer than :data:`LONG_S`; ours do not count.

    Every role sees waiting sessions.
    """

    name = "lock_waiters"

    def __init__(self, *, limit: int) -> None:
        self._limit = limit

    def blind(self, connection: Connection) -> str | None:  # noqa: ARG002  # every role may read pg_locks
        return None

    def read(self, connection: Connection) -> Reading:
        with bounded(connection):
            row = connection.execute(_QUERY).fetchone()
        if row is None:
            return Reading(name=self.name, utilisation=0.0, reason="no session waits for a lock")
        count, waited_s, pid, user, application, blockers = row
        sessions = "1 session waits" if count == 1 else f"{count} sessions wait"
        return Reading(
            name=self.name,
            utilisation=count / self._limit,
            reason=f"{sessions} for locks (limit {self._limit}),"
            f" the longest for {short_seconds_text(waited_s)}:"
            f" pid {pid}, user {user}, application {application}"
            + (f", blocked by pid {blockers}" if blockers else ""),
        )
