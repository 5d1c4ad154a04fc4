"""The throttler that waits for standbys."""

from __future__ import annotations

import re
import struct

import psycopg
import pytest
from psycopg.pq import PGconn
from psycopg.pq.abc import PGconn as PGconnType

from online_migrate.backfill.throttlers.base import Blind, Throttle
from online_migrate.backfill.throttlers.standby_lag import StandbyLag
from online_migrate.clock import SystemClock
from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.throttlers.standby import Pair, ask, await_true, run, start_pair, write_wal

LIMIT_BYTES = 1024**2


def test_a_standby_that_stands_still_holds_us_and_lets_us_go(pair: Pair, on_primary: Connection) -> None:
    """A megabyte that is not replayed is red, with figures, at the next look; replayed again it is green by
    itself.
    """
    throttle = Throttle([StandbyLag(limit_bytes=LIMIT_BYTES)], SystemClock(), every_s=0)
    assert throttle.read(on_primary)[0].utilisation < 0.5
    pair.pause()
    write_wal(on_primary, 3 * LIMIT_BYTES)
    reading = throttle.read(on_primary)[0]
    assert reading.is_red
    assert re.fullmatch(r"standby walreceiver lags 3\S* MiB behind \(limit 1 MiB\)", reading.reason)
    pair.resume()
    await_true(lambda: not throttle.read(on_primary)[0].is_red)


def test_seconds_behind_hold_us_too(pair: Pair, on_primary: Connection) -> None:
    """Where little is written, bytes say nothing; the time since the WAL that is still missing does."""
    throttler = StandbyLag(limit_s=0.2)
    pair.pause()
    throttler.read(on_primary)
    write_wal(on_primary, 100)
    await_true(lambda: throttler.read(on_primary).utilisation >= 1)
    assert throttler.read(on_primary).reason.endswith("ms behind (limit 200 ms)")
    pair.resume()
    pair.await_caught_up()
    await_true(lambda: throttler.read(on_primary).utilisation < 0.5)


def test_a_standby_that_is_gone_is_red_until_it_is_back(pair: Pair, on_primary: Connection) -> None:
    """A crashed standby does not look like no standby, but to a run that begins when it has been removed
    permanently.
    """
    throttler = StandbyLag(limit_bytes=LIMIT_BYTES)
    throttler.read(on_primary)
    pair.cut()
    gone = throttler.read(on_primary)
    assert gone.utilisation >= 1
    assert gone.reason == (
        "standby walreceiver was streaming and has disconnected; reconnect it, or, if it was removed"
        " permanently: online-migrate dismiss PLAN walreceiver"
    )
    begun_anew = StandbyLag(limit_bytes=LIMIT_BYTES)
    assert begun_anew.read(on_primary).reason == "no streaming standby is connected"
    pair.bring_back()
    assert throttler.read(on_primary).utilisation < 1
    assert begun_anew.read(on_primary).reason.startswith("standby walreceiver lags ")


def test_a_lost_standby_is_dismissed_by_its_name(pair: Pair, on_primary: Connection) -> None:
    """A dismissal before the loss is not meant for it; one that is back, and lost again, counts again."""
    dismissed = {"walreceiver": server_time(on_primary)}
    throttler = StandbyLag(limit_bytes=LIMIT_BYTES, dismissed=lambda: dismissed)
    throttler.read(on_primary)
    pair.cut()
    assert throttler.read(on_primary).utilisation >= 1
    dismissed["another"] = server_time(on_primary)
    assert throttler.read(on_primary).utilisation >= 1
    dismissed["walreceiver"] = server_time(on_primary)
    assert throttler.read(on_primary).reason == "no streaming standby is connected"
    pair.bring_back()
    assert throttler.read(on_primary).reason.startswith("standby walreceiver lags ")
    pair.cut()
    assert throttler.read(on_primary).utilisation >= 1
    pair.bring_back()


def server_time(connection: Connection) -> float:
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0])


