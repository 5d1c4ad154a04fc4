"""The overview for the night: is the run safe, how far is it, why does it wait, which sessions block it."""

from __future__ import annotations

from typing import Final

from grafana.night_waits import ORANGE_FROM_ONE, Panels, blockers, waiting
from grafana.panels import Spec, Steps, bars, stat, states, time_series, timeline, words
from grafana.queries import PLAN, REMEMBERED, STAGE, TABLE, is_ended, last, metric, rate

RUN_SCOPE: Final = f'{PLAN}, scope="run"'
FAILED: Final = f'{PLAN}, outcome="failed"'
SMALL: Final = (4, 4)
RED_FROM_ONE: Final[Steps] = [(None, "green"), (1.0, "red")]
HALF: Final[Steps] = [(None, "green"), (0.3, "orange"), (0.5, "red")]
BUDGET: Final[Steps] = [(None, "green"), (0.5, "orange"), (0.8, "red")]


def safe() -> Panels:
    """Is the run safe?"""
    yield stat(
        Spec(
            "Run",
            "State of the run, as its runner last reported it. After the runner was killed it is still"
            " `running`, with a red heartbeat.",
            {"": last("run_state")},
            size=SMALL,
            mappings=states(),
            runbook="run-failed",
        )
    )
    yield stat(
        Spec(
            "Heartbeat",
            "Age of the runner's last heartbeat. After 60 s another runner may take over. Empty after the"
            " end of the run.",
            {"": f"time() - {last('last_heartbeat_time_seconds')} unless {is_ended()}"},
            unit="s",
            size=SMALL,
            decimals=0,
            steps=[(None, "green"), (15.0, "orange"), (60.0, "red")],
            runbook="heartbeat-late",
        )
    )
    yield stat(
        Spec(
            "Lease",
            "Whether this runner has the lease, so may write. If another runner takes it over, this one"
            " ends with exit code 6."
            " Empty if the run ended for another reason.",
            {"": f"{last('lease_held')} == 0 or {last('lease_held')} unless {is_ended()}"},
            size=SMALL,
            steps=[(None, "red"), (1.0, "green")],
            mappings=words({0: ("lost", "red"), 1: ("held", "green")}),
            runbook="lease-lost",
        )
    )
    yield from _limits()
    yield from _events()


def _limits() -> Panels:
    yield stat(
        Spec(
            "Exposure spent",
            "Time in which application statements could have waited behind our lock requests, as a share"
            " of what the plan"
            " allows. At 100 % the run ends with exit code 4. Each process counts from zero.",
            {
                "": f"sum({last('lock_exposure_seconds_total')})"
                f" / max({last('lock_exposure_budget_seconds', RUN_SCOPE)})"
            },
            unit="percentunit",
            size=SMALL,
            steps=BUDGET,
            runbook="exposure-spent",
        )
    )
    yield stat(
        Spec(
            "Longest hold",
            "The longest time for which this process held a strong lock. The target is 50 ms.",
            {"": f"max({last('lock_hold_max_seconds', STAGE)})"},
            unit="s",
            size=SMALL,
            steps=[(None, "green"), (0.05, "orange"), (0.5, "red")],
        )
    )
    yield stat(
        Spec(
            "Slowest standby",
            "WAL that the slowest standby has not replayed yet, as a share of what the plan allows. Empty"
            " without a"
            " standby, without a runner, or if the plan sets no limit.",
            {"": f"max({metric('standby_lag_bytes')}) / max({metric('standby_lag_budget_bytes')})"},
            unit="percentunit",
            size=SMALL,
            steps=BUDGET,
            runbook="standby-lag",
        )
    )
    yield stat(
        Spec(
            "Late rows after the proof",
            "Rows without a value that were found after the backfill had proven that none was"
            " left: a statement writes rows without it. Each process counts from zero.",
            {"": f"sum({last('late_rows_after_proof_total', STAGE)})"},
            size=SMALL,
            steps=RED_FROM_ONE,
            runbook="late-rows",
        )
    )
    yield stat(
        Spec(
            "Multixacts",
            "Age of the oldest multixact divided by vacuum_multixact_failsafe_age, or used space of"
            " members: the larger one."
            " Below 50 % is healthy. Empty without a runner.",
            {"": f"max({metric('multixact_used_ratio')})"},
            unit="percentunit",
            size=SMALL,
            steps=HALF,
            runbook="multixacts",
        )
    )


