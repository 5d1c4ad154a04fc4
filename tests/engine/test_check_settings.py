"""What role and database give to a new session is reported at check: what our sessions override, and what
they cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from online_migrate.findings import (
    Severity,
)
from online_migrate.postgres.connection import Connector, NoServer
from tests.backfill.plans import findings_of
from tests.backfill.tables import ask, do, make_table
from tests.servers import TestServer

FILL = "backfill: {tables: [t, u], column: c, value: 1}"


@pytest.fixture
def role(server: TestServer) -> Iterator[str]:
    """A role with all rights but a name of its own; ask for it before ``database``."""
    name = f"om_test_{os.getpid()}_timid"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def place(role: str, database: str) -> dict[str, str]:
    """Two small tables; the role, the database, and the DSN of the role in it."""
    make_table(database, 10)
    make_table(database, 10, name="u")
    base = str(conninfo_to_dict(database)["dbname"])
    return {"role": role, "base": base, "dsn": make_conninfo(database, user=role), "admin": database}


@pytest.mark.parametrize(
    ("by", "setting", "reported"),
    [
        ("ALTER ROLE {role}", "statement_timeout = '300ms'", "statement_timeout = 300ms"),
        ("ALTER DATABASE {base}", "lock_timeout = '2s'", "lock_timeout = 2000ms"),
        (("ALTER ROLE {role} IN DATABASE"
            " {base}"), "idle_session_timeout = '1min'", "idle_session_timeout = 60000ms"),
        (
            "ALTER DATABASE {base}",
            "idle_in_transaction_session_timeout = '9s'",
            "idle_in_transaction_session_timeout = 9000ms",
        ),
        ("ALTER ROLE {role}", "default_transaction_read_only = on", "default_transaction_read_only = on"),
        (
            "ALTER ROLE {role}",
            "default_transaction_isolation = serializable",
            "default_transaction_isolation = serializable",
        ),
        ("ALTER ROLE {role}", "enable_tidscan = off", "enable_tidscan = off"),
    ],
)  # fmt: skip
def test_what_our_sessions_override_is_told_once(
    place: dict[str, str], by: str, setting: str, reported: str
) -> None:
    """Its value, and the ALTER that it comes from; once for both tables."""
    do(place["admin"], f"{by.format(**place)} SET {setting}")
    found = findings_of(place["dsn"], FILL)["session_settings"]
    assert found.severity is Severity.INFO
    assert found.fact == f"new sessions begin with {reported} ({by.format(**place)})"
    assert found.table == ""
    assert found.remedy.startswith("nothing: ")


def test_nothing_is_told_of_a_role_without_settings(place: dict[str, str]) -> None:
    """Most have none."""
    assert not {"session_settings", "cutting_setting"} & findings_of(place["dsn"], FILL).keys()


def test_the_most_particular_alter_is_named(place: dict[str, str]) -> None:
    """The one that counts: of the role in this database, before the role's own, before the database's."""
    for by in ("ALTER DATABASE {base}", "ALTER ROLE {role}", "ALTER ROLE {role} IN DATABASE {base}"):
        by = by.format(**place)  # noqa: PLW2901
        do(place["admin"], f"{by} SET statement_timeout = '1h'")
        assert f"({by})" in findings_of(place["dsn"], FILL)["session_settings"].fact


@pytest.mark.parametrize("remedy", [0, 1], ids=["the ALTER", "the DSN's options"])
@pytest.mark.parametrize("name", ["statement_timeout", "idle_session_timeout", "transaction_timeout"])
def test_a_timeout_that_may_cut_our_first_statement_stops(
    place: dict[str, str], name: str, remedy: int
) -> None:
    """Before we have set our own, the role's counts; either remedy, to the letter, is enough."""
    if not ask(place["admin"], "SELECT count(*) FROM pg_settings WHERE name = %s", name):
        return  # transaction_timeout came with 17
    do(place["admin"], f"ALTER ROLE {place['role']} SET {name} = '60ms'")
    found = findings_of(place["dsn"], FILL)["cutting_setting"]
    assert found.severity is Severity.STOP
    assert f"{name} = 60ms (ALTER ROLE {place['role']})" in found.fact
    alter, options = found.remedy.removesuffix(" in the DSN").split(", or options=")
    if remedy:
        place["dsn"] = make_conninfo(place["dsn"], options=options.strip("'"))
    else:
        do(place["admin"], alter)
    assert "cutting_setting" not in findings_of(place["dsn"], FILL)


@pytest.mark.parametrize("name", ["statement_timeout", "transaction_timeout"])
def test_a_session_that_is_cut_off_at_its_first_statement_says_why(place: dict[str, str], name: str) -> None:
    """Exit 8 with the setting's name and both ways out, not 'check host and port'; here the statement waits
    for a lock.
    """
    if not ask(place["admin"], "SELECT count(*) FROM pg_settings WHERE name = %s", name):
        return  # transaction_timeout came with 17
    do(place["admin"], f"ALTER ROLE {place['role']} SET {name} = '60ms'")
    with psycopg.connect(place["admin"]) as holder:
        holder.execute("LOCK TABLE pg_proc IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(NoServer, match=r"no usable session: .* timeout") as caught:
            Connector(dsn=place["dsn"]).open("check")
    assert f"ALTER ROLE … RESET {name}" in caught.value.remedy
    assert f"options='-c {name}=0'" in caught.value.remedy


def test_a_session_that_begins_as_a_replica_stops(place: dict[str, str]) -> None:
    """`triggers: fire` would not be kept, and an orphan would go in (postgres-facts 16)."""
    do(place["admin"], f"ALTER ROLE {place['role']} SET session_replication_role = replica")
    found = findings_of(place["dsn"], FILL)["replica_session"]
    assert found.severity is Severity.STOP
    assert found.remedy == f"ALTER ROLE {place['role']} RESET session_replication_role"
    do(place["admin"], found.remedy)
    assert "replica_session" not in findings_of(place["dsn"], FILL)
