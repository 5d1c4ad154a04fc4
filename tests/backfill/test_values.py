"""What a row gets: constants, parents' values, expressions, and what check says where a value cannot be derived."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from online_migrate.backfill.hazards.row_reads import find_rows
from online_migrate.backfill.value_params import FromParentParams, value_of
from online_migrate.backfill.values import Constant, Expression, Reference
from online_migrate.errors import PlanError, PreflightFailed
from online_migrate.findings import (
    Severity,
)
from online_migrate.postgres.connection import Connector
from tests.backfill.plans import findings_of, plan_of, run_plan
from tests.backfill.tables import ask, do

SHOP = """
CREATE TABLE users (id integer PRIMARY KEY, c integer);
CREATE TABLE subscriptions (id integer PRIMARY KEY, user_id integer NOT NULL REFERENCES users);
CREATE TABLE uses (id integer PRIMARY KEY, subscription_id integer, amount integer, c integer);
INSERT INTO users SELECT n, CASE WHEN n % 5 > 0 THEN n % 3 + 1 END FROM generate_series(1, 300) n;
INSERT INTO subscriptions SELECT n, n % 300 + 1 FROM generate_series(1, 600) n;
INSERT INTO uses SELECT n, n % 600 + 1, n FROM generate_series(1, 3000) n;
"""
TWO_JOINS = "{from: [{table: subscriptions, on: subscription_id}, {table: users, on: user_id, column: c}]}"
USERS = "backfill: {table: users, column: c, value: 9, other_owners: allowed}"
USES = f"backfill: {{table: uses, column: c, value: {TWO_JOINS}}}"
WRONG = "SELECT count(*) FROM uses x JOIN subscriptions s ON s.id = x.subscription_id JOIN users u ON u.id = s.user_id WHERE x.c IS DISTINCT FROM u.c"


@pytest.fixture
def bound(database: str) -> str:
    """Users, their subscriptions, and uses of these: two joins from a use to its user."""
    do(
        database,
        SHOP,
        "ALTER TABLE uses ALTER subscription_id SET NOT NULL, ADD FOREIGN KEY (subscription_id) REFERENCES subscriptions",
    )
    return database


@pytest.fixture
def loose(database: str) -> str:
    """The same without the last foreign key, and with three rows that have no parent."""
    do(
        database,
        SHOP,
        "UPDATE uses SET subscription_id = NULL WHERE id = 7",
        "UPDATE uses SET subscription_id = 9999 WHERE id IN (8, 9)",
    )
    return database


def test_a_row_gets_its_parent_s_value_two_joins_away(bound: str) -> None:
    """Parents first, then their children: every use has its user's value."""
    run_plan(bound, USERS, USES)
    assert ask(bound, WRONG) == 0
    assert ask(bound, "SELECT count(*) FROM uses WHERE c IS NULL") == 0


def test_a_key_that_the_schema_promises_is_not_looked_at(bound: str) -> None:
    """NOT NULL and validated foreign keys say that every row has a parent: check reads no rows."""
    codes = findings_of(bound, USERS, USES)
    assert not {c for c, f in codes.items() if f.severity in (Severity.STOP, Severity.WARN)} - {"superuser"}


def test_rows_without_a_parent_stop_the_check(loose: str) -> None:
    """They are named by their keys, and nothing is run."""
    found = findings_of(loose, USERS, USES)["no_value"]
    assert found.severity is Severity.STOP
    assert "id = 7; id = 8; id = 9" in found.fact
    with pytest.raises(PreflightFailed):
        run_plan(loose, USERS, USES)


def test_a_row_that_has_its_value_already_needs_no_parent(loose: str) -> None:
    """The application has set it: nothing is to be derived, so nothing is said."""
    do(loose, "UPDATE uses SET c = 5 WHERE id IN (7, 8, 9)")
    assert "no_value" not in findings_of(loose, USERS, USES)
    run_plan(loose, USERS, USES)
    assert ask(loose, "SELECT count(*) FROM uses WHERE c IS NULL") == 0


