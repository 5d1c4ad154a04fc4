"""The throttler that waits for old snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from online_migrate.backfill.throttlers.base import Blind, Throttle
from online_migrate.backfill.throttlers.oldest_snapshot import OldestSnapshot
from online_migrate.clock import SystemClock
from online_migrate.journal.lease import hold_shared
from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.throttlers.standby import Pair, await_true, run

LIMIT_S = 0.2
LONG_ENOUGH = "SELECT pg_sleep(0.3)"


@contextmanager
def holding(dsn: str, *statements: str) -> Iterator[psycopg.Connection]:
    """A session of the application that has run these in one transaction, which is still open."""
    with psycopg.connect(dsn, application_name="shop", autocommit=True) as session:
        session.execute("BEGIN")
        for statement in (*statements, LONG_ENOUGH):
            session.execute(statement.encode())
        yield session
        session.execute("ROLLBACK")


def read_words(connection: Connection) -> list[str]:
    """All who hold a snapshot for longer than the limit, in words."""
    holders = OldestSnapshot(limit_s=LIMIT_S).read_holders(connection)
    return [h.description for h in holders if h.age_s >= LIMIT_S]


def test_an_old_snapshot_holds_us_until_it_is_gone(database: str, connection: Connection) -> None:
    """A report at REPEATABLE READ is red, and named so that a person can find it; its end is green again."""
    throttle = Throttle([OldestSnapshot(limit_s=LIMIT_S)], SystemClock(), every_s=0)
    assert not throttle.read(connection)[0].is_red
    with holding(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1") as report:
        reading = throttle.read(connection)[0]
        assert reading.is_red
        name = connection.info.dbname
        assert reading.reason.startswith("the oldest snapshot is 3")
        assert reading.reason.endswith(
            f" ms old (limit 200 ms): pid {report.info.backend_pid}, user postgres, application shop,"
            f" database {name}, idle in transaction for 1 s"
        )
    assert not throttle.read(connection)[0].is_red


def test_a_transaction_that_wrote_counts_without_a_snapshot(database: str, connection: Connection) -> None:
    """Idle at READ COMMITTED it has no snapshot, but every new one begins at its id: the dead rows stay all
    the same.
    """
    connection.execute("CREATE TABLE public.written (a int)")
    with holding(database, "INSERT INTO public.written VALUES (1)"):
        assert len(read_words(connection)) == 1


def test_an_idle_reader_is_not_in_the_way(database: str, connection: Connection) -> None:
    """Between two statements at READ COMMITTED a reader holds nothing back, however
    old its transaction is.
    """
    with holding(database, "SELECT 1"):
        assert read_words(connection) == []


def test_of_other_databases_only_writers_count(
    database: str, connection: Connection, new_database: Callable[[str | None], str]
) -> None:
    """Their snapshots do not hold our tables back; their transaction ids do, by the snapshots taken beside
    them.
    """
    name = new_database(None)
    other = psycopg.conninfo.make_conninfo(database, dbname=name)
    try:
        with holding(other, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1"):
            assert read_words(connection) == []
        with holding(other, "CREATE TABLE public.written (a int)"):
            assert f"database {name}" in read_words(connection)[0]
    finally:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_our_own_sessions_do_not_hold_us(database: str, connection: Connection) -> None:
    """A second worker's open batch is not a reason to wait for ourselves."""
    connection.execute("CREATE TABLE public.written (a int)")
    with Connector(dsn=database).open("worker") as worker:
        hold_shared(worker)
        worker.execute("BEGIN")
        worker.execute("INSERT INTO public.written VALUES (1)")
        worker.execute(LONG_ENOUGH.encode())
        assert read_words(connection) == []


def test_a_forgotten_prepared_transaction_is_named(database: str, connection: Connection) -> None:
    """It has no session, survives restarts and holds everything back: the reason
    gives the name to roll back.
    """
    connection.execute("CREATE TABLE public.written (a int)")
    connection.execute("BEGIN; INSERT INTO public.written VALUES (1); PREPARE TRANSACTION 'it''s forgotten'")
    connection.execute(LONG_ENOUGH.encode())
    name = connection.info.dbname
    assert read_words(connection) == [
        f"prepared transaction 'it''s forgotten', user postgres, database {name}"
    ]
    connection.execute("ROLLBACK PREPARED 'it''s forgotten'")
    assert read_words(connection) == []


def test_a_query_on_a_standby_counts_by_its_feedback(pair: Pair, on_primary: Connection) -> None:
    """With hot_standby_feedback a report on the standby keeps our dead rows: red here, and green when it ends
    there.
    """
    throttler = OldestSnapshot(limit_s=LIMIT_S)
    xmin = "SELECT backend_xmin IS NOT NULL FROM pg_stat_replication"
    with psycopg.connect(pair.standby.dsn) as report:
        report.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        report.execute("SELECT 1")
        await_true(lambda: on_primary.execute(xmin).fetchall() == [(True,)])

        def is_red() -> bool:
            on_primary.execute("SELECT pg_current_xact_id()")
            return throttler.read(on_primary).utilisation >= 1

        await_true(is_red)
        assert ": standby walreceiver by hot_standby_feedback" in throttler.read(on_primary).reason
    await_true(lambda: throttler.read(on_primary).utilisation < 1)


def test_a_role_that_may_not_see_is_told_what_it_lacks(database: str, connection: Connection) -> None:
    """NULL for a snapshot never reads as 'no snapshot': check names the grant, and a reading is no answer."""
    throttler = OldestSnapshot(limit_s=LIMIT_S)
    run(database, "CREATE ROLE no_sight LOGIN")
    try:
        with Connector(dsn=psycopg.conninfo.make_conninfo(database, user="no_sight")).open("test") as blind:
            assert throttler.blind(blind) == "GRANT pg_read_all_stats TO no_sight"
            with pytest.raises(Blind):
                throttler.read(blind)
    finally:
        run(database, "DROP ROLE no_sight")
    assert throttler.blind(connection) is None
