"""The throttler that watches what piles up in pg_wal."""

from __future__ import annotations

import pytest

from online_migrate.backfill.throttlers.base import Throttle
from online_migrate.backfill.throttlers.wal_held import WalHeld, segment_end
from online_migrate.clock import SystemClock
from online_migrate.postgres.connection import Connection
from tests.backfill.throttlers.standby import await_true, write_wal

SEGMENT = 16 * 1024**2


def test_a_slot_that_nobody_reads_holds_us(connection: Connection) -> None:
    """A forgotten slot retains WAL permanently: red with its name, and green again when it is dropped."""
    throttle = Throttle([WalHeld(limit_bytes=1024**2)], SystemClock(), every_s=0)
    assert not throttle.read(connection)[0].is_red
    connection.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        write_wal(connection, 3 * 1024**2)
        reading = throttle.read(connection)[0]
        assert reading.is_red
        assert reading.reason.startswith("replication slot forgotten (physical, inactive) retains ")
        assert reading.reason.endswith(" MiB of WAL (limit 1 MiB)")
    finally:
        connection.execute("SELECT pg_drop_replication_slot('forgotten')")
    assert not throttle.read(connection)[0].is_red


def test_an_archiver_that_fails_holds_us(on_primary: Connection) -> None:
    """Its WAL files pile up: red from the limit on, with the file that it fails at; archived again it is
    green.
    """
    throttle = Throttle([WalHeld(limit_bytes=2 * SEGMENT)], SystemClock(), every_s=0)
    end_segment(on_primary)
    await_true(lambda: "no slot and no archiver" in throttle.read(on_primary)[0].reason)
    set_archive_command(on_primary, "false")
    for _ in range(3):
        end_segment(on_primary)
    failing = "SELECT last_failed_time > last_archived_time FROM pg_stat_archiver"
    await_true(lambda: on_primary.execute(failing).fetchall() == [(True,)])
    reading = throttle.read(on_primary)[0]
    assert reading.is_red
    assert reading.reason.startswith("the archiver, which failed at 00000001")
    assert reading.reason.endswith(" ago, retains 48 MiB of WAL (limit 32 MiB)")
    set_archive_command(on_primary, "true")
    end_segment(on_primary)
    await_true(lambda: not throttle.read(on_primary)[0].is_red)


def test_an_archiver_that_never_archived_is_red_when_it_fails(on_primary: Connection) -> None:
    """Without a last file the backlog is unknown: a failure is then enough, no failure is not."""
    throttler = WalHeld(limit_bytes=1024**4)
    set_archive_command(on_primary, "false")
    on_primary.execute("SELECT pg_stat_reset_shared('archiver')")
    assert throttler.read(on_primary).utilisation < 1
    end_segment(on_primary)
    await_true(lambda: throttler.read(on_primary).utilisation >= 1)
    assert throttler.read(on_primary).reason.endswith(" ago, has not archived any WAL file yet")
    set_archive_command(on_primary, "true")
    end_segment(on_primary)
    await_true(lambda: throttler.read(on_primary).utilisation < 1)


def set_archive_command(connection: Connection, command: str) -> None:
    connection.execute(f"ALTER SYSTEM SET archive_command = '{command}'".encode())
    connection.execute("SELECT pg_reload_conf()")
    await_true(lambda: connection.execute("SHOW archive_command").fetchall() == [(command,)])


def end_segment(connection: Connection) -> None:
    write_wal(connection, 100)
    connection.execute("SELECT pg_switch_wal()")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("000000010000000000000001", 2 * SEGMENT),
        ("0000000200000003000000FF", 4 * 2**32),
        ("00000002.history", None),
    ],
)
def test_a_wal_file_says_where_it_ends(name: str, end: int | None) -> None:
    """The archiver tells names, not positions."""
    assert segment_end(name, SEGMENT) == end
