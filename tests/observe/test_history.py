"""The keeper of events: what it keeps, and that no worker waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from online_migrate import events as e
from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.history import KEPT, SUM_S, HistorySink, Summary
from online_migrate.observe.session import Session
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.observe.watch import SnapshotWatch
from online_migrate.postgres.connection import Connection, Connector
from tests.observe.made_runs import MadeRun, batch, begun_run, whole_run


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with begun_run(database) as made:
        yield made


@pytest.fixture
def session(run: MadeRun) -> Iterator[Session]:
    with Session(run.connector) as opened:
        yield opened


def run_started(run: MadeRun) -> e.RunStarted:
    return e.RunStarted(plan="shop", run_id=run.run_id, resumed=False, steps_total=7, steps_done=0)


def kept(run: MadeRun) -> tuple[HistoryRecord, ...]:
    return run.journal.read_history(run.run_id)


def test_what_happened_is_in_the_journal_after_close(run: MadeRun, session: Session) -> None:
    """A report can be made from the journal alone: every event but the many small ones, in order."""
    sink = HistorySink(session)
    sink.emit(run_started(run))
    for event in list(whole_run())[1:]:
        sink.emit(event)
    sink.close()
    names = [record.event for record in kept(run)]
    expected = [event.name for event in whole_run() if not isinstance(event, e.BatchDone | e.LongStatement)]
    expected.insert(expected.index("step_ended", expected.index("backfill_started")), "throughput")
    assert names == expected
    assert sink.dropped == 0
    held = next(r for r in kept(run) if r.event == "lock_held")
    assert (held.stage, held.step, held.table) == ("columns", "add_column bot_id", "users")
    assert held.fields["held_s"] == pytest.approx(0.004)


def test_batches_are_summed_by_table_and_time() -> None:
    """Ten minutes at twenty batches a second are sixty records a table, and no row is lost in them."""
    summary = Summary()
    records: list[e.Event] = []
    for tick in range(12_000):
        for table in ("users", "orders"):
            records += summary.take(batch(table, rows_done=(tick + 1) * 500), tick / 20)
    records += summary.rest()
    sums = [r for r in records if isinstance(r, e.Throughput)]
    assert len(sums) == len(records) <= 2 * 600 / SUM_S + 2
    users = [r for r in sums if r.table == "users"]
    assert sum(r.rows for r in users) == 12_000 * 500
    assert sum(r.batches for r in users) == 12_000
    assert users[-1].rows_done == 12_000 * 500


def test_a_step_that_ends_takes_its_sum_along() -> None:
    """The last seconds of a table come before its end, not after it."""
    summary = Summary()
    summary.take(batch(), 0)
    ended = e.StepEnded(stage="fill", step="backfill bot_id", table="users", outcome="done", seconds=1)
    assert [event.name for event in summary.take(ended, 1)] == ["throughput", "step_ended"]


def test_only_readings_and_blockers_that_change_something_are_kept() -> None:
    """A throttler that is read every second fills no table; that it turned red is news."""
    summary = Summary()

    def reading(utilisation: float) -> int:
        event = e.Reading(throttler="wal", utilisation=utilisation, reason="", age_s=0)
        return len(summary.take(event, 0))

    assert [reading(u) for u in (0.1, 0.2, 1.1, 1.5, 0.9)] == [1, 0, 1, 0, 1]
    seen = [e.BlockersSeen(waiting_for="users", blockers=(b,)) for b in ("a", "a", "b")]
    assert [len(summary.take(event, 0)) for event in seen] == [1, 0, 1]


def test_nobody_waits_for_a_server_that_is_away(run: MadeRun) -> None:
    """The runner hands an event over in microseconds, whatever the server does."""
    sink = HistorySink(Session(Connector(dsn="host=127.0.0.1 port=1 dbname=x")))
    began = time.monotonic()
    for _ in range(1_000):
        sink.emit(run_started(run))
    assert time.monotonic() - began < 0.5
    sink.close()


def test_a_lost_connection_loses_no_event(run: MadeRun, session: Session) -> None:
    """What was not written is written when the server is reachable again."""
    sink = HistorySink(session)
    sink.emit(run_started(run))
    sink.emit(e.Note(message="before"))
    wait_until(lambda: len(kept(run)) == 2)
    with psycopg.connect(run.connector.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE '%observe%'"
        )
    sink.emit(e.Note(message="after"))
    sink.close()
    assert [r.fields.get("message") for r in kept(run)] == [None, "before", "after"]


def wait_until(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_event_that_cannot_be_kept_does_not_stop_the_others(run: MadeRun, session: Session) -> None:
    """One event with a byte that PostgreSQL refuses must not bar the rest."""
    sink = HistorySink(session, run_id=run.run_id)
    sink.emit(e.Note(message="nul \0 byte"))
    sink.emit(e.Note(message="fine"))
    sink.close()
    assert [r.fields["message"] for r in kept(run)] == ["fine"]
    assert sink.dropped == 1


def test_memory_is_bounded(run: MadeRun, session: Session) -> None:
    """A server that is away for a day does not fill our memory; what was dropped is counted."""
    sink = HistorySink(session)
    sink._append([e.Note(message="x")] * (KEPT + 5))
    assert sink.dropped == 5
    sink.close()


def test_the_keeper_is_not_among_the_runners_statements(run: MadeRun) -> None:
    """Fault injection counts the runner's statements; a thread beside it would make the count a matter of
    luck.
    """
    calls: list[int] = []
    counted = Connector(dsn=run.connector.dsn, on_statement=lambda: calls.append(1))
    with Session(counted) as session:
        sink = HistorySink(session, run_id=run.run_id)
        sink.emit(e.Note(message="x"))
        sink.close()
    assert [r.fields["message"] for r in kept(run)] == ["x"]
    assert calls == []


def test_tables_are_measured_when_a_run_begins_and_ends(run: MadeRun, session: Session) -> None:
    """What a migration made of the tables' sizes is in the journal, for the report."""
    with psycopg.connect(run.connector.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (id int PRIMARY KEY)")
        sink = HistorySink(session)
        sink.emit(run_started(run))
        wait_until(lambda: len(kept(run)) == 2)
        connection.execute("INSERT INTO users SELECT generate_series(1, 10000)")
        sink.emit(e.RunEnded(outcome="done", exit_code=0, seconds=1))
        sink.close()
    first, last = (r.fields["sizes"] for r in kept(run) if r.event == "tables_measured")
    assert isinstance(first, dict)
    assert isinstance(last, dict)
    assert first.keys() == last.keys() == {"users"}
    assert last["users"][0] > first["users"][0] + 300_000
    assert last["users"][1] > first["users"][1] + 100_000


def test_sizes_are_not_worth_a_wait(run: MadeRun, session: Session) -> None:
    """Another session's strong lock on one table costs the sizes, not the events behind them."""
    with psycopg.connect(run.connector.dsn) as connection:
        connection.execute("CREATE TABLE users (id int PRIMARY KEY)")
        connection.commit()
        connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        sink = HistorySink(session)
        sink.emit(run_started(run))
        sink.emit(e.Note(message="goes on"))
        sink.close()
    assert [r.event for r in kept(run)] == ["run_started", "note"]


def test_a_slow_reading_on_the_same_session_loses_nothing(run: MadeRun, session: Session) -> None:
    """One connection is for the history and for all that is shown: what happens
    meanwhile waits in the queue.
    """
    reading, over = threading.Event(), threading.Event()

    def look(connection: Connection, _: Snapshot) -> None:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            reading.set()
            assert over.wait(5)
            connection.execute("SELECT 1")

    sink = HistorySink(session, run_id=run.run_id)
    watch = SnapshotWatch(session, "shop", readers=[look], every_s=0.01)
    watch.start()
    assert reading.wait(5)
    sink.emit(e.Note(message="meanwhile"))
    time.sleep(0.1)
    assert kept(run) == ()
    over.set()
    wait_until(lambda: len(kept(run)) == 1)
    watch.close()
    sink.close()
    assert sink.dropped == 0
    assert sessions_of(run) == ["online-migrate lease", "online-migrate observe", "online-migrate test"]


def sessions_of(run: MadeRun) -> list[str]:
    rows = run.journal.connection.execute(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'online-migrate%' ORDER BY 1"
    )
    return [name for (name,) in rows]
