"""The journal's own promises: one transaction a write, every table with a key, a plan that is accepted as a
whole.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psycopg
import pytest

from online_migrate.errors import JournalVersion, LeaseLost
from online_migrate.journal.fence import Fence
from online_migrate.journal.requests import close_stops, read_stop, request_stop
from online_migrate.journal.schema import VERSION, ensure_readable, ensure_schema
from online_migrate.journal.states import StageState, StepState
from online_migrate.journal.store import Journal
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.expand import expand
from online_migrate.plan.load import load
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection, Connector

TEXT: Final = """
plan: shop
table_sets:
  owned: {tables: [users, tickets]}
stages:
  - stage: columns
    steps:
      - add_column: {tables: owned, column: bot_id, type: integer}
  - stage: backfill
    steps:
      - backfill: {tables: owned, column: bot_id, value: 1}
  - stage: finish
    steps:
      - analyze: {tables: owned}
"""
HOLDER: Final = "00000000-0000-0000-0000-000000000001"
Key = tuple[str, str, str]


@pytest.fixture
def journal(connection: Connection) -> Journal:
    connection.execute("UPDATE online_migrate.epoch SET epoch = 1, holder = %s", [HOLDER])
    return Journal(connection, Fence(epoch=1, holder=HOLDER))


def plan_of(text: str) -> Plan:
    return load(text, OPERATIONS, path=Path("shop.yaml"))


def begin(journal: Journal, text: str = TEXT) -> int:
    plan = plan_of(text)
    sets = {n: tuple(s.tables) for n, s in plan.table_sets.items()}
    return journal.begin_run(plan, sets, expand(plan, sets, OPERATIONS))


def accept(journal: Journal, run_id: int, text: str) -> None:
    plan = plan_of(text)
    sets = {n: tuple(s.tables) for n, s in plan.table_sets.items()}
    journal.accept_plan(run_id, plan, sets, expand(plan, sets, OPERATIONS))


def states(journal: Journal, run_id: int) -> dict[Key, str]:
    return {s.key: s.state for s in journal.read_steps(run_id)}


def test_every_table_has_a_primary_key(connection: Connection) -> None:
    """Logical replication FOR ALL TABLES does not stop at our first row (55000)."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'online_migrate'::regnamespace AND"
        " c.relkind = 'r'"
        " AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')"
    ).fetchall()
    assert rows == []


def test_two_that_make_the_journal_at_once_make_one(connector: Connector) -> None:
    """Two runners started together on a new database: neither fails for it."""

    def make(_: int) -> bool:
        with connector.open("test") as connection:
            ensure_schema(connection)
            return ensure_readable(connection)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(make, range(4)))


@pytest.mark.parametrize(("version", "remedy"), [(0, "older program"), (VERSION + 1, "that created it")])
def test_another_version_is_refused_with_both_named(
    connection: Connection, version: int, remedy: str
) -> None:
    """Nothing is guessed about a journal of another version."""
    connection.execute("UPDATE online_migrate.version SET version = %s", [version])
    with pytest.raises(
        JournalVersion, match=f"has version {version}; this program writes version {VERSION}"
    ) as caught:
        ensure_readable(connection)
    assert remedy in caught.value.remedy


def test_a_run_begins_as_a_whole(journal: Journal) -> None:
    """Run, sets, stages and steps are there together, or none of them."""
    run_id = begin(journal)
    assert journal.read_tables(run_id) == {"owned": ("users", "tickets")}
    assert [s.stage for s in journal.read_stages(run_id)] == ["columns", "backfill", "finish"]
    assert len(journal.read_steps(run_id)) == 6
    with pytest.raises(psycopg.errors.UniqueViolation):
        begin(journal)
    assert journal.connection.execute("SELECT count(*) FROM online_migrate.step").fetchone() == (6,)


def test_without_a_lease_nothing_is_written(journal: Journal) -> None:
    """A journal that was opened to read cannot write, and an old epoch cannot either."""
    with pytest.raises(LeaseLost):
        begin(Journal(journal.connection))
    with pytest.raises(LeaseLost, match="another runner took over: epoch 0"):
        begin(Journal(journal.connection, Fence(epoch=0, holder=HOLDER)))
    assert journal.read_run("shop") is None


