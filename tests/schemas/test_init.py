"""`init` on the demo's shop and on grown databases: what it writes loads, and check is honest about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from online_migrate.cli.common import read_plan
from online_migrate.operations.swap_unique import SwapUniqueParams
from online_migrate.plan.model import Plan
from tests.cases.trial import Trial
from tests.desk import PLANS, Desk

OPTIONS = {
    "shop": ("tenant_id", "tenants", ("accounts_user",), "public"),
    "crm": ("org_id", "orgs", ("accounts", "agents"), "crm"),
    "erp": ("tenant_id", "tenants", ("customer", "material"), "public"),
}
FILES = {"shop": "tenants.sql", "crm": "orgs.sql", "erp": "tenants.sql"}


def arguments(column: str, references: str, roots: tuple[str, ...], schema: str) -> list[str]:
    given = [part for root in roots for part in ("--root", root)]
    return ["--column", column, "--references", references, *given, "--schema", schema]


def swaps(plan: Plan) -> set[tuple[str, tuple[str, ...]]]:
    found = [s.params for stage in plan.stages for s in stage.steps if s.operation == "swap_unique"]
    return {(p.table, tuple(p.from_)) for p in found if isinstance(p, SwapUniqueParams)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_grown_database_gets_a_plan_that_loads(grown: Callable[[str], Trial], name: str) -> None:
    """Check finds nothing that stops, and the plan runs to its end."""
    trial = grown(name)
    column, references, roots, schema = OPTIONS[name]
    make_owners(trial.desk, FILES[name], schema)
    said = trial.call("init", *arguments(column, references, roots, schema), "-o", "new.yaml", plan=False)
    assert said.code == 0, said.all
    text = Path("new.yaml").read_text()
    assert "QUESTION" in text
    read_plan(Path("new.yaml"))
    check = trial.call("check", "new.yaml", plan=False)
    assert check.code == 0, check.all[-3000:]
    run = trial.call("run", "new.yaml", "--approve", "swap", plan=False)
    assert run.code == 0, run.all[-3000:]


def test_on_the_demos_shop_it_finds_what_the_plan_has(shop: str, tmp_path: Path) -> None:
    """The same set; the uniques that the plan swaps, and those that check of the plan asks about."""
    desk = Desk(folder=tmp_path, dsn=shop)
    plan = read_plan(desk.write((PLANS / "multi_tenant.yaml").read_text()))
    asked = desk.call("check", str(tmp_path / "plan.yaml"), plan=False).out
    owned = plan.table_sets["owned"]
    make_owners(desk, "bots.sql", "public")
    roots = ("users", "promo_groups", "main_menu_buttons")
    file = tmp_path / "new.yaml"
    options = [*arguments("bot_id", "bots", roots, "public"), "--exclude", "server_squad_promo_groups"]
    said = desk.call("init", *options, "-o", str(file), plan=False)
    assert said.code == 0, said.all
    written = read_plan(file)

    found = written.table_sets["owned"].tables
    assert set(owned.tables) <= set(found)
    assert set(found) - set(owned.tables) == found_by_also(asked)
    assert found.index("yookassa_payments") < found.index("yookassa_refunds")

    global_ = re.findall(r"(\w+) \((?:primary key|[a-z ]*unique[a-z ]*|exclusion constraint) of", asked)
    mine = swaps(written)
    assert swaps(plan) <= mine
    with desk.connect() as connection:
        rows = connection.execute(INDEX_COLUMNS, [global_]).fetchall()
    assert mine - swaps(plan) == {(table, tuple(columns)) for table, columns in rows}

    text = file.read_text()
    assert 'from: {table: ticket_messages, "on": message_id, key: id, column: bot_id}' in text
    assert "# - server_squads: no foreign key leads from it to users" in text
    assert "subscriptions_user_id_key" not in text, "one owner each already"
    check = desk.call("check", str(file), plan=False)
    assert check.code == 0, check.all[-3000:]


INDEX_COLUMNS = """
SELECT t.relname, ARRAY(SELECT a.attname FROM unnest(i.indkey) WITH ORDINALITY k (n, pos)
                          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.n ORDER BY k.pos)
  FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relname = ANY (%s)"""


def found_by_also(asked: str) -> set[str]:
    """The tables that check lists as found by `also`."""
    found = re.search(r"more tables reach users by foreign keys: (.*)", asked)
    assert found is not None, asked
    return set(found[1].split(", "))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("tenant_id", "tenants", ("usres",), "public"),
            "no such table in schema public; did you mean 'users'?",
        ),
        (("tenant_id", "tenant", ("users",), "public"), "did you mean 'tenants'?"),
        (("tenant_id", "tenants", ("users",), "pubic"), "there is no schema pubic"),
        (("", "tenants", ("users",), "public"), "cannot be the name of a column"),
        (("tenant_id", "tenants", ("tenants",), "public"), "is given as --root and as --references"),
        (("tenant_id", "tenants", ("open_users",), "public"), "is a view"),
        (("tenant_id", "users", ("far",), "public"), "other.far exists"),
        (("tenant_id", "keyless", ("users",), "public"), "it has no primary key"),
        (("name", "tenants", ("users",), "public"), "it has a column name of type text, not integer"),
    ],
)
def test_wrong_names_are_errors_that_say_what_was_found(
    database: str, tmp_path: Path, options: tuple[str, str, tuple[str, ...], str], words: str
) -> None:
    desk = Desk(folder=tmp_path, dsn=database)
    desk.run_sql(ODD)
    said = desk.call("init", *arguments(*options), plan=False)
    assert said.code == 2, said.all
    assert words in said.err, said.err
    assert not said.out


ODD = """
CREATE SCHEMA other;
CREATE TABLE other.far (id int PRIMARY KEY);
CREATE TABLE keyless (id int);
CREATE TABLE tenants (id int PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE users (id int PRIMARY KEY, name text UNIQUE);
CREATE VIEW open_users AS SELECT * FROM users;
CREATE TABLE "odd "": {name} #" ("user: id" int NOT NULL REFERENCES users, "on" text UNIQUE);
CREATE TABLE "has.dot" (user_id int REFERENCES users);
CREATE TABLE lonely (id int);"""


def test_odd_names_are_quoted_and_what_no_plan_can_name_is_left_out(database: str, tmp_path: Path) -> None:
    """The plan runs to its end; a file that exists is not overwritten."""
    desk = Desk(folder=tmp_path, dsn=database)
    desk.run_sql(ODD)
    desk.run_sql("INSERT INTO users VALUES (1, 'a'), (2, 'b')")
    desk.run_sql("""INSERT INTO "odd "": {name} #" VALUES (2, 'x')""")
    file = tmp_path / "new.yaml"
    options = arguments("ten: ant", "tenants", ("users",), "public")
    assert desk.call("init", *options, "-o", str(file), plan=False).code == 0
    text = file.read_text()
    assert "# - has.dot: a plan cannot name 'has.dot'" in text
    assert "# - lonely: no foreign key leads from it to users" in text
    again = desk.call("init", *options, "-o", str(file), plan=False)
    assert again.code == 2
    assert "exists; it was not overwritten" in again.err
    assert file.read_text() == text
    assert desk.call("init", *options, plan=False).out == text
    run = desk.call("run", str(file), "--approve", "swap", plan=False)
    assert run.code == 0, run.all[-3000:] + text
    assert desk.ask("""SELECT count(*) FROM "odd "": {name} #" WHERE "ten: ant" = 1""") == 1


def test_a_key_of_several_columns_is_a_question_and_its_children_are_filled_later(
    database: str, tmp_path: Path
) -> None:
    """The order of the fill holds over stages: a child never before its parent."""
    desk = Desk(folder=tmp_path, dsn=database)
    desk.run_sql(COMPOSITE)
    file = tmp_path / "new.yaml"
    options = arguments("tenant_id", "tenants", ("users",), "public")
    assert desk.call("init", *options, "-o", str(file), plan=False).code == 0
    assert "# QUESTION: lines reaches its owner by lines_a_b_fkey (a, b)" in file.read_text()
    run = desk.call("run", str(file), "--approve", "swap", plan=False)
    assert run.code == 0, run.all[-3000:] + file.read_text()
    assert desk.ask("SELECT count(*) FROM parts WHERE tenant_id = 1") == 1


COMPOSITE = """
CREATE TABLE tenants (id int PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE users (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE lines (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, FOREIGN KEY (a, b) REFERENCES users);
CREATE TABLE parts (id int PRIMARY KEY, line_id int NOT NULL REFERENCES lines);
INSERT INTO users VALUES (1, 1);
INSERT INTO lines VALUES (1, 1, 1);
INSERT INTO parts VALUES (1, 1);"""


def test_a_partitioned_table_is_named_and_its_partitions_are_not(database: str, tmp_path: Path) -> None:
    """One without partitions too; a partition given as an option is an error that names the whole."""
    desk = Desk(folder=tmp_path, dsn=database)
    desk.run_sql(PARTITIONED)
    file = tmp_path / "new.yaml"
    options = arguments("tenant_id", "tenants", ("users",), "public")
    said = desk.call("init", *options, "-o", str(file), plan=False)
    assert said.code == 0, said.all
    sets = read_plan(file).table_sets
    assert {name: s.tables for name, s in sets.items()} == {"owned": ["users", "empty", "events", "notes"]}
    assert "events_2" not in file.read_text().partition("plan:")[2]
    check = desk.call("check", str(file), plan=False)
    assert check.code == 0, check.all[-3000:]
    assert "foreign keys but are not in it" not in check.out, "the partitions are changed with the whole"
    run = desk.call("run", str(file), "--approve", "swap", plan=False)
    assert run.code == 0, run.all[-3000:] + file.read_text()
    assert desk.ask("SELECT count(*) FROM events WHERE tenant_id = 1") == 2
    assert desk.ask("SELECT count(*) FROM notes WHERE tenant_id = 1") == 1
    for option in ("--root", "--exclude"):
        refused = desk.call("init", *options, option, "events_2a", plan=False)
        assert refused.code == 2, refused.all
        assert f"next: give {option} events" in refused.err


PARTITIONED = """
CREATE TABLE tenants (id int PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE users (id int PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE users_0 PARTITION OF users FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE events (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users) PARTITION BY RANGE (id);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE events_2a PARTITION OF events_2 DEFAULT;
CREATE TABLE empty (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users) PARTITION BY RANGE (id);
CREATE TABLE notes (id int PRIMARY KEY, event_id int NOT NULL REFERENCES events);
INSERT INTO users VALUES (1);
INSERT INTO events VALUES (1, 1), (11, 1);
INSERT INTO notes VALUES (1, 11);"""


def make_owners(desk: Desk, file: str, schema: str) -> None:
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        connection.execute(f'SET search_path = "{schema}"'.encode())
        connection.execute((desk.folder / file).read_bytes())
