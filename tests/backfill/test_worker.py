"""The worker on a real table: what it writes, how it stops, goes on, and stays out
of the application's way.
"""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from benchmarks.workbench import Heard, begin_journal, workbench
from online_migrate.backfill import batch
from online_migrate.backfill.vacuum import vacuum_delay_ms
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import Signal
from online_migrate.errors import Interrupted, LeaseLost, LockNotAcquired, VerificationFailed
from online_migrate.events import BatchDone
from online_migrate.plan.model import LockRules, Pace
from tests.backfill.hearing import ActsOnWait
from tests.backfill.tables import ask, do, make_table, session

SMALL = Pace.model_construct(duty=1.0, min_rows=50, max_rows=200)
"""many batches on a small table"""


def run(dsn: str, heard: Heard | None = None, **more: object) -> int:
    pace = more.pop("pace", SMALL)
    with workbench(dsn, "t", pace=pace, emit=(heard or Heard()).emit, **more) as context:  # type: ignore[arg-type]
        return Backfill(context, table="t", column="c", value=Constant.of(1)).run()


@pytest.mark.parametrize("rows", [0, 1, 57, 5_000])
def test_every_row_is_given_its_value_and_counted_once(database: str, rows: int) -> None:
    """From the empty table to one of many batches: the count is the table's."""
    make_table(database, rows)
    heard = Heard()
    assert run(database, heard) == rows
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == rows
    assert sum(e.rows for e in heard.of("batch_done")) == rows
    assert ask(database, "SELECT coalesce(max(rows_done), 0) FROM online_migrate.cursor") == rows


def test_rows_wider_than_half_a_page(database: str) -> None:
    """One row a page: one stripe, and every row has its value."""
    make_table(database, 300, filler=5_000)
    assert run(database) == 300
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def test_what_the_application_has_set_is_not_overwritten(database: str) -> None:
    """The backfill fills what is empty, nothing else."""
    make_table(database, 3_000, more="UPDATE t SET c = 42 WHERE id % 3 = 0")
    assert run(database) == 2_000
    assert ask(database, "SELECT count(*) FROM t WHERE c = 42") == 1_000


def test_nothing_to_do_walks_nothing(database: str) -> None:
    """After ADD COLUMN with a default the proof alone is made: no batch."""
    make_table(database, 3_000, more="UPDATE t SET c = 1")
    heard = Heard()
    assert run(database, heard) == 0
    assert not heard.of("batch_done")


def test_progress_rises_to_one(database: str) -> None:
    """Shares that are reported never decrease, the sweep's included."""
    make_table(database, 5_000)
    heard = Heard()
    run(database, heard)
    shares = [e.share_done for e in heard.of("batch_done")]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


class StopAfter:
    """Asks for a stop after so many batches."""

    def __init__(self, batches: int) -> None:
        self.signal, self.heard, self._left = Signal(), Heard(), batches

    def emit(self, event_type: type[BatchDone], **fields: object) -> None:
        self.heard.emit(event_type, **fields)
        if event_type is BatchDone:
            self._left -= 1
            if self._left <= 0:
                self.signal.stop("test")


@pytest.mark.parametrize("batches", [1, 5, 20])
def test_a_stop_keeps_the_batch_and_the_next_run_goes_on(database: str, batches: int) -> None:
    """Ctrl-C costs nothing: the rows that are done stay done, and are not visited again."""
    make_table(database, 5_000)
    stop = StopAfter(batches)
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with pytest.raises(Interrupted):
        _run_until(database, begun, stop)
    done = ask(database, "SELECT count(*) FROM t WHERE c = 1")
    assert done == ask(database, "SELECT rows_done FROM online_migrate.cursor")
    heard = Heard()
    assert run(database, heard, begun=begun) == 5_000
    assert sum(e.rows for e in heard.of("batch_done")) == 5_000 - int(str(done))


def _run_until(dsn: str, begun: object, stop: StopAfter) -> None:
    with workbench(dsn, "t", pace=SMALL, begun=begun, emit=stop.emit, signal=stop.signal) as context:  # type: ignore[arg-type]
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()


