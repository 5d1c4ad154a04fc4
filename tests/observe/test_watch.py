"""The reader of snapshots."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from online_migrate.observe.snapshot import Snapshot
from online_migrate.observe.watch import SnapshotWatch
from online_migrate.postgres.connection import Connection, Connector
from tests.observe.made_runs import MadeRun, begun_run


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with begun_run(database) as made:
        yield made


def test_listeners_see_the_run_move_and_its_end(run: MadeRun) -> None:
    """The terminal's last picture is the end of the run, even if it came between two readings."""
    seen: list[Snapshot] = []
    watch = SnapshotWatch(run.connector, "shop", [seen.append], every_s=0.02)
    watch.start()
    deadline = time.monotonic() + 5
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen[0].state == "running"
    run.journal.set_run(run.run_id, "done")
    watch.close()
    watch.close()
    assert seen[-1].state == "done"


def test_a_server_that_is_away_is_borne() -> None:
    """Drawing is never a reason to fail."""
    seen: list[Snapshot] = []
    watch = SnapshotWatch(
        Connector(dsn="host=127.0.0.1 port=1 dbname=x"), "shop", [seen.append], every_s=0.01
    )
    watch.start()
    watch.close()
    assert seen == []


def test_a_watch_that_never_started_can_be_closed() -> None:
    """Whoever cleans up after a failed start need not know how far it came."""
    SnapshotWatch(Connector(dsn=""), "shop", []).close()


def test_a_picture_that_costs_much_is_drawn_seldom(run: MadeRun) -> None:
    """Watching takes a few per cent of a core, however large the plan is."""
    seen: list[float] = []

    def draw(_: Snapshot) -> None:
        seen.append(time.thread_time())
        while time.thread_time() - seen[-1] < 0.02:
            pass

    watch = SnapshotWatch(run.connector, "shop", [draw], every_s=0.01)
    watch.start()
    time.sleep(1.5)
    watch.close()
    assert len(seen) <= 4


def test_a_reading_that_fails_takes_no_picture_away(run: MadeRun) -> None:
    """Without the right to read a statistic the run is still shown; and both read on one connection."""
    seen: list[Snapshot] = []
    sessions: set[int] = set()

    def look(connection: Connection, _: Snapshot) -> None:
        sessions.add(connection.info.backend_pid)
        connection.execute("SELECT no_such_column")

    watch = SnapshotWatch(run.connector, "shop", [seen.append], looks=[look], every_s=0.02)
    watch.start()
    deadline = time.monotonic() + 5
    while len(seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.close()
    assert len(seen) >= 3
    assert len(sessions) == 1
