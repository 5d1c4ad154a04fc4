"""i, l: what does not fit is found before the run; a build that fails leaves nothing behind."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import EITHER, RUNS, STOPS, Case
from tests.operations.site import plan_of

INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
NOISE = "(SELECT string_agg(md5(i::text || 'x'), '') FROM generate_series(1, {0}) i)"
CODE = (
    "CREATE TABLE pc (id int PRIMARY KEY, bot_id bigint NOT NULL DEFAULT 1, code text NOT NULL{0});"
    " INSERT INTO pc SELECT 1, 1, "
)
LONG = CODE.format(" UNIQUE") + NOISE.format(84) + ";"
LONGER = (
    CODE.format("")
    + NOISE.format(200)
    + "; INSERT INTO pc SELECT g, 1, 'c' || g FROM generate_series(2, 2000) g;"
)
TWO = (
    LONGER.replace("code text NOT NULL", "code text NOT NULL, other text")
    + "UPDATE pc SET other = left(code, 1400), code = left(code, 1400) WHERE id = 1;"
)


@pytest.mark.parametrize(
    ("setup", "columns"),
    [
        pytest.param(LONG, "[bot_id, code], unique: true", id="i1"),
        pytest.param(LONGER, "[code]", id="i1-one-row-of-many"),
        pytest.param(TWO, "[other, code]", id="i1-two-columns-together"),
    ],
)
def test_i1_a_key_that_is_too_long_for_an_index_stops_check(
    trial_of: OpenTrial, setup: str, columns: str
) -> None:
    """An index tuple has at most a third of a page: the longest keys of the table are tried before hours of a
    build.
    """
    plan = plan_of(f"create_index: {{table: pc, name: pc_bot_code, columns: {columns}}}")
    case = Case(name="i1", setup=setup, plan=plan, check=STOPS, says=("pc",), run=None)
    trial_of(case).prove(case)


def test_i1_a_long_value_that_compresses_is_no_obstacle(trial_of: OpenTrial) -> None:
    """What PostgreSQL compresses into the tuple fits: check stops nothing, and the index is valid."""
    setup = CODE.format("") + "repeat('x', 8000);"
    plan = plan_of("create_index: {table: pc, name: pc_bot_code, columns: [bot_id, code]}")
    trial_of(Case(name="i1", setup=setup, plan=plan)).prove(
        Case(name="i1", setup=setup, plan=plan, check=RUNS, after={INVALID: 0})
    )


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("INSERT INTO pc SELECT 2, 1, 'same' UNION ALL SELECT 3, 1, 'same'", id="i3-duplicates"),
        pytest.param("INSERT INTO pc SELECT 2, 1, " + NOISE.format(200), id="i3-too-long"),
    ],
)
def test_i3_a_build_that_fails_after_check_leaves_nothing_invalid(trial_of: OpenTrial, sql: str) -> None:
    """Rows written between check and run make the build fail: it ends with a remedy, not with exit 1, and no
    invalid index stays.
    """
    setup = CODE.format("") + "'c';"
    stages = """
plan: harness
stages:
  - stage: before
    steps:
      - add_column: {table: pc, column: extra, type: integer}
  - stage: build
    steps:
      - create_index: {table: pc, name: pc_bot_code, columns: [bot_id, code], unique: true}
