"""Each throttler holds a real backfill in the middle, and lets it go on by itself; one that goes blind holds
it, too.

Standby lag and the oldest snapshot have tests of their own, beside a standby and a report.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from benchmarks.workbench import Heard, workbench
from online_migrate import waiting
from online_migrate.backfill import health
from online_migrate.backfill.throttlers import Throttle, Throttles, throttlers_for
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import Clock
from online_migrate.events import BatchDone, Event, WaitContinues, WaitEnded, WaitStarted
from online_migrate.plan.model import HoldWhen, Pace
from online_migrate.postgres.connection import Connection
from tests.backfill.tables import ask, do, make_table
from tests.backfill.throttlers.standby import Pair, await_true, write_wal
from tests.backfill.throttlers.test_multixacts import use_multixacts

PACE = Pace.model_construct(duty=1.0, min_rows=20, max_rows=20)
STALE_AFTER_S = 0.5
Act = Callable[[], None]


class Quick(Throttles):
    """Asks at every batch, and takes a throttler for blind after half a second."""

    def of(self, hold_when: HoldWhen, clock: Clock) -> Throttle:
        return Throttle(throttlers_for(hold_when), clock, every_s=0, stale_after_s=STALE_AFTER_S)


class Ears(Heard):
    """Turns it red after the first batch, and green as soon as a hold is reported."""

    def __init__(self, red: Act, green: Act) -> None:
        super().__init__()
        self._red, self._green = [red], green

    def emit(self, event_type: type[Event], **fields: Any) -> None:  # type: ignore[override]
        super().emit(event_type, **fields)
        if event_type is BatchDone and self._red:
            self._red.pop()()
        elif event_type in {WaitStarted, WaitContinues}:
            self._green()


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "THROTTLE_CHECK_S", 0.01)
    monkeypatch.setattr(waiting, "REPORT_EVERY_S", 0.2)


def assert_held(
    dsn: str, hold_when: Mapping[str, object], kind: str, red: Act, green: Act, *, pace: Pace = PACE
) -> str:
    """It is held in the middle, for that reason alone, and comes to its end; returns the reason."""
    make_table(dsn, 2_000)
    heard = Ears(red, green)
    with workbench(
        dsn, "t", pace=pace, hold_when=HoldWhen.model_validate(hold_when), emit=heard.emit
    ) as context:
        work = Backfill(replace(context, throttles=Quick()), table="t", column="c", value=Constant.of(1))
        assert work.run() == 2_000
    reported = [e for e in heard.events if isinstance(e, WaitStarted | WaitEnded | BatchDone)]
    began = next(n for n, e in enumerate(reported) if isinstance(e, WaitStarted))
    first, second, *later = reported[began:]
    assert isinstance(first, WaitStarted)
    assert isinstance(second, WaitEnded), "no batch while it is held"
    assert (first.kind, second.kind) == (kind, kind)
    assert any(isinstance(e, BatchDone) for e in reported[:began])
    assert any(isinstance(e, BatchDone) for e in later)
    return first.reason


def test_wal_since_the_last_checkpoint(database: str, connection: Connection) -> None:
    """Other sessions' WAL counts too; the checkpoint releases the hold."""
    connection.execute("CHECKPOINT")
    reason = assert_held(
        database,
        {"wal_since_checkpoint": "2%"},
        "wal_since_checkpoint",
        lambda: write_wal(connection, 22 * 1024**2),
        lambda: do(database, "CHECKPOINT"),
    )
    assert "since the last checkpoint" in reason


def test_wal_that_is_held_back(database: str, connection: Connection) -> None:
    """A slot that was made and forgotten while we ran."""
    make = "SELECT pg_create_physical_replication_slot('forgotten', true)"
    drop = (
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'forgotten'"
    )

    def red() -> None:
        connection.execute(make)
        write_wal(connection, 17 * 1024**2)

    try:
        held = {"wal_held": "16MiB"}
        reason = assert_held(database, held, "wal_held", red, lambda: do(database, drop))
    finally:
        do(database, drop)
    assert "replication slot forgotten" in reason


def test_lock_waiters(database: str) -> None:
    """Application sessions that wait in another queue, which the run does not cause."""
    do(database, "CREATE TABLE public.contended AS SELECT 1 AS a")
    with (
        psycopg.connect(database, application_name="shop") as holder,
        psycopg.connect(database, application_name="till", autocommit=True) as waiter,
    ):
        wait = threading.Thread(target=waiter.execute, args=["UPDATE public.contended SET a = 3"])
        waits = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() -"
            " interval '0.15 s'"
        )

        def red() -> None:
            holder.execute("UPDATE public.contended SET a = 2")
            wait.start()
            await_true(lambda: ask(database, waits) == 1)

        reason = assert_held(database, {"lock_waiters": 1}, "lock_waiters", red, holder.rollback)
        wait.join()
    assert "application till" in reason


def test_commit_latency(pair: Pair, synchronous: Connection) -> None:
    """Our batches commit asynchronously and would not notice a standby that has stopped or
    stalled: the application does.
    """
    do(pair.primary.dsn, "DROP TABLE IF EXISTS t")
    held = {"commit_latency": "200ms"}
    assert "our probe commit took" in assert_held(
        pair.primary.dsn, held, "commit_latency", pair.pause, pair.resume
    )
    do(pair.primary.dsn, "DROP TABLE t")


def test_multixacts(database: str, connection: Connection) -> None:
    """Inserts of children use ids up while we run; freezing the database lets us go."""
    connection.execute("VACUUM (FREEZE)")
    reason = assert_held(
        database,
        {"multixact_age": "0.0001%"},
        "multixacts",
        lambda: use_multixacts(database, rows=500, sessions=2),
        lambda: do(database, "VACUUM (FREEZE)"),
    )
    assert "the oldest multixact" in reason


def test_one_that_goes_blind_holds(database: str, clerk: str) -> None:
    """A right that is taken away in the night is no green: it holds from the moment at which the last answer
    is stale.
    """
    user = psycopg.conninfo.conninfo_to_dict(clerk)["user"]
    reason = assert_held(
        clerk,
        {"oldest_snapshot": "1h"},
        "oldest_snapshot",
        lambda: do(database, f"REVOKE pg_read_all_stats FROM {user}"),
        lambda: do(database, f"GRANT pg_read_all_stats TO {user}"),
        pace=PACE.model_copy(update={"duty": 0.1}),
    )
    assert reason.startswith("throttler oldest_snapshot has not answered for ")
    assert "it is not a member of pg_read_all_stats" in reason
