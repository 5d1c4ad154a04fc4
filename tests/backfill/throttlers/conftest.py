"""What the throttlers' tests share: a pair of servers, our own session, a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.throttlers.standby import Pair, start_pair

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
