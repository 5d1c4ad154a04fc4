"""Events as metrics: names, honesty after a resume, bounds."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client import generate_latest

from online_migrate import events as e
from online_migrate.observe.metrics import STATES, MetricsSink
from tests.observe.made_runs import batch, make_snapshot, started, whole_run

USERS = {"plan": "shop", "stage": "fill", "step": "backfill bot_id", "table": "users"}


def sink_of(events: Iterable[e.Event]) -> MetricsSink:
    sink = MetricsSink(plan="shop")
    for event in events:
        sink.emit(event)
    return sink


def value(sink: MetricsSink, name: str, **labels: str) -> float | None:
    return sink.registry.get_sample_value(f"online_migrate_{name}", {"plan": "shop", **labels})


def test_every_metric_can_be_had_from_events_and_journal() -> None:
    """No metric is declared that nothing ever fills."""
    sink = sink_of(whole_run())
    assert value(sink, "metrics_errors_total") == 0
    filled = {m.name for m in sink.registry.collect() if m.samples}
    late = {  # gone again at the end of the events, or known by the journal only
        "online_migrate_backfill_eta_seconds",
        "online_migrate_long_statement_done_ratio",
        "online_migrate_long_statement_seconds",
        "online_migrate_heartbeat_time_seconds",
    }
    assert {m.name for m in sink.registry.collect()} - filled <= late


def test_names_follow_the_conventions() -> None:
    """Units are in the names, nothing is in milliseconds, and only counters end in total."""
    for metric in sink_of(whole_run()).registry.collect():
        assert metric.name.startswith("online_migrate_")
        assert metric.documentation.endswith(".")
        assert not re.search(r"_(ms|millis|minutes|percent|count|total)$", metric.name)
        assert ("seconds" in metric.name) >= ("duration" in metric.name)


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_complain_of() -> None:
    """The exposition is as Prometheus' own linter wants it."""
    text = generate_latest(sink_of(whole_run()).registry)
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()


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
    """All pages were passed; that the sweep walks them again makes nothing undone.  A pass anew does."""
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
    """While it waits, the kind of wait is at 1; a run that ends waits no longer."""
    wait = e.WaitStarted(stage="s", step="t", table="u", kind="standby_lag", reason="behind")
    sink = sink_of([wait, e.WaitStarted(stage="s", step="t", table="v", kind="standby_lag", reason="behind")])
    assert value(sink, "waiting", kind="standby_lag") == 2
    sink.emit(e.WaitEnded(stage="s", step="t", table="u", kind="standby_lag", seconds=3))
    assert value(sink, "waiting", kind="standby_lag") == 1
    assert value(sink, "wait_seconds_total", kind="standby_lag") == 3
    sink.emit(e.RunEnded(outcome="interrupted", exit_code=130, seconds=9))
    assert value(sink, "waiting", kind="standby_lag") == 0


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
    """A process that goes on shows the whole plan, not only its own part; its own news stand against an older reading."""
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
    """A Prometheus that others live on bears us; bounded labels, histograms not by table."""
    sink = MetricsSink(plan="shop")
    tables = [f"table_{n}" for n in range(300)]
    for stage, steps in PLAN.items():
        sink.emit(e.StageStarted(stage=stage, phase="expand"))
        for step in steps:
            for table in tables:
                for event in events_of(stage, step, table):
                    sink.emit(event)
        sink.emit(e.StageEnded(stage=stage, seconds=1))
    series = sum(len(metric.samples) for metric in sink.registry.collect())
    assert value(sink, "metrics_errors_total") == 0
    assert 5_000 < series < 10_000


PLAN = {
    "columns": ["add_column"], "fill": ["backfill bot_id"], "indexes": ["create_index"],
    "constraints": ["add_foreign_key", "set_not_null"], "swap": ["drop_default", "verify_owner"],
    "finish": ["analyze"],
}  # fmt: skip
"""the steps of plans/multi_tenant.yaml that go over all tables"""


def events_of(stage: str, step: str, table: str) -> Iterable[e.Event]:
    """Everything that may happen to a step of that kind."""
    place: Any = {"stage": stage, "step": step, "table": table}
    yield e.StepStarted(**place, resumed=False)
    if stage in {"columns", "constraints", "swap"}:
        lock: Any = {**place, "relation": table, "lock": "ACCESS EXCLUSIVE"}
        yield e.LockGivenWay(**lock, attempt=1, waited_s=0.05, pause_s=1, why="timeout", blockers=("a",))
        yield e.LockHeld(**lock, attempts=2, waited_s=0.05, held_s=0.01)
    if stage == "fill":
        yield started(table)
        yield batch(table)
        yield e.LateRows(**place, rows=1, more=False)
    if stage in {"indexes", "constraints"}:
        yield e.LongStatement(**place, statement="…", phase="", share_done=0.1, seconds=1)
    yield e.StepEnded(**place, outcome="done", seconds=1)
