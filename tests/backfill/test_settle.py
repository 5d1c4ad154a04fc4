"""Sweep and proof: rows that move are found wherever they go, and none is blamed that was only busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from benchmarks.workbench import Heard, workbench
from online_migrate.backfill import batch
from online_migrate.backfill.batch import Change
from online_migrate.backfill.context import Target
from online_migrate.backfill.rows import RowSet, late_rows_statement, read_late_rows
from online_migrate.backfill.values import Constant, Expression
from online_migrate.backfill.worker import _NO_WALK, Backfill
from online_migrate.errors import VerificationFailed
from online_migrate.events import Event, LateRows, WaitContinues, WaitEnded, WaitStarted
from online_migrate.plan.model import Pace
from online_migrate.postgres import long_statement
from tests.backfill.tables import ask, do, make_table, table_info

HOT = "UPDATE t SET v = v + 1 WHERE id <= 10"


def moving(heard: Heard, move: Callable[[], object]) -> Callable[..., None]:
    """What hears of late rows, and moves them before they are fixed."""

    def emit(event_type: type[Event], **fields: object) -> None:
        heard.emit(event_type, **fields)
        if event_type is LateRows:
            move()

    return emit


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", id="a key of one column"),
        pytest.param(
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD COLUMN \"the name\" varchar(40) DEFAULT 'it''s',"
            ' ADD COLUMN at timestamptz DEFAULT now(), ADD PRIMARY KEY ("the name", at, id)',
            id="a key of three columns of three types",
        ),
        pytest.param(
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD COLUMN k int[]; UPDATE t SET k = ARRAY[id, 1]; ALTER"
            " TABLE t ADD PRIMARY KEY (k)",
            id="a key that is an array",
        ),
        pytest.param("ALTER TABLE t DROP CONSTRAINT t_pkey", id="no key at all"),
    ],
)
def test_a_row_that_moves_between_proof_and_mend_is_mended(database: str, more: str) -> None:
    """The application writes it all the time, so it never is where the proof saw it: its key leads there, or
    a scan does.
    """
    make_table(database, 2_000, more=f"{more}; UPDATE t SET c = 1 WHERE id > 10")
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM t WHERE id <= 10 FOR UPDATE")  # so that the pass leaves them
        heard = Heard()

        def move() -> None:
            holder.rollback()
            do(database, HOT)

        with workbench(database, "t", emit=moving(heard, move)) as context:
            assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 10
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0
    assert len(heard.of("late_rows")) == 1


@contextmanager
def updating(dsn: str, *, lanes: int) -> Iterator[list[int]]:
    """An application that updates ten rows over and over, so fast as it can."""
    over, counts = threading.Event(), [0] * lanes

    def go(lane: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not over.is_set():
                connection.execute(
                    "UPDATE t SET v = v + 1 WHERE id = %s", [1 + (counts[lane] * lanes + lane) % 10]
                )
                counts[lane] += 1

    threads = [threading.Thread(target=go, args=[n], daemon=True) for n in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=10)


@pytest.mark.parametrize("more", ["", "ALTER TABLE t DROP CONSTRAINT t_pkey; CREATE INDEX ON t (id)"])
def test_rows_that_are_updated_without_a_pause_are_filled(database: str, more: str) -> None:
    """Hundreds of updates a second on ten rows: they have their value in the end, and no session is blamed
    for writing NULL.
    """
    make_table(database, 20_000, more=f"{more}; UPDATE t SET c = 1 WHERE id > 10")
    heard = Heard()
    with updating(database, lanes=2) as counts, workbench(database, "t", emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 10
    assert sum(counts) > 0
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def test_a_row_that_is_let_go_between_change_and_look_is_not_blamed(database: str) -> None:
    """It was locked when we came, and free when we looked: that says nothing of its value."""
    make_table(database, 50, more="UPDATE t SET c = 1 WHERE id <> 7")
    with psycopg.connect(database) as holder, workbench(database, "t") as context:
        holder.execute("SELECT FROM t WHERE id = 7 FOR UPDATE")
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        write, tries = work._writer.write, []

        def letting_go(*args: object, **more: object) -> Change:
            change = write(*args, **more)  # type: ignore[arg-type]
            tries.append(change.rows)
            if len(tries) == 2:  # the first is the pass, the second the fix
                holder.rollback()
            return change

        work._writer.write = letting_go  # type: ignore[method-assign]
        assert work.run() == 1
    assert tries == [0, 0, 1]


def test_a_row_that_was_ours_and_stays_empty_is_blamed(database: str) -> None:
    """Among busy rows too: one that cannot be given a value is named, by its key."""
    make_table(database, 50, more="UPDATE t SET c = 1 WHERE id > 2; UPDATE t SET user_id = NULL WHERE id = 2")
    with psycopg.connect(database) as holder, workbench(database, "t") as context:
        holder.execute("SELECT FROM t WHERE id = 1 FOR UPDATE")
        with pytest.raises(VerificationFailed, match=r"c of 1 rows cannot be filled, for example id = 2:"):
            Backfill(context, table="t", column="c", value=Expression(text="user_id::int")).run()


def test_a_row_that_comes_beside_locked_ones_of_a_composite_key_is_not_blamed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A condition on (1, 1) and (2, 2), each column by itself, names (1, 2), too, which the application has
    just written.
    """
    make_table(
        database, 2, more="ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, v); UPDATE t SET v = id"
    )
    looks: list[RowSet | None] = []

    def look(target: Target, among: RowSet | None = None) -> sql.Composed:
        looks.append(among)
        if len(looks) == 2:
            do(database, "INSERT INTO t (id, v, c) VALUES (1, 2, NULL)")
        return late_rows_statement(target, among)

    monkeypatch.setattr(batch, "late_rows_statement", look)
    with workbench(database, "t") as context:
        writer = batch.Writer(
            context, Target(table=table_info(context.work), column="c", value=Constant.of(7))
        )
        free, refused = writer.try_free(read_late_rows(context.work, writer.target, 10))
    assert len(looks) == 2
    assert set(free.names) == {("1", "1"), ("2", "2")}
    assert not refused


