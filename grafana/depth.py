"""The details: per table, per throttler, locks, long statements."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import dashboard as model

from grafana.depth_server import application, growth, runner, standbys
from grafana.night_waits import ORANGE_FROM_ONE, Panels
from grafana.panels import Spec, bars, states, table, texts, time_series
from grafana.queries import PLAN_TABLE, STAGE, TABLE, last, metric, quantile, rate

HALF: Final = (12, 8)


def tables() -> Panels:
    """How far is each table?"""
    columns = {
        "Rows done": (last("backfill_rows_done", TABLE), "short"),
        "Rows expected": (last("backfill_rows_expected", TABLE), "short"),
        "Done": (last("backfill_done_ratio", TABLE), "percentunit"),
        "Rows per second": (rate("backfill_rows_total", TABLE), "rowsps"),
        "Time left": (metric("backfill_eta_seconds", TABLE), "s"),
        "Batches": (last("backfill_batches_total", TABLE), "short"),
        "Late rows": (last("backfill_late_rows", TABLE), "short"),
    }
    names = {f"Value #{chr(ord('A') + n)}": title for n, title in enumerate(columns)}
    merged = model.DataTransformerConfig(id_val="merge", options={})
    organized = model.DataTransformerConfig(
        id_val="organize",
        options={"excludeByName": {"Time": True}, "renameByName": {"table": "Table", **names}},
    )
    yield table(
        Spec(
            "Tables",
            "Rows, speed and time left of each table. Late rows were found after the pass; the sweep fills"
            " them. Batches are of this process.",
            {title: f"max by (table) ({expr})" for title, (expr, _) in columns.items()},
            unit="short",
            size=(24, 12),
        ),
        [merged, organized],
        {title: {"unit": unit} for title, (_, unit) in columns.items()}
        | {
            "Done": {
                "unit": "percentunit",
                "min": 0,
                "max": 1,
                "custom.cellOptions": {"type": "gauge", "mode": "basic"},
            }
        },
    )
    matrix = model.DataTransformerConfig(
        id_val="groupingToMatrix", options={"columnField": "step", "rowField": "table", "valueField": "Value"}
    )
    yield table(
        Spec(
            "Steps by table",
            "The state of every step on every table.",
            {"": f"max by (table, step) ({last('step_state', TABLE)})"},
            size=(24, 12),
            mappings=states(),
        ),
        [matrix],
    )


def batches() -> Panels:
    """How do the batches run?"""
    yield time_series(
        Spec(
            "Rows per second by table",
            "Rows that this process fills.",
            {"{{table}}": f"sum by (table) ({rate('backfill_rows_total', TABLE)})"},
            unit="rowsps",
            size=HALF,
            low=0,
        ),
        stack=True,
    )
    yield time_series(
        Spec(
            "Share done",
            "Pages done divided by the pages at the start. The sweep for remaining rows follows after 100 %.",
            {"{{table}}": f"max by (table) ({metric('backfill_done_ratio', TABLE)})"},
            unit="percentunit",
            size=HALF,
            low=0,
            high=1,
        )
    )
    size, count = (
        f"sum by (step) ({rate(f'backfill_batch_rows_{part}', STAGE)})" for part in ("sum", "count")
    )
    yield time_series(
        Spec(
            "Rows per batch",
            "The mean size of the batches, as the pacer chose it.",
            {"{{step}}": f"{size} / {count}"},
            unit="short",
            low=0,
        )
    )
    yield time_series(
        Spec(
            "Work and pause",
            "Share of the time with work and with pauses: the actual duty cycle.",
            {
                "work": f"sum({rate('backfill_batch_seconds_sum', STAGE)})",
                "pause": f"sum({rate('backfill_pause_seconds_total', STAGE)})",
            },
            unit="percentunit",
            low=0,
        ),
        stack=True,
    )
    yield time_series(
        Spec(
            "Late rows and locked rows",
            "Rows without a value that were found after the pass, and batches of this process that left"
            " locked rows to the sweep.",
            {
                "late rows": f"sum({metric('backfill_late_rows', TABLE)})",
                "batches with locked rows": f"sum({metric('backfill_skipped_batches_total', STAGE)})",
            },
            unit="short",
            low=0,
            decimals=0,
            runbook="late-rows",
        )
    )


def throttlers() -> Panels:
    """What does each throttler read?"""
    yield time_series(
        Spec(
            "Utilisation",
            "At 100 % and above a throttler holds the backfill; below 90 % it releases it.",
            {"{{throttler}}": metric("throttler_utilisation_ratio")},
            unit="percentunit",
            low=0,
            steps=[(None, "green"), (0.8, "orange"), (1.0, "red")],
            runbook="held-for-long",
        )
    )
    yield time_series(
        Spec(
            "Age of the readings",
            "A throttler without a reading for 15 s holds the backfill.",
            {"{{throttler}}": metric("throttler_reading_age_seconds")},
            unit="s",
            low=0,
            steps=[(None, "green"), (15.0, "red")],
            runbook="throttler-blind",
        )
    )
    yield bars(
        Spec(
            "Time waited",
            "Time in which a wait of the kind was open, in this process. The report has all processes.",
            {"{{kind}}": last("wait_seconds_total")},
            unit="s",
            low=0,
        )
    )
    yield texts(
        Spec(
            "Reports",
            "The last report of each throttler, without its figures.",
            {"": metric("throttler_reason_info")},
            size=(24, 6),
        ),
        {"throttler": "Throttler", "reason": "Report"},
    )


def locks() -> Panels:
    """What do the locks cost?"""
    yield time_series(
        Spec(
            "Locks held",
            "99th percentile of the time for which strong locks were held, by step, since this process"
            " started.",
            {"{{step}}": quantile(0.99, "lock_hold_seconds", STAGE, "step")},
            unit="s",
            low=0,
            steps=[(None, "green"), (0.05, "red")],
        )
    )
    yield time_series(
        Spec(
            "Waits behind our lock requests",
            "99th percentile of the time for which application statements could have waited.",
            {"{{step}}": quantile(0.99, "lock_wait_seconds", STAGE, "step")},
            unit="s",
            low=0,
            steps=[(None, "green"), (0.8, "red")],
        )
    )
    yield time_series(
        Spec(
            "Failed lock attempts by step",
            "Lock requests that timed out, and checks that found blocking sessions. Each process counts"
            " from zero.",
            {
                "failed {{step}}": f"sum by (step) ({metric('lock_attempts_failed_total', STAGE)})",
                "blocked {{step}}": f"sum by (step) ({metric('blockers_seen_total', STAGE)})",
            },
            unit="short",
            low=0,
            decimals=0,
            runbook="blockers",
        )
    )
    yield from _worst()


def _worst() -> Panels:
    """The worst tables, and when a lock window last committed."""
    for title, name, limit, text in (
        (
            "Longest hold by table",
            "lock_hold_max_seconds",
            0.05,
            ("The longest time for which this process held a strong lock. The target is 50 ms."),
        ),
        (
            "Longest wait by table",
            "lock_wait_max_seconds",
            0.8,
            (
                "The longest time for which application"
                " statements could have waited behind a"
                " lock request of this process."
            ),
        ),
    ):
        expr = f"topk(15, max by (table) ({last(name, TABLE)}))"
        yield bars(
            Spec(
                title,
                text,
                {"{{table}}": expr},
                unit="s",
                size=(8, 10),
                low=0,
                steps=[(None, "green"), (limit, "red")],
            )
        )
    yield time_series(
        Spec(
            "Exposure",
            "Time in which application statements could have waited behind our lock requests: the worst"
            " tables, and"
            " the budgets. Each process counts from zero.",
            {
                "{{table}}": f"topk(5, sum by (table) ({metric('lock_exposure_seconds_total', PLAN_TABLE)}))",
                "budget of a {{scope}}": metric("lock_exposure_budget_seconds"),
            },
            unit="s",
            size=(8, 10),
            low=0,
            runbook="exposure-spent",
        )
    )
    yield table(
        Spec(
            "Last lock windows",
            "When a lock window of each step last committed, in this process.",
            {"": f"max by (stage, step) ({last('lock_last_held_time_seconds', STAGE)}) * 1000"},
            unit="dateTimeAsLocal",
            size=(24, 6),
        ),
        [
            model.DataTransformerConfig(
                id_val="organize",
                options={"excludeByName": {"Time": True}, "renameByName": {"Value": "Held at"}},
            )
        ],
    )


def long_statements() -> Panels:
    """How far are long statements?"""
    yield time_series(
        Spec(
            "Progress of long statements",
            "Share of the current phase of concurrent index builds and VACUUM. The server reports none for"
            " VALIDATE and proofs.",
            {"{{step}} {{table}}": metric("long_statement_done_ratio", TABLE)},
            unit="percentunit",
            low=0,
            high=1,
        )
    )
    yield time_series(
        Spec(
            "Duration of long statements",
            "One that makes no progress for long waits for an old transaction: see the blocking sessions.",
            {"{{step}} {{table}}": metric("long_statement_seconds", TABLE)},
            unit="s",
            low=0,
            runbook="stalled",
        )
    )
    yield texts(
        Spec(
            "Phases",
            "The phase of each running long statement, as pg_stat_progress_* names it; a proof is `proving`.",
            {"": metric("long_statement_phase_info", TABLE)},
        ),
        {"step": "Step", "table": "Table", "phase": "Phase"},
    )
    yield time_series(
        Spec(
            "Blocking sessions",
            "Sessions that blocked a lock or a long statement of each step at the last check.",
            {"{{step}}": metric("blockers", STAGE)},
            unit="short",
            size=(24, 6),
            low=0,
            decimals=0,
            steps=ORANGE_FROM_ONE,
            runbook="blockers",
        )
    )


ROWS: Final = (tables, batches, throttlers, locks, long_statements, standbys, growth, application, runner)
