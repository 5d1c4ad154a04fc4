"""x: no stranger gets in through the runner, and nothing that is secret gets out."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import COLUMN_ROWS_KEY, PARENT_AND_TABLE, Case, Trial
from tests.operations.site import plan_of

MALLORY = f"""{PARENT_AND_TABLE} GRANT CREATE ON SCHEMA public TO om_role_mallory; SET ROLE om_role_mallory;
    CREATE SEQUENCE public.trap;
    CREATE FUNCTION public.spring() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
      BEGIN PERFORM pg_catalog.nextval('public.trap'::pg_catalog.regclass);
        EXCEPTION WHEN OTHERS THEN NULL; END;
      RAISE EXCEPTION 'a twin was called'; END $$;"""
FUNCTIONS = """
    pg_relation_size(oid) bigint|pg_table_size(oid) bigint|pg_indexes_size(oid) bigint
    pg_total_relation_size(oid) bigint
    quote_ident(name) text|pg_has_role(name, text, text) boolean|has_database_privilege(name, text) boolean
    unnest(text[]) text|unnest(name[]) text|unnest(int2[]) smallint|unnest(int2vector) smallint
    unnest(int4[]) integer
    array_to_string(name[], text) text|array_length(int2vector, int) int
    array_position(int2vector, smallint) int
    cardinality(name[]) int|generate_subscripts(int2vector, int) int|length(name) int|lower(name) text
    left(name, int) text
    split_part(name, text, int) text|replace(name, text, text) text|starts_with(name, text) boolean
    format(text, name) text|format(text, name, name) text|concat(name, text) text|concat(text, name) text
    pg_size_pretty(integer) text|pg_sleep(integer) void|set_config(text, text, boolean) text
    current_setting(name) text|to_regclass(name) regclass|pg_get_expr(pg_node_tree, regclass) text
    format_type(regtype, int) text|col_description(regclass, smallint) text
    obj_description(regclass, name) text
    has_table_privilege(regclass, text) boolean|has_schema_privilege(regnamespace, text) boolean
    greatest_of(int) int
    pg_get_constraintdef(regclass) text|pg_get_indexdef(regclass) text|pg_get_functiondef(regprocedure) text
    round(double precision, integer) numeric|ceil(bigint) bigint|floor(integer) integer|abs(oid) bigint
    to_char(bigint, name) text|regexp_replace(name, text, text) text|coalesce_of(name) text|hashtext(name) int
    date_trunc(name, timestamptz) timestamptz|age(timestamptz) interval|txid_status(xid8) text
    pg_try_advisory_lock(int) boolean|pg_advisory_xact_lock(int) void|pg_current_xact_id() xid8
    now() timestamptz
""".replace("\n", "|")
OPERATORS = """
    & smallint integer;= oid regclass;= regclass oid;<> oid regclass;= name text;= text name;<> name text
    = "char" text
    = text "char";<> "char" text;= smallint bigint;= integer oid;= oid integer;> bigint integer
    > integer bigint;- bigint integer
    - integer bigint;+ bigint integer;* integer double precision;/ bigint double precision;~~ name text
    ~ name text
    || name text;|| text name;|| text "char";= int2vector int2[];@> smallint[] smallint[]
    <@ smallint[] int2vector
    = xid integer;= tid text;>= tid text;< tid text;- timestamptz timestamptz;= boolean text