"""
    trial = trial_of(Case(name="i3", setup=setup, plan=stages))
    assert trial.call("check").code == 0
    started = trial.call("run", "--through", "before")
    assert started.code == 0, started.all
    trial.admin.run_sql(sql)
    said = trial.call("run")
    assert said.code not in (0, 1), f"exit {said.code}\n{said.all}"
    assert trial.ask(INVALID) == 0
    assert "pc" in said.all


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        pytest.param("timestamptz", "infinity", "infinity", id="i2"),
        pytest.param("timestamp", "-infinity", "-infinity", id="i2-minus-infinity"),
        pytest.param("date", "infinity", "infinity", id="i2-date"),
        pytest.param("timestamptz", "4713-01-01 00:00:00+00 BC", "BC", id="i2-before-christ"),
        pytest.param("timestamp", "294276-12-31 23:59:59", "294276", id="i2-far-future"),
        pytest.param("numeric", "NaN", "NaN", id="i2-nan"),
        pytest.param("interval", "178000000 years", "178000000", id="i2-interval"),
        pytest.param("time", "24:00:00", "24:00:00", id="i2-midnight"),
        pytest.param("int4range", "[1,)", r"\[1,", id="i2-range"),
        pytest.param("text", "\x1b[31mred", "red", id="i2-escape-sequence"),
        pytest.param("bytea", r"\xdeadbeef", "deadbeef", id="i2-bytes"),
        pytest.param("inet", "10.0.0.1/8", "10.0.0.1", id="i2-address"),
    ],
)
def test_i2_duplicates_are_shown_whatever_their_type(
    trial_of: OpenTrial, kind: str, value: str, says: str
) -> None:
    """Two rows with one key are a finding with the value in PostgreSQL's own spelling, and no control
    character reaches a terminal.
    """
    setup = (
        f"CREATE TABLE prices (id int PRIMARY KEY, bot_id int NOT NULL DEFAULT 1, valid_to {kind});"
        f"INSERT INTO prices VALUES (1, 1, '{value}'), (2, 1, '{value}');"
    )
    plan = plan_of("create_index: {table: prices, name: u, columns: [bot_id, valid_to], unique: true}")
    case = Case(name="i2", setup=setup, plan=plan, check=STOPS, says=(says,), never=("\x1b",))
    trial_of(case).prove(case)


COLUMN = plan_of("add_column: {table: users, column: bot_id, type: integer, new_rows: 1}")
DROPPED = """
    CREATE TABLE users (id int PRIMARY KEY, name text);
      INSERT INTO users SELECT g, 'u' || g FROM generate_series(1, 5) g;
    DO $$ BEGIN FOR i IN 1..1598 LOOP EXECUTE 'ALTER TABLE {0} ADD COLUMN x int';
                                      EXECUTE 'ALTER TABLE {0} DROP COLUMN x'; END LOOP; END $$;"""


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(DROPPED.format("users"), id="l1"),
        pytest.param(
            "CREATE TABLE users (id int); CREATE TABLE heir () INHERITS (users);"
            "DO $$" + DROPPED.format("heir").partition("DO $$")[2].replace("1..1598", "1..1599"),
            id="l1-of-an-heir",
        ),
    ],
)
def test_l1_dropped_columns_count_towards_the_limit(trial_of: OpenTrial, setup: str) -> None:
    """A table has at most 1,600 columns, the dropped ones included, and so has each table below it."""
    case = Case(name="l1", setup=setup, plan=COLUMN, check=STOPS, says=("(?i)column", "users"))
    trial_of(case).prove(case)


WIDE = """
    DO $$ BEGIN EXECUTE (SELECT 'CREATE TABLE wide (id bigint PRIMARY KEY,' || string_agg('c' || g || '
      bigint DEFAULT 1', ',') || ')'
                         FROM generate_series(1, {0}) g); END $$;
    INSERT INTO wide (id) SELECT g FROM generate_series(1, 3) g;"""
HALF_EMPTY = """
    DO $$ BEGIN EXECUTE (SELECT 'UPDATE wide SET ' || string_agg('c' || g || ' = NULL', ',') || ' WHERE id
      > 1'
                         FROM generate_series(1, 500) g); END $$;"""
OUT_OF_LINE = """
    CREATE TABLE wide (id int PRIMARY KEY, t text);
    INSERT INTO wide SELECT g, repeat(md5(g::text), 2000) FROM generate_series(1, 3) g;"""
WIDE_PLAN = plan_of(
    "add_column: {table: wide, column: bot_id, type: integer, new_rows: 1}",
    "backfill: {table: wide, column: bot_id, value: 1}",
)
FILLED = {"SELECT count(*) FROM wide WHERE bot_id = 1": 3}


@pytest.mark.parametrize(
    ("setup", "codes"),
    [
        pytest.param(WIDE.format(1016), STOPS, id="l2"),
        pytest.param(WIDE.format(1016) + HALF_EMPTY, STOPS, id="l2-one-row"),
        pytest.param(WIDE.format(1000), RUNS, id="l2-with-room"),
        pytest.param(OUT_OF_LINE, RUNS, id="l2-out-of-line"),
    ],
)
def test_l2_the_widest_row_must_have_room_for_another_column(
    trial_of: OpenTrial, setup: str, codes: tuple[int, ...]
) -> None:
    """A row has 8,160 bytes in its page: where the widest has no room, the application's own INSERT would
    fail, and check stops.
    """
    case = Case(name="l2", setup=setup, plan=WIDE_PLAN, check=codes, after=FILLED)
    trial_of(case).prove(case)


FULL = """
    CREATE TABLE bots (id {0} PRIMARY KEY, name text); INSERT INTO bots (name) VALUES ('other');
    SELECT setval(pg_get_serial_sequence('bots', 'id'), {1});"""
ROW = plan_of("ensure_row: {id: master, table: bots, where: {name: master}}")


@pytest.mark.parametrize(
    ("kind", "last", "codes"),
    [
        pytest.param("smallserial", 32767, STOPS, id="l3"),
        pytest.param("int GENERATED BY DEFAULT AS IDENTITY", 2147483647, STOPS, id="l3-identity"),
        pytest.param("smallserial", 32766, RUNS, id="l3-one-is-left"),
        pytest.param("serial", 1, RUNS, id="l3-in-the-middle"),
    ],
)
def test_l3_a_sequence_at_its_end_gives_no_row(
    trial_of: OpenTrial, kind: str, last: int, codes: tuple[int, ...]
) -> None:
    """ensure_row takes a value of the key's sequence: one that has none left stops check, and check itself
    takes none.
    """
    case = Case(name="l3", setup=FULL.format(kind, last), plan=ROW, check=codes, run=None)
    trial = trial_of(case)
    trial.prove(case)
    assert trial.ask("SELECT last_value FROM bots_id_seq") == last
    if codes == RUNS:
        said = trial.call("run")
        assert said.code == 0, said.all


def test_l4_a_table_with_more_partitions_than_locks(trial_of: OpenTrial) -> None:
    """A change of a root locks every leaf at once: check compares them with max_locks_per_transaction, or the
    run succeeds.
    """
    setup = """
        CREATE TABLE users (id int) PARTITION BY LIST (id);
        DO $$ BEGIN FOR i IN 1..400 LOOP
          EXECUTE format('CREATE TABLE users_%s PARTITION OF users FOR VALUES IN (%s)', i, i); END LOOP;
            END $$;"""
    case = Case(name="l4", setup=setup, plan=COLUMN, check=EITHER)
    trial_of(case).prove(case)