def test_who_streams_but_replays_nothing_is_no_standby(pair: Pair, on_primary: Connection) -> None:
    """A backup that streams WAL, and a logical subscriber that confirms all it got, neither lag nor are
    missed later.
    """
    throttler = StandbyLag(limit_bytes=1)
    on_primary.execute("SELECT pg_create_logical_replication_slot('subscriber', 'pgoutput')")
    here = ask(pair.primary.dsn, "SELECT pg_current_wal_flush_lsn()::text")
    backup = start_streaming(f"{pair.primary.dsn} replication=true", f"START_REPLICATION {here}")
    subscriber = start_streaming(
        f"{pair.primary.dsn} replication=database",
        "START_REPLICATION SLOT subscriber LOGICAL 0/0 (proto_version '1', publication_names 'none')",
    )
    subscriber.put_copy_data(struct.pack("!cQQQQb", b"r", 2**20, 2**20, 2**20, 0, 0))
    subscriber.flush()
    walsenders = "SELECT count(*) FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')"
    await_true(lambda: on_primary.execute(walsenders).fetchall() == [(3,)])
    replied = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn IS NOT NULL"
    await_true(lambda: on_primary.execute(replied).fetchall() == [(2,)])
    try:
        names = [s.name for s in throttler.read_standbys(on_primary)]
        throttler.read(on_primary)
    finally:
        backup.finish()
        subscriber.finish()
        await_true(lambda: on_primary.execute(walsenders).fetchall() == [(1,)])
        on_primary.execute("SELECT pg_drop_replication_slot('subscriber')")
    assert names == ["walreceiver"]
    assert "gone" not in throttler.read(on_primary).reason


def test_the_promoted_standby_is_not_a_lost_one() -> None:
    """After a failover the server that we are connected to streams from none, and the throttler does not wait
    for it.
    """
    throttler = StandbyLag(limit_bytes=LIMIT_BYTES)
    with start_pair() as pair:
        with Connector(dsn=pair.primary.dsn).open("test") as primary:
            assert throttler.read(primary).utilisation < 1
        pair.primary.stop("fast")
        run(pair.standby.dsn, "SELECT pg_promote(true, 60)")
        with Connector(dsn=pair.standby.dsn).open("test") as promoted:
            assert throttler.read(promoted).reason == "no streaming standby is connected"


def test_of_several_standbys_one_was_promoted() -> None:
    """Until all others are back it is unknown which one was: then only the others are waited for."""
    throttler = StandbyLag(limit_bytes=LIMIT_BYTES)
    throttler._seen = {"a", "b", "c"}
    throttler._note_timeline("00000001")
    assert throttler._lost({"a", "b", "c"}) == []
    throttler._note_timeline("00000002")
    assert throttler._lost(set()) == ["a", "b", "c"]
    assert throttler._lost({"a"}) == ["b", "c"]
    assert throttler._lost({"a", "c"}) == []
    assert throttler._lost({"a", "c"}) == []
    assert throttler._lost({"a"}) == ["c"]


def start_streaming(conninfo: str, command: str) -> PGconnType:
    """A walsender's other end, written here: psycopg has no replication protocol."""
    connection = PGconn.connect(conninfo.encode())
    result = connection.exec_(command.encode())
    assert result.status == psycopg.pq.ExecStatus.COPY_BOTH, result.error_message
    return connection


def test_a_role_that_may_not_see_is_told_what_it_lacks(pair: Pair, on_primary: Connection) -> None:
    """NULLs for want of a right never look like a healthy standby: check names the grant, and a reading is no
    answer.
    """
    throttler = StandbyLag(limit_bytes=LIMIT_BYTES)
    run(pair.primary.dsn, 'CREATE ROLE "no sight" LOGIN')
    dsn = psycopg.conninfo.make_conninfo(pair.primary.dsn, user="no sight")
    try:
        with Connector(dsn=dsn).open("test") as blind:
            assert throttler.blind(blind) == 'GRANT pg_read_all_stats TO "no sight"'
            with pytest.raises(Blind):
                throttler.read(blind)
            on_primary.execute('GRANT pg_read_all_stats TO "no sight"')
            assert throttler.blind(blind) is None
            assert throttler.read(blind).utilisation < 1
            assert [s.name for s in throttler.read_standbys(blind)] == ["walreceiver"]
    finally:
        run(pair.primary.dsn, 'DROP ROLE "no sight"')


def test_a_limit_is_needed() -> None:
    """A throttler without a limit would never hold: that is a mistake of ours, not health."""
    with pytest.raises(ValueError, match="needs a limit"):
        StandbyLag()
