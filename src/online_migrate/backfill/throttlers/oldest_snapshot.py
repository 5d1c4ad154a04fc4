"""Holds while an old snapshot keeps dead rows from being pruned: heap-only updates then find no room in their page.

Who holds the horizon for a table of this database (source: ComputeXidHorizons and GetSnapshotData in PostgreSQL's
procarray.c): a snapshot in this database; a transaction that has written, in any database, since every snapshot taken
beside it starts from there; a prepared transaction, which is one without a session; a replication slot's xmin; a
standby's hot_standby_feedback without a slot.  Not: a plain VACUUM, logical decoding (its catalog_xmin is for
catalogs), an idle reader at READ COMMITTED between two statements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from online_migrate.backfill.throttlers.base import (
    OUR_PIDS,
    SEES_ALL,
    Reading,
    blind_without_stats,
    bounded,
    ensure_sees_all,
)
from online_migrate.backfill.throttlers.trail import Trail
from online_migrate.figures import short_seconds_text
from online_migrate.postgres.connection import Connection

_AGE: Final = "extract(epoch FROM clock_timestamp() - {})::float8"

_QUERY: Final = f"""
    SELECT {SEES_ALL}, extract(epoch FROM clock_timestamp())::float8,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint, h.*
      FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT {_AGE.format("xact_start")} AS age_s, NULL::bigint AS xids,
               format('process %s, user %s, application %s, database %s, %s',
                      pid, coalesce(usename, '-'), coalesce(nullif(application_name, ''), backend_type, '-'),
                      coalesce(datname, '-'),
                      CASE WHEN state IS NULL OR state = 'active' THEN 'running'
                           ELSE format('%s for %s s', state, ceil({_AGE.format("state_change")})) END) AS who
          FROM pg_stat_activity
         WHERE xact_start IS NOT NULL
           AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL AND datname = current_database())
           AND pid NOT IN {OUR_PIDS} AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
        UNION ALL
        SELECT {_AGE.format("prepared")}, NULL,
               format('prepared transaction %L, user %s, database %s', gid, owner, database)
          FROM pg_prepared_xacts
        UNION ALL
        SELECT NULL, age(backend_xmin), format('standby %s by hot_standby_feedback, process %s', application_name, pid)
          FROM pg_stat_activity
         WHERE backend_type = 'walsender' AND backend_xmin IS NOT NULL AND datid IS NULL AND xact_start IS NULL
           AND pid NOT IN (SELECT active_pid FROM pg_replication_slots
                            WHERE xmin IS NOT NULL AND active_pid IS NOT NULL)
        UNION ALL
        SELECT NULL, age(xmin), format('replication slot %s (%s)', slot_name,
                                       CASE WHEN active THEN 'active' ELSE 'inactive' END)
          FROM pg_replication_slots WHERE xmin IS NOT NULL
      ) AS h ON true"""  # noqa: S608  # constants of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a snapshot, in words, and how old it is: from the start of its transaction, which may be before."""

    who: str
    age_s: float


class OldestSnapshot:
    """Red from ``limit_s`` seconds on; our own sessions do not count.

    Slots and standbys say only a transaction id: its age is measured by where the ids stood when, so one that was old
    before our first look counts from that look on.
    """

    name = "oldest_snapshot"

    def __init__(self, *, limit_s: float) -> None:
        self._limit_s = limit_s
        self._trail = Trail(keep_s=2 * limit_s)

    def blind(self, connection: Connection) -> str | None:
        return blind_without_stats(connection)

    def read(self, connection: Connection) -> Reading:
        oldest = max(self.read_holders(connection), key=lambda h: h.age_s, default=None)
        if oldest is None:
            return Reading(name=self.name, utilisation=0.0, reason="no snapshot is open but ours")
        return Reading(
            name=self.name,
            utilisation=oldest.age_s / self._limit_s,
            reason=f"the oldest snapshot is {short_seconds_text(oldest.age_s)} old"
            f" (limit {short_seconds_text(self._limit_s)}): {oldest.who}",
        )

    def read_holders(self, connection: Connection) -> tuple[Holder, ...]:
        """All who hold a snapshot but us; raises :class:`~online_migrate.backfill.throttlers.base.Blind`."""
        with bounded(connection):
            rows = connection.execute(_QUERY).fetchall()
        ensure_sees_all(rows[0][0])
        at_s, next_xid = float(rows[0][1]), int(rows[0][2])
        self._trail.note(at_s, next_xid)
        return tuple(
            Holder(who=who, age_s=self._age_s(at_s, next_xid, age_s, xids))
            for _, _, _, age_s, xids, who in rows
            if who is not None
        )

    def _age_s(self, at_s: float, next_xid: int, age_s: float | None, xids: int | None) -> float:
        if age_s is not None:
            return max(float(age_s), 0.0)
        return self._trail.age_s(at_s, next_xid - int(xids or 0))
