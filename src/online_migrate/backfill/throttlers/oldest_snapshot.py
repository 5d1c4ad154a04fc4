"""Holds while an old snapshot keeps dead rows from being pruned: heap-only updates then find no room in their
page.

What holds back the xmin horizon of a table of this database (source: ComputeXidHorizons and GetSnapshotData
in PostgreSQL's procarray.c): a snapshot in this database; a transaction of any database that has written,
because snapshots taken meanwhile start there; a prepared transaction; the xmin of a replication slot;
hot_standby_feedback of a standby without a slot.  What does not: a plain VACUUM, logical decoding (its
catalog_xmin is only for catalogs), a session at READ COMMITTED that is idle between two statements.
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
               format('pid %s, user %s, application %s, database %s, %s',
                      pid, coalesce(usename, '-'), coalesce(nullif(application_name, ''), backend_type, '-'),
                      coalesce(datname, '-'),
                      CASE WHEN state IS NULL OR state = 'active' THEN 'running'
                           ELSE format('%s for %s s', state, ceil({_AGE.format("state_change")}))
                      END) AS holder
          FROM pg_stat_activity
         WHERE xact_start IS NOT NULL
           AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL AND datname = current_database())
           AND pid NOT IN {OUR_PIDS} AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
        UNION ALL
        SELECT {_AGE.format("prepared")}, NULL,
               format('prepared transaction %L, user %s, database %s', gid, owner, database)
          FROM pg_prepared_xacts
        UNION ALL
        SELECT NULL, age(backend_xmin),
               format('standby %s by hot_standby_feedback, pid %s', application_name, pid)
          FROM pg_stat_activity
         WHERE backend_type = 'walsender' AND backend_xmin IS NOT NULL
           AND datid IS NULL AND xact_start IS NULL
           AND pid NOT IN (SELECT active_pid FROM pg_replication_slots
                            WHERE xmin IS NOT NULL AND active_pid IS NOT NULL)
        UNION ALL
        SELECT NULL, age(xmin), format('replication slot %s (%s)', slot_name,
                                       CASE WHEN active THEN 'active' ELSE 'inactive' END)
          FROM pg_replication_slots WHERE xmin IS NOT NULL
      ) AS h ON true"""  # noqa: S608  # constants of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The holder of a snapshot, as a text, and the age of its transaction; the snapshot may be younger."""

    description: str
    age_s: float


class OldestSnapshot:
    """Red if a snapshot is ``limit_s`` seconds old or older; our own sessions do not count.

    Slots and standbys show only a transaction id: its age is measured by when that id was current, so one
    that is older than our first reading counts from that reading on.
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
            return Reading(name=self.name, utilisation=0.0, reason="no snapshot except ours is open")
        return Reading(
            name=self.name,
            utilisation=oldest.age_s / self._limit_s,
            reason=f"the oldest snapshot is {short_seconds_text(oldest.age_s)} old"
            f" (limit {short_seconds_text(self._limit_s)}): {oldest.description}",
        )

    def read_holders(self, connection: Connection) -> tuple[Holder, ...]:
        """All other holders of snapshots.  Raises :class:`~online_migrate.backfill.throttlers.base.Blind`."""
        with bounded(connection):
            rows = connection.execute(_QUERY).fetchall()
        ensure_sees_all(rows[0][0])
        at_s, next_xid = float(rows[0][1]), int(rows[0][2])
        self._trail.note(at_s, next_xid)
        return tuple(
            Holder(description=holder, age_s=self._age_s(at_s, next_xid, age_s, xids))
            for _, _, _, age_s, xids, holder in rows
            if holder is not None
        )

    def _age_s(self, at_s: float, next_xid: int, age_s: float | None, xids: int | None) -> float:
        if age_s is not None:
            return max(float(age_s), 0.0)
        return self._trail.age_s(at_s, next_xid - int(xids or 0))
