"""Exact under traffic: real writers beside a real backfill, their moves drawn by hypothesis."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.workbench import Heard, begin_journal, workbench
from online_migrate.backfill.values import Constant, Expression, Value
from online_migrate.backfill.worker import Backfill
from online_migrate.errors import VerificationFailed
from online_migrate.events import BatchDone, Event, LateRows, WaitStarted
from online_migrate.plan.model import Pace
from tests.backfill.tables import ask, do, make_table, session

ROWS = 4_000
APPLICATION_S = 99
"""a value of c that only the application writes"""


class Writer(threading.Thread):
    """An application that inserts, moves rows to other pages, deletes, rolls back,
    locks, and sets c itself.
    """

    def __init__(self, dsn: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._dsn, self._random, self.over = dsn, random.Random(seed), threading.Event()
        self.transactions = 0
        self.error: psycopg.Error | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                connection.execute("SET lock_timeout = '10s'")
                while not self.over.is_set():
                    self._transaction(connection)
                    self.transactions += 1
        except psycopg.Error as error:
            self.error = error

    def _transaction(self, connection: psycopg.Connection) -> None:
        pick = self._random.choice
        row = self._random.randint(1, ROWS)
        move = pick(
            [
                "INSERT INTO t (user_id, filler) SELECT 1, repeat('n', 40) FROM generate_series(1, 5)",
                f"UPDATE t SET filler = repeat('m', {self._random.randint(50, 2_000)}) WHERE id = {row}",
                f"UPDATE t SET user_id = user_id + 1 WHERE id BETWEEN {row} AND {row + 3}",
                f"UPDATE t SET c = {APPLICATION_S}, v = {APPLICATION_S} WHERE id = {row}",
                f"DELETE FROM t WHERE id = {row}",
                f"SELECT FROM t WHERE id = {row} FOR UPDATE",
                f"INSERT INTO child SELECT id FROM t WHERE id = {row}",
            ]
        )
        with connection.transaction(force_rollback=pick([False, False, True])):
            connection.execute(move)
            time.sleep(pick([0.0, 0.0, 0.002, 0.08]))


@contextmanager
def writers(dsn: str, seeds: list[int]) -> Iterator[list[Writer]]:
    threads = [Writer(dsn, seed) for seed in seeds]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.over.set()
        for thread in threads:
            thread.join(timeout=20)


FOREIGN = "REFERENCES t ON DELETE CASCADE"
SHAPES: dict[str, tuple[Value, str]] = {
    "a key": (Constant.of(1), f"CREATE TABLE child (t_id bigint {FOREIGN})"),
    "a key that the application changes": (
        Constant.of(1),
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (user_id, id), ADD UNIQUE (id);"
            "CREATE TABLE child (t_id bigint REFERENCES t (id) ON DELETE CASCADE)"
        ),
    ),
    "no key": (
        Constant.of(1),
        "ALTER TABLE t DROP CONSTRAINT t_pkey; CREATE INDEX ON t (id); CREATE TABLE child (t_id bigint)",
    ),
    "a parent's value": (
        Expression(text="SELECT one FROM public.parent WHERE parent.id = t.user_id"),
        (
            f"CREATE TABLE child (t_id bigint {FOREIGN}); CREATE TABLE parent (id bigint PRIMARY KEY, one"
            " integer);"
            "INSERT INTO parent SELECT n, 1 FROM generate_series(0, 5000) n"
        ),
    ),
}
"""what the rows are given, and what the table is like"""


@pytest.mark.parametrize("shape", SHAPES)
@settings(
    max_examples=2,
    deadline=None,
    derandomize="OTHER_SEEDS" not in os.environ,  # then others each time, or those of --hypothesis-seed
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=2, max_size=3, unique=True),
    rows=st.sampled_from([60, 200, 1_000]),
    indexed=st.booleans(),
    rewritten=st.booleans(),
)
def test_every_row_has_a_value_and_the_application_s_own_stay(
    database: str, shape: str, seeds: list[int], rows: int, *, indexed: bool, rewritten: bool
) -> None:
    """At the end no row is without its value and none that the application had set was overwritten."""
    do(
        database,
        "DROP TABLE IF EXISTS child, parent, t CASCADE",
        "DROP SCHEMA IF EXISTS online_migrate CASCADE",
    )
    value, more = SHAPES[shape]
    make_table(database, ROWS, more=f"{'CREATE INDEX ON t (c);' * indexed} {more}")
    pace = Pace.model_construct(duty=0.5, batch_target=0.02, min_rows=20, max_rows=rows)
    with writers(database, seeds) as threads, workbench(database, "t", pace=pace) as context:
        rewriting = threading.Timer(0.1, do, [database, *["VACUUM FULL t"] * rewritten])
        rewriting.start()
        done = Backfill(context, table="t", column="c", value=value).run()
        rewriting.join()
    assert [t.error for t in threads] == [None] * len(threads)
    assert all(t.transactions for t in threads)
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0
    assert ask(database, f"SELECT count(*) FROM t WHERE v = {APPLICATION_S} AND c <> {APPLICATION_S}") == 0
    assert ask(database, "SELECT count(*) FROM t WHERE id > 4000 AND c <> 7") == 0
    assert 0 < done <= ROWS
    assert int(str(ask(database, "SELECT count(*) FROM t WHERE c = 1"))) <= done


def test_a_row_is_counted_once_although_it_was_tried_twice(database: str) -> None:
    """A batch that timed out at a lock was rolled back: its rows are counted by the second try only."""
    make_table(database, 3_000)
    pace = Pace.model_construct(duty=1.0, max_rows=100)
    with psycopg.connect(database) as holder, workbench(database, "t", pace=pace) as context:
        holder.execute("SELECT FROM t WHERE id IN (5, 500, 2500) FOR UPDATE")
        timer = threading.Timer(0.8, holder.rollback)
        timer.start()
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 3_000
        timer.join()
    assert ask(database, "SELECT rows_done FROM online_migrate.cursor") == 3_000


def test_the_proof_counts_locked_rows(database: str) -> None:
    """SKIP LOCKED finds nothing while a locked NULL exists: the proof is a plain read in one snapshot."""
    make_table(database, 50, more="UPDATE t SET c = 1 WHERE id <> 7")
    with psycopg.connect(database) as holder, workbench(database, "t") as context:
        holder.execute("SELECT FROM t WHERE id = 7 FOR UPDATE")
        assert len(Backfill(context, table="t", column="c", value=Constant.of(1)).prove()) == 1


def test_a_row_that_moves_behind_the_pass_is_swept_up(database: str) -> None:
    """The application moves old rows to pages that were passed, or to new ones: the proof finds them."""
    make_table(database, 3_000, more="CREATE INDEX ON t (c)")
    do(database, "DELETE FROM t WHERE id <= 500", "VACUUM t")
    pace = Pace.model_construct(duty=1.0, max_rows=100)
    heard = Heard()
    with workbench(database, "t", pace=pace, emit=heard.emit) as context:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commit, calls = work._writer.commit, []

        def moving(*args: object) -> None:
            commit(*args)  # type: ignore[arg-type]
            calls.append(1)
            if len(calls) == 15:
                do(database, "UPDATE t SET filler = repeat('y', 300) WHERE c IS NULL AND id % 10 = 0")

        work._writer.commit = moving  # type: ignore[assignment,method-assign]
        assert work.run() == 2_500
    assert heard.of("late_rows")
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def test_a_thousand_late_rows_are_swept_by_a_walk(database: str) -> None:
    """More than one proof counts: the table is walked again, in batches of the usual size."""
    make_table(database, 6_000)
    heard = Heard()
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    pace = Pace.model_construct(duty=1.0, max_rows=300)
    with workbench(database, "t", begun=begun, pace=pace, emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 6_000
    do(database, "UPDATE t SET c = NULL WHERE id % 3 = 0")
    again = Heard()
    with workbench(database, "t", begun=begun, pace=pace, emit=again.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 8_000
    assert again.of("late_rows")[0].more
    assert len([e for e in again.of("batch_done") if e.rows > 300]) <= 1, "where pages become fuller"
    assert {e.share_done for e in again.of("batch_done")} == {1.0}


class NullWriter(threading.Thread):
    """Writes NULL explicitly, over and over: no default covers that."""

    def __init__(self, dsn: str, pause_s: float) -> None:
        super().__init__(daemon=True)
        self._dsn, self._pause_s, self.over = dsn, pause_s, threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self.over.is_set():
                connection.execute("INSERT INTO t (user_id, c) VALUES (1, NULL)")
                self.over.wait(self._pause_s)


def test_nulls_that_keep_coming_end_the_run_with_their_rows_and_their_writer(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded rounds, then exit 5: rows by key, and the statement if pg_stat_statements exists."""
    monkeypatch.setattr("online_migrate.backfill.sweep.LATE_PAUSE_S", 0.0)
    make_table(database, 200)
    has_statements = create_statements(database)
    heard = Heard()

    def emit(event_type: type[Event], **fields: object) -> None:
        heard.emit(event_type, **fields)
        if event_type in (BatchDone, LateRows):
            do(database, "INSERT INTO t (user_id, c) VALUES (1, NULL)")

    with (
        workbench(database, "t", emit=emit) as context,
        pytest.raises(VerificationFailed, match="keep being written") as caught,
    ):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    assert len(heard.of("late_rows")) == 30
    assert "for example id = " in caught.value.message
    assert "explicitly (the default covers statements that omit the column)" in caught.value.remedy
    if has_statements:
        assert "INSERT INTO t (user_id, c)" in caught.value.message
        assert "UPDATE" not in caught.value.message, "our own sweep is not the cause"


