"""Who holds the oldest snapshot: what a concurrent build waits for, and what keeps VACUUM from removing dead
rows.

A concurrent build waits for sessions of its own database and, before it begins, for prepared transactions
that have written the table (source: WaitForOlderSnapshots and WaitForLockers in PostgreSQL's indexcmds.c and
lmgr.c).  Slots and standbys with hot_standby_feedback hold VACUUM back, not the build.
"""

from __future__ import annotations

from dataclasses import dataclass

from online_migrate.postgres.connection import Connection

_HOLDERS = """
SELECT * FROM (
  SELECT 'session', format('pid %%s (%%s, %%s), %%s', a.pid, coalesce(a.usename, '?'),
                           coalesce(nullif(a.application_name, ''), a.backend_type), coalesce(a.state, '?')),
         extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s, age(a.backend_xmin) AS xids,
         a.datname = current_database() AS holds_builds
    FROM pg_stat_activity a
   WHERE a.backend_xmin IS NOT NULL AND a.backend_type <> 'walsender' AND NOT a.pid = ANY (%(mine)s)
     AND a.pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
  UNION ALL
  SELECT 'prepared transaction', format('%%L of %%s in %%s', gid, owner, database),
         extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction), database =
           current_database()
    FROM pg_prepared_xacts
  UNION ALL
  SELECT 'replication slot', format('%%s (%%s)', slot_name, CASE WHEN active THEN 'active'
    ELSE 'inactive' END),
         NULL, age(xmin), false FROM pg_replication_slots WHERE xmin IS NOT NULL
  UNION ALL
  SELECT 'standby with hot_standby_feedback', format('%%s, pid %%s', application_name, pid), NULL,
    age(backend_xmin), false
    FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
) AS holders (kind, name, age_s, xids, holds_builds) ORDER BY xids DESC, age_s DESC NULLS LAST"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHolder:
    """Who it is, in words; ``xids`` is how many transactions have begun since, ``age_s`` is known of
    transactions only.
    """

    kind: str
    name: str
    age_s: float | None
    xids: int
    holds_builds: bool
    """a concurrent build in this database can have to wait for it"""

    def __str__(self) -> str:
        age = f", {self.age_s:.1f} s old" if self.age_s is not None else f", {self.xids} transactions old"
        return f"{self.kind} {self.name}{age}"


def read_snapshot_holders(
    connection: Connection, *, mine: tuple[int, ...] = ()
) -> tuple[SnapshotHolder, ...]:
    """Everyone who holds a snapshot but us, the oldest first."""
    own = [*mine, connection.info.backend_pid]
    rows = connection.execute(_HOLDERS, {"mine": own}).fetchall()
    return tuple(
        SnapshotHolder(kind=r[0], name=r[1], age_s=r[2], xids=int(r[3]), holds_builds=bool(r[4]))
        for r in rows
    )
