"""grants: the script that makes the role that a plan needs, and no more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.desk import WHOLE, Desk, open_desk, small_text
from tests.servers import TestServer

OWNER = f"om_test_{os.getpid()}_owner"
ROLE = f"om_test_{os.getpid()}_migrator"
GIVE = f"""DO $$ DECLARE t regclass; BEGIN
  FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
    EXECUTE format('ALTER TABLE %s OWNER TO {OWNER}', t);
  END LOOP; END $$"""


@pytest.fixture
def roles(server: TestServer) -> Iterator[None]:
    """The owner of the shop's tables, which cannot log in; ROLE is for the script to make."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"DROP ROLE IF EXISTS {OWNER}, {ROLE}".encode())
        connection.execute(f"CREATE ROLE {OWNER}".encode())
        yield
        connection.execute(f"DROP ROLE IF EXISTS {ROLE}, {OWNER}".encode())


@pytest.fixture
def admin(roles: None, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """The shop, whose tables belong to a role of their own; the desk is a superuser's."""
    monkeypatch.chdir(tmp_path)
    with open_desk(shop, tmp_path, small_text()) as desk:
        desk.run_sql(GIVE)
        yield desk


def script_of(admin: Desk) -> list[str]:
    """The statements of the script, which has run."""
    said = admin.call("grants", "--role", ROLE)
    assert said.code == 0, said.all
    admin.run_sql(said.out)
    return re.findall(r"^(?:CREATE|GRANT) [^;]*", said.out, flags=re.MULTILINE)


def as_role(admin: Desk) -> Desk:
    return Desk(folder=admin.folder, dsn=make_conninfo(admin.dsn, user=ROLE))


def test_the_whole_plan_runs_as_the_role_that_the_script_makes(admin: Desk) -> None:
    """By exactly this script: no superuser, and check has nothing to say about rights."""
    admin.write(WHOLE)
    script_of(admin)
    said = as_role(admin).call("run", "--approve", "swap")
    assert said.code == 0, said.all[-3000:]
    assert "superuser" not in said.all
    assert admin.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'bots'") == OWNER
    assert as_role(admin).call("verify").code == 0


def test_each_right_that_is_taken_away_is_found_with_its_grant(admin: Desk) -> None:
    """Nothing of the script is more than the plan needs, and check, or the connection's error, names each."""
    _, *grants = script_of(admin)
    assert len(grants) >= 5
    role = as_role(admin)
    assert "stop" not in role.call("check").out.rpartition("; 0 stop")[0]
    for grant in grants:
        what, _, to = grant.removeprefix("GRANT ").rpartition(" TO ")
        public = ", PUBLIC" if " ON " in what else ""
        admin.run_sql(f"REVOKE {what} FROM {to}{public}")
        said = role.call("check")
        assert said.code in (3, 8), f"{grant}: {said.all}"
        assert grant in said.all or (what.startswith("CONNECT") and "GRANT CONNECT ON DATABASE" in said.all)
        admin.run_sql(grant)
    assert role.call("check").code == 0


def test_a_second_role_may_go_on_where_another_has_begun(admin: Desk) -> None:
    """The journal belongs to the role that began; the script grants the second one what it needs."""
    assert admin.call("run", "--through", "tables").code == 0
    grants = script_of(admin)
    assert f"GRANT USAGE ON SCHEMA online_migrate TO {ROLE}" in grants
    said = as_role(admin).call("run", "--through", "columns")
    assert said.code == 0, said.all[-3000:]
    admin.run_sql(f"REVOKE DELETE ON online_migrate.step FROM {ROLE}")
    said = as_role(admin).call("check")
    assert said.code == 3
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA online_migrate" in said.all


def test_without_a_database_it_says_what_it_cannot_know(admin: Desk) -> None:
    """Names that only the database knows are in angle brackets, in comments; the rest can be run."""
    admin.dsn = ""
    said = admin.call("grants", "--role", "mig rator")
    assert said.code == 0
    assert 'CREATE ROLE "mig rator" LOGIN;' in said.out
    assert 'GRANT USAGE, CREATE ON SCHEMA "public" TO "mig rator";' in said.out
    assert "-- GRANT <owner of the tables> TO" in said.out
    assert not re.search(r"^[^-].*<", said.out, flags=re.MULTILINE)