def test_rows_without_a_default_keep_coming_for_some_time_before_they_are_said_to(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proofs without progress are further and further apart; and it is said that each INSERT without the
    column writes NULL.
    """
    monkeypatch.setattr("online_migrate.backfill.sweep.LATE_ROUNDS", 5)
    monkeypatch.setattr("online_migrate.backfill.sweep.LATE_LONGEST_PAUSE_S", 0.12)
    make_table(database, 200, more="ALTER TABLE t ALTER c DROP DEFAULT")
    at: list[float] = []

    def emit(event_type: type[Event], **_: object) -> None:
        if event_type is LateRows:
            at.append(time.monotonic())
        if event_type in (BatchDone, LateRows):
            do(database, "INSERT INTO t (user_id) VALUES (1)")

    with (
        workbench(database, "t", emit=emit) as context,
        pytest.raises(VerificationFailed, match="keep being written; after 5 sweeps") as caught,
    ):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    apart = [later - earlier for earlier, later in pairwise(at)]
    assert [seconds >= least for seconds, least in zip(apart, (0, 0.05, 0.1, 0.12), strict=True)] == [
        True
    ] * 4
    assert "c has no default, so each INSERT that omits it writes NULL" in caught.value.remedy
    assert "explicitly" not in caught.value.remedy


def create_statements(dsn: str) -> bool:
    try:
        do(dsn, "CREATE EXTENSION pg_stat_statements")
        ask(dsn, "SELECT count(*) FROM pg_stat_statements")
    except psycopg.Error:
        return False
    return True


def test_what_breaks_the_quiet_is_told_while_it_is_waited_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that writes NULL now and then keeps the step from its end: the wait says how many rows, and
    which statement.

    Not which rows: a reason is the label of a metric.  It ends where rows come: what is swept then is work,
    and no wait.
    """
    monkeypatch.setattr("online_migrate.waiting.REPORT_EVERY_S", 0.2)
    monkeypatch.setattr("online_migrate.backfill.sweep.WRITERS_READ_S", 0.0)
    make_table(database, 200)
    has_statements = create_statements(database)
    heard = Heard()
    writer = NullWriter(database, 0.3)
    writer.start()
    timer = threading.Timer(1.5, writer.over.set)
    timer.start()
    with workbench(database, "t", emit=heard.emit) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1), quiet_s=0.8).run()
    timer.join()
    writer.join()
    reported = [e.reason for name in ("wait_started", "wait_continues") for e in heard.of(name)]
    assert any("the last proof that found any found 1 rows" in reason for reason in reported)
    assert not any("id = " in reason for reason in reported)
    assert has_statements == any("INSERT INTO t (user_id, c)" in reason for reason in reported)
    names = [e.name for e in heard.events if e.name in ("late_rows", "wait_started", "wait_ended")]
    assert names.count("wait_started") == names.count("wait_ended") > 1
    waits = "".join({"wait_started": "(", "wait_ended": ")", "late_rows": "."}[name] for name in names)
    assert "(." not in waits, "nothing is waited for while rows are swept"