""".replace("\n", ";")


def twins() -> str:
    """Functions, operators, casts and relations that fit our calls better than pg_catalog's, each
    with the trap in it.
    """
    made = []
    for entry in filter(None, map(str.strip, FUNCTIONS.split("|"))):
        call, _, answer = entry.rpartition(") ")
        body = (
            "LANGUAGE sql AS 'SELECT NULL::{0} WHERE public.spring()'"
            if answer != "void"
            else "LANGUAGE sql AS 'SELECT public.spring()'"
        )
        made.append(
            f"CREATE FUNCTION public.{call})"
            f" RETURNS {answer.replace('void', 'boolean')} {body.format(answer)};"
        )
    for number, entry in enumerate(filter(None, map(str.strip, OPERATORS.split(";")))):
        symbol, left, *right = entry.replace("double precision", "float8").split(" ")
        name = f"public.twin_{number}"
        made.append(
            f"CREATE FUNCTION {name}({left}, {right[0]}) RETURNS boolean"
            " LANGUAGE sql AS 'SELECT public.spring()';"
        )
        made.append(
            f"CREATE OPERATOR public.{symbol} (LEFTARG = {left}, RIGHTARG = {right[0]}, FUNCTION = {name});"
        )
    relations = ("pg_class", "pg_attribute", "pg_stat_activity", "pg_locks", "pg_settings", "pg_roles")
    made += [f"CREATE VIEW public.{name} AS SELECT public.spring() AS oid;" for name in relations]
    return "".join(made)


PLAN = plan_of(
    *COLUMN_ROWS_KEY,
    "create_index: {table: t, name: t_c_code, columns: [c, code], unique: true}",
    "set_not_null: {table: t, column: c}",
    "drop_default: {table: t, column: c}",
    "swap_unique: {table: t, from: [code], to: t_c_code}",
    "ensure_row: {id: one, table: p, where: {id: 1}}",
    "create_tables: new.sql",
    "analyze: {table: t}",
    "verify_sql: look.sql",
)
FILES = {
    "new.sql": "CREATE TABLE n (id int PRIMARY KEY, p int REFERENCES p);",
    "look.sql": "-- name: rows\n-- expect: 500\nSELECT pg_catalog.count(*) FROM t;\n",
}


def assert_not_called(trial: Trial, said: str) -> None:
    assert "a twin was called" not in said, said[-3000:]
    assert not trial.ask("SELECT is_called FROM public.trap"), said[-3000:]


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param("pg_relation_size(oid) RETURNS bigint", id="x1"),
        pytest.param("pg_table_size(oid) RETURNS bigint", id="x1-table-size"),
        pytest.param("quote_ident(name) RETURNS text", id="x1-quote-ident"),
        pytest.param("pg_has_role(name, text, text) RETURNS boolean", id="x1-has-role"),
        pytest.param("has_database_privilege(name, text) RETURNS boolean", id="x1-has-privilege"),
        pytest.param("unnest(text[]) RETURNS SETOF text", id="x1-unnest"),
    ],
)
def test_x1_check_calls_no_function_of_the_plans_schema(trial_of: OpenTrial, twin: str) -> None:
    """A function whose types fit our call better than pg_catalog's is not called, by a check that is
    run as superuser.
    """
    answer = twin.rpartition(" ")[2]
    body = f"SELECT NULL::{answer} WHERE public.spring()"
    setup = f"{MALLORY} CREATE FUNCTION public.{twin} LANGUAGE sql AS '{body}';"
    trial = trial_of(Case(name="x1", setup=setup, plan=PLAN, files=FILES))
    said = trial.call("check")
    assert_not_called(trial, said.all)
    assert said.code == 0, said.all


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param((("check",),), id="x1-all-at-check"),
        pytest.param((("explain",), ("locks",)), id="x1-all-at-explain"),
        pytest.param((("run",), ("status",), ("verify",), ("report", "-o", "r.html")), id="x1-all-at-run"),
    ],
)
def test_x1_no_twin_is_called_by_any_command(
    trial_of: OpenTrial, commands: tuple[tuple[str, ...], ...]
) -> None:
    """Twins of functions, operators and relations that our SQL uses lie in the plan's schema: every
    command leaves them alone.
    """
    trial = trial_of(Case(name="x1", setup=MALLORY + twins(), plan=PLAN, files=FILES))
    for command in commands:
        said = trial.call(*command)
        assert_not_called(trial, said.all)
        assert said.code == 0, said.all


def test_x3_who_may_create_in_the_plans_schema_is_a_warning(trial_of: OpenTrial) -> None:
    """Where others than the owner may CREATE, as every role may up to 14, check names the schema and
    the REVOKE.
    """
    setup = f"{PARENT_AND_TABLE} GRANT CREATE ON SCHEMA public TO PUBLIC;"
    said = trial_of(Case(name="x3", setup=setup, plan=PLAN, files=FILES)).call("check")
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in said.all, said.all


def test_x3_a_superuser_is_told_that_it_need_not_be(trial_of: OpenTrial) -> None:
    """The plan needs its tables' owner and no more: check says so where it is run as a superuser."""
    said = trial_of(Case(name="x3", setup=PARENT_AND_TABLE, plan=PLAN, files=FILES)).call("check")
    assert "superuser" in said.all, said.all


