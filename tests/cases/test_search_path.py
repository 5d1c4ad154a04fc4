"""s: the users' own code finds what it finds for the application."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import PARENT_AND_TABLE, RUNS, Case
from tests.operations.site import plan_of

PATH = (
    "ALTER DATABASE om_database SET search_path = public, extensions; SET search_path = public, extensions;"
)
PLAIN = """CREATE FUNCTION extensions.plain(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT translate(t, 'ü', 'u') $$;"""
NORM = f"""
    CREATE SCHEMA extensions; {PATH}
    {PLAIN}
    CREATE FUNCTION norm(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN
      lower(plain(t)); END $$;
    CREATE TABLE users (id int PRIMARY KEY, name text, bot_id int, other text);
    INSERT INTO users SELECT g, 'ü' || g FROM generate_series(1, 500) g;"""
FILL = "backfill: {table: users, column: bot_id, value: 1}"
TRIGGER = """
    CREATE FUNCTION normal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.other := plain(NEW.name);
      RETURN NEW; END $$;
    CREATE TRIGGER normal BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION normal();"""
UNACCENT = NORM.replace(PLAIN, "CREATE EXTENSION unaccent SCHEMA extensions;").replace(
    "plain(t)", "unaccent(t)"
)


@pytest.mark.parametrize(
    ("setup", "steps"),
    [
        pytest.param(
            UNACCENT + ("CREATE INDEX ON users (norm(name));"), (FILL, "analyze: {table: users}"), id="s1"
        ),
        pytest.param(
            NORM + ("CREATE STATISTICS st ON (norm(name)), id FROM users;"),
            (FILL, "analyze: {table: users}"),
            id="s1-statistics",
        ),
        pytest.param(
            NORM + "CREATE INDEX ON users (id) WHERE norm(name) = 'u1';",
            (FILL, ("create_index: {table: users, name: i, columns: [bot_id]}")),
            id="s1-partial-index",
        ),
        pytest.param(NORM + "ALTER TABLE users ADD CHECK (norm(name) <> '');", (FILL,), id="s1-check"),
        pytest.param(
            NORM + ("ALTER TABLE users ADD g text GENERATED ALWAYS AS (norm(name)) STORED;"),
            (FILL,),
            id="s1-generated",
        ),
        pytest.param(
            NORM
            + (
                "CREATE DOMAIN named AS text CHECK (norm(VALUE) <> ''); ALTER TABLE users ALTER"
                " name TYPE named;"
            ),
            (FILL, "set_not_null: {table: users, column: name}"),
            id="s1-domain",
        ),
        pytest.param(NORM + TRIGGER, (FILL,), id="s1-trigger"),
        pytest.param(
            NORM
            + (
                "ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON users USING"
                " (norm(name) <> '');"
            ),
            (FILL, "verify_owner: {tables: [users], column: bot_id}"),
            id="s1-policy",
        ),
    ],
)
def test_s1_expressions_of_the_users_find_their_functions(
    trial_of: OpenTrial, setup: str, steps: tuple[str, ...]
) -> None:
    """Index, statistics, check, generated column, domain, trigger, policy: each runs with the path that the
    database has.
    """
    fact = "SELECT count(*) FROM users WHERE bot_id = 1"
    case = Case(name="s1", setup=setup, plan=plan_of(*steps), check=RUNS, after={fact: 500})
    trial_of(case).prove(case)


EXT = f"""{PARENT_AND_TABLE}
    CREATE SCHEMA ext; CREATE FUNCTION ext.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
    CREATE TYPE ext.pair AS (a int, b int);
      CREATE FUNCTION ext.plus(int, text) RETURNS int LANGUAGE sql AS 'SELECT $1';
    CREATE OPERATOR ext.|+| (LEFTARG = int, RIGHTARG = text, FUNCTION = ext.plus);
    CREATE TABLE ext.known (id int); INSERT INTO ext.known VALUES (7);"""
ON_DATABASE = "ALTER DATABASE om_database SET search_path = public, ext;"


@pytest.mark.parametrize(
    ("more", "value", "role"),
    [
        pytest.param(ON_DATABASE, "f(id)", "", id="s2"),
        pytest.param("", "ext.f(id)", "", id="s2-with-its-schema"),
        pytest.param(ON_DATABASE, "id |+| code", "", id="s2-operator"),
        pytest.param(ON_DATABASE, "(row(id, 1)::pair).a", "", id="s2-type"),
        pytest.param(ON_DATABASE, "(SELECT max(k.id) FROM known k)", "", id="s2-table"),
        pytest.param(
            "ALTER ROLE om_role_path SUPERUSER; ALTER ROLE om_role_path SET search_path = public, ext;",
            "f(id)",
            "om_role_path",
            id="s2-path-of-the-role",
        ),
        pytest.param(
            "ALTER ROLE om_role_path SUPERUSER; ALTER ROLE om_role_path IN DATABASE om_database SET"
            " search_path = ext, public;",
            "f(id)",
            "om_role_path",
            id="s2-path-of-role-and-database",
        ),
    ],
)
def test_s2_a_value_expression_finds_what_the_database_has_on_its_path(
    trial_of: OpenTrial, more: str, value: str, role: str
) -> None:
    """Functions, operators, types and tables of another schema on the path of role and database are found, at
    check and in the run.
    """
    plan = plan_of(
        "add_column: {table: t, column: c, type: integer}",
        f'backfill: {{table: t, column: c, value: {{sql: "{value}"}}}}',
    )
    fact = "SELECT count(*) FROM t WHERE c IS NULL"
    case = Case(name="s2", setup=EXT + more, plan=plan, role=role, check=RUNS, after={fact: 0})
    trial_of(case).prove(case)