def test_a_parent_without_a_value_stops_the_check(bound: str) -> None:
    """Every use has a user, but a fifth of the users have nothing to give, and the plan fills them nowhere."""
    found = findings_of(bound, USES)["no_value"]
    assert found.severity is Severity.STOP
    assert "users.c is NULL, or they have no parent there: id = " in found.fact
    assert "no_value" not in findings_of(bound, USES.replace(", column: c}]", ", column: c}], else: 5"))
    do(bound, "UPDATE users SET c = 1 WHERE c IS NULL")
    assert "no_value" not in findings_of(bound, USES)


def test_a_parent_s_column_that_the_plan_adds_is_to_be_filled_first(bound: str) -> None:
    """Added and never filled: all children would take NULL; with a value for old rows it is filled."""
    do(bound, "ALTER TABLE users DROP c")
    add = "add_column: {table: users, column: c, type: integer, new_rows: 7"
    assert findings_of(bound, f"{add}}}", USES)["parent_never_filled"].severity is Severity.STOP
    assert "parent_never_filled" not in findings_of(bound, f"{add}, instant: true}}", USES)
    assert "parent_never_filled" not in findings_of(bound, f"{add}}}", USERS, USES)


def test_a_join_on_a_column_that_the_plan_adds_is_looked_at_later(bound: str) -> None:
    """There is nothing to read yet; check says no more than it knows."""
    uses = USES.replace("on: subscription_id", "on: other_id")
    found = findings_of(
        bound, "add_column: {table: uses, column: other_id, type: integer, new_rows: none}", uses
    )
    assert not {"no_value", "values_unverified", "unknown_column"} & found.keys()


def test_a_look_for_rows_that_takes_too_long_says_so(loose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large table is not read to its end at check."""
    monkeypatch.setattr("online_migrate.backfill.hazards.row_reads.READ_TIMEOUT_MS", 50)
    value = "{sql: 'id + CASE WHEN pg_sleep(0.01) IS NULL THEN NULL ELSE 0 END'}"
    found = findings_of(loose, f"backfill: {{table: uses, column: c, value: {value}}}")
    assert found["values_unverified"].severity is Severity.WARN
    assert "`else:`" in found["values_unverified"].remedy


@pytest.mark.parametrize("lacking", ["users", "uses"], ids=["the parent's", "the table's"])
def test_rows_that_may_not_be_read_are_not_looked_at(loose: str, clerk: str, lacking: str) -> None:
    """The missing right is named, not met; of a parent, reading is enough."""
    user = str(psycopg.conninfo.conninfo_to_dict(clerk)["user"])
    do(loose, *(f"GRANT ALL ON {t} TO {user}" for t in {"users", "subscriptions", "uses"} - {lacking}))
    found = findings_of(clerk, USES)
    assert found["table_right"].severity is Severity.STOP
    rights = "SELECT" if lacking == "users" else "SELECT, UPDATE"
    assert found["table_right"].remedy == f"GRANT {rights} ON public.{lacking} TO {user}"
    assert "no_value" not in found
    do(loose, found["table_right"].remedy)
    assert "no_value" in findings_of(clerk, USES)


def test_else_is_for_rows_without_a_parent(loose: str) -> None:
    """They get what the plan names, the others their parent's."""
    value = TWO_JOINS[:-1] + ", else: 77}"
    run_plan(loose, USERS, f"backfill: {{table: uses, column: c, value: {value}}}")
    assert ask(loose, "SELECT array_agg(id ORDER BY id) FROM uses WHERE c = 77") == [7, 8, 9]
    assert ask(loose, WRONG) == 0


def test_parents_first(bound: str) -> None:
    """A child before its parent would take NULL from it: check refuses the order."""
    assert findings_of(bound, USES, USERS)["parent_filled_later"].severity is Severity.STOP


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(
            "{from: {table: subscriptions, on: subscription_id, column: no}}",
            "unknown_column",
            id="no such column",
        ),
        pytest.param(
            "{from: {table: nobody, on: subscription_id, column: c}}", "unknown_parent", id="no such table"
        ),
        pytest.param(
            "{from: {table: subscriptions, on: amount, key: user_id, column: id}}",
            "ambiguous_parent",
            id="several parents",
        ),
        pytest.param("abc", "invalid_value", id="a constant of another type"),
        pytest.param("{sql: \"'x' || amount\"}", "invalid_value", id="an expression of another type"),
        pytest.param("{sql: 'generate_series(1, amount)'}", "invalid_value", id="several values"),
        pytest.param("{sql: '1); DELETE FROM uses; SELECT (1'}", "invalid_value", id="more than a value"),
        pytest.param(
            "{from: {table: named, on: subscription_id, column: name}}",
            "invalid_value",
            id="a parent's column of another type",
        ),
        pytest.param("{sql: amount +}", "invalid_value", id="an expression that cannot be read"),
        pytest.param(
            "{sql: nosuch + 1}", "invalid_value", id="an expression over a column that is not there"
        ),
    ],
)
def test_a_value_that_cannot_be_is_found_at_check(bound: str, value: str, code: str) -> None:
    """With what is wrong, before anything is run."""
    do(bound, "CREATE TABLE named (id integer PRIMARY KEY, name text)")
    found = findings_of(bound, f"backfill: {{table: uses, column: c, value: {value}}}")
    assert found[code].severity is Severity.STOP
    assert ask(bound, "SELECT count(*) FROM uses") == 3_000


