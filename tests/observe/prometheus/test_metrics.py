"""Events as metrics: names, honesty after a resume, bounds."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from online_migrate import events as e
from online_migrate.clock import Signal
from online_migrate.journal.lease import Holder
from online_migrate.observe.prometheus.exposition import OPEN, Exposition
from online_migrate.observe.prometheus.sink import STATES, Budgets, MetricsSink
from online_migrate.observe.snapshot.views import Snapshot, StageView, StepView
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.expand import expand, listed_tables
from online_migrate.plan.load import load_file
from online_migrate.plan.model import Plan, Step
from tests.observe.made_runs import batch, make_plan, make_reading, make_snapshot, started, whole_run

BUDGETS = Budgets(exposure_s=30, exposure_run_s=120, standby_lag_bytes=64 << 20)
STARTED = e.RunStarted(plan="shop", run_id=1, resumed=False, steps_total=7, steps_done=0)
USERS = {"plan": "shop", "stage": "fill", "step": "backfill bot_id", "table": "users"}


def sink_of(events: Iterable[e.Event], **facts: Any) -> MetricsSink:
    sink = MetricsSink(plan="shop", budgets=BUDGETS, **facts)
    for event in events:
        sink.emit(event)
    return sink


def full_sink(**facts: Any) -> MetricsSink:
    """A sink that has heard of everything: events, journal, server."""
    sink = sink_of(whole_run(), **facts)
    sink.update(make_snapshot(holder=Holder(runner="ada", plan="shop", since="", heartbeat_age_s=2.0)))
    sink.take(make_reading())
    return sink


class MadeClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float, signal: Signal) -> bool:
        self.waited.append(seconds)
        return signal.is_stopping


def value(sink: MetricsSink, name: str, **labels: str) -> float | None:
    return sink.registry.get_sample_value(f"online_migrate_{name}", {"plan": "shop", **labels})


def test_every_metric_can_be_had_from_events_and_journal() -> None:
    """No metric is declared that nothing ever fills."""
    sink = full_sink()
    assert value(sink, "metrics_errors_total") == 0
    filled = {m.name for m in sink.registry.collect() if m.samples}
    over = {f"online_migrate_{name}" for name in GONE_AGAIN}
    assert {m.name for m in sink.registry.collect()} - filled <= over


GONE_AGAIN = {
    "backfill_eta_seconds", "long_statement_done_ratio", "long_statement_seconds", "long_statement_phase_info",
    "blocker_info", "wait_reason_info", "throttler_utilisation_ratio", "throttler_reading_age_seconds",
    "throttler_reason_info", "lease_held",
}  # fmt: skip
"""shown only while it is so"""


def test_names_follow_the_conventions() -> None:
    """Units are in the names, nothing is in milliseconds, and only counters end in total."""
    for metric in full_sink().registry.collect():
        assert metric.name.startswith("online_migrate_")
        assert metric.documentation.endswith(".")
        assert not re.search(r"_(ms|millis|minutes|percent|count|total)$", metric.name)
        assert ("seconds" in metric.name) >= ("duration" in metric.name)


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_complain_of() -> None:
    """The exposition is as Prometheus' own linter wants it."""
    _, text = Exposition(full_sink().registry).write("")
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()


@pytest.mark.parametrize(("accept", "theirs"), [("", generate_latest), (OPEN, openmetrics.generate_latest)])
def test_the_text_is_what_the_client_would_write(
    accept: str, theirs: Callable[[CollectorRegistry], bytes]
) -> None:
    """Ours is written in half the time, from what was kept of the last scrape, and is the same."""
    sink = full_sink(clock=MadeClock())
    sink.emit(e.WaitStarted(kind="wal", reason='a "name" with \\ and\nmore'))
    ours = Exposition(sink.registry)
    for _ in range(2):
        _, text = ours.write(accept)
        assert without_times(text) == without_times(theirs(sink.registry))
    assert {kind.type for kind in sink.registry.collect()} == {"gauge", "counter", "histogram"}


def without_times(text: bytes) -> list[str]:
    """The process' own figures are others at each look."""
    return [line for line in text.decode().splitlines() if not line.startswith("online_migrate_process_")]


def test_a_resumed_step_goes_on_honestly() -> None:
    """The gauge says what the step has done in all its runs, the counter only what this process did."""
    resumed = [started(rows_done=40_000, pages_done=400), batch(rows=500, rows_done=40_500, share_done=0.41)]
    sink = sink_of(resumed)
    assert value(sink, "backfill_rows_done", **USERS) == 40_500
    assert value(sink, "backfill_rows_total", **USERS) == 500
    assert sink_and_share(sink) == pytest.approx(0.41)


