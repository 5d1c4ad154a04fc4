"""A limit that leaves no room for our sessions is found at check, not in the middle of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from online_migrate.findings import (
    Severity,
)
from tests.backfill.plans import findings_of
from tests.backfill.tables import make_table
from tests.servers import TestServer

FILL = "backfill: {table: t, column: c, value: 1}"


@pytest.fixture
def modest(server: TestServer, database: str) -> Iterator[tuple[str, str]]:
    """A role without any special right, and its DSN."""
    name = f"om_test_{os.getpid()}_modest"
    make_table(database, 10)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT ALL ON t TO {}").format(sql.Identifier(name)))
    yield name, make_conninfo(database, user=name)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.mark.parametrize(("limit", "severity"), [(3, Severity.STOP), (20, None), (-1, None)])
def test_a_roles_limit(modest: tuple[str, str], database: str, limit: int, severity: Severity | None) -> None:
    """Fewer than a run has is a stop, with the statement that gives enough; a superuser has no limit."""
    name, dsn = modest
    alter = sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(sql.Identifier(name), sql.Literal(limit))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(alter)
    found = findings_of(dsn, FILL).get("connection_limit")
    assert (found and found.severity) == severity
    if found is not None:
        assert (
            found.fact
            == f"a run has 5 sessions, and role {name} lets 3 in, of which 0 are taken by others now"
        )
        assert found.remedy == f"ALTER ROLE {name} CONNECTION LIMIT 5"
    assert "connection_limit" not in findings_of(database, FILL)


def test_sessions_that_are_open_now_are_a_warning(modest: tuple[str, str], database: str) -> None:
    """They may have ended when the run starts."""
    name, dsn = modest
    alter = sql.SQL("ALTER ROLE {} CONNECTION LIMIT 6").format(sql.Identifier(name))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(alter)
    with psycopg.connect(dsn), psycopg.connect(dsn):
        found = findings_of(dsn, FILL)["connection_limit"]
    assert found.severity is Severity.WARN
    assert found.fact.endswith("lets 6 in, of which 2 are taken by others now")