def test_what_stands_in_a_row_stands_in_no_finding(bound: str) -> None:
    """Findings go to the journal and to the report; the server's own words quote the row."""
    do(bound, "ALTER TABLE uses ADD mail text DEFAULT 'ann@example.org'")
    found = findings_of(bound, "backfill: {table: uses, column: c, value: {sql: 'mail::integer'}}")
    assert found["value_error"].fact.endswith(
        "a row's value cannot be derived: InvalidTextRepresentation (22P02)"
    )


def test_a_look_for_rows_is_one_statement(bound: str) -> None:
    """Whatever an expression of the plan holds, nothing leaves the transaction that may write nothing."""
    both = sql.Composed([sql.SQL("SELECT '(0,1)'; "), sql.SQL("SELECT '(0,2)'")])
    with Connector(dsn=bound).open("test") as connection, pytest.raises(psycopg.errors.SyntaxError):
        find_rows(connection, both)


def test_a_constant_that_the_column_cannot_take_is_found_at_check(bound: str) -> None:
    """Not at row 1: of a column that exists, and of one that the plan adds."""
    fill = "backfill: {table: uses, column: %s, value: %s}"
    fact = findings_of(bound, fill % ("c", "abc"))["invalid_value"].fact
    assert fact == "uses.c cannot be set to 'abc': invalid input syntax for type integer: \"abc\""
    add = "add_column: {table: uses, column: d, type: integer}"
    assert findings_of(bound, add, fill % ("d", "abc"))["invalid_value"].severity is Severity.STOP
    assert "invalid_value" not in findings_of(bound, add, fill % ("d", "7"))
    assert "invalid_value" not in findings_of(bound, fill % ("c", "'7'"))


@pytest.mark.parametrize(
    ("of_type", "value", "words"),
    [
        ("integer", "{sql: what}", "is of type integer but expression is of type text"),
        ("integer", "{sql: \"'x' || what\"}", "is of type integer but expression is of type text"),
        ("numeric(4,2)", "{sql: '123456.789'}", "numeric field overflow"),
        ("varchar(3)", "hello", "value too long for type character varying(3)"),
        ("smallint", "{sql: '70000'}", "smallint out of range"),
        ("integer", "{from: {table: named, on: id, column: name}}", "is of type integer but expression"),
    ],
)
def test_a_value_that_a_planned_column_cannot_take_is_found_at_check(
    bound: str, of_type: str, value: str, words: str
) -> None:
    """The column does not exist yet, and its type is known: the run would add it, and fail then."""
    do(bound, "ALTER TABLE uses ADD what text", "CREATE TABLE named (id integer PRIMARY KEY, name text)")
    do(bound, "INSERT INTO named SELECT id, 'a' FROM uses")
    add = f"add_column: {{table: uses, column: zz, type: '{of_type}'}}"
    fill = f"backfill: {{table: uses, column: zz, value: {value}}}"
    found = findings_of(bound, add, fill)["invalid_value"]
    assert found.severity is Severity.STOP
    assert words in found.fact
    assert found.remedy == "correct `value`"