def sink_and_share(sink: MetricsSink) -> float | None:
    return value(sink, "backfill_done_ratio", **USERS)


def test_a_counter_begins_at_zero() -> None:
    """A series that begins with its first increase hides that increase from rate()."""
    sink = sink_of([started()])
    assert value(sink, "backfill_rows_total", **USERS) == 0
    assert value(sink, "backfill_batch_seconds_count", stage="fill", step="backfill bot_id") == 0


def test_a_sweep_does_not_take_the_share_back() -> None:
    """All pages were passed; that the sweep walks them again makes nothing undone.  A second pass does."""
    sink = sink_of([started(), batch(share_done=1.0), batch(share_done=0.1)])
    assert sink_and_share(sink) == 1
    sink.emit(started(pages_done=0))
    assert sink_and_share(sink) == 0


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(batch(eta_s=None), id="unknown"),
        pytest.param(
            e.WaitStarted(stage="fill", step="backfill bot_id", table="users", kind="wal", reason="full"),
            id="waiting",
        ),
        pytest.param(e.WaitStarted(kind="wal", reason="full"), id="all wait"),
        pytest.param(
            e.StepFailed(stage="fill", step="backfill bot_id", table="users", error="x"), id="failed"
        ),
        pytest.param(e.RunEnded(outcome="interrupted", exit_code=130, seconds=1), id="over"),
    ],
)
def test_a_time_left_that_is_not_known_is_not_shown(event: e.Event) -> None:
    """A frozen ETA during a hold is a lie; an absent one is a gap that Grafana shows as such."""
    sink = sink_of([started(), batch(eta_s=12.0)])
    assert value(sink, "backfill_eta_seconds", **USERS) == 12
    sink.emit(event)
    assert value(sink, "backfill_eta_seconds", **USERS) is None


def test_waits_open_and_close() -> None:
    """While it waits, the kind of wait is at 1 and says why; a run that ends waits no longer."""
    wait = e.WaitStarted(stage="s", step="t", table="u", kind="standby_lag", reason="a is 80 MiB behind")
    sink = sink_of([wait, replace(wait, table="v")])
    assert value(sink, "waits_open", kind="standby_lag") == 2
    assert value(sink, "wait_reason_info", kind="standby_lag", reason="a is … MiB behind") == 1
    sink.emit(e.WaitEnded(stage="s", step="t", table="u", kind="standby_lag", seconds=3))
    assert value(sink, "waits_open", kind="standby_lag") == 1
    sink.emit(e.RunEnded(outcome="interrupted", exit_code=130, seconds=9))
    assert value(sink, "waits_open", kind="standby_lag") == 0
    assert value(sink, "wait_reason_info", kind="standby_lag", reason="a is … MiB behind") is None


@pytest.mark.parametrize(
    "over", [e.Reconnected(seconds=2), e.StepStarted(stage="s", step="t", table="u", resumed=True)]
)
def test_a_wait_does_not_outlive_its_session(over: e.Event) -> None:
    """A hold that a failover cut off would look as if it lasted, and silence the alert that says nothing
    moves.
    """
    clock = MadeClock()
    wait = e.WaitStarted(stage="s", step="t", table="u", kind="wal", reason="full")
    sink = sink_of([wait], clock=clock)
    clock.now += 10
    sink.emit(over)
    clock.now += 100
    assert value(sink, "waits_open", kind="wal") == 0
    assert value(sink, "wait_seconds_total", kind="wal") == 10


def test_time_waited_grows_while_it_waits() -> None:
    """Who waits for an hour does not show it only after the hour; two tables that wait at once wait once."""
    clock = MadeClock()
    wait = e.WaitStarted(stage="s", step="t", table="u", kind="wal", reason="full")
    sink = sink_of([wait], clock=clock)
    clock.now += 10
    sink.emit(replace(wait, table="v"))
    assert value(sink, "wait_seconds_total", kind="wal") == 10
    clock.now += 5
    for table in ("u", "v"):
        sink.emit(e.WaitEnded(stage="s", step="t", table=table, kind="wal", seconds=15))
    clock.now += 100
    assert value(sink, "wait_seconds_total", kind="wal") == 15


