"""A reader that reads again and again: cheap, and never behind the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from online_migrate import events as e
from online_migrate.journal.changes import HISTORY
from online_migrate.journal.states import RunState, StageState, StepState
from online_migrate.observe.snapshot.memory import Memory
from online_migrate.observe.snapshot.read import Snapshot, read_snapshot
from online_migrate.postgres.connection import Connection
from tests.observe.made_runs import BACKFILL, MadeRun, begun_run, make_plan, make_steps, started

TABLES = ("tables", "create_tables", "")


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with begun_run(database) as made:
        yield made


@pytest.fixture
def connection(run: MadeRun) -> Iterator[Connection]:
    with run.connector.open("test") as opened:
        yield opened


def still(snapshot: Snapshot | None) -> Snapshot:
    """Without what is another at every look."""
    assert snapshot is not None
    assert snapshot.holder is not None
    holder = replace(snapshot.holder, heartbeat_age_s=0)
    stages = tuple(
        replace(stage, steps=tuple(replace(s, seconds=None, rate=None, eta_s=None) for s in stage.steps))
        for stage in snapshot.stages
    )
    return replace(snapshot, read_at=snapshot.started_at, holder=holder, stages=stages)


def begin_backfill(run: MadeRun) -> None:
    run.journal.set_step(run.run_id, BACKFILL, StepState.RUNNING)
    run.put_cursor()
    run.tell(started())


CHANGES: dict[str, Callable[[MadeRun], None]] = {
    "nothing": lambda _: None,
    "a step begins": lambda run: run.journal.set_step(run.run_id, TABLES, StepState.RUNNING),
    "a step is done": lambda run: run.journal.set_step(run.run_id, TABLES, StepState.DONE),
    "a step fails": lambda run: run.journal.set_step(run.run_id, TABLES, StepState.FAILED, reason="no"),
    "a step is set back": lambda run: run.journal.set_step(run.run_id, TABLES, StepState.PENDING),
    "a stage waits": lambda run: run.journal.set_stage(run.run_id, "swap", StageState.WAITING, "approve it"),
    "an event": lambda run: run.tell(e.Note(message="news")),
    "a backfill begins": begin_backfill,
    "a cursor moves": lambda run: run.put_cursor(chunk=300, rows_done=3_000),
    "a wait": lambda run: run.tell(
        e.WaitStarted(stage="fill", step="backfill bot_id", table="users", kind="blocker", reason="pid 1")
    ),
    "the run stops": lambda run: run.journal.set_run(run.run_id, RunState.STOPPED, "as asked"),
}  # fmt: skip


def test_a_memory_shows_what_a_fresh_look_shows(run: MadeRun, connection: Connection) -> None:
    """After every kind of change the page is what it would be without a memory."""
    memory = Memory()
    for name, change in CHANGES.items():
        change(run)
        remembered = still(read_snapshot(connection, "shop", memory))
        assert remembered == still(read_snapshot(connection, "shop")), name


def test_what_has_not_changed_is_not_read_again(run: MadeRun, connection: Connection) -> None:
    """Of a plan of 2,700 steps a look every second costs little while one of them is at work."""
    memory = Memory()
    first = read_snapshot(connection, "shop", memory)
    second = read_snapshot(connection, "shop", memory)
    assert first is not None
    assert second is not None
    assert all(a is b for a, b in zip(first.steps, second.steps, strict=True))
    assert first.history is second.history


def test_new_events_are_read_once(run: MadeRun, connection: Connection) -> None:
    """Of a long night's history a look reads what came since the last one, and keeps the newest of all."""
    memory = Memory()
    for n in range(HISTORY + 20):
        run.tell(e.Note(message=str(n)))
        if n % 100 == 0:
            read_snapshot(connection, "shop", memory)
    remembered, fresh = read_snapshot(connection, "shop", memory), read_snapshot(connection, "shop")
    assert remembered is not None
    assert fresh is not None
    assert remembered.history == fresh.history
    assert len(fresh.history) == HISTORY


