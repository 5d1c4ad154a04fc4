"""The dashboard for depth: per table, per throttler, locks, long statements."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import dashboard as model

from grafana.depth_server import application, growth, runner, standbys
from grafana.night import ORANGE_FROM_ONE, Panels, texts
from grafana.panels import Spec, bars, states, table, time_series
from grafana.queries import PLAN_TABLE, STAGE, TABLE, last, metric, quantile, rate

HALF: Final = (12, 8)


def tables() -> Panels:
    """Which table is where?"""
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
        Spec("Tables", "Rows, speed and time left of each table. Late rows came after the pass, and are swept up. Batches are this process'.",
             {title: f"max by (table) ({expr})" for title, (expr, _) in columns.items()}, unit="short", size=(24, 12)),
        [merged, organized],
        {title: {"unit": unit} for title, (_, unit) in columns.items()}
        | {"Done": {"unit": "percentunit", "min": 0, "max": 1, "custom.cellOptions": {"type": "gauge", "mode": "basic"}}},
    )  # fmt: skip
    matrix = model.DataTransformerConfig(
        id_val="groupingToMatrix", options={"columnField": "step", "rowField": "table", "valueField": "Value"}
    )
    yield table(
        Spec("Steps by table", "The state of every step on every table.",
             {"": f"max by (table, step) ({last('step_state', TABLE)})"}, size=(24, 12), mappings=states()),
        [matrix],
    )  # fmt: skip


def batches() -> Panels:
    """How do the batches go?"""
    yield time_series(
        Spec("Rows per second by table", "Rows that this process fills.",
             {"{{table}}": f"sum by (table) ({rate('backfill_rows_total', TABLE)})"}, unit="rowsps", size=HALF, low=0),
        stack=True,
    )  # fmt: skip
    yield time_series(
        Spec("Share done", "Pages passed by the pages at the start. A sweep for rows that are left comes after 100 %.",
             {"{{table}}": f"max by (table) ({metric('backfill_done_ratio', TABLE)})"}, unit="percentunit", size=HALF,
             low=0, high=1)
    )  # fmt: skip
    size, count = (
        f"sum by (step) ({rate(f'backfill_batch_rows_{part}', STAGE)})" for part in ("sum", "count")
    )
    yield time_series(
        Spec("Rows a batch", "The mean size of the batches, as the pacer chose it.", {"{{step}}": f"{size} / {count}"},
             unit="short", low=0)
    )  # fmt: skip
    yield time_series(
        Spec("Work and pause", "Seconds of work and of pause per second: the plan's duty cycle, as it came out.",
             {"work": f"sum({rate('backfill_batch_seconds_sum', STAGE)})",
              "pause": f"sum({rate('backfill_pause_seconds_total', STAGE)})"}, unit="percentunit", low=0),
        stack=True,
    )  # fmt: skip
    yield time_series(
        Spec("Late rows and locked rows", "Rows found without a value after the pass, and this process' batches that left locked rows to the sweep.",
             {"late rows": f"sum({metric('backfill_late_rows', TABLE)})",
              "batches with locked rows": f"sum({metric('backfill_skipped_batches_total', STAGE)})"},
             unit="short", low=0, decimals=0, runbook="late-rows")
    )  # fmt: skip


def throttlers() -> Panels:
    """What does each throttler see?"""
    yield time_series(
        Spec("Utilisation", "At 1 and above a throttler holds the backfill; it lets go below 0.9.",
             {"{{throttler}}": metric("throttler_utilisation_ratio")}, unit="percentunit", low=0,
             steps=[(None, "green"), (0.8, "orange"), (1.0, "red")], runbook="held-for-long")
    )  # fmt: skip
    yield time_series(
        Spec("Age of the readings", "A throttler that has not answered for 15 s counts as red.",
             {"{{throttler}}": metric("throttler_reading_age_seconds")}, unit="s", low=0,
             steps=[(None, "green"), (15.0, "red")], runbook="throttler-blind")
    )  # fmt: skip
    yield bars(
        Spec("Time waited", "Time in which a wait of the kind was open, of this process; the report has all of it.",
             {"{{kind}}": last("wait_seconds_total")}, unit="s", low=0)
    )  # fmt: skip
    yield texts(
        Spec("Their words", "Each one's last word, without its figures.", {"": metric("throttler_reason_info")}, size=(24, 6)),
        {"throttler": "Throttler", "reason": "Says"},
    )  # fmt: skip


def locks() -> Panels:
    """What do the locks cost?"""
    yield time_series(
        Spec("Locks held", "99 of 100 strong locks were held for less, by step, since this process began.",
             {"{{step}}": quantile(0.99, "lock_hold_seconds", STAGE, "step")}, unit="s", low=0,
             steps=[(None, "green"), (0.05, "red")])
    )  # fmt: skip
    yield time_series(
        Spec("Waits in a lock's queue", "How long a statement of the application could have stood behind us: 99 of 100 waits were shorter.",
             {"{{step}}": quantile(0.99, "lock_wait_seconds", STAGE, "step")}, unit="s", low=0,
             steps=[(None, "green"), (0.8, "red")])
    )  # fmt: skip
    yield time_series(
        Spec("Gave way by step", "Strong locks that were not had in time, and looks that found sessions in the way. Counted anew by each process.",
             {"gave way {{step}}": f"sum by (step) ({metric('lock_retries_total', STAGE)})",
              "in the way {{step}}": f"sum by (step) ({metric('blockers_seen_total', STAGE)})"},
             unit="short", low=0, decimals=0, runbook="blockers")
    )  # fmt: skip
    yield from _worst()


def _worst() -> Panels:
    """The worst tables, and when a window last committed."""
    for title, name, limit, text in (
        ("Longest hold by table", "lock_hold_max_seconds", 0.05, "The longest time that this process held a strong lock; the target is 50 ms."),
        ("Longest wait by table", "lock_wait_max_seconds", 0.8, "The longest time that the application could have stood behind this process."),
    ):  # fmt: skip
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
        Spec("Exposure", "Time in which the application could have stood behind us, of the worst tables, and the budgets. Both"
             " begin anew with each process.",
             {"{{table}}": f"topk(5, sum by (table) ({metric('lock_exposure_seconds_total', PLAN_TABLE)}))",
              "budget of a {{scope}}": metric("lock_exposure_budget_seconds")},
             unit="s", size=(8, 10), low=0, runbook="exposure-spent")
    )  # fmt: skip
    yield table(
        Spec("Last lock windows", "When a lock window of each step last committed, in this process.",
             {"": f"max by (stage, step) ({last('lock_last_held_time_seconds', STAGE)}) * 1000"},
             unit="dateTimeAsLocal", size=(24, 6)),
        [model.DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": {"Value": "Held at"}})],
    )  # fmt: skip


def long_statements() -> Panels:
    """How do long statements get on?"""
    yield time_series(
        Spec("Share of long statements", "How far concurrent builds and VACUUM are, in their phase; of VALIDATE and proofs the server does not say.",
             {"{{step}} {{table}}": metric("long_statement_done_ratio", TABLE)}, unit="percentunit", low=0, high=1)
    )  # fmt: skip
    yield time_series(
        Spec("Long statements run for", "One that runs for long without getting on waits for an old transaction: see who is in the way.",
             {"{{step}} {{table}}": metric("long_statement_seconds", TABLE)}, unit="s", low=0, runbook="stalled")
    )  # fmt: skip
    yield texts(
        Spec("Phases", "The phase of each long statement that runs now, as pg_stat_progress_* names it; a proof is `proving`.",
             {"": metric("long_statement_phase_info", TABLE)}),
        {"step": "Step", "table": "Table", "phase": "Phase"},
    )  # fmt: skip
    yield time_series(
        Spec("Sessions in the way", "Of a lock or of a long statement, by step, when last looked.",
             {"{{step}}": metric("blockers", STAGE)}, unit="short", size=(24, 6), low=0, decimals=0, steps=ORANGE_FROM_ONE,
             runbook="blockers")
    )  # fmt: skip


ROWS: Final = (tables, batches, throttlers, locks, long_statements, standbys, growth, application, runner)
