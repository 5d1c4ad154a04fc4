"""A wait is reported when it starts, every 10 s with its current reason, and when it ends."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import psycopg
import pytest

from benchmarks.workbench import UNTHROTTLED, Heard, workbench
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import SystemClock
from online_migrate.events import Event, WaitContinues, WaitEnded, WaitStarted
from online_migrate.plan.model import HoldQuery, HoldWhen
from online_migrate.waiting import Waiting
from tests.backfill.hearing import ActsOnReports, ActsOnWait
from tests.backfill.tables import do, make_table

LOCK = "BEGIN; LOCK TABLE t IN SHARE MODE"


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 0.3 s."""
    monkeypatch.setattr("online_migrate.waiting.REPORT_EVERY_S", 0.3)


def waits_of(heard: Heard, kind: str) -> list[WaitContinues]:
    """Those in the middle, where all is of that kind and the first and the last are what they must be."""
    first, *middle, last = [e for e in heard.events if isinstance(e, WaitStarted | WaitContinues | WaitEnded)]
    assert isinstance(first, WaitStarted)
    assert isinstance(last, WaitEnded)
    again = [e for e in middle if isinstance(e, WaitContinues)]
    assert len(again) == len(middle) >= 2
    assert first.kind == last.kind == kind
    assert {e.kind for e in again} == {kind}
    assert [e.seconds for e in again] == sorted(e.seconds for e in again)
    return again


def test_who_locks_the_table_is_told_again(database: str) -> None:
    """The operator who ends the first session learns that another has come."""
    make_table(database, 50)
    first = psycopg.connect(database, application_name="the first", autocommit=True)
    second = psycopg.connect(database, application_name="the second", autocommit=True)
    first.execute(LOCK)
    second.execute(LOCK)
    heard = ActsOnReports(
        ("the first", first.close), ("the second", lambda: None), ("the second", second.close)
    )
    with workbench(database, "t", emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 50
    assert "the second" in waits_of(heard, "table_lock")[-1].reason


def test_another_in_the_way_is_told_at_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after the 10 s of a log line: until then status would offer to end a session that has ended."""
    monkeypatch.setattr("online_migrate.waiting.REPORT_EVERY_S", 3600.0)
    monkeypatch.setattr("online_migrate.waiting.REPORT_CHANGED_S", 0.1)
    make_table(database, 50)
    first = psycopg.connect(database, application_name="the first", autocommit=True)
    second = psycopg.connect(database, application_name="the second", autocommit=True)
    first.execute(LOCK)
    second.execute(LOCK)
    timer = threading.Timer(0.8, second.close)
    heard = ActsOnReports(("the first", first.close), ("the second", timer.start))
    with workbench(database, "t", emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 50
    timer.join()
    (began,) = heard.of("wait_started")
    again = heard.of("wait_continues")
    assert "the first" in began.reason
    assert "the second" in again[0].reason
    assert len(again) == 1, "the same one is reported no more often than before"


def test_a_wait_for_a_lock_is_no_work_of_the_batch(database: str) -> None:
    """Rows in 10 s, of which 9.9 were a wait: the batch is measured by its work."""
    make_table(database, 50)
    orm = psycopg.connect(database, autocommit=True)
    orm.execute(LOCK)
    heard = ActsOnWait(0.8, orm.close)
    with workbench(database, "t", emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 50
    (batch,) = heard.of("batch_done")
    (waited,) = heard.of("wait_ended")
    assert waited.seconds > 0.4
    assert batch.seconds < waited.seconds / 2


def test_what_holds_us_is_told_again_with_its_figures(database: str) -> None:
    """A queue that grows from 7 to 9 is said to be 9."""
    make_table(database, 50, more="CREATE TABLE queue (depth int); INSERT INTO queue VALUES (7)")
    hold = HoldWhen(queries=[HoldQuery(name="queue", sql="SELECT depth FROM queue", limit=5.0)])
    heard = ActsOnReports(
        ("7", partial(do, database, "UPDATE queue SET depth = 9")),
        ("9", lambda: None),
        ("9", partial(do, database, "UPDATE queue SET depth = 1")),
    )
    with workbench(database, "t", pace=UNTHROTTLED, hold_when=hold, emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 50
    assert "9" in waits_of(heard, "query_queue")[-1].reason


def test_a_hold_is_told_by_what_holds(database: str) -> None:
    """The queue is short again and another reading is red by then: its name, its seconds, not the first
    one's.
    """
    make_table(
        database, 50, more="CREATE TABLE queue (depth int, errors int); INSERT INTO queue VALUES (7, 0)"
    )
    queries = [
        HoldQuery(name=name, sql=f"SELECT {name} FROM queue", limit=5.0) for name in ("depth", "errors")
    ]
    heard = ActsOnReports(
        ("query_depth is 7", partial(do, database, "UPDATE queue SET depth = 1, errors = 9")),
        ("query_errors is 9", partial(do, database, "UPDATE queue SET errors = 0")),
    )
    hold = HoldWhen(queries=queries)
    with workbench(database, "t", pace=UNTHROTTLED, hold_when=hold, emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 50
    reported = [e for e in heard.events if isinstance(e, WaitStarted | WaitEnded)]
    assert [e.kind for e in reported] == ["query_depth"] * 2 + ["query_errors"] * 2
    assert isinstance(reported[2], WaitStarted)
    assert "query_errors is 9" in reported[2].reason


def test_a_wait_that_is_cut_off_is_over() -> None:
    """A connection that is lost, a stop, a lock not acquired: its seconds are still reported, once."""
    heard: list[type[Event]] = []

    def emit(event_type: type[Event], **_: Any) -> None:
        heard.append(event_type)

    def lose() -> None:
        with Waiting(emit, SystemClock(), "standby_lag") as waiting:
            waiting.report("one")
            waiting.end()
            waiting.report("two")
            raise psycopg.OperationalError

    with pytest.raises(psycopg.OperationalError):
        lose()
    assert heard == [WaitStarted, WaitEnded] * 2
    with Waiting(emit, SystemClock(), "standby_lag"):
        pass
    assert len(heard) == 4, "what never started is not reported"
