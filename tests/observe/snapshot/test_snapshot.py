"""The snapshot that is read from the journal of a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import psycopg
import pytest

from online_migrate import events as e
from online_migrate.errors import JournalVersion
from online_migrate.journal.requests import close_stops, request_stop
from online_migrate.journal.states import RunState, StageState, StepState
from online_migrate.observe.snapshot.read import Snapshot, StepView, read_snapshot, to_json
from online_migrate.observe.snapshot.waits import follow
from online_migrate.observe.terminal.wait_lines import wait_lines
from online_migrate.postgres.connection import Connector
from tests.observe.made_runs import BACKFILL, MadeRun, begun_run, make_record, started


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE users AS SELECT n FROM generate_series(1, 5000) n; ANALYZE users")
        connection.execute("CREATE TABLE orders (n integer)")
    with begun_run(database) as made:
        yield made


def read(run: MadeRun) -> Snapshot:
    with run.connector.open("reader") as connection:
        snapshot = read_snapshot(connection, "shop")
    assert snapshot is not None
    return snapshot


def step(snapshot: Snapshot, key: tuple[str, str, str]) -> StepView:
    return next(s for s in snapshot.steps if s.key == key)


def test_a_database_without_a_journal_has_no_snapshot(database: str) -> None:
    """``status`` before the first run says so instead of failing."""
    with Connector(dsn=database).open("reader") as connection:
        assert read_snapshot(connection, "shop") is None


def test_a_plan_that_never_ran_has_no_snapshot(run: MadeRun) -> None:
    """Another plan's run in the same journal is not taken for ours."""
    with run.connector.open("reader") as connection:
        assert read_snapshot(connection, "other") is None


def test_a_journal_of_another_version_is_said_to_be_one(run: MadeRun) -> None:
    """A picture is not drawn from tables whose meaning is not known."""
    run.journal.connection.execute("UPDATE online_migrate.version SET version = 99")
    with run.connector.open("reader") as connection, pytest.raises(JournalVersion, match="99"):
        read_snapshot(connection, "shop")


def test_a_run_that_began_shows_everything_that_is_to_come(run: MadeRun) -> None:
    """The operator sees the whole way from the first second, in the plan's order."""
    snapshot = read(run)
    assert [(s.stage, s.phase, s.state, len(s.steps)) for s in snapshot.stages] == [
        ("tables", "expand", "pending", 1),
        ("columns", "expand", "pending", 2),
        ("fill", "backfill", "pending", 2),
        ("swap", "contract", "pending", 2),
    ]
    assert snapshot.is_live
    assert snapshot.holder is not None
    assert snapshot.holder.plan == "shop"
    users, orders = (step(snapshot, ("fill", "backfill bot_id", t)) for t in ("users", "orders"))
    assert (users.rows_expected, users.share_done) == (5_000, 0.0)
    assert (orders.rows_expected, orders.eta_s) == (None, None)  # never analysed: unknown, not none


def test_a_backfill_shows_how_far_how_fast_and_how_long(run: MadeRun) -> None:
    """Rows, share, rate and time left come from the cursor and the journal's
    history, earlier runs included.
    """
    run.journal.set_stage(run.run_id, "fill", StageState.RUNNING)
    run.journal.set_step(run.run_id, BACKFILL, StepState.RUNNING)
    run.tell(started(rows_done=1_000))
    run.journal.connection.execute("UPDATE online_migrate.history SET at = at - interval '10 s'")
    run.put_cursor(chunk=200, slice=250, stripe=2, rows_done=3_000)
    users = step(read(run), BACKFILL)
    assert users.rows_done == 3_000
    assert users.share_done == pytest.approx(0.2625)
    assert users.rate == pytest.approx(200, rel=0.1)
    assert users.eta_s == pytest.approx((1 - 0.2625) / 0.02625, rel=0.1)


def test_while_it_waits_there_is_a_reason_and_no_time_left(run: MadeRun) -> None:
    """Every wait says why, and an unknown time left is not shown."""
    run.journal.set_step(run.run_id, BACKFILL, StepState.RUNNING)
    run.tell(started())
    run.journal.connection.execute("UPDATE online_migrate.history SET at = at - interval '10 s'")
    run.put_cursor(chunk=200, slice=200, rows_done=3_000)
    run.tell(
        e.WaitStarted(
            stage=BACKFILL[0], step=BACKFILL[1], table=BACKFILL[2], kind="standby_lag", reason="a is behind"
        )
    )
    snapshot = read(run)
    users = step(snapshot, BACKFILL)
    assert (users.reason, users.rate, users.eta_s) == ("a is behind", None, None)
    assert snapshot.reason == "a is behind"
    assert [w.kind for w in snapshot.waits] == ["standby_lag"]


