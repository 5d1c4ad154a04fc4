"""k: a check never asks for a lock that an application could wait for, or wait behind."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Final

import psycopg
import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import COLUMN_ROWS_KEY, EITHER, PARENT_AND_TABLE, RUNS, Case
from tests.operations.site import plan_of

WAITING: Final = """
    SELECT relation::regclass || ': ' || mode FROM pg_locks
    WHERE NOT granted AND locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname =
      current_database())"""
HOLDING: Final = "LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE"
"""as VACUUM does: whatever is stronger than ROW EXCLUSIVE waits for it; an application's statements do not"""


class Watch(threading.Thread):
    """Which lock requests of other sessions were seen waiting, asked every 5 ms."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self._dsn = dsn
        self._over = threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._over.is_set():
                self.seen.update(row[0] for row in connection.execute(WAITING.encode()).fetchall())
                sleep(0.005)

    def stop(self) -> set[str]:
        self._over.set()
        self.join()
        return self.seen


@contextmanager
def live(dsn: str, tables: str) -> Iterator[Watch]:
    """Tables that an application reads and writes, its transaction open, beside a vacuum."""
    with psycopg.connect(dsn) as vacuum, psycopg.connect(dsn) as application:
        vacuum.execute(HOLDING.format(tables).encode())
        application.execute(f"LOCK TABLE {tables} IN ROW EXCLUSIVE MODE".encode())
        watch = Watch(dsn)
        watch.start()
        try:
            yield watch
        finally:
            watch.stop()
            vacuum.rollback()
            application.rollback()


PARTITIONED = """
    CREATE TABLE pt (id int, d date) PARTITION BY RANGE (d); CREATE TABLE pt_def PARTITION OF pt DEFAULT;
    INSERT INTO pt SELECT g, date '2020-01-01' + g % 1000 FROM generate_series(1, 3000) g; ANALYZE;"""
FILE = plan_of("create_tables: new.sql")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "CREATE TABLE pt_2030 PARTITION OF pt FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');", id="k1"
        ),
        pytest.param("CREATE TABLE heir () INHERITS (pt_def);", id="k1-inherits"),
        pytest.param("CREATE TABLE alike (LIKE pt INCLUDING ALL);", id="k1-like"),
        pytest.param("CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES parent);", id="k1-references"),
        pytest.param(
            "CREATE TABLE n (id int); CREATE TABLE alike (LIKE n); CREATE TABLE c (n int REFERENCES parent);",
            id="k1-several",
        ),
    ],
)
def test_k1_a_rehearsal_never_asks_a_live_table_for_a_lock(trial_of: OpenTrial, text: str) -> None:
    """No request of check waits, so nothing queues behind it: a new partition, an heir, a foreign key
    into a live parent.
    """
    setup = PARTITIONED + "CREATE TABLE parent (id int PRIMARY KEY);"
    trial = trial_of(Case(name="k1", setup=setup, plan=FILE, files={"new.sql": text}))
    with live(trial.admin.dsn, "pt, pt_def, parent") as watch:
        said = trial.call("check")
    assert not watch.seen, f"{watch.seen}\n{said.all}"
    assert said.code in EITHER, said.all


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "CREATE TABLE pt_2030 PARTITION OF pt FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');",
            id="k2-partition",
        ),
        pytest.param("CREATE TABLE heir () INHERITS (pt_def);", id="k2-inherits"),
        pytest.param("CREATE TABLE alike (LIKE pt INCLUDING ALL);", id="k2-like"),
    ],
)
def test_k2_what_check_lets_pass_runs_by_declared_locks(trial_of: OpenTrial, text: str) -> None:
    """A table that is made from a live one runs through a lock window that says its locks, or is
    refused when it is read.
    """
    case = Case(name="k2", setup=PARTITIONED, plan=FILE, files={"new.sql": text}, check=EITHER, run=RUNS)
    trial = trial_of(case)
    trial.prove(case)


OPERATIONS = (
    pytest.param(COLUMN_ROWS_KEY, id="k3-column-rows-key"),
    pytest.param(
        ("add_column: {table: t, column: c, type: text, new_rows: x, instant: true}",), id="k3-instant"
    ),
    pytest.param(
        (
            "create_index: {table: t, name: new_unique, columns: [code, id], unique: true}",
            "swap_unique: {table: t, from: [code], to: new_unique}",
        ),
        id="k3-swap",
    ),
    pytest.param(
        ("set_not_null: {table: t, column: code}", "drop_default: {table: t, column: code}"), id="k3-not-null"
    ),
    pytest.param(("ensure_row: {id: one, table: p, where: {id: 7}}", "analyze: {table: t}"), id="k3-row"),
    pytest.param(("create_tables: new.sql",), id="k3-tables"),
)


@pytest.mark.parametrize("steps", OPERATIONS)
def test_k3_no_operation_asks_for_a_lock_at_check(trial_of: OpenTrial, steps: tuple[str, ...]) -> None:
    """Every operation's check beside an application that writes, a reader, and a vacuum: no request waits."""
    files = {"new.sql": "CREATE TABLE n (id int PRIMARY KEY, p int REFERENCES p);"}
    trial = trial_of(Case(name="k3", setup=PARENT_AND_TABLE, plan=plan_of(*steps), files=files))
    with live(trial.admin.dsn, "p, t") as watch:
        said = trial.call("check")
    assert not watch.seen, f"{watch.seen}\n{said.all}"
    assert said.code == 0, said.all


