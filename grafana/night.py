"""The dashboard for the night: are we safe, how far, how long, why are we waiting, who is in the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from grafana_foundation_sdk.models import dashboard as model

from grafana.panels import Spec, Steps, bars, stat, states, table, time_series, timeline, words
from grafana.queries import PLAN, PLAN_TABLE, REMEMBERED, STAGE, TABLE, is_ended, last, metric, rate

Panels = Iterable[Any]
"""builders of panels; those of the SDK have no common type of their own"""

RUN_SCOPE: Final = f'{PLAN}, scope="run"'
FAILED: Final = f'{PLAN}, outcome="failed"'
SMALL: Final = (4, 4)
RED_FROM_ONE: Final[Steps] = [(None, "green"), (1.0, "red")]
ORANGE_FROM_ONE: Final[Steps] = [(None, "green"), (1.0, "orange")]
HALF: Final[Steps] = [(None, "green"), (0.3, "orange"), (0.5, "red")]
BUDGET: Final[Steps] = [(None, "green"), (0.5, "orange"), (0.8, "red")]


def safe() -> Panels:
    """Are we safe?"""
    yield stat(
        Spec("Run", "State of the run, as its runner last said: one that was killed still says that it runs, and its heartbeat is red.",
             {"": last("run_state")}, size=SMALL, mappings=states(), runbook="run-failed")
    )  # fmt: skip
    yield stat(
        Spec("Heartbeat", "Since the runner last beat. From 60 s on it counts as dead, and another may take over. Empty once the run has ended.",
             {"": f"time() - {last('heartbeat_time_seconds')} unless {is_ended()}"}, unit="s", size=SMALL, decimals=0,
             steps=[(None, "green"), (15.0, "orange"), (60.0, "red")], runbook="heartbeat-late")
    )  # fmt: skip
    yield stat(
        Spec("Lease", "Whether this runner may write, as it last said. Another one that took over ends this one with exit code 6."
             " Empty once the run has ended otherwise.",
             {"": f"{last('lease_held')} == 0 or {last('lease_held')} unless {is_ended()}"}, size=SMALL, steps=[(None, "red"), (1.0, "green")],
             mappings=words({0: ("lost", "red"), 1: ("held", "green")}), runbook="lease-lost")
    )  # fmt: skip
    yield from _bounds()
    yield from _course()


def _bounds() -> Panels:
    yield stat(
        Spec("Exposure spent", "Time in which the application could have stood behind our locks, by what the plan allows"
             " to the run. Spent, the run ends with exit code 4. Counted by this process: the next one begins anew.",
             {"": f"sum({last('lock_exposure_seconds_total')})"
                  f" / max({last('lock_exposure_budget_seconds', RUN_SCOPE)})"},
             unit="percentunit", size=SMALL, steps=BUDGET, runbook="exposure-spent")
    )  # fmt: skip
    yield stat(
        Spec("Longest hold", "The longest time that a strong lock was held by this process; the target is 50 ms.",
             {"": f"max({last('lock_hold_max_seconds', STAGE)})"}, unit="s", size=SMALL,
             steps=[(None, "green"), (0.05, "orange"), (0.5, "red")])
    )  # fmt: skip
    yield stat(
        Spec("Slowest standby", "WAL that the slowest standby has yet to replay, by what the plan allows. Empty without"
             " a standby, without a runner that reads it, or where the plan sets no bound.",
             {"": f"max({metric('standby_lag_bytes')}) / max({metric('standby_lag_budget_bytes')})"},
             unit="percentunit", size=SMALL, steps=BUDGET, runbook="standby-lag")
    )  # fmt: skip
    yield stat(
        Spec("Late rows after the claim", "Rows without a value that were found after the backfill had proven that none was"
             " left: somebody writes without one. Counted by this process.",
             {"": f"sum({last('late_rows_after_coverage_total', STAGE)})"}, size=SMALL, steps=RED_FROM_ONE,
             runbook="late-rows")
    )  # fmt: skip
    yield stat(
        Spec("Multixacts", "Their age by vacuum_multixact_failsafe_age, or their members by their space: the worse. Healthy is below a half."
             " Empty without a runner that reads them.",
             {"": f"max({metric('multixact_used_ratio')})"}, unit="percentunit", size=SMALL, steps=HALF,
             runbook="multixacts")
    )  # fmt: skip


def _course() -> Panels:
    yield stat(
        Spec("Failures", "Steps that failed in this process.",
             {"": f"sum({last('step_failures_total', STAGE)})"}, size=SMALL, steps=RED_FROM_ONE, runbook="run-failed")
    )  # fmt: skip
    yield stat(
        Spec("Gates that wait", "Stages that wait for `online-migrate approve`, as a runner last saw it: it ends at the gate.",
             {"": f"sum({last('gate_waiting', STAGE)})"}, size=SMALL, steps=ORANGE_FROM_ONE, runbook="gate-waiting")
    )  # fmt: skip
    yield stat(
        Spec("Last progress", "Since something last got on: a batch, a lock that was had, a step, a build's share."
             " Empty once the run has ended.",
             {"": f"time() - {last('progress_time_seconds')} unless {is_ended()}"}, unit="s", size=SMALL, decimals=0,
             steps=[(None, "green"), (120.0, "orange"), (600.0, "red")], runbook="stalled")
    )  # fmt: skip
    yield stat(
        Spec("At work for", "Since this process began, with its version. Empty where none is there.",
             {"{{version}}": f"(time() - {metric('run_start_time_seconds')})"
                             f" * on (job, instance) group_left (version) {metric('build_info')}"},
             unit="s", size=SMALL, decimals=0),
        with_name=True,
    )  # fmt: skip


def far() -> Panels:
    """How far are we, and how long will it take?"""
    yield stat(
        Spec("Steps done", "Steps that are done of all steps of the plan over all its tables, earlier runs included.",
             {"": f"{last('run_steps_done')} / {last('run_steps')}"}, unit="percentunit", size=(6, 4), low=0, high=1)
    )  # fmt: skip
    yield stat(
        Spec("Rows filled", "Rows that have their value of the rows that the catalog expects; an estimate until the end.",
             {"": f"clamp_max(sum({last('backfill_rows_done', TABLE)}) / sum({last('backfill_rows_expected', TABLE)}), 1)"},
             unit="percentunit", size=(6, 4), low=0, high=1)
    )  # fmt: skip
    yield stat(
        Spec("Time left", "Of the tables that are being filled now. Empty while it is unknown: on hold, or not measured yet.",
             {"": f"max({metric('backfill_eta_seconds', TABLE)})"}, unit="s", size=(6, 4))
    )  # fmt: skip
    yield stat(
        Spec("Steps under way", "Steps that this process has begun and not ended; what a killed one left, the next one does.",
             {"": last("run_steps_open")}, size=(6, 4))
    )  # fmt: skip
    yield timeline(
        Spec("Stages", "Pending, at its gate, running, done or failed.", {"{{stage}}": metric("stage_state", STAGE)},
             size=(16, 8), mappings=states())
    )  # fmt: skip
    yield bars(
        Spec("Stages took", "How long this process was at the stages that are done; the report has when each began and ended.",
             {"{{stage}}": last("stage_duration_seconds", STAGE)}, unit="s", size=(8, 8))
    )  # fmt: skip
    yield time_series(
        Spec("Rows per second", "Rows that this process fills, all tables together.",
             {"rows": f"sum({rate('backfill_rows_total', TABLE)})"}, unit="rowsps", size=(12, 7), low=0)
    )  # fmt: skip
    yield time_series(
        Spec("Batch time", "How long a batch holds its rows. The pacer aims at the plan's batch_target.",
             {"half of them below": batches_below(0.5), "99 of 100 below": batches_below(0.99)},
             unit="s", size=(12, 7), low=0)
    )  # fmt: skip


def batches_below(share: float) -> str:
    """Of the batches of the last while."""
    return f"histogram_quantile({share}, sum by (le) ({rate('backfill_batch_seconds_bucket', STAGE)}))"


def waiting() -> Panels:
    """Why are we waiting?"""
    yield timeline(
        Spec("Waits", "Why it holds back, by kind: a blocker of a lock, a throttler that is red, a row lock.",
             {"{{kind}}": f"sum by (kind) ({metric('waiting')}) > bool 0"}, size=(12, 7),
             mappings=words({0: ("works", "green"), 1: ("waits", "orange")}), runbook="held-for-long")
    )  # fmt: skip
    yield time_series(
        Spec("Throttlers", "What each health reading sees. At 1 and above it holds the backfill.",
             {"{{throttler}}": metric("throttler_utilisation_ratio")}, unit="percentunit", size=(12, 7), low=0,
             steps=[(None, "green"), (0.8, "orange"), (1.0, "red")], runbook="held-for-long")
    )  # fmt: skip
    yield texts(
        Spec("What it waits for", "The reason of each wait that is open now, without its figures, which the status page has.",
             {"": metric("wait_reason_info")}, size=(12, 6), runbook="held-for-long"),
        {"kind": "Kind", "reason": "Reason"},
    )  # fmt: skip
    yield texts(
        Spec("What the throttlers say", "Each one's last word, without its figures.", {"": metric("throttler_reason_info")},
             size=(12, 6)),
        {"throttler": "Throttler", "reason": "Says"},
    )  # fmt: skip
    yield time_series(
        Spec("Share of time waited", "Seconds a second in which a wait of the kind was open.",
             {"{{kind}}": f"sum by (kind) ({rate('wait_seconds_total')})"}, unit="percentunit", size=(24, 6), low=0, high=1,
             steps=[(None, "green"), (0.9, "red")], runbook="held-for-long")
    )  # fmt: skip


def in_the_way() -> Panels:
    """Who is in the way?"""
    yield texts(
        Spec("Who", "Sessions that are in the way of a lock or of a long statement now; literals of their statements are left out.",
             {"": metric("blocker_info", STAGE)}, size=(16, 8), runbook="blockers"),
        {"step": "Step", "blocker": "Session"},
    )  # fmt: skip
    yield time_series(
        Spec("In the way", "Sessions that were in the way when last looked, by step.",
             {"{{step}}": metric("blockers", STAGE)}, unit="short", low=0, decimals=0, steps=ORANGE_FROM_ONE,
             runbook="blockers")
    )  # fmt: skip
    yield time_series(
        Spec("Gave way", "Strong locks that were not had in time: all was rolled back, and tried again later. Counted anew by each process.",
             {"{{step}}": f"sum by (step) ({metric('lock_retries_total', STAGE)})"}, unit="short", low=0, decimals=0,
             runbook="exposure-spent")
    )  # fmt: skip
    yield bars(
        Spec("Exposure by table", "Time in which the application could have stood behind our locks, the ten worst tables, by this process.",
             {"{{table}}": f"topk(10, sum by (table) ({last('lock_exposure_seconds_total', PLAN_TABLE)}))"}, unit="s", low=0,
             runbook="exposure-spent")
    )  # fmt: skip
    yield time_series(
        Spec("Long statements", "How far concurrent builds and VACUUM are; they hinder no statement of the application.",
             {"{{step}} {{table}}": metric("long_statement_done_ratio", TABLE)}, unit="percentunit", low=0, high=1)
    )  # fmt: skip


def wrong() -> Panels:
    """What went wrong?"""
    exits = {0: ("done", "green"), 1: ("unexpected", "red"), 2: ("plan", "red"), 3: ("preflight", "red"), 4: ("lock not had", "red"),
             5: ("verification", "red"), 6: ("lease lost", "red"), 7: ("journal", "red"), 8: ("connection", "red"),
             75: ("at a gate", "orange"), 130: ("interrupted", "orange")}  # fmt: skip
    yield stat(
        Spec("Exit code", "What the process ended with, in words. Empty while it runs, and where it was killed.",
             {"": f"{last('run_exit_code')} and {is_ended()}"}, size=SMALL, mappings=words(exits), runbook="run-failed")
    )  # fmt: skip
    yield stat(
        Spec("Last failure", "When a run last ended in a failure, of the last day.",
             {"": f"max(max_over_time({metric('run_end_time_seconds', FAILED)}[{REMEMBERED}])) * 1000"},
             unit="dateTimeFromNow", size=SMALL, steps=RED_FROM_ONE,
             mappings=words({0: ("none", "green")}), runbook="run-failed")
    )  # fmt: skip
    for title, name, description in (
        ("Errors", "run_errors_total", "1 where this process ended in an error."),
        ("Tried again", "retries_total", "Statements that this process tried again after an error."),
        ("Reconnects", "reconnects_total", "Lost connections that this process regained."),
        ("Metrics' own errors", "metrics_errors_total", "What metrics, page or table could not take in: a terminal is gone, or a defect of ours."),
    ):  # fmt: skip
        yield stat(Spec(title, description, {"": f"sum({last(name)})"}, size=SMALL, steps=ORANGE_FROM_ONE))


def texts(spec: Spec, columns: dict[str, str]) -> Any:
    """A table of what is said now: a metric of 1 whose labels are the words."""
    organized = model.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": dict.fromkeys(
                ("Time", "Value", "__name__", "instance", "job", "plan", "stage"), True
            ),
            "renameByName": columns,
        },
    )
    return table(spec, [organized])


ROWS: Final = (safe, far, waiting, in_the_way, wrong)