def test_an_accepted_plan_leaves_nothing_open_that_it_no_longer_has(journal: Journal) -> None:
    """What was removed and never done is forgotten, its cursor too; what was done stays done, at the end of
    the list.
    """
    run_id = begin(journal)
    for table in ("users", "tickets"):
        journal.set_step(run_id, ("columns", "add_column bot_id", table), StepState.DONE)
    journal.set_stage(run_id, "columns", StageState.DONE)
    journal.set_step(run_id, ("backfill", "backfill bot_id", "users"), StepState.DONE, rows_done=7)
    journal.set_step(run_id, ("backfill", "backfill bot_id", "tickets"), StepState.RUNNING)
    put_cursor(journal, run_id, "tickets")
    changed = TEXT.replace("[users, tickets]", "[users, orders]").replace(
        "  - stage: finish", "  - stage: last"
    )
    begin_, end = changed.index("  - stage: columns"), changed.index("  - stage: backfill")
    accept(journal, run_id, changed[:begin_] + changed[end:])
    assert states(journal, run_id) == {
        ("backfill", "backfill bot_id", "users"): "done",
        ("backfill", "backfill bot_id", "orders"): "pending",
        ("last", "analyze", "users"): "pending",
        ("last", "analyze", "orders"): "pending",
        ("columns", "add_column bot_id", "users"): "done",
        ("columns", "add_column bot_id", "tickets"): "done",
    }
    stages = {s.stage: s.state for s in journal.read_stages(run_id)}
    assert stages == {"backfill": "pending", "last": "pending", "columns": "done"}
    assert list(stages) == ["backfill", "last", "columns"]
    assert journal.read_cursor(run_id, ("backfill", "backfill bot_id", "tickets")) is None
    assert journal.read_tables(run_id) == {"owned": ("users", "orders")}
    run = journal.read_run("shop")
    assert run is not None
    assert run.fingerprint == plan_of(changed[:begin_] + changed[end:]).fingerprint()

    accept(journal, run_id, TEXT)  # put back
    assert states(journal, run_id) == {
        ("columns", "add_column bot_id", "users"): "done",
        ("columns", "add_column bot_id", "tickets"): "done",
        ("backfill", "backfill bot_id", "users"): "done",
        ("backfill", "backfill bot_id", "tickets"): "pending",
        ("finish", "analyze", "users"): "pending",
        ("finish", "analyze", "tickets"): "pending",
    }
    assert [s.stage for s in journal.read_stages(run_id)] == ["columns", "backfill", "finish"]
    (users,) = (s for s in journal.read_steps(run_id) if s.step == "backfill bot_id" and s.table == "users")
    assert users.rows_done == 7


def put_cursor(journal: Journal, run_id: int, table: str) -> None:
    journal.connection.execute(
        """INSERT INTO online_migrate.cursor (run_id, stage, step, table_name, column_name, value, pass_name,
          relfilenode,
               pages_total, chunk_pages, stripes, chunk, stripe, slice, rows_done, batches, moved_at)
           VALUES (%s, 'backfill', 'backfill bot_id', %s, 'bot_id', '1', 'interleaved', 1, 1, 1, 1, 0, 0, 0,
             0, 0, now())""",
        [run_id, table],
    )


def test_a_cursor_moves_from_where_it_was_left_and_from_nowhere_else(journal: Journal) -> None:
    """Compare-and-set: a second runner's move, or a lost answer's, is seen and not written over."""
    run_id = begin(journal)
    put_cursor(journal, run_id, "users")
    move = "SELECT online_migrate.advance(%s, 'backfill', 'backfill bot_id', 'users', 0, 0, 0, 0, 1, 0, 5)"
    journal.connection.execute(move, [run_id])
    with pytest.raises(psycopg.Error) as caught:
        journal.connection.execute(move, [run_id])
    assert caught.value.sqlstate == "OM008"
    cursor = journal.read_cursor(run_id, ("backfill", "backfill bot_id", "users"))
    assert cursor is not None
    assert (cursor.stripe, cursor.rows_done, cursor.batches) == (1, 5, 1)


def test_a_stage_and_a_run_are_done_only_when_each_step_is(journal: Journal) -> None:
    """After a failover that lost commits the journal is older than our memory: it alone says what is done."""
    run_id = begin(journal)
    steps = journal.read_steps(run_id)
    assert not journal.finish_stage(run_id, "columns")
    for step in steps[:-1]:
        journal.set_step(run_id, step.key, StepState.DONE)
    assert journal.finish_stage(run_id, "columns")
    assert not journal.finish_run(run_id)
    journal.set_step(run_id, steps[-1].key, StepState.DONE)
    assert journal.finish_run(run_id)
    record = journal.read_step(run_id, steps[-1].key)
    assert record is not None
    assert record.state is StepState.DONE


def test_a_request_to_stop_stays_open_until_it_is_obeyed(connection: Connection) -> None:
    """A reading whose answer is lost, or a reconnect, does not lose the request; only the end of the run
    closes it.
    """
    request_stop(connection, plan="shop", requested_by="ada")
    assert [read_stop(connection, plan="shop") for _ in range(2)] == ["ada", "ada"]
    assert read_stop(connection, plan="another") is None
    close_stops(connection, plan="shop")
    assert read_stop(connection, plan="shop") is None