def test_a_row_without_a_key_that_is_gone_costs_no_walk(database: str) -> None:
    """It was late, and is deleted before we come to it: one more proof is enough."""
    make_table(database, 500, more="ALTER TABLE t DROP CONSTRAINT t_pkey; UPDATE t SET c = 1 WHERE id <> 77")
    heard = Heard()
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM t WHERE id = 77 FOR UPDATE")  # so that the pass leaves it

        def remove() -> None:
            holder.rollback()
            do(database, "DELETE FROM t WHERE id = 77")

        with workbench(database, "t", emit=moving(heard, remove)) as context:
            assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 0
    names = [e.name for e in heard.events]
    assert "batch_done" not in names[names.index("late_rows") :]


def test_many_rows_that_cannot_be_given_a_value_are_blamed_at_once(database: str) -> None:
    """More than one proof counts: the table is not walked again and again for them, and no session is said to
    write NULL.
    """
    make_table(database, 3_000, more="UPDATE t SET user_id = NULL WHERE id % 2 = 0")
    heard = Heard()
    with (
        workbench(database, "t", emit=heard.emit) as context,
        pytest.raises(
            VerificationFailed,
            match=r"c of 50 rows or more cannot be filled, for example id = 2;.*their value is NULL",
        ),
    ):
        Backfill(context, table="t", column="c", value=Expression(text="user_id::int")).run()
    assert len(heard.of("late_rows")) == 1
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 1_500


def test_a_late_row_among_many_that_the_server_refuses_is_named(database: str) -> None:
    """It is among those that are tried before the table is walked again: the same words as of a walk."""
    make_table(database, 3_000, more="UPDATE t SET user_id = -1 WHERE id = 3")
    do(database, "ALTER TABLE t ADD CHECK (c >= 0) NOT VALID")
    with workbench(database, "t") as context:
        work = Backfill(context, table="t", column="c", value=Expression(text="user_id::int"))
        context.journal.write_cursor(context.run_id, work._begin("sweep", _NO_WALK, None))
        with pytest.raises(VerificationFailed, match=r"c of the row with id = 3 cannot be filled: .*check"):
            work.run()


