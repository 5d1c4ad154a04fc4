"""A batch stays out of the application's way whatever happens to its runner, its rows, and its statements."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from psycopg import sql

from benchmarks.workbench import Heard, begin_journal, workbench
from online_migrate.backfill import batch
from online_migrate.backfill.chunks import Position, Slice
from online_migrate.backfill.context import By
from online_migrate.backfill.rows import RowSet
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.errors import LeaseLost
from online_migrate.plan.model import Pace
from online_migrate.postgres.sqlstate import ErrorClass, error_class
from tests.backfill.tables import ask, do, make_table, session

SMALL = Pace.model_construct(duty=1.0, min_rows=50, max_rows=200)


def test_a_runner_that_stops_between_two_messages_keeps_no_row_lock(database: str) -> None:
    """Its rows are free again after a second, by the server itself; the session that ended for it is a loss,
    and is regained.
    """
    make_table(database, 500)
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with workbench(database, "t", pace=SMALL, begun=begun) as context:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commit, waited = work._writer.commit, []

        def stopped(*args: object) -> None:
            began = time.monotonic()
            do(database, "UPDATE t SET v = 1 WHERE id = 1")
            waited.append(time.monotonic() - began)
            commit(*args)  # type: ignore[arg-type]

        work._writer.commit = stopped  # type: ignore[assignment,method-assign]
        with pytest.raises(psycopg.Error) as caught:
            work.run()
    assert error_class(caught.value) is ErrorClass.LOST
    assert 0.5 < waited[0] < 5
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 0
    with workbench(database, "t", pace=SMALL, begun=begun) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 500


@pytest.mark.parametrize("sqlstate", ["25P03", "25P04"])
def test_the_server_s_bounds_of_a_transaction_are_losses(sqlstate: str) -> None:
    """25P03 and 25P04 end the session: what follows is reconnecting, not the end of the run."""
    assert error_class(psycopg.errors.lookup(sqlstate)()) is ErrorClass.LOST


def test_a_batch_has_bounds_of_its_own(database: str) -> None:
    """Each is there in the transaction, the transaction's own from 17 on, and none outlives it."""
    make_table(database, 10)
    with workbench(database, "t") as context:
        writer = Backfill(context, table="t", column="c", value=Constant.of(1))._writer
        context.work.execute(writer._settings(waiting_s=1.0))
        names = ["lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout"]
        wanted = ["50ms", "1s", "1s"]
        if context.work.info.server_version >= 170000:
            names, wanted = [*names, "transaction_timeout"], [*wanted, "5min"]
        shown = [context.work.execute(f"SHOW {n}").fetchone() for n in names]
        assert [s[0] for s in shown if s] == wanted
        context.work.execute("ROLLBACK")
        left = [context.work.execute(f"SHOW {n}").fetchone() for n in names[1:]]
        assert [s[0] for s in left if s] == ["1min", "0", "0"][: len(left)]


