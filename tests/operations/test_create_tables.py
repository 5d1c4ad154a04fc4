"""create_tables: the brief's tables to the letter, for those who use the shop, or nothing at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from online_migrate.demo.dump import schema_dump
from online_migrate.errors import PlanError
from online_migrate.operations.contract.base import State
from online_migrate.postgres.connection import Connection
from tests.conftest import dropped_after
from tests.operations.beside import read_held, read_relations
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of
from tests.servers import TestServer

PLAN = plan_of("create_tables: multi_tenant.sql")
BRIEF = Path(__file__).with_name("brief_tables.sql")
TABLES = (
    "bots", "bot_feature_flags", "bot_configurations", "tenant_payment_cards", "bot_plans", "card_to_card_payments",
    "zarinpal_payments",
)  # fmt: skip


def columns_in_order(connection: psycopg.Connection) -> list[tuple[str, ...]]:
    return connection.execute(
        "SELECT attrelid::regclass::text, attname::text FROM pg_attribute"
        " WHERE attrelid = ANY (%s::regclass[]) AND attnum > 0 ORDER BY 1, attnum",
        [list(TABLES)],
    ).fetchall()


def test_the_seven_tables_equal_the_briefs(
    site_of: OpenSite, server: TestServer, new_database: Callable[[str | None], str], shop_template: str
) -> None:
    """Beside the brief's own DDL, run manually on another shop, the catalogs do not differ in a line:
    columns, types, defaults, keys, foreign keys, owners, the 16 indexes and those of keys and uniques.
    """
    site = site_of(PLAN)
    site.execute_all()
    with dropped_after(server, new_database(shop_template)) as dsn, psycopg.connect(dsn) as by_hand:
        before = schema_dump(by_hand)
        by_hand.execute(BRIEF.read_bytes())
        after = schema_dump(by_hand)
        assert site.schema() == after
        assert columns_in_order(site.app) == columns_in_order(by_hand)
    new = set(after.splitlines()) - set(before.splitlines())
    assert sum(line.startswith("index CREATE INDEX idx_") for line in new) == 16
    assert sum(line.startswith("index CREATE UNIQUE INDEX") for line in new) == 7 + 4
    assert all(site.verify(step) == [] for step in site.steps)


def test_tables_that_are_there_already_are_adopted(site_of: OpenSite) -> None:
    """Created manually before, exactly as written, they are DONE: nothing is asked for and nothing is run."""
    site = site_of(PLAN)
    site.sql(BRIEF.read_text())
    assert {site.state(step) for step in site.steps} == {State.DONE}
    assert [f for step in site.steps for f in site.preflight(step)] == []


DIFFERENCES = (
    ("ALTER TABLE bot_plans ALTER price_kopeks TYPE bigint", "missing: column price_kopeks integer NOT NULL"),
    (("ALTER TABLE bot_plans ALTER sort_order DROP"
        " DEFAULT"), "missing: column sort_order integer NOT NULL DEFAULT 0"),
    (('ALTER TABLE bot_plans ALTER name TYPE varchar(255) COLLATE'
        ' "C"'), "missing: column name character varying(255) NOT NULL"),
    ("ALTER TABLE bot_plans ADD extra text", "not in the plan: column extra text"),
    ("ALTER TABLE bot_plans ADD UNIQUE (name)", "not in the plan: constraint bot_plans_name_key"),
    (("CREATE UNIQUE INDEX ON bot_plans"
        " (name)"), "not in the plan: index CREATE UNIQUE INDEX bot_plans_name_idx"),
    ("DROP INDEX idx_bot_plans_active", "missing: index CREATE INDEX idx_bot_plans_active"),
    (
        "ALTER TABLE bot_plans DROP CONSTRAINT bot_plans_bot_id_fkey",
        "missing: constraint bot_plans_bot_id_fkey FOREIGN KEY (bot_id)",
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_bot_plans_bot_id'::regclass",
        "missing: index CREATE INDEX idx_bot_plans_bot_id",
    ),
)  # fmt: skip


def test_every_difference_is_named(site_of: OpenSite) -> None:
    """A table of that name that differs in anything is a conflict that names the difference; a further plain
    index is none.
    """
    site = site_of(PLAN)
    step = site.step(table="bot_plans")
    (by_hand,) = re.findall(
        r"CREATE TABLE bot_plans .*?WHERE is_active = TRUE;", BRIEF.read_text(), re.DOTALL
    )
    site.sql(BRIEF.read_text())
    for change, words in DIFFERENCES:
        site.sql(f"DROP TABLE bot_plans; {by_hand} CREATE INDEX ON bot_plans (name)")
        assert site.state(step) is State.DONE
        site.sql(change)
        assert site.state(step) is State.CONFLICT
        (finding,) = site.stops(step)
        assert words in finding.fact
        assert site.verify(step) != []


def test_the_comparison_asks_for_nothing_that_a_reader_would_not(site_of: OpenSite, shop: str) -> None:
    """Only ACCESS SHARE is requested on existing tables: it works beside EXCLUSIVE, which lets nothing else
    pass; and it leaves nothing behind.
    """
    site = site_of(PLAN)
    site.sql(BRIEF.read_text())
    before = site.schema()
    with psycopg.connect(shop) as other:
        other.execute("LOCK TABLE users, transactions, bots, tenant_payment_cards IN EXCLUSIVE MODE")
        assert {site.state(step) for step in site.steps} == {State.DONE}
        other.rollback()
    assert site.schema() == before
    assert site.one("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'online_migrate_%'") == 0
    assert read_held(site.app, site.work_pid, read_relations(site.app)) == {}


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("CREATE TABLE notes (id serial PRIMARY KEY, user_id int REFERENCES users (idd))", "idd"),
        ("CREATE TABLE notes (id serial PRIMARY KEY, kind colour)", 'type "colour" does not exist'),
        ("CREATE TABLE notes (id serial PRIMARY KEY, n int DEFAULT 'x')", "invalid input syntax"),
        (("CREATE TABLE notes (id serial PRIMARY KEY); CREATE INDEX ON notes"
            " (title)"), 'column "title" does not exist'),
    ],
)  # fmt: skip
def test_ddl_that_the_server_refuses_is_found_at_check(
    site_of: OpenSite, tmp_path: Path, ddl: str, words: str
) -> None:
    """Nothing is run before it is known that the DDL can be: it is tried, and rolled back."""
    (tmp_path / "notes.sql").write_text(ddl)
    site = site_of(plan_of("create_tables: notes.sql"), folder=tmp_path)
    before = site.schema()
    (finding,) = site.stops()
    assert finding.code == "ddl_refused"
    assert words in finding.fact
    assert site.state() is State.ABSENT
    assert site.schema() == before


def test_a_window_that_fails_leaves_nothing(site_of: OpenSite, tmp_path: Path) -> None:
    """A name that was taken between check and run: the table, its owner, its indexes come together or not at
    all.
    """
    (tmp_path / "notes.sql").write_text(
        "CREATE TABLE notes (id serial PRIMARY KEY, user_id int REFERENCES users);"
        " CREATE INDEX idx_notes_user_id ON notes (user_id)"
    )
    site = site_of(plan_of("create_tables: notes.sql"), folder=tmp_path)
    context = site.context()
    site.sql("CREATE INDEX idx_notes_user_id ON users (status)")
    before = site.schema()
    with pytest.raises(psycopg.errors.DuplicateTable):
        site.operation().execute(context, site.step().spec.params)
    assert site.schema() == before
    assert site.state() is State.CONFLICT


def test_a_parent_that_nobody_makes_is_named(site_of: OpenSite, tmp_path: Path) -> None:
    """A missing table outside the file is reported before anything is run."""
    (tmp_path / "notes.sql").write_text("CREATE TABLE notes (id int PRIMARY KEY, shop int REFERENCES shops)")
    site = site_of(plan_of("create_tables: notes.sql"), folder=tmp_path)
    (finding,) = site.stops()
    assert finding.fact == "notes references shops, which does not exist"


def test_names_with_a_schema_are_refused_by_the_loader(site_of: OpenSite, tmp_path: Path) -> None:
    """The plan says in which schema it works; a foreign key to another one would take a lock that no
    declaration declared.
    """
    (tmp_path / "notes.sql").write_text(
        "CREATE TABLE notes (id int PRIMARY KEY, u int REFERENCES public.users)"
    )
    with pytest.raises(PlanError, match="a name with a schema"):
        site_of(plan_of("create_tables: notes.sql"), folder=tmp_path)


def test_an_owner_that_we_cannot_give_tables_to_is_named(
    new_role: Callable[[str], str], site_of: OpenSite, shop: str
) -> None:
    """Reported at check with the GRANT that fixes it, not by the server in the middle of the run."""
    runner = new_role("runner")
    with psycopg.connect(shop, autocommit=True) as operator:
        operator.execute(
            (
                f"GRANT pg_read_all_stats TO {runner}; GRANT CREATE ON DATABASE {operator.info.dbname} TO"
                f" {runner}"
            ).encode()
        )
        owner = operator.info.user
    site = site_of(PLAN, role=runner)
    (finding,) = site.stops(site.step(table="bots"))
    assert finding.remedy == f"GRANT {owner} TO {runner}"


def as_role(connection: Connection, role: str, statement: str) -> None:
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        connection.execute(statement.encode())


@pytest.mark.parametrize("runs_as_owner", [False, True], ids=["by a superuser", "by a member of the owner"])
def test_the_application_may_write_the_new_tables(
    new_role: Callable[[str], str], site_of: OpenSite, shop: str, runs_as_owner: bool
) -> None:
    """New tables get the owner and the grants that users has, and their sequences those of its sequence: a
    role that may INSERT into users may INSERT into bots, and one that may only read may only read.
    """
    owner, app, reader, runner = (new_role(n) for n in ("owner", "app", "reader", "runner"))
    with psycopg.connect(shop, autocommit=True) as operator:
        operator.execute(
            f"""GRANT USAGE ON SCHEMA public TO {app}, {reader}; GRANT CREATE, USAGE
              ON SCHEMA public TO {owner};
                GRANT {owner}, pg_read_all_stats TO {runner}; GRANT CREATE
                  ON DATABASE {operator.info.dbname} TO {runner};
                ALTER TABLE users OWNER TO {owner}; ALTER TABLE transactions OWNER TO {owner};
                GRANT SELECT, INSERT, UPDATE ON users TO {app}; GRANT USAGE ON SEQUENCE users_id_seq TO {app};
                GRANT SELECT ON users TO {reader} WITH GRANT OPTION; GRANT SELECT
                  ON users TO PUBLIC""".encode()
        )
    site = site_of(PLAN, role=runner if runs_as_owner else "")
    site.execute_all()
    insert = (
        "INSERT INTO bots (name, telegram_bot_token, api_token, api_token_hash) VALUES ('n', 't', 'a', 'h')"
    )
    as_role(site.app, app, insert)
    as_role(site.app, reader, "SELECT * FROM bots")
    for role, statement in ((reader, insert.replace("'t', 'a'", "'u', 'b'")), (app, "DELETE FROM bots")):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_role(site.app, role, statement)
    rights = (
        "SELECT relowner::regrole::text, (SELECT array_agg(a::text ORDER BY 1) FROM aclexplode(relacl) a"
        f" WHERE a.grantee <> '{owner}'::regrole) FROM pg_class WHERE oid = '%s'::regclass"
    )
    assert len({str(site.sql(rights % table)) for table in ("users", *TABLES)}) == 1
    assert site.verify() == []
