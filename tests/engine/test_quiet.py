"""Write coverage over a table set: the tables wait for their quiet time together,
each from its own last row.
"""

from __future__ import annotations

import threading

import pytest

from tests.desk import Desk, small_text

QUIET = "backfill: {tables: owned, column: bot_id, value: <master.id>, quiet: 3s}"
LAST_ROW_TO_END = """
SELECT min(extract(epoch FROM ended_at - moved_at))::float8
  FROM online_migrate.step JOIN online_migrate.cursor USING (run_id, stage, step, table_name)"""
ALL = (
    "SELECT extract(epoch FROM max(ended_at) - min(started_at))::float8 FROM online_migrate.step WHERE"
    " step LIKE 'backfill%'"
)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_tables_of_a_step_wait_together(desk: Desk, workers: int) -> None:
    """Four tables at 3 s are no 12 s, and none is done before its time."""
    text = small_text(pace=f"{{workers: {workers}}}")
    desk.write(text.replace("backfill: {tables: owned, column: bot_id, value: <master.id>}", QUIET))
    assert QUIET in (desk.folder / desk.plan).read_text()
    said = desk.call("run", "--through", "backfill")
    assert said.code == 0, said.all
    assert desk.ask(LAST_ROW_TO_END) >= 3.0
    assert desk.ask(ALL) < 8.0


def test_a_late_row_begins_the_time_anew(desk: Desk) -> None:
    """It is given its value at the next proof, and its table waits once more."""
    desk.write(small_text().replace("backfill: {tables: owned, column: bot_id, value: <master.id>}", QUIET))
    child = desk.start("--through", "backfill")
    desk.await_true("SELECT to_regclass('online_migrate.history') IS NOT NULL", child)
    desk.await_true(
        "SELECT EXISTS (SELECT FROM online_migrate.history WHERE event = 'wait_started' AND fields ->>"
        " 'kind' = 'soak')",
        child,
    )
    writer = threading.Timer(
        0.5, desk.run_sql, ["UPDATE users SET bot_id = NULL WHERE id = (SELECT max(id) FROM users)"]
    )
    writer.start()
    assert child.wait() == 0, child.said
    writer.join()
    assert desk.ask("SELECT count(*) FROM users WHERE bot_id IS NULL") == 0
    assert desk.ask(f"{LAST_ROW_TO_END} WHERE table_name = 'users'") >= 3.0
    assert (
        desk.ask(
            "SELECT count(*) FROM online_migrate.history WHERE event = 'late_rows' AND table_name = 'users'"
        )
        >= 1
    )


def test_a_table_that_fails_takes_no_other_along(desk: Desk) -> None:
    """Those that have passed and wait for their proof are not failed, be there one worker or two.  The
    trigger spares the copy on which `check` tries the UPDATE.
    """
    last = desk.ask("SELECT max(id) FROM promocodes")
    desk.run_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF tg_relid = 'public.promocodes'::regclass AND new.id = tg_argv[0]::int THEN"
        " RAISE 'no such code' USING ERRCODE = '23514'; END IF; RETURN new; END$$",
        f"CREATE TRIGGER refuse BEFORE UPDATE ON promocodes FOR EACH ROW EXECUTE FUNCTION refuse({last})",
    )
    desk.write(small_text().replace("backfill: {tables: owned, column: bot_id, value: <master.id>}", QUIET))
    said = desk.call("run", "--through", "backfill")
    assert said.code == 5, said.all
    failed = "SELECT array_agg(table_name) FROM online_migrate.step WHERE state = 'failed'"
    assert desk.ask(failed) == ["promocodes"]
    assert desk.ask("SELECT count(*) FROM online_migrate.step WHERE state = 'running'") == 2
    desk.run_sql("DROP FUNCTION refuse CASCADE")
    assert desk.call("run", "--through", "backfill").code == 0
    assert desk.ask(failed) is None
