"""A row that the server will not change is found, however it came to be written, and named without its values."""

from __future__ import annotations

import threading

import psycopg
import pytest

from benchmarks.workbench import begin_journal, workbench
from online_migrate.backfill.worker import Backfill
from online_migrate.errors import VerificationFailed
from online_migrate.plan.model import Pace
from tests.backfill.plans import run_plan
from tests.backfill.tables import ask, do, make_table, session

SMALL = Pace.model_construct(duty=1.0, min_rows=50, max_rows=200)
SACRED = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF old.id = 77 AND old.c IS NULL AND NOT old.v = 1 THEN RAISE 'row 77 is sacred' USING DETAIL = 'filler = ' || old.filler; END IF;
  RETURN new; END $$;
CREATE {} TRIGGER refuse {} UPDATE ON t {} FOR EACH ROW EXECUTE FUNCTION refuse()"""
AT_ONCE = SACRED.format("", "BEFORE", "")
AT_COMMIT = SACRED.format("CONSTRAINT", "AFTER", "DEFERRABLE INITIALLY DEFERRED")
MENDED = "SET session_replication_role = replica; UPDATE t SET v = 1 WHERE id = 77"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        pytest.param("", "id = 77", id="by its key"),
        pytest.param(
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (user_id, id)",
            "user_id = 77, id = 77",
            id="by a key of two",
        ),
        pytest.param("ALTER TABLE t DROP CONSTRAINT t_pkey", r"ctid = \(\d+,\d+\)", id="by its place"),
    ],
)
@pytest.mark.parametrize("trigger", [AT_ONCE, AT_COMMIT], ids=["at once", "at commit"])
def test_the_run_stops_at_the_row_and_goes_on_after_it_is_mended(
    database: str, more: str, name: str, trigger: str
) -> None:
    """The batch is split until the row is found, also where only COMMIT refuses it; all before it is done and stays done."""
    make_table(database, 1_000, more=f"{more}; {trigger}")
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with workbench(database, "t", pace=SMALL, begun=begun) as bench:
        with pytest.raises(
            VerificationFailed, match=f"the row {name} cannot be given c: row 77 is sacred"
        ) as caught:
            Backfill(bench, table="t", column="c", value="1").run()
        assert "xxx" not in str(caught.value), "DETAIL may hold a row's values"
    done = int(str(ask(database, "SELECT count(*) FROM t WHERE c = 1")))
    assert done == ask(database, "SELECT rows_done FROM online_migrate.cursor")
    do(database, MENDED)
    with workbench(database, "t", pace=SMALL, begun=begun) as bench:
        assert Backfill(bench, table="t", column="c", value="1").run() == 1_000
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def test_rows_that_are_refused_together_are_told_with_their_page(database: str) -> None:
    """Each alone goes through: no row is blamed, and what the server says is told."""
    make_table(
        database,
        300,
        more="""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF (SELECT count(*) FROM changed) > 1 THEN RAISE 'one at a time'; END IF; RETURN NULL; END $$;
                CREATE TRIGGER refuse AFTER UPDATE ON t REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION refuse()""",
    )
    with (
        workbench(database, "t", pace=SMALL) as bench,
        pytest.raises(VerificationFailed, match="rows of page 0 cannot be given c together: one at a time"),
    ):
        Backfill(bench, table="t", column="c", value="1").run()


def test_a_late_row_that_is_refused_is_named_too(database: str) -> None:
    """It was locked when the pass came by, and is met by the sweep: the same words, the same exit code."""
    make_table(database, 200, more=AT_ONCE)
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM t WHERE id = 77 FOR UPDATE")
        timer = threading.Timer(0.8, holder.rollback)
        timer.start()
        with pytest.raises(VerificationFailed, match="the row id = 77 cannot be given c: row 77 is sacred"):
            run_plan(database, "backfill: {table: t, column: c, value: 1}")
        timer.join()
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 1
    do(database, MENDED)
    run_plan(database, "backfill: {table: t, column: c, value: 1}")
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0