def test_a_table_without_a_key_is_searched_without_keeping_a_row_locked(database: str) -> None:
    """Rows that have moved are found by batches of the usual size: the application never waits for more than
    one of them.
    """
    make_table(
        database,
        20_000,
        more="ALTER TABLE t DROP CONSTRAINT t_pkey; UPDATE t SET c = 1 WHERE id % 2000 > 0; CREATE INDEX ON"
        " t (id);"
        "CREATE FUNCTION slow(bigint) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05);"
        " RETURN 1; END $$",
    )
    pace = Pace.model_construct(duty=1.0, max_rows=500)
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM t WHERE id % 2000 = 0 FOR UPDATE")  # so that the pass leaves them
        heard, longest = Heard(), [0.0]
        over = threading.Event()

        def updating() -> None:
            with psycopg.connect(database, autocommit=True) as connection:
                while not over.is_set():
                    began = time.monotonic()
                    connection.execute("UPDATE t SET v = v + 1 WHERE id = 2000")
                    longest[0] = max(longest[0], time.monotonic() - began)

        application = threading.Thread(target=updating)

        def move() -> None:
            holder.rollback()
            do(database, "UPDATE t SET v = v + 1 WHERE id % 2000 = 0")

        with workbench(database, "t", pace=pace, emit=moving(heard, move)) as context:
            work = Backfill(context, table="t", column="c", value=Expression(text="slow(id)"))
            work.walk()
            application.start()
            try:
                assert work.run() == 10
            finally:
                over.set()
                application.join()
    assert longest[0] < 0.5
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def test_only_rounds_without_progress_count(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late rows that become fewer are no sign of a session that writes NULLs, and a clean proof forgets what
    was before.
    """
    monkeypatch.setattr("online_migrate.backfill.sweep.LATE_ROUNDS", 2)
    make_table(database, 200)
    heard = Heard()
    left = [3, 2, 1]

    def more_nulls() -> None:
        if left:
            do(database, f"INSERT INTO t (user_id, c) SELECT 1, NULL FROM generate_series(1, {left.pop(0)})")

    emit = moving(heard, more_nulls)
    with workbench(database, "t", emit=emit) as context:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        commit = work._writer.commit

        def first(*args: object) -> None:
            commit(*args)  # type: ignore[arg-type]
            work._writer.commit = commit  # type: ignore[method-assign]
            do(database, "INSERT INTO t (user_id, c) SELECT 1, NULL FROM generate_series(1, 4)")

        work._writer.commit = first  # type: ignore[assignment,method-assign]
        work.run()
    assert [e.rows for e in heard.of("late_rows")] == [4, 3, 2, 1]


class Handover(Heard):
    """Ends two locks one after the other: the first once it was reported again, the second once it is
    reported.
    """

    def __init__(self) -> None:
        super().__init__()
        self.then: list[Callable[[], None]] = []

    def emit(self, event_type: Callable[..., Event], **fields: Any) -> None:
        super().emit(event_type, **fields)
        last = self.events[-1]
        if isinstance(last, WaitContinues) and ("the second" in last.reason) is (len(self.then) == 1):
            self.then.pop(0)()


def test_who_holds_the_rows_is_told_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 10 s, here every 0.3: the operator is about to end a session, and it may be another by now."""
    monkeypatch.setattr("online_migrate.waiting.REPORT_EVERY_S", 0.3)
    monkeypatch.setattr("online_migrate.waiting.REPORT_CHANGED_S", 0.3)
    make_table(database, 50)
    heard = Handover()
    first = psycopg.connect(database, application_name="the first")
    second = psycopg.connect(database, application_name="the second")
    first_pid = first.info.backend_pid
    try:
        first.execute("SELECT FROM t WHERE id = 7 FOR UPDATE")
        waiting = threading.Thread(target=second.execute, args=["SELECT FROM t WHERE id = 7 FOR UPDATE"])
        waiting.start()
        heard.then = [first.rollback, second.rollback]
        with workbench(database, "t", emit=heard.emit) as context:
            assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 50
        waiting.join()
    finally:
        first.close()
        second.close()
    waits = [e for e in heard.events if isinstance(e, WaitStarted | WaitContinues | WaitEnded)]
    assert isinstance(waits[0], WaitStarted)
    assert "the first" in waits[0].reason
    assert (
        f"we wait for at most 30 min; to end it: SELECT pg_terminate_backend({first_pid})" in waits[0].reason
    )
    again = [e for e in waits[1:-1] if isinstance(e, WaitContinues)]
    assert len(again) == len(waits) - 2 >= 2
    assert "the second" in again[-1].reason
    assert {e.kind for e in waits} == {"row_lock"}
    assert [e.seconds for e in again] == sorted(e.seconds for e in again)
    assert isinstance(waits[-1], WaitEnded)


def test_a_proof_that_takes_long_is_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages are passed and no batch comes any more: the operator sees what is done meanwhile."""
    monkeypatch.setattr(long_statement, "REPORT_EVERY_S", 0.002)
    make_table(database, 200_000, more="UPDATE t SET c = 1")
    heard = Heard()
    with workbench(database, "t", emit=heard.emit) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    (said,) = {(reported.statement, reported.phase) for reported in heard.of("long_statement")}
    assert said == ("no row of public.t without c", "proving")
