"""What the server says, read from a real one."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from online_migrate.journal.states import StepState
from online_migrate.observe.prometheus.readings import ServerReader, ServerReading, TableReading
from online_migrate.observe.snapshot.read import read_snapshot
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.postgres.connection import Connection
from tests.observe.made_runs import BACKFILL, MadeRun, begun_run
from tests.observe.prometheus.test_metrics import MadeClock


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (id integer, bot_id integer) WITH (fillfactor = 50)")
        connection.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        connection.execute("INSERT INTO users SELECT generate_series(1, 1000)")
    with begun_run(database) as made:
        yield made


@pytest.fixture
def connection(run: MadeRun) -> Iterator[Connection]:
    with run.connector.open("snapshot") as connection:
        yield connection


def snapshot_of(connection: Connection) -> Snapshot:
    snapshot = read_snapshot(connection, "shop")
    assert snapshot is not None
    return snapshot


def read(reader: ServerReader, connection: Connection) -> ServerReading:
    return reader.read(connection, snapshot_of(connection))


def users(reading: ServerReading) -> TableReading:
    return next(t for t in reading.tables if t.table == "users")


def test_a_reading_has_wal_sizes_and_heap_only_updates(run: MadeRun, connection: Connection) -> None:
    """What a night costs: WAL, growth, and whether the updates stay heap-only."""
    reader = ServerReader(lambda _: None)
    before = read(reader, connection)
    connection.execute("UPDATE public.users SET bot_id = 1")
    flush = "pg_stat_force_next_flush()" if connection.info.server_version >= 150000 else "pg_sleep(1)"
    connection.execute(f"SELECT {flush}".encode())
    after = read(reader, connection)
    assert after.wal_bytes > before.wal_bytes
    assert users(after).updates - users(before).updates == 1000
    assert users(after).hot_updates > 900
    assert {t.table for t in after.tables} == {"users", "orders"}
    assert (users(after).table_bytes or 0) >= 8_192
    assert (after.epoch, after.standbys) == (run.lease.fence.epoch, ())
    assert 0 <= after.multixacts["age"] < 1
    assert 0 <= after.multixacts["members"] < 1


def test_nobody_waits_for_a_reading_and_no_reading_waits(run: MadeRun, connection: Connection) -> None:
    """Behind a strong lock the size is left for the next look: known sizes remain, statistics are read all
    the same.
    """
    reader = ServerReader(lambda _: None)
    known = users(read(reader, connection)).table_bytes
    with run.connector.open("strong") as other, other.transaction():
        other.execute("LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE")
        assert users(read(reader, connection)).table_bytes == known
        locks = other.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'relation'",
            [connection.info.backend_pid],
        ).fetchone()
    assert locks == (0,)


def test_it_looks_every_few_seconds_only(run: MadeRun, connection: Connection) -> None:
    """Looking every second at 300 tables would be felt."""
    clock = MadeClock()
    seen: list[ServerReading] = []
    reader = ServerReader(seen.append, every_s=5, clock=clock)
    snapshot = snapshot_of(connection)
    for _ in range(11):
        reader.look(connection, snapshot)
        clock.now += 1
    assert len(seen) == 3


def test_sizes_are_asked_for_a_few_at_a_time(run: MadeRun, connection: Connection) -> None:
    """The table at work always, the others in turn: 300 tables are no burst."""
    run.journal.set_step(run.run_id, BACKFILL, StepState.RUNNING)
    reader = ServerReader(lambda _: None)
    tables = [f"t{n:03}" for n in range(300)]
    turns = [reader._choose(tables, snapshot_of(connection)) for _ in range(15)]
    assert all(len(turn) == 21 and "users" in turn for turn in turns)
    assert set(tables) < {table for turn in turns for table in turn}


def test_a_role_that_sees_little_still_reads_what_it_may(run: MadeRun, connection: Connection) -> None:
    """Without the right to see standbys or the members of multixacts there is no figure, and no error."""
    connection.execute("CREATE ROLE reader_only; GRANT USAGE ON SCHEMA online_migrate TO reader_only")
    connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA online_migrate TO reader_only")
    snapshot = snapshot_of(connection)
    connection.execute("SET ROLE reader_only")
    try:
        reading = ServerReader(lambda _: None).read(connection, snapshot)
    finally:
        connection.execute("RESET ROLE; DROP OWNED BY reader_only; DROP ROLE reader_only")
    assert reading.standbys == ()
    assert list(reading.multixacts) == ["age"]
