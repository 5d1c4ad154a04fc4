"""What the throttlers' tests share: a pair of servers, our own session, a clock that does not advance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from online_migrate.backfill.throttlers import commit_latency
from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.throttlers.standby import Pair, await_true, start_pair

SETTINGS = {"archive_command": "true", "archive_mode": "on", "wal_level": "logical"}


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """A primary and its standby; a test leaves them streaming and caught up."""
    with start_pair(SETTINGS) as pair:
        yield pair


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    """A session of ours in the test's own database."""
    with Connector(dsn=database).open("test") as connection:
        yield connection


@pytest.fixture
def on_primary(pair: Pair) -> Iterator[Connection]:
    """A session of ours on the primary of the pair, which is streaming and caught up before and after."""
    with Connector(dsn=pair.primary.dsn).open("test") as connection:
        yield connection
    pair.resume()
    pair.await_caught_up()


@pytest.fixture
def synchronous(pair: Pair, on_primary: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A session of ours where commits wait until the standby has replayed them; a reading gives up after 0.5
    s.
    """
    monkeypatch.setattr(commit_latency, "READ_TIMEOUT_S", 0.5)
    alter = sql.SQL("ALTER DATABASE {} {}")
    name = sql.Identifier(on_primary.info.dbname)
    on_primary.execute(alter.format(name, sql.SQL("SET synchronous_commit = remote_apply")))
    set_synchronous_standbys(on_primary, "*")
    with Connector(dsn=pair.primary.dsn).open("test") as ours:
        yield ours
    set_synchronous_standbys(on_primary, "")
    on_primary.execute(alter.format(name, sql.SQL("RESET synchronous_commit")))


def set_synchronous_standbys(connection: Connection, names: str) -> None:
    connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
    connection.execute("SELECT pg_reload_conf()")
    expected = "sync" if names else "async"
    state = "SELECT sync_state FROM pg_stat_replication"
    await_true(lambda: connection.execute(state).fetchall() == [(expected,)])
