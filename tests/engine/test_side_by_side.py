"""Several tables filled at once by one run: the largest first, one budget, and stopped, cut off or failed as
one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from online_migrate.clock import Signal, SystemClock
from online_migrate.engine.workers import WorkerPool
from online_migrate.errors import Conflict, Interrupted
from online_migrate.journal.sessions import Sessions
from online_migrate.operations.backfill import Backfill, BackfillParams
from online_migrate.operations.contract.base import Place
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load
from online_migrate.plan.model import Step, StepSpec
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.run import WorkerContext
from tests.desk import PLANS, SLOW, WHOLE, Child, Desk, SessionCount, await_true, small_text
from tests.engine.test_stop_and_resume import END_SESSION, assert_as_undisturbed

End = tuple[str, dict[str, str]]

TWO = SLOW.replace("duty: 10%", "duty: 20%, workers: 2")
BACKFILLS = (
    "SELECT array_agg(table_name ORDER BY started_at) FROM online_migrate.step WHERE step LIKE 'backfill%'"
)
BESIDE_OTHERS = """
SELECT count(*) FROM online_migrate.step a JOIN online_migrate.step b ON a.step LIKE 'backfill%'
  AND b.step NOT LIKE 'backfill%'
   AND b.started_at < a.ended_at AND b.ended_at > a.started_at"""
BY_SIZE = """
SELECT array_agg(t ORDER BY pg_relation_size(t::regclass) DESC)
  FROM unnest('{transactions,users,promocodes,promo_groups}'::text[]) t"""
BOTH_AT_WORK = """
SELECT count(*) = 2 FROM online_migrate.cursor c
  JOIN online_migrate.step s USING (run_id, stage, step, table_name)
 WHERE s.state = 'running' AND c.batches > 3"""
PARTS = """
SELECT sum((fields ->> 'worked_s')::float8), sum((fields ->> 'paused_s')::float8)
  FROM online_migrate.history WHERE event = 'throughput' AND table_name = 'transactions'"""


@pytest.fixture
def pair(desk: Desk) -> Desk:
    """The small plan with two workers, slow enough to act in the middle."""
    desk.write(small_text(pace=TWO))
    return desk


def await_both(desk: Desk, child: Child) -> None:
    """Two tables are in the middle of their passes."""
    await_true(desk.has_journal, "the journal is there", child)
    desk.await_true(BOTH_AT_WORK, child)


def finish(desk: Desk, undisturbed: End) -> None:
    """At the usual pace, still by two."""
    desk.write(small_text(pace="{workers: 2}"))
    child = desk.start("--approve", "swap")
    assert child.wait() == 0, child.said
    assert_as_undisturbed(desk, undisturbed)


def test_two_tables_are_filled_at_once_and_nothing_else_beside_them(pair: Desk, undisturbed: End) -> None:
    """The largest first, never more than two, no build and no VALIDATE meanwhile, and six sessions with page
    and history.
    """
    with SessionCount(pair.dsn) as sessions:
        child = pair.start("--approve", "swap", "--metrics-port", "0")
        await_both(pair, child)
        pair.await_batches(20, child)
        assert pair.ask(BOTH_AT_WORK)
        pair.write(small_text(pace="{workers: 2}"))
        child.send(signal.SIGTERM)
        assert child.wait() == 130, child.said
        finish(pair, undisturbed)
    assert set(pair.ask(BACKFILLS)[:2]) == set(pair.ask(BY_SIZE)[:2])
    assert pair.ask(BESIDE_OTHERS) == 0
    assert len(sessions.most) <= 6, sessions.most
    assert "online-migrate work 2" in sessions.most
    assert "online-migrate work 3" not in sessions.most


def test_two_workers_share_the_pace(pair: Desk) -> None:
    """At 20 % each of two works a tenth of its time."""
    child = pair.start()
    await_both(pair, child)
    pair.await_batches(40, child)
    assert pair.ask(BOTH_AT_WORK)
    child.send(signal.SIGTERM)
    assert child.wait() == 130, child.said
    with pair.connect() as connection:
        row = connection.execute(PARTS.encode()).fetchone()
    assert row is not None
    worked_s, paused_s = row
    assert worked_s / (worked_s + paused_s) == pytest.approx(0.1, abs=0.03)


def test_a_kill_and_a_lost_session_of_either_worker_lose_nothing(pair: Desk, undisturbed: End) -> None:
    """What one worker meets ends the other's batch too; both go on from their cursors."""
    child = pair.start("--approve", "swap")
    await_both(pair, child)
    child.send(signal.SIGKILL)
    child.wait()
    child = pair.start()
    for purpose in ("work 2", "work", "watch", "work 2"):
        pair.await_batches(5, child)
        pair.await_true(BOTH_AT_WORK, child)
        assert pair.ask(END_SESSION, [f"online-migrate {purpose}"]) == 1, purpose
    pair.await_batches(5, child)
    child.send(signal.SIGINT)
    assert child.wait() == 130, child.said
    assert "connected again after" in child.said
    finish(pair, undisturbed)


