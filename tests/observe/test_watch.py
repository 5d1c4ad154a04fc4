"""The reader of snapshots."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from online_migrate.cli.common import read_plan
from online_migrate.cli.run import _serve_metrics
from online_migrate.journal.states import RunState
from online_migrate.observe.session import Session
from online_migrate.observe.snapshot.read import Snapshot
from online_migrate.observe.watch import FRESH_S, REST_S, SnapshotWatch
from online_migrate.observe.web import LOOPBACK
from online_migrate.postgres.connection import Connection, Connector
from tests.observe.made_runs import MadeRun, begun_run

PLAN = Path(__file__).parents[2] / "plans" / "multi_tenant.yaml"


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with begun_run(database) as made:
        yield made


@pytest.fixture
def session(run: MadeRun) -> Iterator[Session]:
    with Session(run.connector) as opened:
        yield opened


def test_listeners_see_the_run_move_and_its_end(run: MadeRun, session: Session) -> None:
    """The terminal's last picture is the end of the run, even if it came between two readings."""
    seen: list[Snapshot] = []
    watch = SnapshotWatch(session, "shop", [seen.append], every_s=0.02)
    watch.start()
    deadline = time.monotonic() + 5
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen[0].state == "running"
    run.journal.set_run(run.run_id, RunState.DONE)
    watch.close()
    watch.close()
    assert seen[-1].state == "done"


def test_a_server_that_is_away_is_borne() -> None:
    """Drawing is never a reason to fail."""
    seen: list[Snapshot] = []
    away = Session(Connector(dsn="host=127.0.0.1 port=1 dbname=x"))
    watch = SnapshotWatch(away, "shop", [seen.append], every_s=0.01)
    watch.start()
    watch.freshen()
    watch.close()
    assert seen == []


def test_a_watch_that_never_started_can_be_closed() -> None:
    """Clean-up after a failed start need not know how far it came."""
    watch = SnapshotWatch(Session(Connector(dsn="")), "shop")
    watch.freshen()
    watch.close()


def test_a_picture_that_costs_much_is_drawn_seldom(session: Session) -> None:
    """Watching takes a few per cent of a core, however large the plan is."""
    seen: list[float] = []

    def draw(_: Snapshot) -> None:
        seen.append(time.thread_time())
        while time.thread_time() - seen[-1] < 0.02:
            pass

    watch = SnapshotWatch(session, "shop", [draw], every_s=0.01)
    watch.start()
    time.sleep(1.5)
    watch.close()
    assert len(seen) <= 4


def test_a_reading_that_fails_takes_no_picture_away(session: Session) -> None:
    """Without the right to read a statistic the run is still shown; and both read on one connection."""
    seen: list[Snapshot] = []
    sessions: set[int] = set()

    def look(connection: Connection, _: Snapshot) -> None:
        sessions.add(connection.info.backend_pid)
        connection.execute("SELECT no_such_column")

    watch = SnapshotWatch(session, "shop", [seen.append], readers=[look], every_s=0.02)
    watch.start()
    deadline = time.monotonic() + 5
    while len(seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.close()
    assert len(seen) >= 3
    assert len(sessions) == 1


def test_who_fails_takes_nobody_with_it(session: Session) -> None:
    """A closed terminal, or a defect of ours, leaves the page and the metrics as fresh as before; each
    failure is counted.
    """
    errors: list[int] = []
    seen: list[Snapshot] = []
    looked: list[Snapshot] = []

    def draw(_: Snapshot) -> None:
        raise OSError(errno.EIO, "the terminal is gone")

    def look(_connection: Connection, _: Snapshot) -> None:
        raise KeyError("a defect")

    watch = SnapshotWatch(session, "shop", [draw, seen.append], every_s=0.02)
    watch.readers = [look, lambda _, snapshot: looked.append(snapshot)]
    watch.on_error = lambda: errors.append(1)
    watch.start()
    wait_for(lambda: len(seen) >= 3)
    watch.close()
    assert len(seen) == len(looked)
    assert len(errors) == 2 * len(seen)


def test_a_runner_counts_what_fails(session: Session) -> None:
    """The dashboard has the number; without it a page that is not updated would look like a run without
    progress.
    """
    watch = SnapshotWatch(session, "shop")
    with ExitStack() as stack:
        metrics = _serve_metrics(read_plan(PLAN), (LOOPBACK, 0), watch, stack)
        watch.on_error()
    assert (
        metrics.registry.get_sample_value("online_migrate_metrics_errors_total", {"plan": "multi_tenant"})
        == 1
    )


def test_who_asks_sees_what_is_now(run: MadeRun, session: Session) -> None:
    """A page that is opened shows the current state, and one that is not open is not drawn."""
    seen: list[Snapshot] = []
    watch = SnapshotWatch(session, "shop", [seen.append], every_s=60)
    watch.start()
    wait_for(lambda: len(seen) == 1)  # it has begun
    run.journal.set_run(run.run_id, RunState.STOPPED)
    time.sleep(REST_S)
    watch.freshen()
    assert [s.state for s in seen] == ["running", "stopped"]
    began = time.monotonic()
    for _ in range(100):
        watch.freshen()
    assert time.monotonic() - began < FRESH_S
    watch.close()
    assert len(seen) == 3  # the end is read in any case


def test_who_asks_waits_for_a_moment_only(run: MadeRun, session: Session) -> None:
    """A scrape or a page does not wait for a server that does not answer: it shows what was last known."""
    seen: list[Snapshot] = []
    watch = SnapshotWatch(session, "shop", [seen.append], every_s=60)
    watch.start()
    wait_for(lambda: len(seen) == 1)
    time.sleep(REST_S)
    with session.get().transaction():  # this thread's turn
        began = time.monotonic()
        watch.freshen()
        assert FRESH_S <= time.monotonic() - began < FRESH_S + 1
    wait_for(lambda: len(seen) == 2)
    watch.close()


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