@pytest.mark.parametrize("when", ["before the cursor moves", "after the commit"])
def test_a_session_that_dies_at_the_commit_s_boundary(database: str, when: str) -> None:
    """Rows and cursor commit together or not at all: nothing is lost, nothing done twice."""
    make_table(database, 3_000)
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with workbench(database, "t", pace=SMALL, begun=begun) as context:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commit, calls = work._writer.commit, []

        def dying(*args: object) -> None:
            calls.append(1)
            if len(calls) == 7 and when == "before the cursor moves":
                context.watch.execute(
                    "SELECT pg_terminate_backend(%s, 5000)", [context.work.info.backend_pid]
                )
            commit(*args)  # type: ignore[arg-type]
            if len(calls) == 7:
                raise psycopg.OperationalError("the answer was lost")

        work._writer.commit = dying  # type: ignore[assignment,method-assign]
        with pytest.raises(psycopg.OperationalError):
            work.run()
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == ask(
        database, "SELECT rows_done FROM online_migrate.cursor"
    )
    assert run(database, begun=begun) == 3_000
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 3_000


def test_a_runner_that_was_fenced_off_writes_no_row(database: str) -> None:
    """After a take-over the old runner's next batch is refused, rows and cursor alike."""
    make_table(database, 1_000)
    with workbench(database, "t", pace=SMALL) as context:
        do(database, "UPDATE online_migrate.epoch SET epoch = epoch + 1, holder = gen_random_uuid()")
        with pytest.raises(LeaseLost):
            Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 0


def test_a_row_lock_is_waited_for_50_ms_and_then_left_to_the_sweep(database: str) -> None:
    """One locked row holds up no other, and it is filled in the end; who had it is said."""
    make_table(database, 2_000)
    with psycopg.connect(database, application_name="the shop") as holder:
        holder.execute("SELECT FROM t WHERE id = 1000 FOR UPDATE")
        heard = ActsOnWait(0.1, holder.rollback)
        assert run(database, heard) == 2_000
    assert any(e.skipped_locked for e in heard.of("batch_done"))
    assert max(e.seconds for e in heard.of("batch_done")) < 0.5
    waits = heard.of("wait_started")
    assert [w.kind for w in waits] == ["row_lock"]
    assert "the shop" in waits[0].reason
    assert heard.of("wait_ended")


def test_a_child_s_insert_blocks_no_batch(database: str) -> None:
    """An open insert of a child holds FOR KEY SHARE on its parent's row: the row is filled all the same."""
    make_table(database, 100, more="CREATE TABLE child (t_id bigint REFERENCES t)")
    heard = Heard()
    with psycopg.connect(database) as child:
        child.execute("INSERT INTO child VALUES (50)")
        assert run(database, heard) == 100
    assert not any(e.skipped_locked for e in heard.of("batch_done"))


def test_rows_that_stay_locked_end_the_run_resumably(database: str) -> None:
    """The bound is the plan's lock_wait; exit 4 names who holds the row."""
    make_table(database, 100)
    with psycopg.connect(database, application_name="a forgotten psql") as holder:
        holder.execute("SELECT FROM t WHERE id = 5 FOR UPDATE")
        with pytest.raises(LockNotAcquired, match="a forgotten psql"):
            run(database, heard := Heard(), locks=LockRules.model_construct(lock_wait=0.5))
    assert [e.kind for e in heard.of("wait_ended")] == ["row_lock"], "its seconds are counted all the same"


def test_a_prepared_transaction_that_holds_a_row_is_named(database: str) -> None:
    """It has no session that anyone could see; its gid is what an operator needs."""
    make_table(database, 100)
    with psycopg.connect(database, autocommit=True) as holder:
        holder.execute("BEGIN; UPDATE t SET v = 1 WHERE id = 5; PREPARE TRANSACTION 'left behind'")
        with pytest.raises(LockNotAcquired, match="left behind"):
            run(database, locks=LockRules.model_construct(lock_wait=0.5))
        holder.execute("ROLLBACK PREPARED 'left behind'")