def test_a_table_that_has_passed_says_so(run: MadeRun) -> None:
    """100 % and still running would look stuck without the reason."""
    run.journal.set_step(run.run_id, BACKFILL, StepState.RUNNING)
    run.put_cursor(pass_name="sweep", rows_done=5_000)
    users = step(read(run), BACKFILL)
    assert users.share_done == pytest.approx(1.0)
    assert users.reason == "all pages are filled; proving that no row is left"
    assert (users.is_passed, users.is_parked) == (True, False)


def test_a_runner_that_died_is_not_shown_as_running(run: MadeRun) -> None:
    """After a crash the journal still says running; the snapshot says that no runner is running and what to
    do.
    """
    run.journal.set_step(run.run_id, BACKFILL, StepState.RUNNING)
    run.put_cursor(chunk=200, slice=200, rows_done=3_000)
    run.lease.release()
    snapshot = read(run)
    assert (snapshot.state, snapshot.is_live) == ("running", False)
    assert "no runner is at work" in snapshot.reason
    assert "online-migrate run" in snapshot.reason
    assert step(snapshot, BACKFILL).eta_s is None
    shown = to_json(snapshot)
    assert (shown["state"], shown["is_live"], shown["reason"]) == ("running", False, snapshot.reason)


def test_a_build_that_waits_says_for_whom(run: MadeRun) -> None:
    """As of any wait, and it disappears when the build continues."""
    place = {"stage": "columns", "step": "add_column bot_id", "table": "users"}
    run.journal.set_run(run.run_id, RunState.RUNNING)
    run.journal.set_step(run.run_id, ("columns", "add_column bot_id", "users"), StepState.RUNNING)
    run.tell(e.WaitStarted(**place, kind="blocker", reason="waiting for old snapshots: pid 7"))
    assert to_json(read(run))["reason"] == "waiting for old snapshots: pid 7"
    run.tell(e.WaitEnded(**place, kind="blocker", seconds=3))
    assert to_json(read(run))["reason"] == ""


def test_a_stop_that_was_asked_for_is_shown_until_it_came(run: MadeRun) -> None:
    """A long statement is let finish: who looks meanwhile sees that the stop was heard, by a signal or from
    another host.
    """
    place = {"stage": "columns", "step": "add_column bot_id", "table": "users"}
    run.journal.set_run(run.run_id, RunState.RUNNING)
    begun = e.RunStarted(plan="shop", run_id=run.run_id, resumed=True, steps_total=7, steps_done=0)
    run.tell(begun, e.StopAsked(**place, reason="SIGINT"))
    assert list(wait_lines(read(run))) == [
        "stop requested (SIGINT): the run ends after the current batch or statement"
    ]
    run.tell(begun)
    assert list(wait_lines(read(run))) == []
    request_stop(run.journal.connection, plan="shop", requested_by="ada")
    assert "stop requested (ada)" in to_json(read(run))["reason"]
    close_stops(run.journal.connection, plan="shop")
    assert to_json(read(run))["reason"] == ""


def test_a_late_heartbeat_is_said_before_it_is_a_dead_runners(run: MadeRun) -> None:
    """A runner that is halted keeps its sessions: what is left of it is its heartbeat."""
    run.journal.set_run(run.run_id, RunState.RUNNING)
    for seconds, note in ((12, ""), (20, "after 60 s another runner may take over")):
        run.journal.connection.execute(
            "UPDATE online_migrate.heartbeat SET beat_at = clock_timestamp() - make_interval(secs => %s)",
            [seconds],
        )
        snapshot = read(run)
        assert snapshot.is_live
        assert note in to_json(snapshot)["reason"]
        assert bool(note) == bool(snapshot.notes)
        assert ("no heartbeat for 20 s" in "".join(wait_lines(snapshot))) == bool(note)


def test_a_step_grows_no_older_while_nobody_is_at_work(run: MadeRun) -> None:
    """Its seconds are those until the run was stopped, or until the last sign of life of a runner that was
    killed.
    """
    build = ("columns", "add_column bot_id", "users")
    run.journal.set_run(run.run_id, RunState.RUNNING)
    run.journal.set_step(run.run_id, build, StepState.RUNNING)
    shift = (
        "UPDATE online_migrate.step SET started_at = started_at - interval '100 s' WHERE started_at IS"
        " NOT NULL"
    )
    run.journal.connection.execute(shift)
    assert step(read(run), build).seconds == pytest.approx(100, abs=5)
    run.journal.set_run(run.run_id, RunState.STOPPED, "SIGINT")
    run.journal.connection.execute("UPDATE online_migrate.run SET ended_at = ended_at - interval '40 s'")
    assert step(read(run), build).seconds == pytest.approx(60, abs=5)
    run.journal.set_run(run.run_id, RunState.RUNNING)
    run.lease.release()
    run.journal.connection.execute(
        "UPDATE online_migrate.heartbeat SET beat_at = clock_timestamp() - interval '70 s'"
    )
    assert step(read(run), build).seconds == pytest.approx(30, abs=5)