def test_a_row_that_is_refused_in_one_table_stops_the_run_there(pair: Desk, undisturbed: End) -> None:
    """The table is named, its step alone has failed, and after the row is fixed the run continues.

    A trigger that may call something is not fired by `check`, which would find the row on its copy.
    """
    last = pair.ask("SELECT max(id) FROM users")
    pair.run_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM 1; IF new.id = tg_argv[0]::int THEN RAISE 'no such user' USING ERRCODE = '23514';"
        " END IF; RETURN new; END$$",
        f"CREATE TRIGGER refuse BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION refuse({last})",
    )
    child = pair.start("--approve", "swap")
    assert child.wait() == 5, child.said
    row = f"public.users: bot_id of the row with id = {last} cannot be filled: no such user"
    assert f"\nerror: {row}\n" in child.said
    with pair.connect() as connection:
        rows = connection.execute(
            "SELECT table_name, state FROM online_migrate.step WHERE step LIKE 'backfill%'"
        ).fetchall()
    states = dict(rows)
    assert states["users"] == "failed"
    assert "failed" not in {state for table, state in states.items() if table != "users"}
    pair.run_sql("DROP TRIGGER refuse ON users", "DROP FUNCTION refuse")
    finish(pair, undisturbed)


DAWDLE = (
    (
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF pg_sleep(20) IS NULL THEN"
        " END"
        " IF; RETURN new; END$$"
    ),
    "CREATE TRIGGER dawdle BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION dawdle()",
    "CREATE TRIGGER dawdle BEFORE UPDATE ON transactions FOR EACH ROW EXECUTE FUNCTION dawdle()",
)
ASLEEP = (
    "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name LIKE"
    " 'online-migrate work%'"
)


def test_a_second_ctrl_c_ends_both_at_once(pair: Desk, undisturbed: End) -> None:
    """In the middle of long statements: no worker is waited for."""
    pair.run_sql(*DAWDLE)
    child = pair.start("--approve", "swap")
    pair.await_true(ASLEEP, child)
    child.send(signal.SIGINT)
    child.await_words("send it again to cancel")
    began = time.monotonic()
    child.send(signal.SIGINT)
    assert child.wait() == 130, child.said
    assert time.monotonic() - began < 10
    pair.run_sql("DROP FUNCTION dawdle CASCADE")
    finish(pair, undisturbed)


def test_a_lost_lease_is_told_as_such(pair: Desk) -> None:
    """The heartbeat sees it while both workers are in long statements, which are then cancelled: exit 6, and
    no step has failed.
    """
    pair.run_sql(*DAWDLE)
    child = pair.start("--approve", "swap")
    pair.await_true(ASLEEP, child)
    pair.run_sql("UPDATE online_migrate.heartbeat SET holder = gen_random_uuid()")
    assert child.wait() == 6, child.said
    assert "another runner took the lease over" in child.said
    assert pair.ask("SELECT count(*) FROM online_migrate.step WHERE state = 'failed'") == 0


# the crew by itself


def step(table: str) -> Step:
    params = BackfillParams(table=table, column="c", value=1)
    spec = StepSpec(operation="backfill", title="backfill c", params=params, where="")
    return Step(stage="fill", spec=spec, table=table)


