"""A row that the server will not change is found, however it came to be written, and named without its
values.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from benchmarks.workbench import begin_journal, workbench
from online_migrate.backfill.refused_rows import is_about_rows
from online_migrate.backfill.values import Constant, Expression
from online_migrate.backfill.worker import Backfill
from online_migrate.errors import VerificationFailed
from online_migrate.events import Event, LateRows
from online_migrate.plan.model import Pace
from tests.backfill.plans import Ears, run_plan
from tests.backfill.tables import ask, do, make_table, session

SMALL = Pace.model_construct(duty=1.0, min_rows=50, max_rows=200)
SACRED = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF old.id = 77 AND old.c IS NULL AND NOT old.v = 1
    THEN RAISE 'row 77 is sacred' USING DETAIL = 'filler = ' || old.filler; END IF;
  RETURN new; END $$;
CREATE {} TRIGGER refuse {} UPDATE ON t {} FOR EACH ROW EXECUTE FUNCTION refuse()"""
AT_ONCE = SACRED.format("", "BEFORE", "")
NOT_REHEARSED = AT_ONCE.replace("BEGIN\n", "BEGIN PERFORM 1;\n", 1)
"""`check` fires no trigger that may write, or call what may; the others refuse their row on its copies"""
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
    """The batch is split until the row is found, also where only COMMIT refuses it; all before it is done and
    stays done.
    """
    make_table(database, 1_000, more=f"{more}; {trigger}")
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with workbench(database, "t", pace=SMALL, begun=begun) as context:
        with pytest.raises(
            VerificationFailed, match=f"c of the row with {name} cannot be filled: row 77 is sacred"
        ) as caught:
            Backfill(context, table="t", column="c", value=Constant.of(1)).run()
        assert "xxx" not in str(caught.value), "DETAIL may hold a row's values"
    done = int(str(ask(database, "SELECT count(*) FROM t WHERE c = 1")))
    assert done == ask(database, "SELECT rows_done FROM online_migrate.cursor")
    do(database, MENDED)
    with workbench(database, "t", pace=SMALL, begun=begun) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 1_000
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


@pytest.mark.parametrize("sqlstate", ["SHOP1", "42501", "38000", "54000", "P0001"])
def test_whatever_sqlstate_a_trigger_raises_its_row_is_found(database: str, sqlstate: str) -> None:
    """The application's own too: the row is named, not only what the server said."""
    raising = AT_ONCE.replace("USING DETAIL", f"USING ERRCODE = '{sqlstate}', DETAIL")
    make_table(database, 300, more=raising)
    with (
        workbench(database, "t", pace=SMALL) as context,
        pytest.raises(
            VerificationFailed, match="c of the row with id = 77 cannot be filled: row 77 is sacred"
        ),
    ):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()


@pytest.mark.parametrize("sqlstate", ["53100", "58030", "XX000", "57P01"])
def test_what_the_machine_or_an_operator_did_is_no_row_s_fault(sqlstate: str) -> None:
    """A full disk, an I/O error, a server that is going down: no row is looked for."""
    assert not is_about_rows(psycopg.errors.lookup(sqlstate)())


def test_a_statement_that_fails_without_any_row_blames_none(database: str) -> None:
    """The server's own words, and no key of a row that happens to be the first."""
    make_table(database, 300)
    with (
        workbench(database, "t", pace=SMALL) as context,
        pytest.raises(psycopg.errors.UndefinedColumn, match="gone"),
    ):
        Backfill(context, table="t", column="c", value=Expression(text="gone")).run()


def test_row_security_that_comes_after_check_is_an_error(database: str, clerk: str) -> None:
    """It would hide rows, and the proof would find nothing: row_security = off says so instead."""
    make_table(database, 300)
    do(database, f"GRANT ALL ON t TO {psycopg.conninfo.conninfo_to_dict(clerk)['user']}")
    with session(clerk) as connection:
        begun = begin_journal(connection, ["t"])
    with workbench(clerk, "t", pace=SMALL, begun=begun) as context:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commit = work._writer.commit

        def hiding(*args: object) -> None:
            commit(*args)  # type: ignore[arg-type]
            work._writer.commit = commit  # type: ignore[method-assign]
            do(database, "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (id < 10)")

        work._writer.commit = hiding  # type: ignore[assignment,method-assign]
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            work.run()
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 300 - int(
        str(ask(database, "SELECT rows_done FROM online_migrate.cursor"))
    )


def test_a_row_behind_a_lock_is_not_blamed_for_another_s_error(database: str) -> None:
    """Nothing is known of what could not be tried."""
    make_table(database, 20)
    with workbench(database, "t") as context, psycopg.connect(database) as holder:
        writer = Backfill(context, table="t", column="c", value=Constant.of(1))._writer
        holder.execute("LOCK TABLE t IN SHARE MODE")
        assert writer.probe(sql.SQL("id = 1")) is None


def test_rows_that_are_refused_together_are_told_with_their_page(database: str) -> None:
    """Each alone goes through: no row is blamed, and the server's message is reported."""
    make_table(
        database,
        300,
        more="""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF (SELECT count(*) FROM changed) > 1 THEN RAISE 'one at a time'; END IF; RETURN NULL; END
                    $$;
                CREATE TRIGGER refuse AFTER UPDATE ON t REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
                  EXECUTE FUNCTION refuse()""",
    )
    with (
        workbench(database, "t", pace=SMALL) as context,
        pytest.raises(
            VerificationFailed, match="c of rows of page 0 cannot be filled together: one at a time"
        ),
    ):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()


class UntilLate(Ears):
    """Ends the lock on a row once the sweep has found it."""

    def __init__(self, holder: psycopg.Connection[Any]) -> None:
        super().__init__()
        self._holder = holder

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, LateRows):
            self._holder.rollback()


def test_a_late_row_that_is_refused_is_named_too(database: str) -> None:
    """It was locked when the pass came by, and is met by the sweep: the same words, the same exit code."""
    make_table(database, 200, more=NOT_REHEARSED)
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM t WHERE id = 77 FOR UPDATE")
        ears = UntilLate(holder)
        with pytest.raises(
            VerificationFailed, match="c of the row with id = 77 cannot be filled: row 77 is sacred"
        ):
            run_plan(database, "backfill: {table: t, column: c, value: 1}", ears=ears)
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 1
    do(database, MENDED)
    run_plan(database, "backfill: {table: t, column: c, value: 1}")
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0