def test_a_batch_that_waits_again_and_again_takes_the_free_rows_instead(database: str) -> None:
    """No single wait is long, but their sum is: after a second the batch releases all and tries again,
    without waiting.
    """
    make_table(
        database,
        30,
        more="""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.045);
          RETURN new; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()""",
    )
    heard = Heard()
    with workbench(database, "t", emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 30
    (done,) = heard.of("batch_done")
    assert done.skipped_locked


def test_a_trigger_finds_what_the_database_s_search_path_shows(database: str) -> None:
    """The application's own path is that of a batch alone: its triggers work as they do elsewhere."""
    name = str(ask(database, "SELECT quote_ident(current_database())"))
    make_table(
        database,
        20,
        more="""CREATE SCHEMA app; CREATE TABLE app.seen (id bigint);
                CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen
                  VALUES (new.id); RETURN new; END $$;
                CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()""",
    )
    do(database, f"ALTER DATABASE {name} SET search_path = app, public", "CREATE TABLE app.t (id bigint)")
    with workbench(database, "t") as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 20
        assert context.work.execute("SHOW search_path").fetchone() == ("pg_catalog, pg_temp",)
    assert ask(database, "SELECT count(*) FROM app.seen") == 20


def test_a_cancelled_commit_is_done_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_cancel_backend while the cursor moves, or at COMMIT: that is not a take-over, however long it
    went before.
    """
    monkeypatch.setattr(batch, "CURSOR_LOCK_S", 0.0)
    make_table(
        database,
        500,
        more="""CREATE SEQUENCE nth;
                CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF nextval('nth') IN (120, 121) THEN PERFORM pg_cancel_backend(pg_backend_pid()),
                    pg_sleep(2); END IF; RETURN new;
                END $$;
                CREATE CONSTRAINT TRIGGER cut AFTER UPDATE
                  ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()""",
    )
    with workbench(database, "t", pace=SMALL) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 500
    assert ask(database, "SELECT rows_done FROM online_migrate.cursor") == 500
    assert int(str(ask(database, "SELECT last_value FROM nth"))) > 600


def test_a_cursor_that_stays_locked_is_another_s(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of a dead runner holds it: the time that we waited for rows before does not count."""
    monkeypatch.setattr(batch, "CURSOR_LOCK_S", 0.2)
    make_table(database, 100)
    with workbench(database, "t", pace=SMALL) as context, psycopg.connect(database) as zombie:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commits: list[float] = []
        commit = work._writer.commit

        def noting(*args: object) -> None:
            commits.append(time.monotonic())
            if len(commits) == 1:
                zombie.execute("SELECT FROM online_migrate.cursor FOR UPDATE")
            commit(*args)  # type: ignore[arg-type]

        work._writer.commit = noting  # type: ignore[assignment,method-assign]
        with pytest.raises(LeaseLost, match="dead runner"):
            work.run()
    assert len(commits) > 1


def test_row_locks_that_were_had_are_no_work(database: str) -> None:
    """Ten rows that are busy for 30 ms each make a batch long, and no later one smaller: what is learned is
    the work.
    """
    make_table(database, 2_000)
    busy = [psycopg.connect(database) for _ in range(10)]
    try:
        for n, holder in enumerate(busy):
            holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [100 * n + 50])
        with workbench(database, "t", pace=Pace.model_construct(duty=1.0, batch_target=0.05)) as context:
            writer = Backfill(context, table="t", column="c", value=Constant.of(1))._writer

            def letting_go() -> None:
                for holder in busy:
                    time.sleep(0.03)
                    holder.rollback()

            with writer.lock_waits:
                thread = threading.Thread(target=letting_go)
                thread.start()
                began = time.monotonic()
                change = writer.change(sql.SQL("id <= 1000"))
                took_s = time.monotonic() - began
                context.work.rollback()
                thread.join()
        assert not change.skipped_locked
    finally:
        for holder in busy:
            holder.close()
    assert took_s > 0.25
    assert took_s - change.lock_wait_s < 0.1, "what the pacer takes for work: twice the target at most"


def test_work_before_the_first_look_is_no_lock_wait(database: str) -> None:
    """A batch that works for longer than its target, and then waits for row locks, has not done nothing."""
    make_table(database, 2_000)
    busy = [psycopg.connect(database) for _ in range(10)]
    try:
        for n, holder in enumerate(busy):
            holder.execute("SELECT FROM t WHERE id = %s FOR UPDATE", [100 * n + 50])
        with workbench(database, "t", pace=Pace.model_construct(duty=1.0, batch_target=0.2)) as context:
            writer = Backfill(context, table="t", column="c", value=Constant.of(1))._writer

            def letting_go() -> None:
                time.sleep(0.3)
                for holder in busy:
                    time.sleep(0.03)
                    holder.rollback()

            with writer.lock_waits:
                thread = threading.Thread(target=letting_go)
                thread.start()
                began = time.monotonic()
                change = writer.change(sql.SQL("id <= 1000 AND (SELECT pg_sleep(0.3)) IS NOT NULL"))
                took_s = time.monotonic() - began
                context.work.rollback()
                thread.join()
        assert not change.skipped_locked
    finally:
        for holder in busy:
            holder.close()
    assert took_s > 0.5
    assert change.lock_wait_s > 0.1
    assert took_s - change.lock_wait_s > 0.19, "at least what a batch usually takes"


def test_a_long_batch_that_waits_for_nobody_is_work(database: str) -> None:
    """A slow disk or a slow trigger is no lock: such a batch is felt, and the next is smaller."""
    make_table(
        database,
        30,
        more="""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01);
          RETURN new; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()""",
    )
    with workbench(database, "t") as context:
        writer = Backfill(context, table="t", column="c", value=Constant.of(1))._writer
        with writer.lock_waits:
            change = writer.change(sql.SQL("true"))
        context.work.rollback()
    assert change.lock_wait_s < 0.01


