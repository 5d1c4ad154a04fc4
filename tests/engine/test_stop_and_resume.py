"""A runner that is stopped, killed or cut off goes on where it was, by the same command, and ends where it
would have.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from online_migrate.postgres.server import Server
from tests.desk import SLOW, Desk, await_true, small_text
from tests.servers import start_own_server

End = tuple[str, dict[str, str]]

SLOWER = SLOW.replace("duty: 10%", "duty: 4%")

ROWS_DONE = """
SELECT array_agg(table_name || ' ' || rows_done ORDER BY table_name) FROM online_migrate.step
  WHERE step LIKE 'backfill%'"""
ROWS_THERE = """
SELECT array_agg(t || ' ' || n ORDER BY t) FROM (VALUES
  ('users', (SELECT count(*) FROM users)), ('promocodes', (SELECT count(*) FROM promocodes)),
  ('promo_groups', (SELECT count(*) FROM promo_groups)), ('transactions', (SELECT count(*)
    FROM transactions))) AS x (t, n)"""
LEFT_BEHIND = """
SELECT array_agg(what) FROM (
  SELECT 'invalid index ' || indexrelid::regclass FROM pg_index WHERE NOT indisvalid
  UNION ALL SELECT 'check ' || conname FROM pg_constraint WHERE conname LIKE 'online_migrate%'
  UNION ALL SELECT 'session ' || application_name FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'online-migrate%'
  UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND database = (
              SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL SELECT 'cursor of ' || table_name || ' in pass ' || pass_name FROM online_migrate.cursor
    WHERE pass_name <> 'sweep'
  UNION ALL SELECT 'open step ' || step FROM online_migrate.step WHERE state <> 'done'
  UNION ALL SELECT 'open stage ' || stage FROM online_migrate.stage WHERE state <> 'done'
  UNION ALL SELECT 'run ' || state FROM online_migrate.run WHERE state <> 'done'
) AS x (what)"""


END_SESSION = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()
  AND application_name = %s"""
WENT_ON_AT = """
SELECT (fields ->> 'rows_done')::int FROM online_migrate.history WHERE event = 'backfill_started'
  AND table_name = 'transactions'
 ORDER BY history_id DESC LIMIT 1"""


def finish(desk: Desk, undisturbed: End, *, words: str = "plan multi_tenant resumes: ") -> None:
    """The same command ends the run; then all is as if nothing had happened."""
    desk.write(small_text())
    child = desk.start("--approve", "swap")
    assert child.wait() == 0, child.said
    assert words in child.said
    assert_as_undisturbed(desk, undisturbed)


def assert_as_undisturbed(desk: Desk, undisturbed: End) -> None:
    assert desk.ask(LEFT_BEHIND) is None
    assert desk.ask(ROWS_DONE) == desk.ask(ROWS_THERE)
    schema, rows = desk.end()
    assert schema == undisturbed[0]
    assert rows == undisturbed[1]


@pytest.fixture
def slow(desk: Desk) -> Desk:
    """The plan with a pace that leaves time to act in the middle of the backfill."""
    desk.write(small_text(pace=SLOW))
    return desk


def test_a_stop_loses_nothing_and_says_how_to_go_on(slow: Desk, undisturbed: End) -> None:
    """Ctrl-C, and `online-migrate stop` on another host: the batch is finished, exit 130, and the next run
    goes on there.
    """
    child = slow.start("--approve", "swap")
    slow.await_batches(20, child)
    child.send(signal.SIGINT)
    assert child.wait() == 130
    assert "SIGINT: stopping after the current batch or statement; send it again to cancel" in child.said
    assert "\nstopped after a batch: SIGINT\n" in child.said
    assert "next: the state is kept: online-migrate run plan.yaml continues from here" in child.said
    assert (
        slow.ask("SELECT state || ': ' || reason FROM online_migrate.run")
        == "stopped: stopped after a batch: SIGINT"
    )

    child = slow.start()
    slow.await_batches(20, child)
    said = slow.call("stop")
    assert said.code == 0, said.all
    assert f"process {child.process.pid} to stop" in said.out
    assert "\nstopped\nnext: online-migrate run plan.yaml\n" in said.out
    assert child.wait() == 130
    assert "\nstopped after a batch: requested by " in child.said
    said = slow.call("stop")
    assert said.code == 2
    assert "error: no runner of plan multi_tenant is running in database om_test_" in said.err

    rows = slow.ask("SELECT rows_done FROM online_migrate.cursor WHERE table_name = 'transactions'")
    finish(slow, undisturbed)
    assert slow.ask(WENT_ON_AT) == rows


def test_a_kill_in_the_backfill_loses_no_batch_and_repeats_none(slow: Desk, undisturbed: End) -> None:
    """SIGKILL: the cursor and the rows agree, since they were committed together, and the next run takes over
    at once. pg_terminate_backend on any of the runner's sessions is a pause, not an end.
    """
    child = slow.start("--approve", "swap")
    slow.await_batches(20, child)
    child.send(signal.SIGKILL)
    child.wait()

    child = slow.start("--metrics-port", "0")
    sessions = ("work", "watch", "journal", "lease", "observe")
    for purpose in sessions:
        slow.await_batches(10, child)
        assert slow.ask(END_SESSION, [f"online-migrate {purpose}"]) == 1, purpose
    slow.await_batches(10, child)
    child.send(signal.SIGINT)
    assert child.wait() == 130
    assert "connected again after" in child.said
    finish(slow, undisturbed)


def test_an_ended_session_between_two_steps_is_no_end(desk: Desk, undisturbed: End) -> None:
    """A connection that is lost where only the journal is written, outside of any
    step, is regained as well.
    """
    child = desk.start("--approve", "swap")
    await_true(desk.has_journal, "the journal is there", child)
    desk.await_true("SELECT EXISTS (SELECT FROM online_migrate.run)", child)
    for done in range(1, 41, 3):
        desk.await_true(f"SELECT count(*) >= {done} FROM online_migrate.step WHERE state = 'done'", child)
        desk.ask(END_SESSION, ["online-migrate journal"])
    assert child.wait() == 0, child.said
    assert "connected again after" in child.said
    assert_as_undisturbed(desk, undisturbed)


@contextmanager
def old_snapshot(desk: Desk) -> Iterator[None]:
    """Another session's transaction, which every concurrent build in the database waits for."""
    with desk.connect() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM users")
        yield
        connection.execute("ROLLBACK")


WAITS_IN_A_BUILD = "SELECT true FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"


def test_a_build_that_is_cut_off_leaves_nothing_invalid_after_the_next_run(
    desk: Desk, undisturbed: End
) -> None:
    """Ctrl-C twice cancels the build that waits for another session's old snapshot, a kill leaves it too: it
    is built again.
    """
    assert desk.call("run", "--through", "backfill").code == 0
    with old_snapshot(desk):
        child = desk.start("--approve", "swap")
        desk.await_true(WAITS_IN_A_BUILD, child)
        child.send(signal.SIGTERM)
        child.await_words("send it again to cancel")
        assert desk.ask(WAITS_IN_A_BUILD), "one signal lets the statement go on"
        child.send(signal.SIGTERM)
        assert child.wait() == 130, child.said
        assert "cancelled: SIGTERM" in child.said
        assert "continues from here" in child.said
        assert desk.ask("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 1
    with old_snapshot(desk):
        child = desk.start("--approve", "swap")
        desk.await_true(WAITS_IN_A_BUILD, child)
        child.send(signal.SIGKILL)
        child.wait()
        desk.await_true("SELECT NOT EXISTS (SELECT FROM pg_stat_progress_create_index)")
        assert desk.ask("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 1
    finish(desk, undisturbed)


def test_a_stop_in_a_lock_window_leaves_the_application_alone(desk: Desk) -> None:
    """While another session's transaction blocks it, one signal is enough, and no lock
    of ours stays asked for.
    """
    with desk.connect() as connection:
        connection.execute("BEGIN; LOCK TABLE transactions IN ROW EXCLUSIVE MODE")
        child = desk.start()
        child.await_words("columns / add_column bot_id / transactions")
        child.send(signal.SIGHUP)
        assert child.wait() == 130, child.said
        assert "stopped before a lock window: SIGHUP" in child.said
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'transactions'::regclass AND pid <> %s"
        assert desk.ask(waiting, [connection.info.backend_pid]) == 0
        assert desk.ask(LEFT_BEHIND)[0].startswith("open step")


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with start_own_server() as server:
        yield server


def test_a_crash_of_the_server_is_waited_out(own_server: Server, slow: Desk, undisturbed: End) -> None:
    """pg_ctl restart -m immediate in the middle of the backfill: the runner waits for the recovery and goes
    on.
    """
    from online_migrate.demo.shop import create_shop
    from tests.servers import SHOP_USERS

    slow.dsn = own_server.dsn
    create_shop(own_server.dsn, users=SHOP_USERS)
    child = slow.start("--approve", "swap")
    slow.await_batches(20, child)
    own_server.restart("immediate")
    slow.await_batches(10, child)
    child.send(signal.SIGTERM)
    assert child.wait() == 130, child.said
    assert "\nstopped after a batch: SIGTERM\n" in child.said
    assert "connected again after" in child.said
    finish(slow, undisturbed)


# the fence


def test_one_runner_a_database(desk: Desk, undisturbed: End) -> None:
    """Two operators, or a supervisor that is too eager: the second exits 6 and says who is at work, and since
    when.

    A runner that sleeps in the middle of its backfill is taken over; when it wakes, nothing of it is written,
    and it exits 6.
    """
    desk.write(small_text(pace=SLOWER))
    first, second = desk.start("--approve", "swap"), desk.start("--approve", "swap")
    await_true(lambda: any(c.process.poll() is not None for c in (first, second)), "one of them ends")
    assert 6 in {first.process.poll(), second.process.poll()}, first.said + second.said
    loser, winner = (first, second) if first.process.poll() == 6 else (second, first)
    assert f"process {winner.process.pid}, plan multi_tenant, since 20" in loser.said
    assert "error: another runner holds the lease of this database: " in loser.said
    assert (
        "next: one runner per database: wait for it, or stop it with `online-migrate stop PLAN`" in loser.said
    )

    winner.send(signal.SIGSTOP)
    desk.run_sql("UPDATE online_migrate.heartbeat SET beat_at = now() - interval '2 min'")
    third = desk.start("--approve", "swap")
    desk.await_true(f"SELECT who LIKE '%process {third.process.pid}' FROM online_migrate.heartbeat", third)
    desk.await_batches(10, third)
    winner.send(signal.SIGCONT)
    assert winner.wait() == 6, winner.said
    assert "took over" in winner.said or "took the lease over" in winner.said
    assert f"process {third.process.pid}, which holds the lease since 20" in winner.said
    assert "continues from here" not in winner.said
    assert third.process.poll() is None, third.said
    assert desk.ask("SELECT state FROM online_migrate.run") == "running"
    third.send(signal.SIGINT)
    assert third.wait() == 130, third.said
    finish(desk, undisturbed)