def test_a_lock_on_the_whole_table_is_waited_for_outside_the_queue(database: str) -> None:
    """Another session's LOCK TABLE delays the run and does not end it; no request waits in the queue for over
    50 ms.
    """
    make_table(database, 500)
    with psycopg.connect(database, application_name="a dump") as holder:
        holder.execute("LOCK TABLE t IN SHARE MODE")
        heard = ActsOnWait(0.1, holder.rollback)
        assert run(database, heard) == 500
    assert [w.kind for w in heard.of("wait_started")] == ["table_lock"]
    assert "a dump" in heard.of("wait_started")[0].reason


@pytest.mark.parametrize(
    "lock", ["LOCK TABLE online_migrate.cursor", "SELECT FROM online_migrate.cursor FOR UPDATE"]
)
def test_a_cursor_that_is_locked_for_a_moment_is_tried_again(database: str, lock: str) -> None:
    """An autovacuum that cuts the journal's table locks it: the batch is rolled back and made again, its rows
    counted once.
    """
    make_table(database, 3_000)
    heard = Heard()
    with (
        workbench(database, "t", pace=SMALL, emit=heard.emit) as context,
        psycopg.connect(database) as holder,
    ):
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commit = work._writer.commit
        timers: list[threading.Timer] = []

        def locking(*args: object) -> None:
            if not timers:
                holder.execute(lock.encode())
                timers.append(threading.Timer(0.6, holder.rollback))
                timers[0].start()
            commit(*args)  # type: ignore[arg-type]

        work._writer.commit = locking  # type: ignore[assignment,method-assign]
        assert work.run() == 3_000
        timers[0].join()
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 3_000
    assert [e.kind for e in heard.of("wait_started")] == ["cursor"]
    assert 0.2 < heard.of("wait_ended")[0].seconds < 2


