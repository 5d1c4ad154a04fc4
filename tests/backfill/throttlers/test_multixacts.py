"""The throttler that watches multixacts run out."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from online_migrate.backfill.throttlers.base import Throttle
from online_migrate.backfill.throttlers.multixacts import MOST_MEMBERS, Multixacts
from online_migrate.clock import SystemClock
from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.throttlers.standby import Pair, await_true, run

# In a subtransaction each, so that every row's lock is a multixact of its own.
LOCK_EACH_ROW = """
    DO $$ BEGIN FOR n IN 1..{rows} LOOP
      BEGIN PERFORM FROM parent WHERE id = n FOR KEY SHARE; EXCEPTION WHEN division_by_zero THEN NULL; END;
    END LOOP; END $$"""


def use_multixacts(dsn: str, *, rows: int, sessions: int) -> None:
    """Let so many sessions lock the same rows at the same time, as inserts of children do by their foreign
    key.
    """
    run(
        dsn,
        f"DROP TABLE IF EXISTS parent; CREATE TABLE parent AS SELECT generate_series(1, {rows}) AS id;"
        " CREATE UNIQUE INDEX ON parent (id)",
    )
    lockers = [psycopg.connect(dsn) for _ in range(sessions)]
    try:
        for locker in lockers:
            locker.execute(LOCK_EACH_ROW.format(rows=rows).encode())
    finally:
        for locker in lockers:
            locker.rollback()
            locker.close()


def test_old_multixacts_hold_us_until_they_are_frozen(database: str, connection: Connection) -> None:
    """Ids that pile up are red at a share of autovacuum's limit; VACUUM (FREEZE) of the database makes it
    green.
    """
    throttle = Throttle([Multixacts(age_share=1e-6)], SystemClock(), every_s=0)
    connection.execute("VACUUM (FREEZE)")
    assert not throttle.read(connection)[0].is_red
    use_multixacts(database, rows=500, sessions=2)
    reading = throttle.read(connection)[0]
    assert reading.is_red
    name = connection.info.dbname
    assert reading.reason.startswith(f"the oldest multixact of database {name} is ")
    assert reading.reason.endswith(
        " ids old (limit 400, 1e-06 of autovacuum_multixact_freeze_max_age); make sure that VACUUM (FREEZE)"
        " completes"
    )

    def is_green_after_vacuum() -> bool:
        connection.execute("VACUUM (FREEZE)")
        return not throttle.read(connection)[0].is_red

    await_true(is_green_after_vacuum)  # an autovacuum's own transaction may block it for a moment


@pytest.fixture
def frozen(pair: Pair, on_primary: Connection) -> Iterator[Pair]:
    """The pair with a template0 that can be vacuumed, as only autovacuum may otherwise."""
    on_primary.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    yield pair
    on_primary.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS false")


def test_members_hold_us_until_their_files_are_gone(frozen: Pair, on_primary: Connection) -> None:
    """RowSet rows and many sessions use members up much faster than ids: red by the files, green when all is
    frozen.
    """
    throttle = Throttle([Multixacts(members_share=120_000 / MOST_MEMBERS)], SystemClock(), every_s=0)
    assert not throttle.read(on_primary)[0].is_red
    use_multixacts(frozen.primary.dsn, rows=600, sessions=20)
    on_primary.execute("CHECKPOINT")
    reading = throttle.read(on_primary)[0]
    assert reading.is_red
    assert reading.reason.startswith("multixacts use the space of 157,056 members (limit 120,000, ")

    def is_green_after_vacuum() -> bool:
        for name in ("postgres", "template1", "template0"):
            run(frozen.primary.dsn_for(name), "VACUUM (FREEZE)")
        return not throttle.read(on_primary)[0].is_red

    await_true(is_green_after_vacuum)


def test_a_role_that_may_not_count_members_is_told_what_it_lacks(
    database: str, connection: Connection
) -> None:
    """Every role can read the age, but not the members, and check names the grant
    instead of a silent zero.
    """
    both = Multixacts(age_share=0.8, members_share=0.4)
    run(database, "CREATE ROLE no_sight LOGIN")
    try:
        with Connector(dsn=psycopg.conninfo.make_conninfo(database, user="no_sight")).open("test") as plain:
            assert both.blind(plain) == "GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO no_sight"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                both.read(plain)
            assert Multixacts(age_share=0.8).blind(plain) is None
            assert Multixacts(age_share=0.8).read(plain).utilisation < 1
            connection.execute("GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO no_sight")
            assert both.blind(plain) is None
            assert both.read(plain).utilisation < 1
    finally:
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_ls_dir(text) FROM no_sight")
        run(database, "DROP ROLE no_sight")


def test_a_limit_is_needed() -> None:
    """A throttler without a limit would never hold: that is a mistake of ours, not health."""
    with pytest.raises(ValueError, match="needs a limit"):
        Multixacts()
