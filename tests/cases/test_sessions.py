"""c: a session of ours sets what it relies on, whatever role and database have set."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import COLUMN_ROWS_KEY, EITHER, PARENT_AND_TABLE, Case
from tests.operations.site import plan_of

USERS = (
    "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users SELECT g, 'u' || g FROM"
    " generate_series(1, 50) g;"
)
USERS_PLAN = plan_of(
    "add_column: {table: users, column: bot_id, type: integer, new_rows: 1}",
    "backfill: {table: users, column: bot_id, value: 1}",
    "set_not_null: {table: users, column: bot_id}",
)
FILLED = "SELECT count(*) FROM users WHERE bot_id = 1"


@pytest.mark.parametrize(
    "encoding",
    [
        pytest.param("SQL_ASCII", id="c1"),
        pytest.param("LATIN1", id="c1-latin1"),
        pytest.param("EUC_JP", id="c1-euc"),
    ],
)
def test_c1_a_database_of_another_encoding_works_or_check_says_so(trial_of: OpenTrial, encoding: str) -> None:
    """Not a crash: the plan runs to its end, or check stops it with the encoding's name."""
    case = Case(
        name="c1",
        setup=USERS,
        plan=USERS_PLAN,
        encoding=encoding,
        check=EITHER,
        stops_with=(encoding,),
        after={FILLED: 50},
    )
    trial_of(case).prove(case)


@pytest.mark.parametrize(
    ("encoding", "setup"),
    [
        pytest.param(
            "LATIN1",
            'CREATE TABLE "Büro" (id int PRIMARY KEY); INSERT INTO "Büro" VALUES (1);',
            id="c1-latin1-name",
        ),
        pytest.param(
            "SQL_ASCII",
            'CREATE TABLE "Büro" (id int PRIMARY KEY); INSERT INTO "Büro" VALUES (1);',
            id="c1-ascii-name",
        ),
    ],
)
def test_c1_names_and_notes_beyond_ascii(trial_of: OpenTrial, encoding: str, setup: str) -> None:
    """A table's name and a gate's text in another alphabet come out as they went in, or check says what does
    not work.
    """
    plan = plan_of(
        "add_column: {table: Büro, column: größe, type: integer, new_rows: 1}",
        "backfill: {table: Büro, column: größe, value: 1}",
        stage="gate: {approval: für Größe}",
    )
    case = Case(name="c1", setup=setup, plan=plan, encoding=encoding)
    trial = trial_of(case)
    said = trial.call("check")
    assert said.code in EITHER, said.all
    if said.code != 0:
        assert encoding in said.all, said.all
        return
    assert trial.call("run").code != 0, "the gate is closed"
    approved = trial.call("approve", "here", "--note", "für Größe ✓")
    assert approved.code == 0, approved.all
    run = trial.call("run")
    assert run.code == 0, run.all
    assert "für Größe" in trial.ask("SELECT string_agg(a::text, ' ') FROM online_migrate.approval a")


HARD_PLAN = plan_of(
    *COLUMN_ROWS_KEY,
    "set_not_null: {table: t, column: c}",
    "create_index: {table: t, name: t_c_code, columns: [c, code], unique: true}",
    "swap_unique: {table: t, from: [code], to: t_c_code}",
    "add_column: {table: t, column: note, type: text, new_rows: 'a\\b''c'}",
    "add_column: {table: t, column: at, type: timestamptz, new_rows: '2026-01-31 12:00:00+00'}",
    "backfill: {table: t, column: at, value: '2026-01-31 12:00:00+00'}",
    "add_column: {table: t, column: share, type: double precision}",
    "backfill: {table: t, column: share, value: {sql: 'id / 3.0'}}",
    "analyze: {table: t}",
)
HARD_AFTER = {
    "SELECT count(*) FROM t WHERE c = 1 AND at = '2026-01-31T12:00:00Z' AND share > 0": 500,
    "SELECT count(*) FROM pg_constraint WHERE conname = 't_c_fkey' AND convalidated": 1,
    "SELECT count(*) FROM pg_attrdef WHERE pg_get_expr(adbin, adrelid) LIKE '%a\\\\b''''c%'": 1,
}
SETTINGS = (
    pytest.param("standard_conforming_strings", "off", id="c2"),
    pytest.param("DateStyle", "German, DMY", id="c2-datestyle"),
    pytest.param("IntervalStyle", "sql_standard", id="c2-intervalstyle"),
    pytest.param("bytea_output", "escape", id="c2-bytea"),
    pytest.param("extra_float_digits", "-15", id="c2-float-digits"),
    pytest.param("client_encoding", "LATIN1", id="c2-client-encoding"),
    pytest.param("search_path", "", id="c2-empty-path"),
    pytest.param("default_transaction_isolation", "serializable", id="c2-serializable"),
    pytest.param("default_transaction_read_only", "on", id="c2-read-only"),
    pytest.param("statement_timeout", "5s", id="c2-statement-timeout"),
    pytest.param("lock_timeout", "1ms", id="c2-lock-timeout"),
    pytest.param("idle_session_timeout", "5s", id="c2-idle-session"),
    pytest.param("quote_all_identifiers", "on", id="c2-quoted"),
    pytest.param("array_nulls", "off", id="c2-array-nulls"),
    pytest.param("TimeZone", "Asia/Kathmandu", id="c2-time-zone"),
    pytest.param("transform_null_equals", "on", id="c2-null-equals"),
    pytest.param("default_transaction_deferrable", "on", id="c2-deferrable"),
    pytest.param("enable_seqscan", "off", id="c2-no-seqscan"),
)


@pytest.mark.parametrize(("setting", "value"), SETTINGS)
def test_c2_what_a_database_sets_changes_nothing(trial_of: OpenTrial, setting: str, value: str) -> None:
    """The whole plan runs to the same end whatever the database has as its default of a setting."""
    setup = f"{PARENT_AND_TABLE} ALTER DATABASE om_database SET {setting} = '{value}';"
    case = Case(name="c2", setup=setup, plan=HARD_PLAN)
    trial = trial_of(case)
    trial.prove(case)
    name = trial.ask("SELECT current_database()")
    trial.admin.run_sql("SET default_transaction_read_only = off", f"ALTER DATABASE {name} RESET {setting}")
    assert {query: trial.ask(query) for query in HARD_AFTER} == HARD_AFTER