@contextmanager
def sessions(dsn: str, count: int) -> Iterator[list[Connection]]:
    opened = [Connector(dsn=dsn).open(f"work {n}") for n in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


def test_every_step_is_taken_once_in_order_and_the_share_grows_at_the_end(database: str) -> None:
    """A worker takes the next table when it is free; the last one has the pace for itself."""
    taken: list[str] = []
    shares: list[float] = []

    def take(step: Step, worker: WorkerContext) -> None:
        taken.append(str(step.table))
        worker.work.execute("SELECT pg_sleep(%s)", [0.5 if step.table == "a" else 0.05])
        shares.append(worker.share())

    crew = WorkerPool(signal=Signal())
    with sessions(database, 2) as opened:
        crew.run(take, [step(t) for t in "abcd"], opened)
    assert sorted(taken) == ["a", "b", "c", "d"]
    assert taken[0] == "a"
    assert (shares[0], shares[-1]) == (0.5, 1.0)


def test_a_failure_ends_the_others_statement_and_is_what_is_raised(database: str) -> None:
    """No worker waits for another's long statement; the steps that are left are not begun."""
    taken: list[str] = []

    def take(step: Step, worker: WorkerContext) -> None:
        taken.append(str(step.table))
        if step.table == "b":
            raise Conflict("b is not as it was")
        worker.work.execute("SELECT pg_sleep(60)")

    crew, began = WorkerPool(signal=Signal()), time.monotonic()
    with sessions(database, 2) as opened, pytest.raises(Conflict, match="b is not as it was"):
        crew.run(take, [step(t) for t in "abc"], opened)
    assert time.monotonic() - began < 10
    assert crew.failed == step("b")
    assert sorted(taken) == ["a", "b"]


def test_a_stop_lets_each_worker_finish_what_it_does(database: str) -> None:
    """One signal of the operator: no statement is cancelled, and no failure is reported."""
    stop, ended = Signal(), []

    def take(step: Step, worker: WorkerContext) -> None:
        worker.work.execute("SELECT pg_sleep(%s)", [0.1 if step.table == "a" else 0.6])
        if step.table == "a":
            stop.stop("SIGINT")
        assert worker.signal.is_stopping
        ended.append(step.table)
        raise Interrupted("stopped after a batch: SIGINT")

    crew = WorkerPool(signal=stop)
    with sessions(database, 2) as opened, pytest.raises(Interrupted):
        crew.run(take, [step(t) for t in "abc"], opened)
    assert (ended, crew.failed) == (["a", "b"], None)


def test_a_plan_may_list_its_tables_where_it_needs_them(desk: Desk) -> None:
    """A list is no name of a set, and is taken side by side as well."""
    text = small_text(pace="{workers: 4}").replace(
        "backfill: {tables: owned,", "backfill: {tables: [users, transactions, promocodes, promo_groups],"
    )
    desk.write(text)
    assert desk.call("run", "--through", "backfill").code == 0
    assert desk.ask("SELECT count(*) FROM transactions WHERE bot_id IS NULL") == 0


def test_no_proof_is_made_while_another_table_is_walked(pair: Desk) -> None:
    """Its snapshot would keep dead rows of all tables from being pruned, for as long as it reads."""
    pair.write(small_text(pace="{workers: 2, max_rows: 50, min_rows: 1, batch_target: 5ms}"))
    assert pair.call("run", "--through", "backfill").code == 0
    with pair.connect() as connection:
        ended = connection.execute(
            "SELECT min(ended_at) FROM online_migrate.step WHERE step LIKE 'backfill%'"
        ).fetchone()
        last = connection.execute(
            "SELECT max(moved_at) FROM online_migrate.cursor WHERE pass_name = 'sweep'"
        ).fetchone()
    assert ended is not None
    assert last is not None
    assert last[0] <= ended[0], "a pass went on after the first table was proven"


def test_a_server_without_room_for_a_second_worker_is_served_by_fewer(database: str) -> None:
    """After a failover all clients connect at once: fewer workers are no end, and it is said."""
    narrow = f"om_test_{os.getpid()}_narrow"
    said: list[int] = []
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {narrow} LOGIN CONNECTION LIMIT 4".encode())
        opened = Sessions(
            connector=Connector(dsn=make_conninfo(database, user=narrow)),
            signal=Signal(),
            emit=lambda *_, **__: None,
            clock=SystemClock(),
        )
        try:
            opened.open()
            with opened.workers(4, lambda count, _: said.append(count)) as works:
                assert [w.execute("SELECT 1").fetchone() for w in works] == [(1,), (1,)]
            assert said == [2]
        finally:
            opened.close()
            connection.execute(f"DROP ROLE {narrow}".encode())


MAY_READ = "its value may be read from another table: it has a subquery, or calls a function that may"


def value_from(table: str, **join: object) -> dict[str, object]:
    return {"from": [{"table": table, "on": "x_id"} | join, {"table": "bots", "on": "b", "column": "id"}]}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1, ""),
        (value_from("users"), ""),
        (value_from("orders"), "its value is read from orders, which is also filled"),
        ({"sql": "amount * 2"}, ""),
        ({"sql": "(amount + 1) * 2"}, ""),
        ({"sql": "coalesce(amount, 0)"}, ""),
        ({"sql": "bot_of(amount)"}, MAY_READ),
        ({"sql": "(SELECT bot_id FROM orders o WHERE o.id = order_id)"}, MAY_READ),
        ({"sql": "(TABLE bots LIMIT 1)"}, MAY_READ),
    ],
)  # fmt: skip
def test_what_may_be_read_from_a_table_of_the_set_is_filled_in_the_plans_order(
    value: object, why: str
) -> None:
    """Side by side a child could come before its parent."""
    params = BackfillParams.model_validate({"tables": "shop", "column": "bot_id", "value": value})
    place = Place(
        plan=load(WHOLE, OPERATIONS, path=PLANS / "multi_tenant.yaml"), step=step("orders"), catalog=None
    )
    assert Backfill().why_alone(place, params, ["orders", "items"]) == why


