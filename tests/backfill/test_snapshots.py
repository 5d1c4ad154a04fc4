"""Old snapshots keep dead rows from being pruned: the chunk grows, the holder is named, the cursor commits
less often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from benchmarks.workbench import Heard, workbench
from online_migrate.backfill import health, strategy
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import LONGEST_RELAXED, Backfill
from online_migrate.clock import Signal
from online_migrate.events import BatchDone, Event
from online_migrate.journal.records import CursorRecord
from online_migrate.journal.store import Journal
from online_migrate.plan.model import HoldQuery, HoldWhen, Pace
from tests.backfill.tables import ask, make_table
from tests.backfill.throttlers.standby import await_true

QUERY_BATCHES = 8
"""the query's length: a chunk of 10 pages, one row of each, is a batch"""
FAST = Pace.model_construct(duty=1.0, max_rows=200)


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 40 pages, so that a small table has many, and a look at every batch."""
    monkeypatch.setattr(strategy, "CHUNK_PAGES", 40)
    monkeypatch.setattr(health, "SNAPSHOT_CHECK_S", 0.0)


@pytest.fixture
def reader(database: str) -> Iterator[psycopg.Connection]:
    """A report that holds a snapshot of some age."""
    make_table(database, 20_000)
    with psycopg.connect(database, application_name="a report") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM t")
        time.sleep(0.3)
        yield connection
        connection.rollback()


def test_the_chunk_grows_with_the_oldest_snapshot(
    database: str, reader: psycopg.Connection, short_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revisit interval of a page is twice the age of the oldest open snapshot; the journal keeps the new
    length.
    """
    with workbench(database, "t", pace=FAST) as context:
        lengths = noting_lengths(monkeypatch)
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 20_000
    assert 40 in lengths
    assert max(lengths) > 40
    assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def noting_lengths(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The lengths of chunks, as they are written into the journal."""
    lengths: set[int] = set()
    write = Journal.write_cursor

    def noting(journal: Journal, run_id: int, cursor: CursorRecord) -> None:
        lengths.add(cursor.chunk_pages)
        write(journal, run_id, cursor)

    monkeypatch.setattr(Journal, "write_cursor", noting)
    return lengths


def test_a_longer_chunk_makes_updates_heap_only_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a query that is always there again, chunks of 10 pages find no room;
    those that have grown do.
    """
    monkeypatch.setattr(strategy, "CHUNK_PAGES", 10)
    monkeypatch.setattr(health, "SNAPSHOT_CHECK_S", 0.0)
    pace = Pace.model_construct(duty=0.5, min_rows=10, max_rows=10)
    shares = []
    for name, ages in (("grown", strategy.SNAPSHOT_AGES), ("short", 0.0)):
        make_table(database, 2_000, name=name, filler=900)
        monkeypatch.setattr(strategy, "SNAPSHOT_AGES", ages)
        with (
            asked_again_and_again(database) as emit,
            workbench(database, name, pace=pace, emit=emit) as context,
        ):
            assert Backfill(context, table=name, column="c", value=Constant.of(1)).run() == 2_000
        shares.append(heap_only_share(database, name))
    grown, short = shares
    assert grown > 0.6
    assert short < 0.4


@contextmanager
def asked_again_and_again(dsn: str) -> Iterator[Callable[..., None]]:
    """A query of some batches' time, one after the other: counted in batches, it is as long on a busy
    machine.
    """
    batches = 0
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")

        def emit(event_type: Callable[..., Event], **_: object) -> None:
            nonlocal batches
            batches += event_type is BatchDone
            if event_type is BatchDone and batches % QUERY_BATCHES == 0:
                connection.rollback()
                connection.execute("SELECT 1")

        yield emit
        connection.rollback()


def heap_only_share(dsn: str, table: str) -> float:
    """Of all updates, once the session that made them has reported them."""
    updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = %s"
    await_true(lambda: int(str(ask(dsn, updates, table))) >= 2_000)
    share = "SELECT n_tup_hot_upd::float8 / n_tup_upd FROM pg_stat_user_tables WHERE relname = %s"
    return float(str(ask(dsn, share, table)))


def test_the_operator_s_own_query_counts(
    database: str, short_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside another worker it keeps dead rows for as long as it takes: the revisit interval is made longer
    than that.
    """
    make_table(database, 20_000)
    hold = HoldWhen(queries=[HoldQuery(name="slow", sql="SELECT pg_sleep(0.3) IS NULL")])
    with workbench(database, "t", pace=FAST, hold_when=hold) as context:
        lengths = noting_lengths(monkeypatch)
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 20_000
    assert max(lengths) > 40


def test_a_snapshot_that_no_chunk_outlasts_is_named(
    database: str, reader: psycopg.Connection, short_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a hold in the plan it goes on, and says who makes the table grow, once
    and not at every chunk.
    """
    monkeypatch.setattr(strategy, "CHUNK_SHARE_OF_BUFFERS", 0.0015)
    heard = Heard()
    with workbench(database, "t", pace=FAST, emit=heard.emit) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    notes = [n.message for n in heard.of("note") if "keeps dead rows from being pruned" in n.message]
    assert len(notes) == 1
    assert "a report" in notes[0]


def test_the_plan_may_wait_for_it_instead(database: str, reader: psycopg.Connection) -> None:
    """`hold_when: {oldest_snapshot: …}` holds until it has ended, and continues by itself."""
    heard = Heard()
    timer = threading.Timer(1.2, reader.rollback)
    timer.start()
    with workbench(
        database, "t", pace=FAST, emit=heard.emit, hold_when=HoldWhen.model_construct(oldest_snapshot=0.2)
    ) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 20_000
    timer.join()
    assert [w.kind for w in heard.of("wait_started")][:1] == ["oldest_snapshot"]
    assert heard.of("wait_ended")[0].seconds >= 0.5


def test_a_stop_ends_a_hold(database: str, reader: psycopg.Connection) -> None:
    """Ctrl-C while we wait for others is answered within a second."""
    from online_migrate.errors import Interrupted

    signal = Signal()
    timer = threading.Timer(0.5, lambda: signal.stop("test"))
    timer.start()
    began = time.monotonic()
    with (
        workbench(
            database, "t", hold_when=HoldWhen.model_construct(oldest_snapshot=0.2), signal=signal
        ) as context,
        pytest.raises(Interrupted),
    ):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    timer.join()
    assert time.monotonic() - began < 3


def test_a_slow_cursor_makes_longer_batches(database: str) -> None:
    """Its row decays behind an old snapshot: past a twentieth of the batch's time we commit less often,
    within bounds.
    """
    make_table(database, 10)
    with workbench(database, "t", pace=Pace.model_construct(batch_target=0.05, duty=1.0)) as context:
        work = Backfill(context, table="t", column="c", value=Constant.of(1))
        work._relax(0.001)
        assert work._pacer._target_s == 0.05
        for _ in range(100):
            work._relax(0.005)
        assert work._pacer._target_s == pytest.approx(0.1, rel=0.05)
        for _ in range(100):
            work._relax(1.0)
        assert work._pacer._target_s == 0.05 * LONGEST_RELAXED
        for _ in range(100):
            work._relax(0.0005)
        assert work._pacer._target_s == 0.05
