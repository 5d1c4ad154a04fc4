"""A journal in an empty database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from online_migrate.journal.schema import ensure_schema
from online_migrate.postgres.connection import Connection, Connector


@pytest.fixture
def connector(database: str) -> Connector:
    return Connector(dsn=database)


@pytest.fixture
def connection(connector: Connector) -> Iterator[Connection]:
    """A session on a database with a journal."""
    with connector.open("test") as connection:
        ensure_schema(connection)
        yield connection
