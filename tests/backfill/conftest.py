"""What the backfill's tests share: a role that may do little."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.backfill.tables import ask, do


@pytest.fixture
def clerk(database: str) -> Iterator[str]:
    """The DSN of a role that may see and make things, and has no right to any table that a test makes."""
    base = str(ask(database, "SELECT current_database()"))
    name = f"{base}_clerk"
    do(
        database,
        f"CREATE ROLE {name} LOGIN IN ROLE pg_read_all_stats",
        f'GRANT ALL ON DATABASE "{base}" TO {name}; GRANT ALL ON SCHEMA public TO {name}',
    )
    yield psycopg.conninfo.make_conninfo(database, user=name)
    do(database, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
