"""Who may do what: a wrong password, a role without rights, and the rights that check names are enough."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from online_migrate.demo.shop import create_shop
from online_migrate.journal.schema import ensure_schema
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.server import Server
from tests.desk import TOKEN, Desk, open_desk, small_text
from tests.servers import SHOP_USERS, TestServer, start_own_server

HBA = """
host all postgres 127.0.0.1/32 scram-sha-256
"""


@pytest.fixture
def role(server: TestServer) -> Iterator[str]:
    """A role that may log in and nothing else; ask for it before ``desk``, so that
    it outlives what it owns.
    """
    name = f"om_test_{os.getpid()}_operator"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'made-up'").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_the_rights_that_are_missing_are_named_all_at_once_and_granting_them_is_enough(
    role: str, desk: Desk
) -> None:
    """Exit 3 before anything is written; each remedy is a GRANT to the letter, and with these the plan runs
    to its end.
    """
    admin = desk.dsn
    desk.dsn = make_conninfo(desk.dsn, user=role, password="made-up")
    said = desk.call("run")
    assert said.code == 3
    assert f"{role} may not create the journal's schema online_migrate in " in said.err
    assert f"{role} may not create tables and indexes in schema public" in said.err
    assert f"{role} may not alter tables of postgres, e.g. " in said.err
    assert f"{role} cannot see other sessions: which of them block a lock" in said.err
    grants = dict.fromkeys(re.findall(r"→ (GRANT .*)", said.err))
    assert f"GRANT pg_read_all_stats TO {role}" in grants
    assert not desk.has_journal()
    with psycopg.connect(admin, autocommit=True) as connection:
        for grant in grants:
            connection.execute(grant.encode())
    said = desk.call("run", "--approve", "swap")
    assert said.code == 0, said.all
    assert desk.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'bots'") == "postgres"


def test_a_unique_index_on_a_table_that_the_role_cannot_read_leaves_check_its_findings(
    role: str, desk: Desk
) -> None:
    """Duplicates are not looked for; the rights that are missing are named, each with its GRANT."""
    step = "create_index: {table: users, columns: [telegram_id], name: users_by_telegram, unique: true}"
    desk.write(f"plan: shop\nstages:\n  - stage: unique\n    steps:\n      - {step}\n")
    desk.dsn = make_conninfo(desk.dsn, user=role, password="made-up")
    said = desk.call("check")
    assert said.code == 3
    assert f"{role} may not alter tables of postgres, e.g. users" in said.out
    assert "permission denied for table" not in said.all


def test_the_rights_to_try_things_are_asked_for_after_the_first_run_too(role: str, desk: Desk) -> None:
    """Although the journal exists, a schema and a temporary table are created and rolled back while steps are
    open.
    """
    with Connector(dsn=desk.dsn).open("test") as connection:
        ensure_schema(connection)
        database = connection.info.dbname
        connection.execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA online_migrate TO {role}".encode())
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA online_migrate TO {role}".encode())
    desk.dsn = make_conninfo(desk.dsn, user=role, password="made-up")
    said = desk.call("check")
    assert said.code == 3
    assert f"GRANT TEMPORARY ON DATABASE {database} TO {role}" in said.all
    assert f"GRANT CREATE ON DATABASE {database} TO {role}" in said.all


def test_a_journal_of_somebody_else_is_told_as_a_right_that_is_missing(role: str, desk: Desk) -> None:
    """A role that may not read the journal gets exit 3 and no traceback, from every command."""
    assert desk.call("run", "--through", "tables").code == 0
    desk.dsn = make_conninfo(desk.dsn, user=role, password="made-up")
    for command in ("check", "explain", "run", "status", "stop", "verify"):
        said = desk.call(command)
        assert said.code == 3, command
        assert (
            f"error: {role} may not read the journal in schema online_migrate, which postgres owns"
            in said.err
        )
        assert f"next: GRANT USAGE ON SCHEMA online_migrate TO {role}; GRANT SELECT, INSERT" in said.err


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that asks for a password."""
    with start_own_server() as server:
        create_shop(server.dsn, users=SHOP_USERS)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("ALTER ROLE postgres PASSWORD 'proper-word'")
            (server.data / "pg_hba.conf").write_text(HBA)
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def guarded_desk(guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with open_desk(guarded.dsn, tmp_path, small_text()) as desk:
        yield desk


@pytest.mark.parametrize(
    ("dsn", "words", "remedy"),
    [
        ("password=false-word", ("password authentication failed for"
            " user"), "set PGPASSWORD, or a line in ~/.pgpass"),
        ("", "no password supplied", "set PGPASSWORD, or a line in ~/.pgpass"),
        ("user=nobody password=false-word", "no pg_hba.conf entry for host", "see its pg_hba.conf"),
        (("password=proper-word"
            " dbname=shops"), 'database "shops" does not exist', "check the name of the database"),
    ],
)  # fmt: skip
def test_who_is_not_let_in_learns_why(guarded_desk: Desk, dsn: str, words: str, remedy: str) -> None:
    """Exit 8 with the server's words and what to set, and never a password."""
    guarded_desk.dsn = make_conninfo(guarded_desk.dsn + " " + dsn)
    for command in ("check", "run", "status"):
        said = guarded_desk.call(command)
        assert said.code == 8, said.all
        assert words in said.err
        assert remedy in said.err
        assert "-word" not in said.all


def test_no_secret_and_no_password_stands_anywhere(guarded: Server, guarded_desk: Desk) -> None:
    """The token, the API token and the password: not on the screen, in the journal,
    or in the server's log.
    """
    guarded_desk.environ["PGPASSWORD"] = "right-and-long-enough"
    with psycopg.connect(guarded.dsn, password="proper-word", autocommit=True) as connection:
        connection.execute("ALTER ROLE postgres PASSWORD 'right-and-long-enough'")
    said = guarded_desk.call("run", "--through", "columns")
    assert said.code == 0, said.all
    (kept,) = guarded_desk.state.glob("online-migrate/*.secret")
    assert kept.stat().st_mode & 0o777 == 0o600
    api_token = kept.read_text().strip()
    assert str(kept) in said.all
    said_more = guarded_desk.call("status").all + guarded_desk.call("status", "--json").all
    with psycopg.connect(guarded.dsn, password="right-and-long-enough", autocommit=True) as connection:
        row = connection.execute("SELECT telegram_bot_token, api_token, api_token_hash FROM bots").fetchone()
        assert row is not None
        assert row[0] == TOKEN
        assert row[1] == f"sha256:{row[2][:12]}"
        journal = "".join(
            str(
                connection.execute(
                    sql.SQL("SELECT * FROM {}").format(sql.Identifier("online_migrate", t))
                ).fetchall()
            )
            for (t,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'online_migrate'"
            )
        )
    log = guarded.log_tail(100_000)
    assert "password authentication failed" in log, "it is the right log"
    for secret in (TOKEN, api_token, "right-and-long-enough"):
        assert secret not in said.all + said_more + journal + log