def test_a_wait_that_lasts_is_not_forgotten_beside_busy_tables(run: MadeRun, connection: Connection) -> None:
    """One table is locked, and seven others write their throughput: after an hour it
    waits still, since then.
    """
    memory = Memory()
    begin_backfill(run)
    users = {"stage": BACKFILL[0], "step": BACKFILL[1], "table": BACKFILL[2]}
    run.tell(e.WaitStarted(**users, kind="table_lock", reason="users is locked"))
    orders = e.Throughput(
        stage=BACKFILL[0], step=BACKFILL[1], table="orders", rows=1, batches=1, pages=1, worked_s=1, paused_s=1,
        rows_done=1, share_done=0.1,
    )  # fmt: skip
    looked = read_snapshot(connection, "shop", memory)
    for n in range(HISTORY + 20):
        run.tell(orders)
        if n % 100 == 0:
            read_snapshot(connection, "shop", memory)
    snapshots = [looked, read_snapshot(connection, "shop", memory), read_snapshot(connection, "shop")]
    waits = [snapshot.waits for snapshot in snapshots if snapshot is not None]
    assert [wait.reason for wait in waits[0]] == ["users is locked"]
    assert waits == [waits[0]] * 3
    run.tell(e.WaitEnded(**users, kind="table_lock", seconds=1))
    for again in (read_snapshot(connection, "shop", memory), read_snapshot(connection, "shop")):
        assert again is not None
        assert again.waits == ()


def test_more_events_than_a_look_reads_may_have_ended_a_wait(run: MadeRun, connection: Connection) -> None:
    """A reading after a long time starts again: a wait that was over in between is over."""
    memory = Memory()
    run.tell(e.WaitStarted(stage=BACKFILL[0], kind="wal", reason="full"))
    read_snapshot(connection, "shop", memory)
    run.tell(e.WaitEnded(stage=BACKFILL[0], kind="wal", seconds=1))
    run.tell(*[e.Note(message=str(n)) for n in range(HISTORY)])
    late = read_snapshot(connection, "shop", memory)
    assert late is not None
    assert late.waits == ()


def test_a_look_is_one_message(run: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """What watching costs is mostly round trips: after the first look one is enough, whatever has changed."""
    monkeypatch.setattr("online_migrate.observe.snapshot.read.EXPECTED_S", 10**9)  # estimates are read once
    sent: list[None] = []
    memory = Memory()
    with replace(run.connector, on_statement=lambda: sent.append(None)).open("test") as connection:
        read_snapshot(connection, "shop", memory)
        for name, change in CHANGES.items():
            change(run)
            sent.clear()
            read_snapshot(connection, "shop", memory)
            assert len(sent) == 1, name


def test_what_a_changed_plan_deletes_is_gone(run: MadeRun, connection: Connection) -> None:
    """A table that the plan no longer has leaves no cursor behind, should it ever come back."""
    memory = Memory()
    begin_backfill(run)
    before = read_snapshot(connection, "shop", memory)
    plan = make_plan()
    run.journal.accept_plan(run.run_id, plan, {"owned": ("orders",)}, make_steps(plan, ("orders",)))
    without = read_snapshot(connection, "shop", memory)
    run.journal.accept_plan(run.run_id, plan, {"owned": ("users", "orders")}, make_steps(plan))
    again = read_snapshot(connection, "shop", memory)
    assert [users_of(s) for s in (before, without, again)] == [["running"], [], ["pending"]]
    assert still(again) == still(read_snapshot(connection, "shop"))


def test_a_new_run_of_the_plan_is_another_one(run: MadeRun, connection: Connection) -> None:
    """Who goes on watching after a run is done sees the next one, and nothing of the old one's."""
    memory = Memory()
    begin_backfill(run)
    read_snapshot(connection, "shop", memory)
    run.journal.set_run(run.run_id, RunState.DONE)
    plan = make_plan()
    run_id = run.journal.begin_run(plan, {"owned": ("users", "orders")}, make_steps(plan))
    remembered = read_snapshot(connection, "shop", memory)
    assert still(remembered) == still(read_snapshot(connection, "shop"))
    assert remembered is not None
    assert (remembered.run_id, remembered.history) == (run_id, ())
    assert users_of(remembered) == ["pending"]


def users_of(snapshot: Snapshot | None) -> list[str]:
    """The states of the backfill of users: one or none."""
    assert snapshot is not None
    return [step.state for step in snapshot.steps if step.key == BACKFILL]