def test_write_coverage_is_waited_for(database: str) -> None:
    """The step is done only after no row without a value was seen for as long as the plan says."""
    make_table(database, 200)
    heard = Heard()
    wrote_at: list[float] = []

    def emit(event_type: type[Event], **fields: object) -> None:
        heard.emit(event_type, **fields)
        if event_type is WaitStarted and len(wrote_at) < 2:
            wrote_at.append(time.monotonic())
            do(database, "INSERT INTO t (user_id, c) VALUES (1, NULL)")

    with workbench(database, "t", emit=emit) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1), quiet_s=1.2).run()
    assert time.monotonic() - wrote_at[1] >= 1.2
    assert len(heard.of("late_rows")) == 2
    assert {e.kind for e in heard.of("wait_started")} == {"soak"}
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def test_a_value_that_cannot_be_derived_is_named_not_waited_for(database: str) -> None:
    """A free row that stays NULL would be swept for ever: it is named by its key instead."""
    make_table(database, 200, more="UPDATE t SET user_id = NULL WHERE id = 42")
    with workbench(database, "t") as context, pytest.raises(VerificationFailed, match="id = 42"):
        Backfill(context, table="t", column="c", value=Expression(text="user_id::int")).run()
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 1


def test_a_trigger_that_takes_the_value_away_is_found(database: str) -> None:
    """The row is free, it was updated, and it is NULL again: that ends, with the row's key."""
    make_table(
        database,
        20,
        more="""CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF old.id = 7 THEN new.c := NULL; END IF; RETURN new; END $$;
                CREATE TRIGGER away BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION away()""",
    )
    with workbench(database, "t") as context, pytest.raises(VerificationFailed):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
