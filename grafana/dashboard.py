"""The dashboard of a run: rows by question, and every figure that the runner has.

``python -m grafana.dashboard`` writes grafana/dashboards/online-migrate.json; a test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana.panels import DATASOURCE, Query, Spec, bars, stat, states, table, time_series, timeline, words

FILE: Final = Path(__file__).parent / "dashboards" / "online-migrate.json"
UID: Final = "online-migrate"

PLAN: Final = 'plan="$plan"'
STAGE: Final = f'{PLAN}, stage=~"$stage"'
TABLE: Final = f'{STAGE}, table=~"$table"'
_RED_FROM_ONE: Final = [(None, "green"), (1.0, "red")]
_ORANGE_FROM_ONE: Final = [(None, "green"), (1.0, "orange")]

Panels = Iterable[Any]
"""builders of panels; those of the SDK have no common type of their own"""


def metric(name: str, labels: str = PLAN) -> str:
    """``online_migrate_<name>{…}``."""
    return f"online_migrate_{name}{{{labels}}}"


def overview() -> Panels:
    """Is it at work, how far is it, how long will it take?"""
    yield stat(
        Spec(
            title="Run",
            description="State of the run, as its runner last said. A runner that died shows in the heartbeat.",
            queries=[Query(expr=metric("run_state"))],
            unit="none", width=4, height=4, mappings=states(),
        )
    )  # fmt: skip
    yield stat(
        Spec(
            title="Steps done",
            description="Steps that are done of all steps of the plan over all its tables, earlier runs included.",
            queries=[Query(expr=f"{metric('run_steps_done')} / {metric('run_steps')}")],
            unit="percentunit", width=4, height=4, low=0, high=1,
        )
    )  # fmt: skip
    yield stat(
        Spec(
            title="Rows filled",
            description="Rows that have their value of the rows that the catalog expects; an estimate until the end.",
            queries=[
                Query(
                    expr=f"clamp_max(sum({metric('backfill_rows_done', TABLE)})"
                    f" / sum({metric('backfill_rows_expected', TABLE)}), 1)"
                )
            ],
            unit="percentunit", width=4, height=4, low=0, high=1,
        )
    )  # fmt: skip
    yield stat(
        Spec(
            title="Time left",
            description="Of the tables that are being filled now. Empty while it is unknown: on hold, or not measured yet.",
            queries=[Query(expr=f"max({metric('backfill_eta_seconds', TABLE)})")],
            unit="s", width=4, height=4,
        )
    )  # fmt: skip
    yield stat(
        Spec(
            title="Heartbeat",
            description="Since the runner last beat. From 60 s on it counts as dead and another may take over.",
            queries=[Query(expr=f"time() - {metric('heartbeat_time_seconds')}")],
            unit="s", width=4, height=4, thresholds=[(None, "green"), (15.0, "orange"), (60.0, "red")],
        )
    )  # fmt: skip
    yield stat(
        Spec(
            title="At work for",
            description="Since this process began, or went on with the run; its version beside it.",
            queries=[
                Query(
                    expr=f"(time() - {metric('run_start_time_seconds')})"
                    f" * on (plan) group_left (version) {metric('build_info')}",
                    legend="{{version}}",
                )
            ],
            unit="s", width=4, height=4,
        ),
        with_name=True,
    )  # fmt: skip
    yield timeline(
        Spec(
            title="Stages",
            description="Pending, at its gate, running, done or failed.",
            queries=[Query(expr=metric("stage_state", STAGE), legend="{{stage}}")],
            unit="none", width=16, height=8, mappings=states(),
        )
    )  # fmt: skip
    yield bars(
        Spec(
            title="Stages took",
            description="How long the stages took that are done.",
            queries=[Query(expr=metric("stage_duration_seconds", STAGE), legend="{{stage}}")],
            unit="s", width=8, height=8,
        )
    )  # fmt: skip


def waits() -> Panels:
    """Why does it wait?"""
    yield timeline(
        Spec(
            title="Waits",
            description="Why it holds back, by kind: a blocker of a lock, a throttler that is red, a row lock, a gate.",
            queries=[Query(expr=f"sum by (kind) ({metric('waiting')}) > bool 0", legend="{{kind}}")],
            unit="none", width=12, mappings=words({0: ("works", "green"), 1: ("waits", "orange")}),
        )
    )  # fmt: skip
    yield time_series(
        Spec(
            title="Throttlers",
            description="What each health reading sees. At 1 and above it holds the backfill.",
            queries=[Query(expr=metric("throttler_utilisation_ratio"), legend="{{throttler}}")],
            unit="percentunit", width=12, low=0, thresholds=[(None, "green"), (0.8, "orange"), (1.0, "red")],
        )
    )  # fmt: skip
    yield bars(
        Spec(
            title="Time waited",
            description="Seconds in waits that are over, by kind, of this process.",
            queries=[Query(expr=metric("wait_seconds_total"), legend="{{kind}}")],
            unit="s", width=8, height=6,
        )
    )  # fmt: skip
    yield stat(
        Spec(
            title="Gates that wait",
            description="Stages that wait for `online-migrate approve`.",
            queries=[Query(expr=f"sum({metric('gate_waiting', STAGE)})")],
            unit="none", width=4, height=6, thresholds=_ORANGE_FROM_ONE,
        )
    )  # fmt: skip
    yield time_series(
        Spec(
            title="Age of the readings",
            description="A throttler that has not answered for 15 s counts as red.",
            queries=[Query(expr=metric("throttler_reading_age_seconds"), legend="{{throttler}}")],
            unit="s", width=12, height=6, low=0, thresholds=[(None, "green"), (15.0, "red")],
        )
    )  # fmt: skip


def speed() -> Panels:
    """How fast are the rows filled?"""
    rate = f"sum by (table) (rate({metric('backfill_rows_total', TABLE)}[$__rate_interval]))"
    yield time_series(
        Spec(
            title="Rows per second",
            description="Rows that this process fills, by table.",
            queries=[Query(expr=rate, legend="{{table}}")],
            unit="rowsps", width=12, low=0,
        ),
        stack=True,
    )  # fmt: skip
    yield time_series(
        Spec(
            title="Share done",
            description="Pages passed by the pages at the start. A sweep for rows that are left comes after 100 %.",
            queries=[Query(expr=f"max by (table) ({metric('backfill_done_ratio', TABLE)})", legend="{{table}}")],
            unit="percentunit", width=12, low=0, high=1,
        )
    )  # fmt: skip
    batch = f"sum by (le) (rate({metric('backfill_batch_seconds_bucket', STAGE)}[$__rate_interval]))"
    yield time_series(
        Spec(
            title="Batch time",
            description="How long a batch holds its rows. The pacer aims at the plan's batch_target.",
            queries=[
                Query(expr=f"histogram_quantile(0.5, {batch})", legend="half of them below"),
                Query(expr=f"histogram_quantile(0.99, {batch})", legend="99 of 100 below"),
            ],
            unit="s", width=8, low=0,
        )
    )  # fmt: skip
    size = f"sum by (step) (rate({metric('backfill_batch_rows_sum', STAGE)}[$__rate_interval]))"
    count = f"sum by (step) (rate({metric('backfill_batch_rows_count', STAGE)}[$__rate_interval]))"
    yield time_series(
        Spec(
            title="Rows a batch",
            description="The mean size of the batches, as the pacer chose it.",
            queries=[Query(expr=f"{size} / {count}", legend="{{step}}")],
            unit="short", width=8, low=0,
        )
    )  # fmt: skip
    paused = f"sum(rate({metric('backfill_pause_seconds_total', STAGE)}[$__rate_interval]))"
    worked = f"sum(rate({metric('backfill_batch_seconds_sum', STAGE)}[$__rate_interval]))"
    yield time_series(
        Spec(
            title="Work and pause",
            description="Seconds of work and of pause per second: the plan's duty cycle, as it came out.",
            queries=[Query(expr=worked, legend="work"), Query(expr=paused, legend="pause")],
            unit="percentunit", width=8, low=0,
        ),
        stack=True,
    )  # fmt: skip


def tables() -> Panels:
    """Which table is where?"""
    columns = {
        "A": ("Rows done", metric("backfill_rows_done", TABLE), "short"),
        "B": ("Rows expected", metric("backfill_rows_expected", TABLE), "short"),
        "C": ("Done", metric("backfill_done_ratio", TABLE), "percentunit"),
        "D": ("Rows per second", f"rate({metric('backfill_rows_total', TABLE)}[$__rate_interval])", "rowsps"),
        "E": ("Time left", metric("backfill_eta_seconds", TABLE), "s"),
        "F": ("Batches", metric("backfill_batches_total", TABLE), "short"),
        "G": ("Late rows", metric("backfill_late_rows", TABLE), "short"),
    }
    merged = model.DataTransformerConfig(id_val="merge", options={})
    names = {f"Value #{letter}": title for letter, (title, _, _) in columns.items()}
    organized = model.DataTransformerConfig(
        id_val="organize",
        options={"excludeByName": {"Time": True}, "renameByName": {"table": "Table", **names}},
    )
    yield table(
        Spec(
            title="Tables",
            description="Rows, speed and time left of each table. Late rows came after the pass, and are swept up.",
            queries=[Query(expr=f"max by (table) ({expr})") for _, expr, _ in columns.values()],
            unit="short", width=24, height=12,
        ),
        [merged, organized],
        {title: {"unit": unit} for title, _, unit in columns.values()}
        | {"Done": {"unit": "percentunit", "min": 0, "max": 1, "custom.cellOptions": {"type": "gauge", "mode": "basic"}}},
    )  # fmt: skip
    matrix = model.DataTransformerConfig(
        id_val="groupingToMatrix", options={"columnField": "step", "rowField": "table", "valueField": "Value"}
    )
    yield table(
        Spec(
            title="Steps by table",
            description="The state of every step on every table.",
            queries=[Query(expr=f"max by (table, step) ({metric('step_state', TABLE)})")],
            unit="none", width=24, height=12, mappings=states(),
        ),
        [matrix],
    )  # fmt: skip


def locks() -> Panels:
    """Does anybody stand behind us?"""
    hold = f"sum by (le, step) ({metric('lock_hold_seconds_bucket', STAGE)})"
    wait = f"sum by (le, step) ({metric('lock_wait_seconds_bucket', STAGE)})"
    yield time_series(
        Spec(
            title="Locks held",
            description="99 of 100 strong locks were held for less, by step, since this process began.",
            queries=[Query(expr=f"histogram_quantile(0.99, {hold})", legend="{{step}}")],
            unit="s", width=8, low=0, thresholds=[(None, "green"), (0.05, "red")],
        )
    )  # fmt: skip
    yield time_series(
        Spec(
            title="Waits in a lock's queue",
            description="How long a statement of the application could have stood behind us: 99 of 100 waits were shorter.",
            queries=[Query(expr=f"histogram_quantile(0.99, {wait})", legend="{{step}}")],
            unit="s", width=8, low=0, thresholds=[(None, "green"), (0.8, "red")],
        )
    )  # fmt: skip
    yield time_series(
        Spec(
            title="Gave way",
            description="Strong locks that were not had in time: all was rolled back, and tried again later.",
            queries=[Query(expr=f"sum by (step) ({metric('lock_retries_total', STAGE)})", legend="{{step}}")],
            unit="short", width=8, low=0, decimals=0,
        )
    )  # fmt: skip
    yield bars(
        Spec(
            title="Longest hold by table",
            description="The longest time that a strong lock was held, of this process; the target is 50 ms.",
            queries=[
                Query(expr=f"topk(15, max by (table) ({metric('lock_hold_max_seconds', TABLE)}))", legend="{{table}}")
            ],
            unit="s", width=8, height=10, low=0, thresholds=[(None, "green"), (0.05, "red")],
        )
    )  # fmt: skip
    yield bars(
        Spec(
            title="Longest wait by table",
            description="The longest time that the application could have stood behind us, of this process.",
            queries=[
                Query(expr=f"topk(15, max by (table) ({metric('lock_wait_max_seconds', TABLE)}))", legend="{{table}}")
            ],
            unit="s", width=8, height=10, low=0, thresholds=[(None, "green"), (0.8, "red")],
        )
    )  # fmt: skip
    yield time_series(
        Spec(
            title="In the way",
            description="Sessions that were in the way of a lock or of a long statement, when last looked. The log names them.",
            queries=[Query(expr=metric("blockers", STAGE), legend="{{step}}")],
            unit="short", width=8, height=10, low=0, decimals=0, thresholds=_ORANGE_FROM_ONE,
        )
    )  # fmt: skip


def long_statements() -> Panels:
    """What takes long, and what went wrong?"""
    yield time_series(
        Spec(
            title="Long statements",
            description="How far concurrent builds, VALIDATE and VACUUM are; they hinder no statement of the application.",
            queries=[Query(expr=metric("long_statement_done_ratio", TABLE), legend="{{step}} {{table}}")],
            unit="percentunit", width=8, low=0, high=1,
        )
    )  # fmt: skip
    yield time_series(
        Spec(
            title="Long statements run for",
            description="One that runs for long without getting on waits for an old transaction: see In the way.",
            queries=[Query(expr=metric("long_statement_seconds", TABLE), legend="{{step}} {{table}}")],
            unit="s", width=8, low=0,
        )
    )  # fmt: skip
    yield time_series(
        Spec(
            title="Late rows and locked rows",
            description="Rows found without a value after the pass, and batches that left locked rows to the sweep.",
            queries=[
                Query(expr=f"sum({metric('backfill_late_rows', TABLE)})", legend="late rows"),
                Query(expr=f"sum({metric('backfill_skipped_batches_total', STAGE)})", legend="batches with locked rows"),
            ],
            unit="short", width=8, low=0, decimals=0,
        )
    )  # fmt: skip
    failures = metric("step_failures_total", STAGE)
    yield stat(
        Spec(
            title="Failures",
            description="Steps that failed, of this process.",
            queries=[Query(expr=f"sum({failures})")],
            unit="none", width=6, height=4, thresholds=_RED_FROM_ONE,
        )
    )  # fmt: skip
    for title, name, description in (
        ("Tried again", "retries_total", "Statements that were tried again after an error."),
        ("Reconnects", "reconnects_total", "Lost connections that were regained."),
        (
            "Metrics' own errors",
            "metrics_errors_total",
            "Events that the metrics could not take in: a defect of ours.",
        ),
    ):
        yield stat(
            Spec(
                title=title, description=description, queries=[Query(expr=f"sum({metric(name)})")],
                unit="none", width=6, height=4, thresholds=_ORANGE_FROM_ONE,
            )
        )  # fmt: skip


def variables() -> Iterable[Any]:
    """Data source, plan, stage, table."""
    yield build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    yield _query("plan", "Plan", "label_values(online_migrate_build_info, plan)")
    for name, label in (("stage", "Stage"), ("table", "Table")):
        query = _query(name, label, f"label_values({metric('step_state')}, {name})")
        yield (
            query.multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )


def _query(name: str, label: str, query: str) -> build.QueryVariable:
    variable = build.QueryVariable(name).label(label).datasource(DATASOURCE).query(query)
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
        model.VariableSort.ALPHABETICAL_ASC
    )


ROWS: Final = (overview, waits, speed, tables, locks, long_statements)


def make_dashboard() -> build.Dashboard:
    """All of it; a row's title is the question that its function's docstring asks."""
    dashboard = (
        build.Dashboard("online-migrate")
        .uid(UID)
        .description(
            "A run of online-migrate: is it safe, how far, how long, why does it wait, who is in the way."
        )
        .tags(["postgresql", "online-migrate"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for variable in variables():
        dashboard.with_variable(variable)
    panel_id = 0
    for row in ROWS:
        panel_id += 1
        dashboard.with_row(build.Row((row.__doc__ or "").strip()).id(panel_id))
        for panel in row():
            panel_id += 1
            dashboard.with_panel(panel.id(panel_id))
    return dashboard


def to_text() -> str:
    """The JSON as it is committed."""
    return json.dumps(make_dashboard().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(to_text(), encoding="utf-8")