def test_a_cursor_that_stays_locked_is_a_zombie_s(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of a dead runner holds it: exit 6, and nothing was written."""
    monkeypatch.setattr(batch, "CURSOR_LOCK_S", 0.5)
    make_table(database, 500)
    with workbench(database, "t", pace=SMALL) as context, psycopg.connect(database) as holder:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        write = work._writer.write

        def locking(*args: object, **more: object) -> object:
            holder.execute("SELECT FROM online_migrate.cursor FOR UPDATE")
            return write(*args, **more)  # type: ignore[arg-type]

        work._writer.write = locking  # type: ignore[assignment,method-assign]
        with pytest.raises(LeaseLost, match="dead runner"):
            work.run()
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 0


def test_a_locked_parent_row_is_waited_for(database: str) -> None:
    """With the foreign key there already each row asks for its parent's: while that
    is locked we come again.
    """
    make_table(database, 300, more="CREATE TABLE bots (id integer PRIMARY KEY); INSERT INTO bots VALUES (1)")
    do(database, "ALTER TABLE t ADD FOREIGN KEY (c) REFERENCES bots NOT VALID")
    heard = Heard()
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM bots FOR UPDATE")
        timer = threading.Timer(0.8, holder.rollback)
        timer.start()
        assert run(database, heard) == 300
        timer.join()
    assert [w.kind for w in heard.of("wait_started")] == ["table_lock"]


def test_a_table_that_stays_locked_ends_the_run_resumably(database: str) -> None:
    """Exit 4, with the blocker's name."""
    make_table(database, 500)
    with psycopg.connect(database, application_name="a dump") as holder:
        holder.execute("LOCK TABLE t IN SHARE MODE")
        with pytest.raises(LockNotAcquired, match="a dump"):
            run(database, heard := Heard(), locks=LockRules.model_construct(lock_wait=0.4))
    assert [e.kind for e in heard.of("wait_ended")] == ["table_lock"], "its seconds are counted all the same"


def test_vacuum_full_in_the_middle_begins_the_pass_again(database: str) -> None:
    """Rows have moved to other TIDs: half of them may lie behind the cursor now.  None is lost, none counted
    twice.
    """
    make_table(database, 4_000)
    heard = Heard()
    with workbench(database, "t", pace=SMALL, emit=heard.emit) as context:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commit, calls = work._writer.commit, []

        def rewriting(*args: object) -> None:
            commit(*args)  # type: ignore[arg-type]
            calls.append(1)
            if len(calls) == 9:
                do(database, "VACUUM FULL t")

        work._writer.commit = rewriting  # type: ignore[assignment,method-assign]
        assert work.run() == 4_000
    assert len(heard.of("backfill_started")) == 2
    assert any("was rewritten" in n.message for n in heard.of("note"))
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 4_000


def test_a_rewrite_between_two_runs_is_seen(database: str) -> None:
    """The cursor of the night before points at TIDs that mean nothing any more."""
    make_table(database, 4_000)
    stop = StopAfter(9)
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with pytest.raises(Interrupted):
        _run_until(database, begun, stop)
    do(database, "CLUSTER t USING t_pkey")
    assert run(database, begun=begun) == 4_000


def test_a_role_s_statement_timeout_does_not_cut_us_off(database: str) -> None:
    """Our sessions set their own timeouts, whatever the database has as default;
    here a batch takes longer.
    """
    make_table(
        database,
        200,
        more="""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF old.id = 77 THEN PERFORM pg_sleep(0.6); END IF; RETURN new; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()""",
    )
    name = str(ask(database, "SELECT quote_ident(current_database())"))
    do(
        database,
        f"ALTER DATABASE {name} SET statement_timeout = '300ms'",
        f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '300ms'",
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
    )
    assert run(database) == 200


def test_most_updates_are_heap_only_and_the_table_hardly_grows(database: str) -> None:
    """What this project is known for: no index is touched by three quarters of the updates, at least."""
    make_table(database, 100_000)
    before = int(str(ask(database, "SELECT pg_relation_size('t')")))
    indexes = int(str(ask(database, "SELECT pg_indexes_size('t')")))
    run(database, pace=Pace.model_construct(duty=1.0))
    _await_statistics(database)
    share = ask(
        database, "SELECT n_tup_hot_upd::float8 / n_tup_upd FROM pg_stat_user_tables WHERE relname = 't'"
    )
    assert float(str(share)) >= 0.75
    assert int(str(ask(database, "SELECT pg_relation_size('t')"))) <= 1.2 * before
    assert int(str(ask(database, "SELECT pg_indexes_size('t')"))) <= 1.15 * indexes


def _await_statistics(dsn: str) -> None:
    """Before 15 a process of its own collects them, and writes them down every half second."""
    time.sleep(0.1)
    if int(str(ask(dsn, "SHOW server_version_num"))) < 150000:
        time.sleep(1)


def test_an_index_on_the_column_brings_vacuum_rounds(database: str) -> None:
    """Dead rows' room is used again on the way: the table stays within a quarter more."""
    make_table(database, 100_000, more="CREATE INDEX ON t (c)")
    before = int(str(ask(database, "SELECT pg_relation_size('t')")))
    heard = Heard()
    run(database, heard, pace=Pace.model_construct(duty=1.0, max_rows=5_000))
    assert heard.of("backfill_started")[0].pass_name == "sequential"
    _await_statistics(database)
    assert int(str(ask(database, "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 't'"))) >= 5
    assert int(str(ask(database, "SELECT pg_relation_size('t')"))) <= 1.25 * before


def test_vacuum_rounds_of_slim_rows_clean_the_indexes_too(database: str) -> None:
    """A page has 291 line pointers: dead ones of 157 rows would leave room for 134, and the table at 1.39
    times its size.

    The rows themselves grow by 8 bytes here.
    """
    make_table(database, 160_000, filler=0, more="CREATE INDEX ON t (c)")
    before = int(str(ask(database, "SELECT pg_relation_size('t')")))
    run(database, pace=Pace.model_construct(duty=1.0, max_rows=5_000))
    assert int(str(ask(database, "SELECT pg_relation_size('t')"))) <= 1.35 * before


def test_what_vacuum_rounds_leave_in_indexes_is_seen_by_autovacuum(database: str) -> None:
    """They do not read the indexes: the next ANALYZE counts what they left as dead rows, which is what
    autovacuum goes by.
    """
    make_table(database, 100_000, more="CREATE INDEX ON t (c)")
    run(database, pace=Pace.model_construct(duty=1.0, max_rows=5_000))
    do(database, "ANALYZE t")
    _await_statistics(database)
    dead = ask(database, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 't'")
    assert float(str(dead)) > 80_000


def test_a_vacuum_round_rests_as_we_do() -> None:
    """At the default pace as autovacuum does; unthrottled not at all; slower where we are slower."""
    assert vacuum_delay_ms(0.5) == 2.0
    assert vacuum_delay_ms(1.0) == 0.0
    assert vacuum_delay_ms(0.25) == 3.0


def test_a_batch_s_wal_is_measured_and_bounded(database: str) -> None:
    """Our own WAL, not the server's: a ceiling in the plan makes batches smaller."""
    make_table(database, 20_000)
    heard = Heard()
    run(
        database, heard, pace=Pace.model_construct(duty=1.0, batch_target=5.0, max_wal=64 * 1024, min_rows=10)
    )
    rows = [e.rows for e in heard.of("batch_done")]
    assert max(rows[2:]) < 500
    free = Heard()
    do(database, "UPDATE t SET c = NULL", "VACUUM t")
    run(database, free, pace=Pace.model_construct(duty=1.0, batch_target=5.0))
    assert max(e.rows for e in free.of("batch_done")) > 2 * max(rows[2:])


def test_a_row_that_cannot_be_changed_is_found_and_named(database: str) -> None:
    """All others before it are done; after it is fixed the same run continues."""
    make_table(database, 3_000, more="UPDATE t SET v = -1 WHERE id = 1234")
    do(database, "ALTER TABLE t ADD CONSTRAINT v_is_positive CHECK (v >= 0) NOT VALID")
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with pytest.raises(VerificationFailed, match=r"id = 1234 cannot be filled: .*v_is_positive"):
        run(database, begun=begun)
    assert int(str(ask(database, "SELECT count(*) FROM t WHERE c = 1"))) > 0
    do(database, "UPDATE t SET v = 1, c = NULL WHERE id = 1234")
    assert run(database, begun=begun) == 3_000


def test_a_trigger_that_refuses_a_row_is_named_with_the_row(database: str) -> None:
    """RAISE in a trigger is an error about a row too."""
    make_table(
        database,
        500,
        more="""CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF old.id = 77 THEN RAISE 'row 77 is sacred'; END IF; RETURN new; END $$;
                CREATE TRIGGER no BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()""",
    )
    with pytest.raises(VerificationFailed, match="id = 77 cannot be filled: row 77 is sacred"):
        run(database)


def test_triggers_can_be_skipped(database: str) -> None:
    """`triggers: skip`: updated_at of old rows stays what it was."""
    make_table(
        database,
        500,
        more="""CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.v := 9; RETURN new;
          END $$;
                CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()""",
    )
    with workbench(database, "t", pace=SMALL) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1), skip_triggers=True).run() == 500
    assert ask(database, "SELECT count(*) FROM t WHERE v = 9") == 0


def test_inherited_rows_are_their_own_table_s(database: str) -> None:
    """ONLY: a child by inheritance is another table, with a step of its own."""
    make_table(database, 100, more="CREATE TABLE heir () INHERITS (t); INSERT INTO heir (id) VALUES (1)")
    do(database, "UPDATE heir SET c = NULL")
    assert run(database) == 100
    assert ask(database, "SELECT count(*) FROM heir WHERE c IS NULL") == 1


def test_a_lost_watch_connection_does_not_hold_for_good(database: str) -> None:
    """Throttlers without a connection are red; a lost connection is opened again instead."""
    make_table(database, 1_000)
    with workbench(database, "t", pace=SMALL) as context:
        context.watch.close()
        with pytest.raises(psycopg.OperationalError, match="watches the server"):
            Backfill(context, table="t", column="c", value=Constant.of(1)).run()
