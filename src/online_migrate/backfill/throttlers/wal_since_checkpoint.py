"""Holds while the WAL since the last checkpoint approaches max_wal_size, where checkpoints slow down all
writers.

A checkpoint by WAL begins at max_wal_size ÷ (1 + checkpoint_completion_target) and is spread so as to end
before max_wal_size (manual, 30.5 "WAL Configuration").  The control file shows it after its end.
"""

from __future__ import annotations

from typing import Final

from online_migrate.backfill.throttlers.base import Reading, bounded
from online_migrate.figures import bytes_text, short_seconds_text
from online_migrate.postgres.connection import Connection

_QUERY: Final = """
    SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), c.redo_lsn)::bigint,
           pg_size_bytes(current_setting('max_wal_size'))::bigint,
           current_setting('checkpoint_completion_target')::float8,
           extract(epoch FROM current_setting('checkpoint_timeout')::interval)::float8,
           extract(epoch FROM clock_timestamp() - c.checkpoint_time)::float8
      FROM pg_control_checkpoint() c"""


class WalSinceCheckpoint:
    """Red from ``limit_share`` (0…1) of max_wal_size on."""

    name = "wal_since_checkpoint"

    def __init__(self, *, limit_share: float) -> None:
        self._limit_share = limit_share

    def blind(self, connection: Connection) -> str | None:
        """None unless EXECUTE on pg_control_checkpoint was revoked, which by default every role has."""
        row = connection.execute(
            "SELECT has_function_privilege('pg_control_checkpoint()', 'EXECUTE'), quote_ident(current_user)"
        ).fetchone()
        assert row is not None  # a SELECT without FROM has one row
        return None if row[0] else f"GRANT EXECUTE ON FUNCTION pg_control_checkpoint() TO {row[1]}"

    def too_low(self, connection: Connection) -> str | None:
        """Why this share would hold for minutes: no checkpoint starts by WAL below it, only by time; None if
        it would not.
        """
        row = connection.execute(
            "SELECT 1 / (1 + current_setting('checkpoint_completion_target')::float8),"
            " extract(epoch FROM current_setting('checkpoint_timeout')::interval)::float8"
        ).fetchone()
        assert row is not None  # a SELECT without FROM has one row
        begins_at, timeout_s = row
        if self._limit_share >= begins_at:
            return None
        return (
            f"wal_since_checkpoint: {self._limit_share:.0%} holds the run until checkpoint_timeout"
            f" ({short_seconds_text(timeout_s)}): a checkpoint by WAL starts at {begins_at:.0%} of"
            " max_wal_size, which is not reached while the run holds"
        )

    def read(self, connection: Connection) -> Reading:
        with bounded(connection):
            row = connection.execute(_QUERY).fetchone()
        assert row is not None  # the function returns one row
        since, most, completion, timeout_s, age_s = row
        limit = most * self._limit_share
        reason = (
            f"{bytes_text(since)} of WAL since the last checkpoint {short_seconds_text(max(age_s, 0))} ago"
            f" (limit {bytes_text(limit)}, {self._limit_share:.0%} of max_wal_size {bytes_text(most)})"
        )
        begins_at = most / (1 + completion)
        if limit <= since < begins_at:
            reason += (
                f"; the next starts at {bytes_text(begins_at)} of WAL, or {short_seconds_text(timeout_s)}"
                " after the last: set a larger share, or run CHECKPOINT"
            )
        return Reading(name=self.name, utilisation=since / limit, reason=reason)