def test_a_reading_that_nobody_makes_any_more_is_gone() -> None:
    """After the backfill the throttlers are not asked: their last word must not look like news."""
    reading = e.Reading(throttler="wal", utilisation=0.4, reason="4 of 10 GB", age_s=0.3)
    sink = sink_of([reading])
    assert value(sink, "throttler_utilisation_ratio", throttler="wal") == pytest.approx(0.4)
    assert value(sink, "throttler_reason_info", throttler="wal", reason="… of … GB") == 1
    sink.emit(e.StageEnded(stage="fill", seconds=1))
    assert value(sink, "throttler_utilisation_ratio", throttler="wal") is None
    assert value(sink, "throttler_reason_info", throttler="wal", reason="… of … GB") is None


def test_a_reading_is_gone_while_nobody_asks() -> None:
    """A proof of a large table reads for minutes and asks no throttler: an age that did not grow would say
    all is fresh.
    """
    clock = MadeClock()
    sink = sink_of([e.Reading(throttler="wal", utilisation=0.4, reason="x", age_s=0.3)], clock=clock)
    clock.now += 10
    sink.emit(e.Reading(throttler="queue", utilisation=0.4, reason="x", age_s=0.3))
    clock.now += 10
    assert value(sink, "throttler_reading_age_seconds", throttler="wal") is None
    assert value(sink, "throttler_utilisation_ratio", throttler="wal") is None
    assert value(sink, "throttler_reading_age_seconds", throttler="queue") == pytest.approx(0.3)


def test_who_is_in_the_way_is_named_while_it_is() -> None:
    """An operator wants the process' number; figures that change with each look would be a series each."""
    place: Any = {"stage": "columns", "step": "add_column", "table": "users"}
    at = {"stage": "columns", "step": "add_column"}
    seen = e.BlockersSeen(**place, waiting_for="users", blockers=("pid 12 (app): idle, 4.1 s old",))
    sink = sink_of([e.StepStarted(**place, resumed=False), seen])
    assert value(sink, "blocker_info", **at, blocker="pid 12 (app): idle, … s old") == 1
    assert (value(sink, "blockers", **at), value(sink, "blockers_seen_total", **at)) == (1, 1)
    held = e.LockHeld(**place, relation="users", lock="SHARE", attempts=1, waited_s=0.5, held_s=0)
    sink.emit(held)
    assert value(sink, "blocker_info", **at, blocker="pid 12 (app): idle, … s old") is None
    assert value(sink, "lock_exposure_seconds_total", table="users") == pytest.approx(0.5)


def test_texts_are_bounded() -> None:
    """Whatever reasons there are, at most a hundred exist at a time; the last one stands for all others."""
    waits = (e.WaitStarted(table=f"t{n}", kind="row_lock", reason="x" * n) for n in range(1, 151))
    sink = sink_of(waits)
    assert len(texts(sink, "wait_reason_info")) == 100
    assert "more: see the log" in texts(sink, "wait_reason_info")


def test_who_is_in_the_way_is_named_however_many_were_before() -> None:
    """A night has more sessions than a hundred; the one that blocks now is the one that matters."""
    place: Any = {"stage": "columns", "step": "add_column", "table": "users", "waiting_for": "users"}
    sink = sink_of(e.BlockersSeen(**place, blockers=(f"pid {n}",)) for n in range(500))
    assert texts(sink, "blocker_info") == {"pid 499"}


def texts(sink: MetricsSink, name: str) -> set[str]:
    """What the series of 1 say."""
    (metric,) = (m for m in sink.registry.collect() if m.name == f"online_migrate_{name}")
    return {[*sample.labels.values()][-1] for sample in metric.samples}


def test_how_a_run_ended_is_told() -> None:
    """Alerts compare the last end, by outcome, with the last beginning; an error has its kind."""
    sink = sink_of([STARTED], now=lambda: 1_000.0)
    assert value(sink, "run_end_time_seconds", outcome="failed") == 0
    assert value(sink, "lease_held") == 1
    sink.emit(e.RunEnded(outcome="failed", exit_code=6, seconds=9))
    assert value(sink, "run_end_time_seconds", outcome="failed") == 1_000
    assert (value(sink, "run_exit_code"), value(sink, "run_errors_total", kind="lease")) == (6, 1)
    assert value(sink, "lease_held") == 0