@pytest.mark.parametrize("is_planned", [True, False])
def test_a_row_whose_value_is_too_long_is_found_at_check(bound: str, is_planned: bool) -> None:
    """Text of some length into varchar(3): an UPDATE refuses it, and so does check; rows that have a value are not asked."""
    do(bound, "ALTER TABLE uses ADD what text; UPDATE uses SET what = 'it''s' WHERE id = 2900")
    add = ["add_column: {table: uses, column: zz, type: varchar(3)}"] * is_planned
    do(bound, *["ALTER TABLE uses ADD zz varchar(3)"] * (not is_planned))
    fill = "backfill: {table: uses, column: zz, value: {sql: what, else: a}}"
    found = findings_of(bound, *add, fill)["value_error"]
    assert found.severity is Severity.STOP
    assert "does not fit zz " in found.fact
    assert "value too long for type character varying(3)" in found.fact
    assert "value_error" not in findings_of(bound, *add, fill.replace("what,", "\"replace(what, 's', '')\","))
    do(bound, *["UPDATE uses SET zz = 'b' WHERE id = 2900"] * (not is_planned))
    assert ("value_error" in findings_of(bound, *add, fill)) is is_planned


@pytest.mark.parametrize(
    "value",
    [
        "{sql: public.uses.amount}",
        "{sql: of_row(uses)}",
        "{sql: other + 1}",
        "{sql: of_row(uses) + other}",
    ],
)
def test_a_value_that_a_planned_column_takes_is_not_refused(bound: str, value: str) -> None:
    """Also where it names the table as only the table itself is named, or another column that is still to be added."""
    do(
        bound,
        "CREATE FUNCTION of_row(uses) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
    )
    found = findings_of(
        bound,
        "add_column: {table: uses, column: other, type: integer, new_rows: 1}",
        "add_column: {table: uses, column: zz, type: integer}",
        f"backfill: {{table: uses, column: zz, value: {value}}}",
    )
    assert not {c for c, f in found.items() if f.severity is Severity.STOP}
    assert ask(bound, "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'") == 0


def test_a_constant_without_its_parent_is_found_at_check(bound: str) -> None:
    """A foreign key on the column asks for the row that it names; not where the plan makes rows there, nor where no row is left."""
    do(
        bound,
        "CREATE TABLE bots (id integer PRIMARY KEY, n text); INSERT INTO bots VALUES (1, 'a')",
        "ALTER TABLE uses ADD FOREIGN KEY (c) REFERENCES bots",
    )
    fill = "backfill: {table: uses, column: c, value: 2}"
    found = findings_of(bound, fill)["no_value"]
    assert found.severity is Severity.STOP
    assert (
        "bots has no row with id = 2, which foreign key uses_c_fkey requires: id = 1; id = 2; id = 3"
        in found.fact
    )
    assert "no_value" not in findings_of(bound, fill.replace("value: 2", "value: 1"))
    row = "ensure_row: {id: second, table: bots, where: {id: 2}}"
    assert "no_value" not in findings_of(bound, row, fill)
    do(bound, "UPDATE uses SET c = 1")
    assert "no_value" not in findings_of(bound, fill)


def test_a_value_is_verified_behind_another_sessions_lock(bound: str) -> None:
    """Another session builds an index: reading continues, and so does check, which takes no stronger lock."""
    fill = "backfill: {table: uses, column: c, value: %s}"
    with psycopg.connect(bound) as other:
        other.execute("LOCK TABLE uses IN EXCLUSIVE MODE")
        assert "values_unverified" not in findings_of(bound, fill % 1)
        assert findings_of(bound, fill % "no number")["invalid_value"].severity is Severity.STOP


