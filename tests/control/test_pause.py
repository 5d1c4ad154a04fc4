"""`pause` and `resume`, from another terminal: nothing is open meanwhile, and no crash forgets them."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.control.conftest import PLAN
from tests.desk import Child, Desk

PACE: Final = "{batch_target: 1ms, duty: 50%, min_rows: 1, max_rows: 5}"
SLOW_PLAN: Final = PLAN.replace("  - stage: columns\n", f"  - stage: columns\n    pace: {PACE}\n")
DRIP: Final = (
    "CREATE FUNCTION drip() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM pg_sleep(delay) FROM public.valve; RETURN NEW; END'"
)
VALVE: Final = (
    "ALTER TABLE users SET (fillfactor = 10)",
    "VACUUM FULL users",
    "CREATE TABLE valve (delay float8 NOT NULL)",
    "INSERT INTO valve VALUES (0.02)",
    DRIP,
    "CREATE TRIGGER drip BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION drip()",
)
"""each row takes 20 ms, until :data:`OPEN_VALVE`"""
NOT_SOON: Final = f"{datetime.now() + timedelta(hours=12):%H:%M}"  # noqa: DTZ005  # as the operator's clock
OPEN_VALVE: Final = "UPDATE valve SET delay = 0"
FILLED: Final = "SELECT count(*) FROM users WHERE bot_id IS NOT NULL"
BATCHES: Final = "SELECT coalesce((SELECT batches FROM online_migrate.cursor), 0)"
OPEN: Final = """
SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l USING (pid)
 WHERE a.application_name LIKE 'online-migrate%%' AND a.datname = current_database()
   AND (a.xact_start IS NOT NULL OR l.locktype = 'relation') AND a.application_name NOT LIKE '%%status%%'"""
"""sessions of ours with an open transaction or a lock, apart from short reads"""
ATTEMPT: Final = (
    "SELECT count(*) > 0 FROM online_migrate.history WHERE event IN ('lock_attempt_failed', 'wait_started')"
)
HAS_COLUMN: Final = (
    "SELECT count(*) FROM pg_attribute WHERE attname = 'bot_id' AND attrelid = 'public.users'::regclass"
)
HELD: Final = (
    "SELECT count(DISTINCT table_name) = 2 FROM online_migrate.history"
    " WHERE event = 'wait_started' AND fields ->> 'kind' = 'query_valve'"
)
PAUSED: Final = """
SELECT taken_at IS NOT NULL AND kind = 'pause' FROM online_migrate.request ORDER BY request_id DESC LIMIT 1"""
WAITS: Final = """
SELECT event IN ('wait_started', 'wait_continues') FROM online_migrate.history
 WHERE fields ->> 'kind' = 'paused' ORDER BY history_id DESC LIMIT 1"""


@pytest.fixture
def slow(control: Desk) -> Desk:
    """A backfill of 50 batches that take half a minute, until the valve is open."""
    control.run_sql(*VALVE)
    control.write(SLOW_PLAN)
    return control


def started(desk: Desk) -> Child:
    """A runner whose backfill has committed some batches."""
    child = desk.start()
    desk.await_true("SELECT to_regclass('online_migrate.cursor') IS NOT NULL", child)
    desk.await_true(f"SELECT ({BATCHES}) > 3", child)
    return child


def test_a_backfill_is_paused_and_resumed(slow: Desk) -> None:
    """Nothing is open or locked while it is paused; the lease is kept; all says by whom and how to resume."""
    child = started(slow)
    said = slow.call("pause", "--by", "ada")
    assert said.code == 0, said.all
    assert "paused: no transaction is open, no lock is held" in said.out
    assert "next: online-migrate resume plan.yaml" in said.out
    slow.await_true(f"SELECT ({OPEN}) = 0", child)
    before = slow.ask(BATCHES), slow.ask("SELECT beat_at FROM online_migrate.heartbeat")
    slow.await_true(f"SELECT beat_at > '{before[1]}' FROM online_migrate.heartbeat", child)
    assert slow.ask(BATCHES) == before[0]
    slow.await_true(WAITS, child)

    status = json.loads(slow.call("status", "--json").out)
    assert status["state"] == "running"
    assert status["pause"]["by"] == "ada"
    assert status["pause"]["paused_at"] is not None
    assert "resume with: online-migrate resume plan.yaml" in status["reason"]
    assert "paused by ada since" in " ".join(slow.call("status").out.split())

    twice = slow.call("pause", "--by", "grace")
    assert twice.code == 2
    assert "plan small is already paused by ada since" in twice.err
    slow.run_sql(OPEN_VALVE)
    assert slow.call("resume", "--by", "grace").code == 0
    assert child.wait() == 75, child.said
    assert "paused by ada since" in child.said
    assert "resumed by grace" in child.said
    assert slow.ask(FILLED) == 1000
    assert json.loads(slow.call("status", "--json").out)["pause"] is None
    again = slow.call("resume")
    assert again.code == 2
    assert "plan small is not paused" in again.err


def test_a_pause_outlives_a_runner_that_is_killed(slow: Desk) -> None:
    child = started(slow)
    assert slow.call("pause", "--by", "ada").code == 0
    child.send(signal.SIGKILL)
    child.wait()
    batches = slow.ask(BATCHES)
    note = json.loads(slow.call("status", "--json").out)["reason"]
    assert "paused by ada since" in note

    child = slow.start()
    child.await_words("paused by ada since")
    assert slow.ask(BATCHES) == batches
    stopped = slow.call("stop")
    assert stopped.code == 0, stopped.all
    assert child.wait() == 130
    said = slow.call("resume")
    assert "resumed by" in said.out
    assert "next: online-migrate run plan.yaml" in said.out
    slow.run_sql(OPEN_VALVE)
    assert slow.call("run").code == 75
    assert slow.ask(FILLED) == 1000


def test_a_pause_ends_by_itself_and_is_changed_by_another(slow: Desk) -> None:
    child = started(slow)
    assert "until " in slow.call("pause", "--for", "12h").out
    assert "until " in slow.call("pause", "--until", NOT_SOON).out
    assert slow.call("pause", "--until", NOT_SOON, "--for", "1h").code == 2
    assert slow.call("pause", "--until", "soon").code == 2
    assert slow.call("pause", "--for", "1s").code == 0
    slow.run_sql(OPEN_VALVE)
    assert child.wait() == 75, child.said
    assert "has ended by itself" in child.said


def test_a_lock_wait_is_paused(control: Desk) -> None:
    """No lock is requested while the run is paused, also after the blocker has ended."""
    with control.connect() as other, other.transaction():
        other.execute("SELECT 1 FROM users LIMIT 1")
        child = control.start()
        control.await_true("SELECT to_regclass('online_migrate.history') IS NOT NULL", child)
        control.await_true(ATTEMPT, child)
        assert control.call("pause").code == 0
    control.await_true(f"SELECT ({OPEN}) = 0", child)
    assert not control.ask(HAS_COLUMN)
    control.await_true(WAITS, child)
    assert not control.ask(HAS_COLUMN)
    assert control.call("resume").code == 0
    assert child.wait() == 75, child.said


def test_a_soak_is_paused(control: Desk) -> None:
    control.write(PLAN.replace("value: 1}", "value: 1, quiet: 2s}"))
    child = control.start()
    control.await_true("SELECT to_regclass('online_migrate.history') IS NOT NULL", child)
    control.await_true(
        "SELECT count(*) > 0 FROM online_migrate.history WHERE fields ->> 'kind' = 'soak'", child
    )
    assert control.call("pause").code == 0
    control.await_true(WAITS, child)
    assert control.call("resume").code == 0
    assert child.wait() == 75, child.said


def test_workers_are_paused_together(control: Desk) -> None:
    """The run has paused when each of its workers has, here while both hold for a throttler."""
    control.run_sql(
        "CREATE TABLE orders (id serial PRIMARY KEY)",
        "INSERT INTO orders SELECT generate_series(1, 1000)",
        "CREATE TABLE valve (is_closed boolean NOT NULL)",
        "INSERT INTO valve VALUES (true)",
    )
    hold = "hold_when: {queries: [{name: valve, sql: 'SELECT is_closed FROM public.valve'}]}"
    control.write(
        PLAN.replace("  - stage: columns\n", f"  - stage: columns\n    pace: {{workers: 2}}\n    {hold}\n")
        .replace("table: users", "tables: [users, orders]")
        .replace("drop_default: {tables: [users, orders]", "drop_default: {table: users")
    )
    child = control.start()
    control.await_true("SELECT to_regclass('online_migrate.history') IS NOT NULL", child)
    control.await_true(HELD, child)
    assert control.call("pause").code == 0
    assert control.ask(PAUSED)
    control.run_sql("UPDATE valve SET is_closed = false")
    control.await_true(f"SELECT ({OPEN}) = 0", child)
    control.await_true(WAITS, child)
    assert not control.ask("SELECT sum(batches) FROM online_migrate.cursor")
    assert control.call("resume").code == 0
    assert child.wait() == 75, child.said
    assert child.said.count("waiting (paused)") == child.said.count("still waiting (paused)") + 1


def test_what_cannot_be_paused(control: Desk) -> None:
    none = control.call("pause")
    assert none.code == 2
    assert "there is no run of plan small" in none.err
    assert control.call("run").code == 75
    at_gate = control.call("pause", "--by", "ada")
    assert at_gate.code == 0
    assert "the next run starts paused" in at_gate.out
    assert control.call("resume").code == 0
    assert control.call("run", "--approve", "swap").code == 0
    done = control.call("pause")
    assert done.code == 2
    assert "plan small is done" in done.err


def test_a_run_ends_by_itself_after_its_time(slow: Desk) -> None:
    """Exit code 0, as after --through; the next run continues."""
    child = slow.start("--for", "5s")
    assert child.wait() == 0, child.said
    assert "stopped: its time is over (" in child.said
    assert slow.ask("SELECT state FROM online_migrate.run") == "stopped"
    slow.run_sql(OPEN_VALVE)
    wrong = slow.call("run", "--for", "5s", "--until", NOT_SOON)
    assert wrong.code == 2
    assert "exclude each other" in wrong.err
    assert slow.call("run", "--until", NOT_SOON).code == 75
    assert slow.ask(FILLED) == 1000


def test_a_file_pauses_the_run(slow: Desk) -> None:
    file = slow.folder / "pause"
    file.touch()
    child = slow.start("--pause-file", str(file))
    child.await_words(f"paused by file {file}; to resume, remove it")
    assert not slow.ask("SELECT count(*) FROM online_migrate.step WHERE state <> 'pending'")
    slow.run_sql(OPEN_VALVE)
    file.unlink()
    assert child.wait() == 75, child.said
    assert slow.ask(FILLED) == 1000


def test_outside_the_hours_of_the_plan_the_run_is_paused(control: Desk) -> None:
    """The plan's hours may change while a run is open."""
    now = datetime.now(UTC)
    away, end = now + timedelta(hours=8), now + timedelta(hours=16)
    closed = f"plan: small\nhours: {away:%H:%M}-{end:%H:%M} UTC"
    control.write(PLAN.replace("plan: small", closed))
    child = control.start()
    child.await_words(f"outside the plan's hours ({away:%H:%M}-{end:%H:%M} UTC); continues at ")
    assert control.call("stop").code == 0
    assert child.wait() == 130
    control.write(PLAN.replace("plan: small", f"plan: small\nhours: {end:%H:%M}-{away:%H:%M} UTC"))
    assert control.call("run").code == 75