def _events() -> Panels:
    yield stat(
        Spec(
            "Failures",
            "Steps that failed in this process.",
            {"": f"sum({last('step_failures_total', STAGE)})"},
            size=SMALL,
            steps=RED_FROM_ONE,
            runbook="run-failed",
        )
    )
    yield stat(
        Spec(
            "Waiting gates",
            "Stages that wait for `online-migrate approve`. The runner ends at the gate.",
            {"": f"sum({last('gate_waiting', STAGE)})"},
            size=SMALL,
            steps=ORANGE_FROM_ONE,
            runbook="gate-waiting",
        )
    )
    yield stat(
        Spec(
            "Last progress",
            "Time since the last progress: a batch, an acquired lock, a step, a growing share of a build."
            " Empty after the end of the run.",
            {"": f"time() - {last('last_progress_time_seconds')} unless {is_ended()}"},
            unit="s",
            size=SMALL,
            decimals=0,
            steps=[(None, "green"), (120.0, "orange"), (600.0, "red")],
            runbook="stalled",
        )
    )
    yield stat(
        Spec(
            "Running for",
            "Time since this process started, with its version. Empty without a runner.",
            {
                "{{version}}": f"(time() - {metric('run_start_time_seconds')})"
                f" * on (job, instance) group_left (version) {metric('build_info')}"
            },
            unit="s",
            size=SMALL,
            decimals=0,
        ),
        with_name=True,
    )


def far() -> Panels:
    """How far is it, and how long will it take?"""
    yield stat(
        Spec(
            "Steps done",
            "Share of the plan's steps over all its tables that are done, those of earlier processes"
            " included.",
            {"": f"{last('run_steps_done')} / {last('run_steps')}"},
            unit="percentunit",
            size=(6, 4),
            low=0,
            high=1,
        )
    )
    yield stat(
        Spec(
            "Rows filled",
            "Share of the rows that have their value. The total is the planner's estimate until the end.",
            {
                "": f"clamp_max(sum({last('backfill_rows_done', TABLE)}) /"
                f" sum({last('backfill_rows_expected', TABLE)}), 1)"
            },
            unit="percentunit",
            size=(6, 4),
            low=0,
            high=1,
        )
    )
    yield stat(
        Spec(
            "Time left",
            "For the tables that are being filled now. Empty while it is not known: during a wait, or not"
            " measured yet.",
            {"": f"max({metric('backfill_eta_seconds', TABLE)})"},
            unit="s",
            size=(6, 4),
        )
    )
    yield stat(
        Spec(
            "Running steps",
            "Steps that this process has started and not ended. After a kill the next process finishes them.",
            {"": last("run_steps_open")},
            size=(6, 4),
        )
    )
    yield timeline(
        Spec(
            "Stages",
            "Pending, at its gate, running, done or failed.",
            {"{{stage}}": metric("stage_state", STAGE)},
            size=(16, 8),
            mappings=states(),
        )
    )
    yield bars(
        Spec(
            "Duration of stages",
            "How long this process worked on each stage that is done. The report has all times.",
            {"{{stage}}": last("stage_duration_seconds", STAGE)},
            unit="s",
            size=(8, 8),
        )
    )
    yield time_series(
        Spec(
            "Rows per second",
            "Rows that this process fills, all tables together.",
            {"rows": f"sum({rate('backfill_rows_total', TABLE)})"},
            unit="rowsps",
            size=(12, 7),
            low=0,
        )
    )
    yield time_series(
        Spec(
            "Batch time",
            "Duration of batches, so how long a batch locks its rows. The pacer aims at the plan's"
            " batch_target.",
            {"median": batches_below(0.5), "99th percentile": batches_below(0.99)},
            unit="s",
            size=(12, 7),
            low=0,
        )
    )


def batches_below(share: float) -> str:
    """A quantile of the recent batches."""
    return f"histogram_quantile({share}, sum by (le) ({rate('backfill_batch_seconds_bucket', STAGE)}))"


def wrong() -> Panels:
    """What went wrong?"""
    exits = {
        0: ("done", "green"),
        1: ("unexpected", "red"),
        2: ("plan", "red"),
        3: ("preflight", "red"),
        4: ("lock not acquired", "red"),
        5: ("verification", "red"),
        6: ("lease lost", "red"),
        7: ("journal", "red"),
        8: ("connection", "red"),
        75: ("at a gate", "orange"),
        130: ("interrupted", "orange"),
    }
    yield stat(
        Spec(
            "Exit code",
            "How the process ended. Empty while it runs, and if it was killed.",
            {"": f"{last('run_exit_code')} and {is_ended()}"},
            size=SMALL,
            mappings=words(exits),
            runbook="run-failed",
        )
    )
    yield stat(
        Spec(
            "Last failure",
            "When a run last failed, within the last day.",
            {"": f"max(max_over_time({metric('run_end_time_seconds', FAILED)}[{REMEMBERED}])) * 1000"},
            unit="dateTimeFromNow",
            size=SMALL,
            steps=RED_FROM_ONE,
            mappings=words({0: ("none", "green")}),
            runbook="run-failed",
        )
    )
    for title, name, description in (
        ("Errors", "run_errors_total", "1 if this process ended with an error."),
        ("Retries", "retries_total", "Statements that this process retried after an error."),
        ("Reconnects", "reconnects_total", "Lost connections that this process opened again."),
        (
            "Errors of the metrics",
            "metrics_errors_total",
            ("Events that metrics, page or live table could not process: a closed terminal, or a bug."),
        ),
    ):
        yield stat(Spec(title, description, {"": f"sum({last(name)})"}, size=SMALL, steps=ORANGE_FROM_ONE))


ROWS: Final = (safe, far, waiting, blockers, wrong)
