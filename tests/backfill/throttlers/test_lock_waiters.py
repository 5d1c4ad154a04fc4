"""The throttler that watches the application's lock queues."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from online_migrate.backfill.throttlers.base import Throttle
from online_migrate.backfill.throttlers.lock_waiters import LockWaiters
from online_migrate.clock import SystemClock
from online_migrate.journal.lease import hold_shared
from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.throttlers.standby import await_true


@contextmanager
def locked_row(dsn: str) -> Iterator[psycopg.Connection]:
    """A row of table contended that a session holds locked."""
    with psycopg.connect(dsn, application_name="shop") as session:
        session.execute("CREATE TABLE public.contended AS SELECT 1 AS a")
        session.commit()
        session.execute("UPDATE public.contended SET a = 2")
        yield session
        session.rollback()


@contextmanager
def waiting(session: psycopg.Connection) -> Iterator[None]:
    """The session waits for the locked row, in a thread; it has it when the block's end has let it go."""

    def wait() -> None:
        session.execute("UPDATE public.contended SET a = 3")

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join(timeout=15)


def test_a_queue_holds_us_until_it_is_gone(database: str, connection: Connection) -> None:
    """A session that waits is red at a limit of one, with who waits behind whom; when it has its lock all is
    green.
    """
    throttle = Throttle([LockWaiters(limit=1)], SystemClock(), every_s=0)
    assert throttle.read(connection)[0].reason == "no session waits for a lock"
    with (
        psycopg.connect(database, application_name="till", autocommit=True) as waiter,
        locked_row(database) as holder,
        waiting(waiter),
    ):
        await_true(lambda: throttle.read(connection)[0].is_red)
        reason = throttle.read(connection)[0].reason
        assert reason.startswith("1 session waits for locks (limit 1), the longest for ")
        assert reason.endswith(
            f" ms: pid {waiter.info.backend_pid}, user postgres, application till,"
            f" blocked by pid {holder.info.backend_pid}"
        )
        holder.rollback()
    assert not throttle.read(connection)[0].is_red


def test_our_own_waits_do_not_hold_us(database: str, connection: Connection) -> None:
    """A batch of ours that waits for a row is no reason for us to wait."""
    waits = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval"
        " '0.15 s'"
    )
    with Connector(dsn=database).open("worker") as worker, locked_row(database) as holder:
        hold_shared(worker)
        with waiting(worker):
            await_true(lambda: connection.execute(waits).fetchall() == [(1,)])
            assert LockWaiters(limit=1).read(connection).utilisation == 0
            holder.rollback()
