"""Another session's strong lock delays a run and does not end it, even where a step only reads its table."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from online_migrate.clock import Signal, SystemClock
from online_migrate.engine.lock_retry import LockRetry
from online_migrate.engine.runner import Runner
from online_migrate.errors import LockNotAcquired
from online_migrate.events import Event, Sinks, StepStarted
from online_migrate.plan.model import LockRules
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres import connection as sessions_settings
from online_migrate.postgres.connection import Connector
from online_migrate.run import RunContext
from tests.backfill.plans import plan_of
from tests.backfill.tables import ask, make_table
from tests.desk import Desk

STEPS = ("backfill: {table: t, column: c, value: 1}", "set_not_null: {table: t, column: c}")
LOCK = "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's lock_timeout of 5 s makes nothing clearer."""
    monkeypatch.setitem(sessions_settings._SESSION, "lock_timeout", "300ms")


class Intruder:
    """A Sink that locks the table when a step begins, for some time; keeps what it hears."""

    def __init__(self, dsn: str, *, step: str, seconds: float) -> None:
        self.events: list[Event] = []
        self._dsn, self._step, self._seconds = dsn, step, seconds

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepStarted) and event.step.startswith(self._step):
            self._step = "never again"
            session = psycopg.connect(self._dsn, application_name="an ORM")
            session.execute(LOCK)
            self._timer = threading.Timer(self._seconds, session.close)
            self._timer.start()

    def leave(self) -> None:
        self._timer.join()

    def of(self, name: str) -> list[Any]:
        return [e for e in self.events if e.name == name]


def run(dsn: str, sink: Intruder, *, lock_wait: float = 20.0) -> None:
    Runner(
        context=RunContext.create(
            replace(plan_of(*STEPS), locks=LockRules.model_construct(lock_wait=lock_wait)),
            Connector(dsn=dsn),
            clock=SystemClock(),
            signal=Signal(),
            sink=sink,
            secrets=Secrets({}, {}),
            show_secret=lambda *_: "nowhere",
        )
    ).run()


@pytest.mark.parametrize("step", ["backfill", "set_not_null"])
def test_a_lock_in_the_way_of_a_look_is_waited_for(database: str, step: str) -> None:
    """VACUUM FULL, or an ORM's ALTER, under a step that reads its table: who it is is said, and then it goes
    on.
    """
    make_table(database, 200)
    sink = Intruder(database, step=step, seconds=1.5)
    run(database, sink)
    (wait,) = sink.of("wait_started")
    assert wait.kind == "table_lock"
    assert "an ORM" in wait.reason
    assert wait.step.startswith(step)
    assert sink.of("wait_ended")[0].seconds > 0.5
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 200


def test_a_lock_that_stays_ends_the_run_with_its_holder_s_name(database: str) -> None:
    """Exit 4 after the plan's lock_wait, resumable."""
    make_table(database, 200)
    intruder = Intruder(database, step="backfill", seconds=3)
    with pytest.raises(LockNotAcquired, match="an ORM") as caught:
        run(database, intruder, lock_wait=0.5)
    intruder.leave()
    assert caught.value.exit_code == 4
    sink = Intruder(database, step="none", seconds=0)
    run(database, sink)
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 200


def test_a_lock_in_the_way_of_the_check_is_no_surprise(database: str) -> None:
    """Before anything is run there is nothing to wait for: exit 4, and what to do."""
    make_table(database, 200)
    with psycopg.connect(database) as orm:
        orm.execute(LOCK)
        with pytest.raises(LockNotAcquired, match="could not be read within our lock_timeout") as caught:
            run(database, Intruder(database, step="none", seconds=0))
    assert "wait until the sessions end" in caught.value.remedy


def test_a_look_before_the_run_names_who_locks_the_table(desk: Desk) -> None:
    """Nothing is run, and it is not tried again: the message says whom to ask."""
    with desk.connect() as orm:
        orm.execute("SET application_name = 'nightly report'")
        with orm.transaction():
            orm.execute("LOCK TABLE transactions")
            for command in ("check", "explain", "run"):
                said = desk.call(command)
                assert said.code == 4, said.all
                assert "error: transactions could not be read within our lock_timeout" in said.err
                assert "nightly report" in said.err
    assert not desk.has_journal()


def test_the_victim_of_a_deadlock_comes_again(database: str) -> None:
    """40P01 is as good a reason to try once more; other errors of the server are not."""
    signal, clock, tries = Signal(), SystemClock(), []
    context = RunContext.create(
        plan_of(*STEPS),
        Connector(dsn=database),
        clock=clock,
        signal=signal,
        sink=Sinks(),
        secrets=Secrets({}, {}),
        show_secret=lambda *_: "nowhere",
    )
    context.sessions.open()
    patience = LockRetry(run=context)

    def work() -> None:
        tries.append(1)
        raise psycopg.errors.DeadlockDetected if len(tries) < 3 else psycopg.errors.UndefinedTable

    with pytest.raises(psycopg.errors.UndefinedTable):
        patience.take(work, "t", lambda *_, **__: None, lambda: 0.0, signal)
    assert len(tries) == 3
    context.sessions.close()
