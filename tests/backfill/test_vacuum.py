"""VACUUM rounds, where an index holds the column, are as gentle as the batches between them."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from benchmarks.workbench import UNTHROTTLED, Heard, workbench
from online_migrate.backfill import vacuum
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.errors import Interrupted
from online_migrate.events import Event, LongStatement, WaitStarted
from online_migrate.plan.model import HoldQuery, HoldWhen, LockRules, Pace
from tests.backfill.tables import ask, do, make_table

PACE = Pace.model_construct(duty=0.5, batch_target=0.5, max_rows=20_000)
HELD = HoldWhen(queries=[HoldQuery(name="held", sql="SELECT it_is FROM held")])
VACUUMS = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE datname = current_database()"
ENDS_WITHIN_S = 2.0


class Ears(Heard):
    """Does something when the first round has been seen at work."""

    def __init__(self, then: Any) -> None:
        super().__init__()
        self._then = then

    def emit(self, event_type: type[Event], **fields: Any) -> None:  # type: ignore[override]
        super().emit(event_type, **fields)
        if event_type is LongStatement and self._then is not None:
            then, self._then = self._then, None
            then()


@pytest.fixture
def slow(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table with an index on the column, whose rounds would take half a minute each."""
    make_table(
        database,
        100_000,
        more="CREATE INDEX ON t (c); CREATE TABLE held (it_is boolean); INSERT INTO held VALUES (false)",
    )
    name = ask(database, "SELECT current_database()")
    do(database, f'ALTER DATABASE "{name}" SET vacuum_cost_limit = 10')
    monkeypatch.setattr(vacuum, "VACUUM_DELAY_MS", 100.0)
    return database


def test_a_round_ends_when_a_throttler_turns_red(slow: str) -> None:
    """A stalled standby does not get the WAL of a tenth of the table;
    afterwards all is as it was.
    """
    ended: list[float] = []

    def hold() -> None:
        do(slow, "UPDATE held SET it_is = true")
        threading.Thread(target=await_held).start()

    def await_held() -> None:
        began = time.monotonic()
        while ask(slow, VACUUMS) != 0:
            time.sleep(0.05)
        ended.append(time.monotonic() - began)
        while not heard.of("wait_started"):
            time.sleep(0.05)
        vacuum.VACUUM_DELAY_MS = 0.0  # the fixture puts it back
        do(slow, "UPDATE held SET it_is = false")

    heard = Ears(hold)
    with workbench(slow, "t", pace=PACE, hold_when=HELD, emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 100_000
        for name, value in (("vacuum_cost_delay", "0"), ("lock_timeout", "5s")):
            assert context.work.execute(f"SHOW {name}".encode()).fetchone() == (value,)
    assert ended[0] < ENDS_WITHIN_S
    (wait,) = [e for e in heard.events if isinstance(e, WaitStarted)]
    assert wait.kind == "query_held"


def test_a_round_ends_when_a_stop_is_asked_for(slow: str) -> None:
    """It need not come to its end: what it has cleaned stays clean, and the rest is the next one's."""
    stopped: list[float] = []

    def stop() -> None:
        stopped.append(time.monotonic())
        context.signal.stop("enough")

    heard = Ears(stop)
    with (
        workbench(slow, "t", pace=PACE, emit=heard.emit) as context,
        pytest.raises(Interrupted, match="enough"),
    ):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    assert time.monotonic() - stopped[0] < ENDS_WITHIN_S


def test_a_round_does_not_wait_for_a_lock(database: str) -> None:
    """An autovacuum against wraparound, or another session's concurrent build, may take hours: the batches go
    on beside it.
    """
    make_table(database, 100_000, more="CREATE INDEX ON t (c)")
    heard, locks = Heard(), LockRules.model_construct(long_statement=1.0)
    with (
        psycopg.connect(database) as other,
        workbench(database, "t", pace=UNTHROTTLED, locks=locks, emit=heard.emit) as context,
    ):
        other.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        assert Backfill(context, table="t", column="c", value=Constant.of(1)).run() == 100_000
    assert not [e for e in heard.of("long_statement") if e.waits_for]