@pytest.mark.parametrize(("code", "ended"), [(6, 0), (3, 1_000)], ids=["another has the lease", "unready"])
def test_a_runner_that_never_began_has_lost_no_lease(code: int, ended: float) -> None:
    """Started beside a running one: no runner took its lease, and the run of the other has not ended."""
    sink = sink_of([e.RunEnded(outcome="failed", exit_code=code, seconds=9)], now=lambda: 1_000.0)
    assert value(sink, "lease_held") is None
    assert value(sink, "run_end_time_seconds", outcome="failed") == ended
    assert value(sink, "run_exit_code") == code


def test_progress_is_not_the_same_as_being_busy() -> None:
    """A build that waits for an old transaction is busy without progress: the time of the last progress does
    not change.
    """
    times = iter(range(100, 200))
    place: Any = {"stage": "indexes", "step": "create_index", "table": "users", "statement": "CREATE INDEX"}
    sink = sink_of([STARTED], now=lambda: float(next(times)))

    def progress(share: float) -> float | None:
        sink.emit(e.LongStatement(**place, phase="building", share_done=share, seconds=1))
        return value(sink, "last_progress_time_seconds")

    first = progress(0.1)
    assert progress(0.1) == first
    assert progress(0.2) != first


@pytest.mark.parametrize(
    ("phase", "waits_for", "seconds", "is_progress"),
    [
        ("", (), 3_000, True),
        ("proving", (), 3_000, True),
        ("proving", (), 4_000, False),
        ("", ("pid 7",), 1, False),
        ("waiting for old snapshots", (), 1, False),
    ],
)
def test_a_read_without_a_share_counts_as_progress(
    phase: str, waits_for: tuple[str, ...], seconds: float, is_progress: bool
) -> None:
    """A VALIDATE or a proof of a large table takes long: no alert fires within an hour, and no share of 0 %
    is drawn.
    """
    times = iter(range(100, 200))
    place: Any = {"stage": "constraints", "step": "set_not_null", "table": "users"}
    sink = sink_of([STARTED], now=lambda: float(next(times)))
    read = e.LongStatement(
        **place, statement="…", phase=phase, share_done=None, seconds=seconds, waits_for=waits_for
    )
    sink.emit(read)
    first = value(sink, "last_progress_time_seconds")
    sink.emit(read)
    assert (value(sink, "last_progress_time_seconds") != first) == is_progress
    assert value(sink, "long_statement_done_ratio", **place) is None
    assert value(sink, "long_statement_seconds", **place) == seconds
    sink.emit(e.LateRows(**place, rows=1, more=False))
    assert value(sink, "long_statement_seconds", **place) is None


@pytest.mark.parametrize(
    "then",
    [
        started(),
        batch(),
        e.WaitStarted(stage="fill", step="backfill bot_id", table="users", kind="soak", reason="quiet"),
    ],
    ids=lambda event: event.name,
)
def test_a_read_that_is_over_is_shown_no_more(then: e.Event) -> None:
    """A proof before the pass, or a VACUUM within it, is not shown until the step is done."""
    place: Any = {"stage": then.stage, "step": then.step, "table": then.table}
    sink = sink_of(
        [STARTED, e.LongStatement(**place, statement="…", phase="proving", share_done=None, seconds=60)]
    )
    assert value(sink, "long_statement_seconds", **place) == 60
    assert value(sink, "long_statement_phase_info", **place, phase="proving") == 1
    sink.emit(then)
    assert value(sink, "long_statement_seconds", **place) is None
    assert value(sink, "long_statement_phase_info", **place, phase="proving") is None


def test_late_rows_count_against_coverage_only_after_the_backfill() -> None:
    """A sweep finds rows that were locked, which is its work; a later step that finds one found a leak, be it
    of its stage.
    """
    late: Any = {"stage": "fill", "table": "users", "rows": 3, "more": False}
    sink = sink_of([e.StageStarted(stage="fill", phase="contract")])
    sink.emit(e.LateRows(step="backfill bot_id", **late))
    assert value(sink, "late_rows_after_proof_total", stage="fill") == 0
    sink.emit(e.LateRows(step="set_not_null bot_id", **late))
    assert value(sink, "late_rows_after_proof_total", stage="fill") == 3


def test_the_servers_counters_count_from_our_first_look() -> None:
    """What was before us is not our rate; statistics that were reset do not take anything back."""
    sink = sink_of([])
    for wal, updates in ((1_000, 50), (1_500, 60), (100, 5)):
        sink.take(make_reading(wal_bytes=wal, updates=updates))
    assert value(sink, "server_wal_bytes_total") == 600
    assert value(sink, "table_updates_total", table="users") == 15
    assert value(sink, "standby_lag_bytes", standby="b") == 100
    sink.take(make_reading(standbys=()))
    assert value(sink, "standby_lag_bytes", standby="b") is None