def test_a_table_that_is_called_as_its_parent_s_alias_would_be(bound: str) -> None:
    """The reference to the row is the row's, although the parent has a column of that name."""
    do(
        bound,
        "ALTER TABLE users ADD user_id integer; UPDATE users SET c = id, user_id = id",
        "CREATE TABLE parent1 (id integer PRIMARY KEY, user_id integer NOT NULL REFERENCES users, c integer)",
        "INSERT INTO parent1 SELECT n, n % 300 + 1 FROM generate_series(1, 300) n",
    )
    run_plan(
        bound, "backfill: {table: parent1, column: c, value: {from: {table: users, on: user_id, column: c}}}"
    )
    assert ask(bound, "SELECT count(*) FROM parent1 WHERE c IS DISTINCT FROM user_id") == 0


def test_a_partitioned_parent_whose_leaves_are_filled_has_its_value(database: str) -> None:
    """Its rows are its leaves': all filled above is filled, one left out or filled below is not."""
    do(
        database,
        "CREATE TABLE users (id integer PRIMARY KEY, c integer) PARTITION BY RANGE (id)",
        "CREATE TABLE users1 PARTITION OF users FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE users2 PARTITION OF users FOR VALUES FROM (10) TO (20)",
        "INSERT INTO users SELECT n FROM generate_series(0, 19) n",
        "CREATE TABLE uses (id integer PRIMARY KEY, user_id integer NOT NULL REFERENCES users, c integer)",
        "INSERT INTO uses SELECT n, n FROM generate_series(0, 19) n",
    )
    fill = "backfill: {{tables: [{}], column: c, value: 9}}"
    uses = "backfill: {table: uses, column: c, value: {from: {table: users, on: user_id, column: c}}}"
    wrong = {"no_value", "parent_filled_later", "parent_never_filled"}
    assert not wrong & findings_of(database, fill.format("users1, users2"), uses).keys()
    assert wrong & findings_of(database, fill.format("users1"), uses).keys() == {"no_value"}
    below = fill.format("users2").replace("9", "{sql: '9'}")
    assert wrong & findings_of(database, fill.format("users1"), uses, below).keys() == {"parent_filled_later"}
    run_plan(database, fill.format("users1, users2"), uses)
    assert ask(database, "SELECT count(*) FROM uses WHERE c = 9") == 20


def test_an_expression_over_the_row(bound: str) -> None:
    """Any expression of PostgreSQL's, percent signs included."""
    run_plan(bound, "backfill: {table: uses, column: c, value: {sql: 'amount % 10 + 1'}}")
    assert ask(bound, "SELECT count(*) FROM uses WHERE c IS DISTINCT FROM amount % 10 + 1") == 0


def test_an_expression_that_is_null_for_a_row_stops_the_check(bound: str) -> None:
    """Found before the first row is written, by its key; rows that have a value are none of its business."""
    fill = "backfill: {table: uses, column: c, value: {sql: 'nullif(amount % 1000, 0)'}}"
    found = findings_of(bound, fill)["no_value"]
    assert found.severity is Severity.STOP
    assert "(nullif(amount % 1000, 0)) is NULL: id = 1000; id = 2000; id = 3000" in found.fact
    with pytest.raises(PreflightFailed):
        run_plan(bound, fill)
    do(bound, "UPDATE uses SET c = 1 WHERE amount % 1000 = 0")
    assert "no_value" not in findings_of(bound, fill)


def test_an_expression_that_fails_for_a_row_stops_the_check(bound: str) -> None:
    """With what the server says; a sequence is not asked, since asking would use its numbers up."""
    found = findings_of(bound, "backfill: {table: uses, column: c, value: {sql: 10 / (amount - 7)}}")
    assert found["value_error"].severity is Severity.STOP
    assert "division by zero" in found["value_error"].fact
    do(bound, "CREATE SEQUENCE numbers")
    fill = "backfill: {table: uses, column: c, value: {sql: \"nextval('numbers')::integer\"}}"
    assert not {f.code for f in findings_of(bound, fill).values() if f.severity is Severity.STOP}
    assert ask(bound, "SELECT is_called FROM numbers") is False