@pytest.mark.parametrize(
    ("value", "how"),
    [
        ("round(amount_kopeks / 100.0)::int", "2 tables at a time"),
        ("bot_of(id)", "one table at a time"),
        ("round(amount_kopeks) + public.bot_of(id)", "one table at a time"),
        ("lower('A')::int", "one table at a time"),
    ],
)
def test_what_a_function_may_read_the_server_knows(desk: Desk, value: str, how: str) -> None:
    """PostgreSQL's own immutable ones read no table; one of the same name elsewhere may."""
    desk.run_sql(
        "CREATE FUNCTION bot_of(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION lower(int) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'",
    )
    text = small_text(pace="{workers: 2}").replace("value: <master.id>}", f'value: {{sql: "{value}"}}}}')
    desk.write(text)
    said = desk.call("explain", "--stage", "backfill")
    assert f"\n  backfill bot_id by sql: {how}" in said.out, said.all


WRITES = (
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO log SELECT old.id;"
    " RETURN new; END$$"
)
SETS = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.note := now(); RETURN new; END$$"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ([WRITES, ("CREATE TRIGGER t AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION"
            " f()")], "trigger t of users may write another table"),
        ([WRITES, "CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()"], ""),
        ([SETS, "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f()"], ""),
        ([WRITES, "CREATE TRIGGER t AFTER UPDATE ON polls FOR EACH ROW EXECUTE FUNCTION f()"], ""),
    ],
)  # fmt: skip
def test_a_trigger_that_writes_other_tables_asks_for_the_plans_order(
    desk: Desk, sql: list[str], why: str
) -> None:
    """It could write a row without a value into a table that is done; one that only sets its own row's
    columns cannot.
    """
    desk.run_sql(*sql)
    desk.write(small_text(pace="{workers: 2}"))
    said = desk.call("explain", "--stage", "backfill")
    how = f"one table at a time, {why}" if why else "2 tables at a time, the largest first"
    assert f"\n  backfill bot_id: {how}\n" in said.out