def test_what_the_server_said_long_ago_is_not_shown() -> None:
    """A lag that is no longer read looks current; the time of the last reading stays, for the alert, also
    from the start.
    """
    now = [1_000.0]
    sink = sink_of([], now=lambda: now[0])
    assert value(sink, "server_reading_time_seconds") == 1_000
    sink.take(make_reading())
    now[0] += 20
    assert value(sink, "standby_lag_bytes", standby="b") == 100
    now[0] += 20
    assert value(sink, "standby_lag_bytes", standby="b") is None
    assert value(sink, "table_size_bytes", table="users") is None
    assert value(sink, "table_updates_total", table="users") is not None
    assert value(sink, "server_reading_time_seconds") == 1_000
    sink.take(make_reading())
    assert value(sink, "standby_lag_bytes", standby="b") == 100


def test_the_heartbeats_age_is_shown_by_our_clock() -> None:
    """Prometheus compares it with its own: a database whose clock is behind must not raise alerts, one ahead
    must not hide any.
    """
    now = [1_000.0]
    sink = sink_of([], now=lambda: now[0])
    sink.update(make_snapshot(holder=Holder(runner="ada", plan="shop", since="", heartbeat_age_s=2.0)))
    now[0] += 14  # until the scrape
    assert value(sink, "last_heartbeat_time_seconds") == 998


def test_the_plans_bounds_stand_beside_the_figures() -> None:
    """An alert compares with what the plan allows, not with a number of its own."""
    budgets = Budgets.of(make_plan())
    assert (budgets.exposure_s, budgets.exposure_run_s, budgets.standby_lag_bytes) == (30, 120, None)
    sink = MetricsSink(plan="shop", budgets=Budgets(exposure_s=30, exposure_run_s=120, standby_lag_bytes=64))
    assert value(sink, "lock_exposure_budget_seconds", scope="table") == 30
    assert value(sink, "standby_lag_budget_bytes") == 64
    assert value(MetricsSink(plan="shop"), "standby_lag_budget_bytes") is None


def test_locks_are_counted_and_the_longest_is_kept() -> None:
    """The longest hold is what a night is judged by, not the last one."""
    held: Any = {
        "stage": "columns",
        "step": "add_column",
        "table": "users",
        "relation": "users",
        "lock": "ACCESS EXCLUSIVE",
    }
    sink = sink_of(
        [
            e.LockHeld(**held, attempts=1, waited_s=0.01, held_s=0.03),
            e.LockHeld(**held, attempts=1, waited_s=0.02, held_s=0.004),
        ]
    )
    assert value(sink, "lock_hold_max_seconds", stage="columns", table="users") == pytest.approx(0.03)
    assert value(sink, "lock_wait_max_seconds", stage="columns", table="users") == pytest.approx(0.02)
    assert value(sink, "lock_hold_seconds_count", stage="columns", step="add_column") == 2
    buckets = [
        value(sink, "lock_hold_seconds_bucket", stage="columns", step="add_column", le=le)
        for le in ("0.005", "0.05")
    ]
    assert buckets == [1, 2]


def test_the_journal_says_what_earlier_runs_did() -> None:
    """A process that goes on shows the whole plan, not only its own part; its own events override an older
    reading.
    """
    sink = MetricsSink(plan="shop")
    sink.update(make_snapshot())
    assert value(sink, "stage_state", stage="columns") == STATES["done"]
    assert value(sink, "step_state", **USERS) == STATES["running"]
    assert value(sink, "backfill_rows_done", **USERS) == 45_000
    assert (value(sink, "run_steps"), value(sink, "run_steps_done")) == (7, 3)
    sink.emit(
        e.StepEnded(stage="fill", step="backfill bot_id", table="users", outcome="done", seconds=1, rows=1)
    )
    sink.update(make_snapshot())
    assert value(sink, "step_state", **USERS) == STATES["done"]
    assert value(sink, "run_steps_done") == 4


def test_an_event_that_cannot_be_counted_is_counted_as_such() -> None:
    """A mistake of ours in a metric must never stop a migration, and must be seen."""
    sink = sink_of([batch(rows=None)])
    assert value(sink, "metrics_errors_total") == 1