REFUSES_THE_COPY = """
    CREATE FUNCTION naming() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE '%rehearsal%.p')
      THEN RAISE EXCEPTION 'not in this schema'; END IF; END $$;
    CREATE EVENT TRIGGER naming ON ddl_command_end EXECUTE FUNCTION naming();"""


def test_k4_a_parent_without_a_copy_is_not_locked_instead(trial_of: OpenTrial) -> None:
    """The server refuses the parent's copy: the name would be found in the plan's schema, and the live parent
    locked until the rehearsal ends.
    """
    files = {"new.sql": "CREATE TABLE n (id int PRIMARY KEY, p int REFERENCES p);"}
    setup = PARENT_AND_TABLE + REFUSES_THE_COPY
    trial = trial_of(Case(name="k4", setup=setup, plan=FILE, files=files))
    with live(trial.admin.dsn, "p, t") as watch:
        said = trial.call("check")
    assert not watch.seen, f"{watch.seen}\n{said.all}"
    assert re.search("not rehearsed on the copy of n: p has no copy", said.all), said.all


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("NEW.code := touched(NEW.code);", id="k5"),
        pytest.param('NEW.code := public."touched" (NEW.code);', id="k5-quoted"),
        pytest.param("NEW.code := nextval('touches');", id="k5-sequence"),
    ],
)
def test_k5_a_rehearsal_fires_no_trigger_that_calls_a_function_that_may_write(
    trial_of: OpenTrial, call: str
) -> None:
    """The function would write, and lock, what is live, as would nextval."""
    setup = f"""{PARENT_AND_TABLE}
        CREATE SEQUENCE touches;
        CREATE FUNCTION touched(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 || nextval('touches') $$;
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {call} RETURN NEW; END $$;
        CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();"""
    trial = trial_of(Case(name="k5", setup=setup, plan=plan_of(*COLUMN_ROWS_KEY)))
    said = trial.call("check")
    assert trial.ask("SELECT is_called FROM touches") is False, said.all
    assert re.search("not rehearsed on the copy of t: trigger touch", said.all), said.all


def test_k6_a_rehearsed_row_calls_no_default_that_may_write(trial_of: OpenTrial) -> None:
    """A default that is a function of the database's users: it may write, and lock, what is live."""
    setup = """
        CREATE SEQUENCE keys;
        CREATE FUNCTION next_key() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('keys') $$;
        CREATE TABLE p (id bigint PRIMARY KEY DEFAULT next_key(), code text UNIQUE);"""
    plan = plan_of("ensure_row: {id: one, table: p, where: {code: a}}")
    trial = trial_of(Case(name="k6", setup=setup, plan=plan))
    said = trial.call("check")
    assert trial.ask("SELECT is_called FROM keys") is False, said.all
    assert re.search("not rehearsed on the copy of p: a default of id", said.all), said.all


@pytest.mark.parametrize(
    "value", [pytest.param("touched(code)", id="k7"), pytest.param("nextval('touches')", id="k7-sequence")]
)
def test_k7_a_rehearsed_batch_calls_no_function_that_may_write(trial_of: OpenTrial, value: str) -> None:
    """The run alone executes such an expression; SET NOT NULL after it is not refused for that."""
    setup = f"""{PARENT_AND_TABLE}
        CREATE SEQUENCE touches;
        CREATE FUNCTION touched(text) RETURNS int LANGUAGE sql AS $$ SELECT nextval('touches')::int $$;"""
    steps = (
        "add_column: {table: t, column: c, type: integer, new_rows: 1}",
        f'backfill: {{table: t, column: c, value: {{sql: "{value}"}}}}',
        "set_not_null: {table: t, column: c}",
    )
    trial = trial_of(Case(name="k7", setup=setup, plan=plan_of(*steps)))
    said = trial.call("check")
    assert said.code == 0, said.all
    assert trial.ask("SELECT is_called FROM touches") is False, said.all
    assert re.search("not rehearsed on the copy of t: the expression", said.all), said.all