STANDBYS = (
    pytest.param("postgresql://app:geheim@127.0.0.1:1/shop", id="x2"),
    pytest.param("host=127.0.0.1 port=1 user=app password=geheim dbname=shop", id="x2-key-value"),
    pytest.param("host=127.0.0.1 port=1 password='geheim with space'", id="x2-quoted"),
    pytest.param("postgresql://127.0.0.1:1/shop?user=app&password=geheim", id="x2-in-the-query"),
    pytest.param("postgresql://app:ge%68eim@127.0.0.1:1/shop", id="x2-percent"),
    pytest.param("postgresql://app:geheim@127.0.0.1:1,127.0.0.1:2/shop", id="x2-two-hosts"),
    pytest.param("host=127.0.0.1 port=1 sslpassword=geheim", id="x2-of-the-key"),
    pytest.param("postgresql://app:geheim@127.0.0.1:notaport/shop", id="x2-that-cannot-be-read"),
)


@pytest.mark.parametrize("standby", STANDBYS)
def test_x2_the_password_of_a_standby_is_nowhere(trial_of: OpenTrial, standby: str) -> None:
    """Whatever a command prints, logs or keeps about a standby that does not answer, its password is
    not in it.
    """
    head = f'locks: {{standbys: ["{standby}"]}}'
    plan = plan_of("analyze: {table: t}", head=head)
    trial = trial_of(Case(name="x2", setup=PARENT_AND_TABLE, plan=plan))
    said = [trial.call(command).all for command in ("explain", "check", "locks", "run", "status", "verify")]
    if trial.admin.has_journal():
        trial.call("report", "-o", "r.html")
        said.append((trial.desk.folder / "r.html").read_text())
        said.append(trial.ask("SELECT string_agg(r::text, ' ') FROM online_migrate.run r"))
    for text in said:
        assert "geheim" not in text, text
        assert "ge%68eim" not in text, text


def test_x4_a_terminal_obeys_no_name(trial_of: OpenTrial) -> None:
    """Control characters in a table's name are shown, not sent: a name cannot move the cursor or hide
    a line.
    """
    setup = f"""{PARENT_AND_TABLE}
        CREATE TABLE "evil\x1b[2J\x07" (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE);"""
    plan = plan_of(
        "add_column: {tables: owned, column: c, type: integer}",
        head="table_sets: {owned: {tables: [t], also: {referencing: t}}}",
    )
    trial = trial_of(Case(name="x4", setup=setup, plan=plan))
    said = trial.call("check").all + trial.call("run").all + trial.call("status").all
    assert "evil" in said
    assert "\x1b" not in said
    assert "\x07" not in said


def test_x5_a_value_that_may_be_a_secret_is_not_shown_among_duplicates(trial_of: OpenTrial) -> None:
    """The plan stores a secret in the column: duplicates there are counted, and their values are not
    printed.
    """
    setup = f"{PARENT_AND_TABLE} ALTER TABLE t ADD k text; UPDATE t SET k = 'geheim' WHERE id < 3;"
    plan = plan_of(
        "ensure_row: {id: one, table: t, where: {id: 1}, values: {k: <secret.token>}}",
        "create_index: {table: t, name: t_k, columns: [k], unique: true}",
        head="secrets: {token: {env: MASTER_BOT_TOKEN}}",
    )
    said = trial_of(Case(name="x5", setup=setup, plan=plan)).call("check")
    assert said.code == 3
    assert "((not shown)) 2 times" in said.all
    assert "geheim" not in said.all