def test_three_hundred_tables_stay_under_ten_thousand_series() -> None:
    """A Prometheus that others live on bears us: the whole plan, the journal, and as many reasons and
    sessions as are shown.
    """
    plan = load_file(MULTI_TENANT, OPERATIONS)
    (owned,) = listed_tables(plan).values()
    tables = (*owned, *(f"table_{n}" for n in range(len(owned), 300)))
    steps = expand(plan, {"owned": tables}, OPERATIONS)
    sink = MetricsSink(plan="shop", budgets=BUDGETS)
    sink.emit(replace(STARTED, steps_total=len(steps)))
    for step in steps:
        for event in events_of(step):
            sink.emit(event)
    for n in range(200):
        sink.emit(e.WaitStarted(table=tables[n], kind="row_lock", reason=f"pid {n} has them"))
        sink.emit(e.Reading(throttler=f"t{n % 8}", utilisation=1.5, reason=f"pid {n} is why", age_s=0))
    for step in steps[-200:]:
        place: Any = {"stage": step.stage, "step": step.spec.title, "table": step.table or ""}
        sink.emit(
            e.LongStatement(**place, statement="…", phase=f"{place['table']}", share_done=0.5, seconds=1)
        )
    for step in steps:
        place = {"stage": step.stage, "step": step.spec.title, "table": step.table or ""}
        sink.emit(e.BlockersSeen(**place, waiting_for="t", blockers=tuple(f"pid {n}" for n in range(20))))
    sink.update(journal_of(plan, steps))
    sink.take(make_reading(tables=tables))
    series = sum(len(metric.samples) for metric in sink.registry.collect())
    assert value(sink, "metrics_errors_total") == 0
    assert 8_000 < series < 10_000


MULTI_TENANT = Path(__file__).parents[3] / "plans" / "multi_tenant.yaml"
IN_A_WINDOW = {
    "create_tables",
    "add_column",
    "add_foreign_key",
    "add_unique",
    "add_primary_key",
    "set_not_null",
    "drop_default",
    "drop_not_null",
    "add_check",
    "set_default",
    "swap_unique",
}
LONG = {
    "backfill",
    "create_index",
    "drop_index",
    "add_unique",
    "add_primary_key",
    "add_check",
    "add_foreign_key",
    "set_not_null",
    "verify_owner",
    "analyze",
    "verify_sql",
}


def events_of(step: Step) -> Iterable[e.Event]:
    """Everything that may happen to a step of that kind."""
    place: Any = {"stage": step.stage, "step": step.spec.title, "table": step.table or ""}
    yield e.StageStarted(stage=step.stage, phase="expand")
    yield e.StepStarted(**place, resumed=False)
    if step.spec.operation in IN_A_WINDOW:
        lock: Any = {**place, "relation": place["table"] or "bots", "lock": "ACCESS EXCLUSIVE"}
        yield e.LockAttemptFailed(
            **lock, attempt=1, waited_s=0.05, pause_s=1, reason="timeout", blockers=("a",)
        )
        yield e.LockHeld(**lock, attempts=2, waited_s=0.05, held_s=0.01)
    if step.spec.operation == "backfill":
        yield replace(started(), **place)
        yield replace(batch(), **place)
        yield e.Retried(**place, kind="connection", attempt=1, error="closed", pause_s=1)
    if step.spec.operation in {"backfill", "set_not_null"}:
        yield e.LateRows(**place, rows=1, more=False)
    if step.spec.operation in LONG:
        yield e.LongStatement(**place, statement="…", phase="", share_done=0.1, seconds=1)
    yield e.StepEnded(**place, outcome="done", seconds=1)
    yield e.StageEnded(stage=step.stage, seconds=1)


def journal_of(plan: Plan, steps: Iterable[Step]) -> Snapshot:
    """The journal of an earlier run."""
    views = [
        StepView(
            stage=s.stage, step=s.spec.title, table=s.table or "", state="done", rows_done=1, share_done=1.0,
            rows_expected=1 if s.spec.operation == "backfill" else None, rate=None, eta_s=None, seconds=1.0, reason="",
        )
        for s in steps
    ]  # fmt: skip
    stages = tuple(
        StageView(
            stage=stage.name, phase="expand", state="done", reason="", steps=tuple(v for v in views if v.stage == stage.name)
        )
        for stage in plan.stages
    )  # fmt: skip
    return make_snapshot(
        stages=stages, holder=Holder(runner="ada", plan="shop", since="", heartbeat_age_s=2.0)
    )
