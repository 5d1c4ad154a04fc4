"""A batch stays out of the application's way whatever happens to its runner, its rows, and its statements."""

from __future__ import annotations

import time

import psycopg
import pytest

from benchmarks.workbench import Heard, begin_journal, workbench
from online_migrate.backfill import batch
from online_migrate.backfill.worker import Backfill
from online_migrate.errors import LeaseLost
from online_migrate.plan.model import Pace
from online_migrate.postgres.sqlstate import Trouble, trouble_of
from tests.backfill.tables import ask, do, make_table, session

SMALL = Pace.model_construct(duty=1.0, min_rows=50, max_rows=200)


def test_a_runner_that_stops_between_two_messages_keeps_no_row_lock(database: str) -> None:
    """Its rows are free again after a second, by the server itself; the session that ended for it is a loss, and is regained."""
    make_table(database, 500)
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with workbench(database, "t", pace=SMALL, begun=begun) as bench:
        work = Backfill(bench, table="t", column="c", value="1")
        commit, waited = work._writer.commit, []

        def stopped(*args: object) -> None:
            began = time.monotonic()
            do(database, "UPDATE t SET v = 1 WHERE id = 1")
            waited.append(time.monotonic() - began)
            commit(*args)  # type: ignore[arg-type]

        work._writer.commit = stopped  # type: ignore[assignment,method-assign]
        with pytest.raises(psycopg.Error) as caught:
            work.run()
    assert trouble_of(caught.value) is Trouble.LOST
    assert 0.5 < waited[0] < 5
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 0
    with workbench(database, "t", pace=SMALL, begun=begun) as bench:
        assert Backfill(bench, table="t", column="c", value="1").run() == 500


@pytest.mark.parametrize("sqlstate", ["25P03", "25P04"])
def test_the_server_s_bounds_of_a_transaction_are_losses(sqlstate: str) -> None:
    """25P03 and 25P04 end the session: what follows is reconnecting, not the end of the run."""
    assert trouble_of(psycopg.errors.lookup(sqlstate)()) is Trouble.LOST


def test_a_batch_has_bounds_of_its_own(database: str) -> None:
    """Each is there in the transaction, the transaction's own from 17 on, and none outlives it."""
    make_table(database, 10)
    with workbench(database, "t") as bench:
        writer = Backfill(bench, table="t", column="c", value="1")._writer
        bench.work.execute(writer._settings(waiting_s=1.0))
        names = ["lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout"]
        wanted = ["50ms", "1s", "1s"]
        if bench.work.info.server_version >= 170000:
            names, wanted = [*names, "transaction_timeout"], [*wanted, "5min"]
        shown = [bench.work.execute(f"SHOW {n}").fetchone() for n in names]
        assert [s[0] for s in shown if s] == wanted
        bench.work.execute("ROLLBACK")
        left = [bench.work.execute(f"SHOW {n}").fetchone() for n in names[1:]]
        assert [s[0] for s in left if s] == ["1min", "0", "0"][: len(left)]


def test_a_batch_that_waits_again_and_again_takes_the_free_rows_instead(database: str) -> None:
    """No single wait is long, but their sum is: after a second the batch lets go of all and comes again, without waiting."""
    make_table(
        database,
        30,
        more="""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.045); RETURN new; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()""",
    )
    heard = Heard()
    with workbench(database, "t", emit=heard.emit) as bench:
        assert Backfill(bench, table="t", column="c", value="1").run() == 30
    (done,) = heard.of("batch_done")
    assert done.skipped_locked


def test_a_trigger_finds_what_the_database_s_search_path_shows(database: str) -> None:
    """The application's own schema is on the path of a batch, after the plan's: its triggers work as they do elsewhere."""
    name = str(ask(database, "SELECT quote_ident(current_database())"))
    make_table(
        database,
        20,
        more="""CREATE SCHEMA app; CREATE TABLE app.seen (id bigint);
                CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (new.id); RETURN new; END $$;
                CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()""",
    )
    do(database, f"ALTER DATABASE {name} SET search_path = app, public", "CREATE TABLE app.t (id bigint)")
    with workbench(database, "t") as bench:
        assert Backfill(bench, table="t", column="c", value="1").run() == 20
        assert bench.work.execute("SHOW search_path").fetchone() == ('"public"',)
    assert ask(database, "SELECT count(*) FROM app.seen") == 20


def test_a_cancelled_commit_is_done_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_cancel_backend while the cursor moves, or at COMMIT: that is nobody's take-over, however long it went before."""
    monkeypatch.setattr(batch, "CURSOR_LOCK_S", 0.0)
    make_table(
        database,
        500,
        more="""CREATE SEQUENCE nth;
                CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF nextval('nth') IN (120, 121) THEN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(2); END IF; RETURN new;
                END $$;
                CREATE CONSTRAINT TRIGGER cut AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()""",
    )
    with workbench(database, "t", pace=SMALL) as bench:
        assert Backfill(bench, table="t", column="c", value="1").run() == 500
    assert ask(database, "SELECT rows_done FROM online_migrate.cursor") == 500
    assert int(str(ask(database, "SELECT last_value FROM nth"))) > 600


def test_a_cursor_that_stays_locked_is_another_s(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of a dead runner holds it: the time that we waited for rows before does not count."""
    monkeypatch.setattr(batch, "CURSOR_LOCK_S", 0.2)
    make_table(database, 100)
    with workbench(database, "t", pace=SMALL) as bench, psycopg.connect(database) as zombie:
        work = Backfill(bench, table="t", column="c", value="1")
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
