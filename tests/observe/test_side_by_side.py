"""Several tables at work at once: no figure of one stands for another, and nothing is counted twice."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from online_migrate import events as e
from online_migrate.journal.states import StageState, StepState
from online_migrate.observe.page.document import decide_word, stage_eta_s, to_document
from online_migrate.observe.page.report import make_report
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.observe.snapshot.read import Snapshot, StepView, read_snapshot
from online_migrate.observe.snapshot.views import Passes, WaitView
from online_migrate.observe.terminal.live_view import render
from online_migrate.observe.terminal.status_line import status_line
from tests.observe.made_runs import NOON, MadeRun, batch, begun_run, make_record, make_snapshot, started

TABLES = ("users", "orders")
FILL = ("fill", "backfill bot_id")


def place(table: str) -> dict[str, Any]:
    return {"stage": FILL[0], "step": FILL[1], "table": table}


def wait_of(table: str, reason: str = "a is behind", kind: str = "standby_lag") -> WaitView:
    return WaitView(kind=kind, reason=reason, since=NOON, **place(table))


def both_running(**changes: Any) -> Snapshot:
    """Two tables of three are being filled, at 500 rows/s each for the last 9 s."""
    tables = (*TABLES, "carts")
    history = tuple(make_record(started(t), NOON.replace(minute=1, second=56)) for t in TABLES)
    snapshot = make_snapshot(tables, history=history, **changes)
    users = next(step for step in snapshot.steps if step.state == "running")
    waiting = {wait.table for wait in snapshot.waits}

    def view(step: StepView) -> StepView:
        if step.stage != "fill" or step.table == "carts":
            return step
        rate, eta = (None, None) if step.table in waiting else (500.0, 4.0)
        return replace(users, table=step.table, rows_done=4_500, rate=rate, eta_s=eta)

    stages = tuple(replace(stage, steps=tuple(map(view, stage.steps))) for stage in snapshot.stages)
    return replace(snapshot, stages=stages)


def test_two_tables_make_the_rate_and_share_the_rest() -> None:
    """Rows of both count; the next table is taken by the worker that is done first."""
    document = to_document(both_running())
    assert document["rate"] == pytest.approx(1_000)
    assert document["eta_s"] == pytest.approx(4.0 + 2_000 / 1_000)


def test_the_stage_takes_as_long_as_its_slowest_table() -> None:
    """A table that takes an hour takes it, however fast the other is."""
    stage = both_running().stages[2]
    users, *others = stage.steps
    assert stage_eta_s(replace(stage, steps=(replace(users, eta_s=3_600.0), *others)), 1_000) == 3_600


def test_tables_that_have_passed_do_not_shorten_the_time_left() -> None:
    """Users has 4 s left and orders has passed: the 2,000 rows of carts come after those 4 s, not after 2."""
    stage = both_running().stages[2]
    users, orders, carts = stage.steps
    passed = replace(orders, rate=None, eta_s=None, is_passed=True, is_parked=True)
    assert stage_eta_s(replace(stage, steps=(users, passed, carts)), 1_000) == pytest.approx(4.0 + 2.0)
    proving = replace(stage, steps=(passed, replace(passed, table="users")))
    assert stage_eta_s(proving, 1_000) is None


def test_a_table_that_waits_does_not_hold_the_run() -> None:
    """While another is running the run is not holding: its rate is shown, an unknown time left is not."""
    snapshot = both_running(waits=(wait_of("users"),))
    document = to_document(snapshot)
    assert (document["word"], document["eta_s"]) == ("running", None)
    assert document["rate"] == pytest.approx(500)
    assert [wait["place"] for wait in document["waits"]] == ["fill / backfill bot_id / users"]


@pytest.mark.parametrize("kinds", [("users", "orders"), ("",)])
def test_the_run_holds_when_nothing_gets_on(kinds: tuple[str, ...]) -> None:
    """All tables wait, each for itself, or the run does."""
    waits = tuple(wait_of(t) if t else replace(wait_of(""), stage="", step="", table="") for t in kinds)
    snapshot = both_running(waits=waits)
    assert decide_word(snapshot) == "holding"
    assert to_document(snapshot)["rate"] is None


def test_the_terminal_says_who_waits_for_what() -> None:
    """Two tables with one reason are one line that names both; with two reasons each has its own."""
    same = status_line(both_running(waits=(wait_of("users"), wait_of("orders"))))
    assert same.count("a is behind") == 1
    assert "fill / backfill bot_id / users and orders, for" in same
    shown = draw(both_running(waits=(wait_of("users"), wait_of("orders", "a row is locked", "row_lock"))))
    assert "backfill bot_id / users, for 2 min 05 s: a is behind" in shown
    assert "backfill bot_id / orders, for 2 min 05 s: a row is locked" in shown
    rows = [line for line in draw(both_running()).splitlines() if "500/s" in line]
    assert [row.split()[0] for row in rows] == list(TABLES)


def draw(snapshot: Snapshot) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(snapshot))
    return console.export_text()


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with begun_run(database) as made:
        yield made


def test_each_table_has_its_own_wait_and_its_own_pace(run: MadeRun) -> None:
    """The one that waits has a reason and no rate; the other has a rate and no reason, and the run is at
    work.
    """
    run.journal.set_stage(run.run_id, "fill", StageState.RUNNING)
    for table in TABLES:
        run.journal.set_step(run.run_id, (*FILL, table), StepState.RUNNING)
        run.tell(started(table))
    run.journal.connection.execute("UPDATE online_migrate.history SET at = at - interval '10 s'")
    for table in TABLES:
        run.put_cursor(table=table, chunk=200, slice=250, stripe=2, rows_done=2_000)
    run.tell(e.WaitStarted(**place("users"), kind="standby_lag", reason="a is behind"))
    snapshot = read(run)
    users, orders = (next(s for s in snapshot.steps if s.key == (*FILL, t)) for t in TABLES)
    assert (users.reason, users.rate, users.eta_s) == ("a is behind", None, None)
    assert orders.reason == ""
    assert orders.rate == pytest.approx(200, rel=0.1)
    assert orders.eta_s is not None
    assert (snapshot.reason, decide_word(snapshot)) == ("", "running")
    run.tell(e.WaitStarted(**place("orders"), kind="row_lock", reason="pid 7"))
    assert read(run).reason == "a is behind; pid 7"
    run.tell(e.WaitEnded(**place("users"), kind="standby_lag", seconds=1))
    assert [(wait.table, wait.reason) for wait in read(run).waits] == [("orders", "pid 7")]


def test_a_table_that_has_passed_is_left_alone_until_the_others_have(run: MadeRun) -> None:
    """It has no rate and no time left, and says what comes next: no worker is on it, also where another
    waits.
    """
    run.journal.set_stage(run.run_id, "fill", StageState.RUNNING)
    for table in TABLES:
        run.journal.set_step(run.run_id, (*FILL, table), StepState.RUNNING)
        run.tell(started(table))
    run.journal.connection.execute("UPDATE online_migrate.history SET at = at - interval '10 s'")
    run.put_cursor(table="users", pass_name="sweep", rows_done=2_000)
    run.put_cursor(table="orders", chunk=200, slice=250, stripe=2, rows_done=2_000)
    snapshot = read(run)
    users, orders = (next(s for s in snapshot.steps if s.key == (*FILL, t)) for t in TABLES)
    assert (users.reason, users.rate, users.eta_s, users.is_parked) == (
        "all pages are filled; the proof starts when the other tables are filled", None, None, True
    )  # fmt: skip
    assert (orders.reason, orders.is_passed) == ("", False)
    assert snapshot.passes == Passes(passed=1, total=2)
    run.tell(e.WaitStarted(**place("orders"), kind="table_lock", reason="orders is locked"))
    assert (decide_word(read(run)), read(run).reason) == ("holding", "orders is locked")
    run.put_cursor(table="orders", pass_name="sweep", rows_done=2_000)
    run.tell(e.WaitEnded(**place("orders"), kind="table_lock", seconds=1))
    proving = [s for s in read(run).steps if s.is_passed]
    assert [(s.table, s.reason, s.is_parked) for s in proving] == [
        (table, "all pages are filled; proving that no row is left", False) for table in TABLES
    ]


def test_a_table_to_come_is_waited_for_where_several_are_taken_at_once(run: MadeRun) -> None:
    """Orders has not begun.  While only users is running one worker may be proving it; beside another none
    is.
    """
    run.journal.set_step(run.run_id, (*FILL, "users"), StepState.RUNNING)
    run.put_cursor(table="users", pass_name="sweep")
    assert [s.is_parked for s in read(run).steps if s.is_passed] == [False]
    run.journal.set_step(run.run_id, (*FILL, "orders"), StepState.RUNNING)
    assert [s.is_parked for s in read(run).steps if s.is_passed] == [True]


def read(run: MadeRun) -> Snapshot:
    with run.connector.open("reader") as connection:
        snapshot = read_snapshot(connection, "shop")
    assert snapshot is not None
    return snapshot


def test_metrics_of_one_table_leave_the_other_alone() -> None:
    """What one got, and that it failed, takes no blocker, wait or time left from the other."""
    sink = MetricsSink(plan="shop")
    at = {"plan": "shop", "stage": FILL[0], "step": FILL[1]}
    for table in TABLES:
        sink.emit(e.StepStarted(**place(table), resumed=False))
        sink.emit(started(table))
        sink.emit(batch(table))
        sink.emit(e.WaitStarted(**place(table), kind="row_lock", reason="a row is locked"))
        sink.emit(e.BlockersSeen(**place(table), waiting_for=table, blockers=(f"pid of {table}",)))
        sink.emit(e.BlockersSeen(**place(table), waiting_for=table, blockers=(f"pid of {table}",)))
    assert value(sink, "blockers", at) == 2
    assert value(sink, "waits_open", {"plan": "shop", "kind": "row_lock"}) == 2
    sink.emit(e.StepFailed(**place("users"), error="x"))
    sink.emit(batch("orders", eta_s=7.0))
    assert value(sink, "blocker_info", {**at, "blocker": "pid of users"}) is None
    assert value(sink, "blocker_info", {**at, "blocker": "pid of orders"}) == 1
    assert value(sink, "waits_open", {"plan": "shop", "kind": "row_lock"}) == 1
    assert value(sink, "backfill_eta_seconds", {**at, "table": "users"}) is None
    assert value(sink, "backfill_eta_seconds", {**at, "table": "orders"}) == 7
    assert (
        value(sink, "run_steps_open", {"plan": "shop"}),
        value(sink, "metrics_errors_total", {"plan": "shop"}),
    ) == (1, 0)


def test_a_table_that_has_passed_has_no_time_left() -> None:
    """Neither the last batch's 0 s nor an old one stays while the others go on; a
    proven table has 0 s left.
    """
    sink, labels = MetricsSink(plan="shop"), {"plan": "shop", "stage": FILL[0], "step": FILL[1]}
    for table in TABLES:
        sink.emit(started(table))
    sink.emit(batch("users", share_done=1.0, eta_s=0.0))
    sink.emit(batch("orders", share_done=0.9, eta_s=7.0))

    def left() -> list[float | None]:
        return [value(sink, "backfill_eta_seconds", {**labels, "table": table}) for table in TABLES]

    def show(passed: str) -> None:
        snapshot = both_running()
        stages = [
            replace(stage, steps=tuple(replace(s, is_passed=s.table == passed) for s in stage.steps))
            for stage in snapshot.stages
        ]
        sink.update(replace(snapshot, stages=tuple(stages)))

    sink.registry.get_sample_value("")  # a scrape
    assert left() == [None, 7]
    show(passed="orders")
    assert left() == [None, None]
    sink.emit(e.StepEnded(**place("orders"), outcome="done", seconds=1, rows=1))
    show(passed="orders")  # read before it ended
    assert left() == [None, 0]


def value(sink: MetricsSink, name: str, labels: dict[str, str]) -> float | None:
    return sink.registry.get_sample_value(f"online_migrate_{name}", labels)


def test_two_tables_that_wait_at_once_wait_once() -> None:
    """The report's seconds are those of the clock, as the exporter's are: 10 and 10
    that overlap by 5 are 15.
    """
    wait: dict[str, Any] = {"kind": "wal", "reason": "full"}
    history = [
        make_record(e.WaitStarted(**place("users"), **wait), NOON),
        make_record(e.WaitStarted(**place("orders"), **wait), NOON + timedelta(seconds=5)),
        make_record(e.WaitEnded(**place("users"), kind="wal", seconds=10), NOON + timedelta(seconds=10)),
        make_record(e.WaitEnded(**place("orders"), kind="wal", seconds=10), NOON + timedelta(seconds=15)),
    ]
    report = make_report(make_snapshot(), history, stages=(), approvals=())
    assert report["hold_kinds"] == [{"kind": "wal", "times": 2, "seconds": 15, "longest_s": 10}]


class Counting:
    """A sink that would lose counts, and notices company, if two threads were in it at once."""

    def __init__(self) -> None:
        self.count = self.inside = self.most = 0

    def emit(self, _: e.Event) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        count = self.count
        time.sleep(0)  # let others in
        self.count = count + 1
        self.inside -= 1


def test_sinks_hear_one_event_at_a_time() -> None:
    """Workers emit from threads of their own, and no sink needs a lock for that."""
    sink = Counting()
    sinks = e.Sinks([sink])

    def work() -> None:
        for _ in range(500):
            sinks.emit(batch())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sink.count, sink.most) == (2_000, 1)
