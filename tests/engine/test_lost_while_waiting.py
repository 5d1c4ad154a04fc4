"""A session that is lost while we wait: the wait ends with it, and what comes next is reported correctly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from psycopg import sql

from online_migrate import events as e
from online_migrate.clock import Signal, SystemClock
from online_migrate.engine.runner import Runner
from online_migrate.errors import Interrupted
from online_migrate.journal.sessions import Sessions
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.observe.words import describe
from online_migrate.plan.model import HoldQuery, HoldWhen, Pace, Plan
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connector
from online_migrate.run import RunContext
from tests.backfill.plans import plan_of
from tests.backfill.tables import ask, do, make_table

END_SESSIONS = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'online-migrate %'"""


class Failover:
    """A Sink that ends all our sessions when we are held, and lets us go when we are back."""

    def __init__(self, dsn: str) -> None:
        self.metrics = MetricsSink(plan="small")
        self.events: list[e.Event] = []
        self.waiting: list[float | None] = []
        """at each batch, whether the metrics say that we are held"""
        self._dsn = dsn

    def emit(self, event: e.Event) -> None:
        self.metrics.emit(event)
        self.events.append(event)
        if isinstance(event, e.WaitStarted) and event.kind == "query_on" and not self.of(e.Reconnected):
            ask(self._dsn, END_SESSIONS)
        elif isinstance(event, e.Reconnected):
            do(self._dsn, "UPDATE held SET it_is = false")
        elif isinstance(event, e.BatchDone):
            labels = {"plan": "small", "kind": "query_on"}
            self.waiting.append(self.metrics.registry.get_sample_value("online_migrate_waits_open", labels))

    def of(self, *kinds: type[e.Event]) -> list[e.Event]:
        return [event for event in self.events if isinstance(event, kinds)]


def held_plan() -> Plan:
    """One backfill, held while the operator's query is true."""
    plan = plan_of("backfill: {table: t, column: c, value: 1}")
    hold = HoldWhen(queries=[HoldQuery(name="on", sql="SELECT it_is FROM held")])
    return replace(plan, stages=(replace(plan.stages[0], pace=Pace(), hold_when=hold),))


def test_a_hold_ends_with_its_session(database: str) -> None:
    """A failover while a standby holds us: afterwards batches run, and nothing says that we are held."""
    make_table(database, 500, more="CREATE TABLE held (it_is boolean); INSERT INTO held VALUES (true)")
    sink = Failover(database)
    Runner(
        context=RunContext.create(
            held_plan(),
            Connector(dsn=database),
            clock=SystemClock(),
            signal=Signal(),
            sink=sink,
            secrets=Secrets({}, {}),
            show_secret=lambda *_: "nowhere",
        )
    ).run()
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 500
    first, second, third = sink.of(e.WaitStarted, e.WaitEnded, e.Reconnected)[:3]
    assert isinstance(first, e.WaitStarted)
    assert isinstance(second, e.WaitEnded)
    assert (first.kind, second.kind) == ("query_on", "query_on")
    assert isinstance(third, e.Reconnected)
    assert "was lost (57P01: terminating connection due to administrator command)" in third.lost
    assert sink.waiting
    assert set(sink.waiting) == {0.0}


@pytest.mark.parametrize("purpose", ["work", "watch", "journal"])
def test_a_session_that_was_ended_is_named(database: str, purpose: str) -> None:
    """An operator who ends a session in the night reads in the morning which it was, and that the server
    ended it.
    """
    heard: list[dict[str, Any]] = []
    sessions = Sessions(
        connector=Connector(dsn=database),
        signal=Signal(),
        emit=lambda _, **fields: heard.append(fields),
        clock=SystemClock(),
    )
    sessions.open()
    pid = getattr(sessions, purpose).info.backend_pid
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        if len(tries) == 1:
            ask(database, "SELECT pg_terminate_backend(%s, 5000)", pid)
        getattr(sessions, purpose).execute("SELECT 1")

    try:
        sessions.with_reconnect(work, sql.SQL("SELECT 1"), lambda: "it")
    finally:
        sessions.close()
    (fields,) = heard
    lost = f"session '{purpose}' was lost (57P01: terminating connection due to administrator command)"
    assert fields["lost"] == lost
    said = describe("reconnected", fields)
    assert said.startswith(f"{lost}; connected again after ")


def test_a_connection_that_is_away_is_waited_for(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For up to 15 minutes: status shows that the run waits, and for what, instead of a time that is left."""
    monkeypatch.setattr("online_migrate.journal.sessions.RECONNECT_FOR_S", 0.5)
    heard: list[tuple[type[e.Event], str]] = []
    signal = Signal()

    def emit(event_type: type[e.Event], **fields: str) -> None:
        heard.append((event_type, fields.get("kind", "")))
        if event_type is e.WaitStarted:
            assert "refused" in fields["reason"]
            signal.stop("enough")

    sessions = Sessions(
        connector=Connector(dsn="host=127.0.0.1 port=1 user=u dbname=d"),
        signal=signal,
        emit=emit,
        clock=SystemClock(),
    )
    with pytest.raises(Interrupted):
        sessions.reopen(sql.SQL("SELECT 1"))
    assert heard[0] == (e.WaitStarted, "connection")
    assert heard[-1] == (e.WaitEnded, "connection")
