"""Holds while WAL accumulates in pg_wal: a replication slot with a slow or absent consumer, or a failing
archiver.

A full pg_wal stops the server (manual, 26.2.6 "Replication Slots" and 26.3.1 "Setting Up WAL Archiving").
"""

from __future__ import annotations

from typing import Final

from online_migrate.backfill.throttlers.base import Reading, bounded
from online_migrate.figures import bytes_text, short_seconds_text
from online_migrate.postgres.connection import Connection

_SLOTS: Final = """
    SELECT format('replication slot %s (%s, %s)', slot_name, slot_type,
                  CASE WHEN active THEN 'active' ELSE 'inactive' END),
           pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
      FROM pg_replication_slots WHERE restart_lsn IS NOT NULL ORDER BY 2 DESC LIMIT 1"""

_ARCHIVER: Final = """
    SELECT left(last_archived_wal, 24), last_failed_wal,
           extract(epoch FROM clock_timestamp() - last_failed_time)::float8,
           coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL),
           pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
           pg_size_bytes(current_setting('wal_segment_size'))::bigint
      FROM pg_stat_archiver WHERE current_setting('archive_mode') <> 'off'"""


class WalHeld:
    """Red if a slot or the archiver retains ``limit_bytes`` of WAL or more; every role may see it."""

    name = "wal_held"

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes

    def blind(self, connection: Connection) -> str | None:  # noqa: ARG002  # every role sees slots and the archiver
        return None

    def read(self, connection: Connection) -> Reading:
        with bounded(connection):
            slot = connection.execute(_SLOTS).fetchone()
            archiver = connection.execute(_ARCHIVER).fetchone()
        readings = [self._judge("no slot and no archiver retains WAL", 0)]
        if slot is not None:
            readings.append(self._judge(f"{slot[0]} retains", int(slot[1])))
        if archiver is not None:
            readings.append(self._judge_archiver(*archiver))
        return max(readings, key=lambda r: r.utilisation)

    def _judge(self, holder: str, held_bytes: int) -> Reading:
        figures = (
            f" {bytes_text(held_bytes)} of WAL (limit {bytes_text(self._limit_bytes)})" if held_bytes else ""
        )
        return Reading(name=self.name, utilisation=held_bytes / self._limit_bytes, reason=holder + figures)

    def _judge_archiver(
        self,
        archived: str | None,
        failed: str | None,
        failed_s: float | None,
        is_failing: bool,  # noqa: FBT001  # a column
        written: int,
        segment: int,
    ) -> Reading:
        """By the name of the last archived file; if there is none yet, a failure alone is red."""
        failing = (
            f", which failed at {failed} {short_seconds_text(max(failed_s or 0, 0))} ago,"
            if is_failing
            else ""
        )
        end = None if archived is None else segment_end(archived, segment)
        if end is not None:
            return self._judge(f"the archiver{failing} retains", max(written // segment * segment - end, 0))
        reason = (
            f"the archiver{failing} has not archived any WAL file yet"
            if failing
            else "no WAL file was archived yet"
        )
        return Reading(name=self.name, utilisation=1.0 if is_failing else 0.0, reason=reason)


def segment_end(name: str, segment_bytes: int) -> int | None:
    """The end of the WAL file with this name, in bytes from the start of WAL; None for a timeline's history
    file.

    ``00000001`` timeline, ``0000000A`` 4 GiB each, ``00000002`` segments (manual, 30.6 "WAL Internals").
    """
    try:
        return int(name[8:16], 16) * 2**32 + (int(name[16:24], 16) + 1) * segment_bytes
    except ValueError:
        return None