def test_a_floor_far_above_the_target_is_reported_once(database: str) -> None:
    """`min_rows` may keep each batch long, and its rows locked: a note says so, not one for each batch."""
    make_table(
        database,
        60,
        more="""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
                  BEGIN PERFORM pg_sleep(0.02); RETURN new; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()""",
    )
    heard = Heard()
    pace = Pace.model_construct(duty=1.0, batch_target=0.02, min_rows=15, max_rows=15)
    with workbench(database, "t", pace=pace, emit=heard.emit) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    notes = [n.message for n in heard.of("note") if "min_rows 15" in n.message]
    assert len(notes) == 1
    assert "longer than batch_target 20 ms" in notes[0]


def test_a_slow_trigger_s_batches_are_made_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is taken for waiting, and made again; from then on it is known how long a batch takes."""
    monkeypatch.setattr(batch, "WAITING_LEAST_S", 0.1)
    make_table(
        database,
        300,
        more="""CREATE SEQUENCE nth;
                CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  PERFORM nextval('nth'), pg_sleep(0.004); RETURN new; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()""",
    )
    pace = Pace.model_construct(duty=1.0, batch_target=0.005, min_rows=50, max_rows=50)
    heard = Heard()
    with workbench(database, "t", pace=pace, emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 300
    assert [e.skipped_locked for e in heard.of("batch_done")].count(True) == 1
    assert int(str(ask(database, "SELECT last_value FROM nth"))) < 400


def test_the_ceiling_in_rows_goes_by_the_fullest_pages(database: str) -> None:
    """The pages that were counted are nearly empty: a batch may be surprised by full ones that follow them,
    not each.
    """
    make_table(database, 20_000, more="CREATE INDEX ON t (c)")
    sparse = (
        "SELECT ctid FROM t WHERE (ctid::text::point)[0]::int % (SELECT pg_relation_size('t') / 8192 / 4) < 8"
    )
    do(database, f"DELETE FROM t WHERE ctid IN ({sparse}) AND id % 20 > 0", "VACUUM t")
    heard = Heard()
    pace = Pace.model_construct(duty=1.0, min_rows=50, max_rows=200, batch_target=10.0)
    with workbench(database, "t", pace=pace, emit=heard.emit) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    rows = [e.rows for e in heard.of("batch_done")]
    assert len([n for n in rows if n > 210]) <= 5, rows


ROLE_SETTINGS = (
    "enable_tidscan",
    "enable_indexscan",
    "enable_bitmapscan",
    "enable_indexonlyscan",
)


@pytest.mark.parametrize("skip_locked", [False, True])
@pytest.mark.parametrize("by", list(By))
def test_a_batch_reads_what_it_names_whatever_the_database_has_set(
    database: str, by: By, skip_locked: bool
) -> None:
    """Through the writer's own settings: a TID range scan of the pass, the key's index for late rows, a place
    after a scan.
    """
    make_table(database, 20_000, more="CREATE INDEX ON t (c)")
    name = str(ask(database, "SELECT quote_ident(current_database())"))
    do(database, *(f"ALTER DATABASE {name} SET {setting} = off" for setting in ROLE_SETTINGS))
    with workbench(database, "t") as context:
        writer = Backfill(context, table="t", column="c", value=Constant.of(1))._writer
        few = RowSet(target=writer.target, names=tuple((str(n),) for n in range(1, 30)))
        rows = {
            By.TID: Slice(first_page=8, end_page=16, stripe=1, stripes=16, then=Position()).condition,
            By.KEY: few.condition,
            By.SCAN: sql.SQL("ctid = ANY (ARRAY['(1,1)']::tid[])"),
        }[by]
        context.work.execute(writer._settings(by=by))
        update = writer.target.update(rows, skip_locked=skip_locked, by=by)
        found = context.work.execute(sql.SQL("EXPLAIN {}").format(update)).fetchall()
        context.work.rollback()
    plan = "\n".join(line for (line,) in found)
    wanted = {By.TID: "Tid Range Scan on t", By.KEY: "t_pkey", By.SCAN: "Tid Scan on t"}[by]
    assert wanted in plan, plan
    assert "Seq Scan" not in plan, plan