def test_a_stage_at_its_gate_says_what_it_waits_for(run: MadeRun) -> None:
    """The operator sees which promise the gate asks for."""
    run.journal.set_stage(run.run_id, "swap", StageState.WAITING, "the new release is live")
    run.journal.set_run(run.run_id, RunState.WAITING, "stage swap waits for approval")
    snapshot = read(run)
    assert (snapshot.stages[-1].state, snapshot.stages[-1].reason) == ("waiting", "the new release is live")
    assert (snapshot.state, snapshot.reason) == ("waiting", "stage swap waits for approval")


def test_a_done_step_is_all_done(run: MadeRun) -> None:
    """Done is 100 %, with no time left to wonder about."""
    run.journal.set_step(run.run_id, BACKFILL, StepState.DONE, rows_done=5_100)
    users = step(read(run), BACKFILL)
    assert (users.state, users.rows_done, users.rows_expected) == ("done", 5_100, 5_100)
    assert users.share_done == pytest.approx(1.0)


def test_json_is_exactly_what_the_design_promises(run: MadeRun) -> None:
    """Scripts are written against ``status --json``: no key more, none less, plain JSON types."""
    run.journal.set_step(run.run_id, BACKFILL, StepState.RUNNING)
    run.put_cursor(chunk=500, slice=500, rows_done=3_000)
    shown = json.loads(json.dumps(to_json(read(run))))
    assert list(shown) == ["plan", "state", "is_live", "reason", "pause", "approvals", "stages"]
    assert (shown["is_live"], shown["reason"]) == (True, "")
    assert [list(stage) for stage in shown["stages"]] == [["stage", "phase", "state", "steps"]] * 4
    keys = ["step", "table", "state", "rows_done", "share_done", "eta_s", "reason"]
    assert all(list(s) == keys for stage in shown["stages"] for s in stage["steps"])
    assert shown["stages"][0]["steps"][0]["table"] is None
    assert shown["stages"][2]["steps"][0] == {
        "step": "backfill bot_id",
        "table": "users",
        "state": "running",
        "rows_done": 3_000,
        "share_done": 0.5,
        "eta_s": None,
        "reason": "",
    }


def test_a_snapshot_cannot_be_changed(run: MadeRun) -> None:
    """Three listeners in three threads draw the same one."""
    snapshot = read(run)
    with pytest.raises(FrozenInstanceError):
        snapshot.state = "done"  # type: ignore[misc]


def test_reading_takes_no_lock_that_anyone_waits_for(run: MadeRun) -> None:
    """Looking every second must not be felt: read only, and nothing left open."""
    with run.connector.open("reader") as connection:
        read_snapshot(connection, "shop")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        row = connection.execute("SHOW transaction_isolation").fetchone()
        assert row == ("read committed",)


def test_waits_of_an_earlier_runner_are_over() -> None:
    """A runner that was killed while it waited never said that the wait ended; the
    next one's start says it.
    """
    waiting = make_record(e.WaitStarted(stage="s", step="t", table="u", kind="blocker", reason="pid 1"))
    again = make_record(e.RunStarted(plan="shop", run_id=1, resumed=True, steps_total=1, steps_done=0))
    ended = make_record(e.WaitEnded(stage="s", step="t", table="u", kind="blocker", seconds=1))
    failed = make_record(e.StepFailed(stage="s", step="t", table="u", error="x"))
    restarted = make_record(e.StepStarted(stage="s", step="t", table="u", resumed=True))
    lost = make_record(e.Reconnected(seconds=3))
    assert [w.reason for w in follow({}, [waiting]).values()] == ["pid 1"]
    for over in (again, ended, failed, restarted, lost):
        assert not follow({}, [waiting, over])


def test_a_wait_is_as_old_as_it_says() -> None:
    """Where only a reminder of it is read, it has lasted as long as the reminder says."""
    place = {"stage": "s", "step": "t", "table": "u", "kind": "blocker"}
    record = make_record(e.WaitContinues(**place, reason="pid 1", seconds=40.0))
    (wait,) = follow({}, [record]).values()
    assert (record.at - wait.since).total_seconds() == 40