def test_an_expression_that_is_null_for_a_row_takes_else(bound: str) -> None:
    """coalesce, so that no row is left."""
    run_plan(bound, "backfill: {table: uses, column: c, value: {sql: 'nullif(amount % 2, 0)', else: 5}}")
    assert ask(bound, "SELECT count(*) FROM uses WHERE c = 5") == 1_500


@pytest.mark.parametrize(
    "value",
    [
        "{from: {table: users, on: user_id}}",
        "{from: []}",
        "{from: [{table: a, on: a_id, column: x}, {table: b, on: b_id, column: y}]}",
        "{form: {table: users, on: user_id, column: c}}",
        "{sql: ''}",
    ],
)
def test_a_value_that_makes_no_sense_is_a_mistake_of_the_plan(value: str) -> None:
    """Exit 2, before any database is asked."""
    with pytest.raises(PlanError):
        plan_of(f"backfill: {{table: t, column: c, value: {value}}}")


def test_the_sql_of_a_value() -> None:
    """What explain prints: one lookup of the parent's key per row, names quoted."""
    params = FromParentParams.model_validate(
        {"from": {"table": "users", "on": "user_id", "column": "bot_id"}, "else": 1}
    )
    value = value_of(params, schema="public", constant=Constant.of)
    assert value.as_sql("t").as_string(None) == (
        '(coalesce((SELECT "parent1"."bot_id" FROM "public"."users" "parent1"'
        ' WHERE "parent1"."id" OPERATOR("pg_catalog".=) "t"."user_id"), 1))'
    )
    assert Expression(text="a + 1").as_sql("t").as_string(None) == "(a + 1)"
    assert Constant.of(1).as_sql("t").as_string(None) == "1"


def test_whether_a_value_is_constant_or_known_follows_from_its_type() -> None:
    """A text that begins with a parenthesis is a constant all the same; a reference without its row is not known."""
    assert Constant.of("(a)").is_constant
    assert not Expression(text="1").is_constant
    master = Reference(name="master.id")
    assert master.is_constant
    assert not master.is_known
    assert not Expression(text="a", otherwise=master).is_known
    assert Expression(text="a", otherwise=Constant.of(1)).is_known
    assert master.as_sql("t").as_string(None) == "<master.id>"


def test_a_constant_in_angle_brackets_is_text(bound: str) -> None:
    """Only a whole `<name>` is a reference: `<b>Hi</b>` is what the rows are given."""
    do(bound, "ALTER TABLE uses ADD h text")
    run_plan(bound, "backfill: {table: uses, column: h, value: '<b>Hi</b>'}")
    assert ask(bound, "SELECT count(*) FROM uses WHERE h = '<b>Hi</b>'") == 3_000


def test_pace_is_no_part_of_the_fingerprint() -> None:
    """An operator may slow a run down in the middle of a night without being asked to accept a changed plan."""
    from online_migrate.operations.registry import OPERATIONS
    from online_migrate.plan.load import load

    texts = [
        f"plan: p\nstages:\n  - stage: one\n{pace}    steps:\n      - backfill: {{table: t, column: c, value: 1}}\n"
        for pace in ("", "    pace: {batch_target: 20ms, duty: 25%, max_wal: 1MiB}\n")
    ]
    first, second = (load(t, OPERATIONS, path=Path("p.yaml")) for t in texts)
    assert first.stages[0].pace != second.stages[0].pace
    assert first.fingerprint() == second.fingerprint()


def test_leaf_partitions_are_filled_one_by_one(database: str) -> None:
    """Each is a table of its own, keyed or not; the root itself has no rows."""
    do(
        database,
        "CREATE TABLE t (id integer NOT NULL, c integer) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (1000)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (1000) TO (2000)",
        "INSERT INTO t SELECT n FROM generate_series(0, 1999) n",
    )
    run_plan(database, "backfill: {tables: [t1, t2], column: c, value: {sql: id * 2}}")
    assert ask(database, "SELECT count(*) FROM t WHERE c IS DISTINCT FROM id * 2") == 0
