"""Which metrics there are: the one place of their names, texts, labels and buckets.

Names follow the Prometheus conventions: units in names, counters end in ``_total`` (the client adds it).  Labels are
bounded by the plan, ``table`` by its table sets.  300 tables stay under 10,000 series with plans/multi_tenant.yaml; a
further step over all of them adds their states, and their longest lock if its stage takes one.  What is kept per table is
gauges and counters, histograms are per step, a state is one number a series, as :data:`STATES` has them, and a text that is
a label is there only while it is true.
"""

from __future__ import annotations

from typing import Final

from online_migrate.observe.prometheus.series import Maker, Texts

STATES: Final = {"pending": 0, "waiting": 1, "running": 2, "done": 3, "failed": 4, "stopped": 5}
"""numbers of states: of the run, of stages (waiting: at its gate) and of steps"""
OUTCOMES: Final = {
    "done": "done",
    "gate": "waiting",
    "failed": "failed",
    "stopped": "stopped",
    "interrupted": "stopped",
}
"""how a run may end, and the state that it is in then"""
EXIT_KINDS: Final = {
    1: "unexpected", 2: "plan", 3: "preflight", 4: "lock", 5: "verification", 6: "lease", 7: "journal", 8: "connection",
}  # fmt: skip
"""kinds of errors by exit code"""

PLAN: Final = ("plan",)
STAGE: Final = (*PLAN, "stage")
STEP: Final = (*STAGE, "step")
TABLE: Final = (*STEP, "table")
STAGE_TABLE: Final = (*STAGE, "table")
PLAN_TABLE: Final = (*PLAN, "table")
KIND: Final = (*PLAN, "kind")
THROTTLER: Final = (*PLAN, "throttler")
STANDBY: Final = (*PLAN, "standby")

_BATCH_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_BATCH_ROWS: Final = (50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000)
_LOCK_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_STATES: Final = ", ".join(f"{number} {state}" for state, number in STATES.items())


class RunMetrics:
    """The run, its stages and its steps."""

    def __init__(self, make: Maker) -> None:
        gauge, counter = make.gauge, make.counter
        self.build_info = gauge("build_info", "The version that runs; always 1.", (*PLAN, "version"))
        self.state = gauge("run_state", f"State of the run: {_STATES}.", PLAN)
        self.started = gauge("run_start_time_seconds", "When this process began.", PLAN)
        self.ended = gauge(
            "run_end_time_seconds",
            "When this process' run ended, by outcome; 0: not yet, or refused since another runner has the lease.",
            (*PLAN, "outcome"),
        )
        self.exit_code = gauge("run_exit_code", "What this process ended with; absent while it runs.", PLAN)
        self.progress = gauge(
            "progress_time_seconds",
            "When something last got on: a batch, a lock had, a step, a build's share, a proof that reads.",
            PLAN,
        )
        self.steps = gauge("run_steps", "Steps of the plan over all its tables.", PLAN)
        self.steps_done = gauge("run_steps_done", "Steps that are done, earlier runs included.", PLAN)
        self.steps_open = gauge("run_steps_open", "Steps that this process has begun and not ended.", PLAN)
        self.stage_state = gauge("stage_state", f"State of a stage: {_STATES}.", STAGE)
        self.stage_started = gauge(
            "stage_start_time_seconds", "When this process began with the stage.", STAGE
        )
        self.stage_seconds = gauge(
            "stage_duration_seconds", "How long this process was at a stage, once it is done.", STAGE
        )
        self.gate = gauge("gate_waiting", "1 while a stage waits at its gate for approval.", STAGE)
        self.step_state = gauge("step_state", f"State of a step on a table: {_STATES}.", TABLE)
        self.failures = counter("step_failures", "Steps that failed.", STEP)
        self.errors = counter("run_errors", "Runs of this process that ended in an error of that kind.", KIND)
        self.heartbeat = gauge(
            "heartbeat_time_seconds",
            "When the runner last beat: its age by the database's clock, before now by the runner's.",
            PLAN,
        )
        self.lease_held = gauge(
            "lease_held", "1 while this process has the lease, 0 when another took it over.", PLAN
        )
        self.lease_epoch = gauge(
            "lease_epoch", "How often the lease of the database was taken, by the journal.", PLAN
        )


class BackfillMetrics:
    """Rows, batches, share and time left."""

    def __init__(self, make: Maker) -> None:
        gauge, counter, histogram = make.gauge, make.counter, make.histogram
        self.done = gauge("backfill_rows_done", "Rows filled by the step, earlier runs included.", TABLE)
        self.expected = gauge("backfill_rows_expected", "Rows of the table, an estimate.", TABLE)
        self.share = gauge("backfill_done_ratio", "Pages passed by the pages at the start, 0 to 1.", TABLE)
        self.eta = gauge("backfill_eta_seconds", "Time left; absent while it is unknown.", TABLE)
        self.rows = counter("backfill_rows", "Rows filled by this process.", TABLE)
        self.batches = counter("backfill_batches", "Batches committed by this process.", TABLE)
        self.skipped = counter("backfill_skipped_batches", "Batches that left locked rows for later.", STEP)
        self.paused = counter("backfill_pause_seconds", "Pauses between batches.", STEP)
        self.seconds = histogram("backfill_batch_seconds", "How long batches took.", STEP, _BATCH_SECONDS)
        self.size = histogram("backfill_batch_rows", "How many rows batches had.", STEP, _BATCH_ROWS)
        self.late = gauge("backfill_late_rows", "Rows without a value that were found after the pass.", TABLE)
        self.uncovered = counter(
            "late_rows_after_coverage",
            "Rows without a value that a step after the backfill found: at least.",
            STAGE,
        )


class LockMetrics:
    """Strong locks and long statements: how long they were waited for and held, and who was in the way."""

    def __init__(self, make: Maker) -> None:
        gauge, counter, histogram = make.gauge, make.counter, make.histogram
        wait = "How long the application could have stood behind us in a lock's queue"
        hold = "How long strong locks were held"
        self.held = histogram("lock_hold_seconds", f"{hold}.", STEP, _LOCK_SECONDS)
        self.waited = histogram("lock_wait_seconds", f"{wait}.", STEP, _LOCK_SECONDS)
        self.held_max = gauge("lock_hold_max_seconds", f"{hold}: the longest of this process.", STAGE_TABLE)
        self.waited_max = gauge("lock_wait_max_seconds", f"{wait}: the longest of this process.", STAGE_TABLE)
        self.held_at = gauge(
            "lock_last_held_time_seconds", "When a lock window of the step last committed.", STEP
        )
        self.retries = counter("lock_retries", "Strong locks that were not had in time and given up.", STEP)
        self.exposure = counter(
            "lock_exposure_seconds", f"{wait}, summed over all tries of this process: at most.", PLAN_TABLE
        )
        self.budget = gauge(
            "lock_exposure_budget_seconds",
            "What the plan allows of that to one table, and to the run.",
            (*PLAN, "scope"),
        )
        self.blockers = gauge("blockers", "Sessions in the way, when last looked.", STEP)
        self.blockers_seen = counter("blockers_seen", "Times that sessions were found in the way.", STEP)
        self.blocker = Texts(
            gauge("blocker_info", "A session that is in the way now; always 1.", (*STEP, "blocker"))
        )
        self.long_share = gauge(
            "long_statement_done_ratio",
            "How far a statement is that takes long; absent where the server does not say.",
            TABLE,
        )
        self.long_seconds = gauge("long_statement_seconds", "For how long it has run.", TABLE)
        self.long_phase = Texts(
            gauge("long_statement_phase_info", "The phase in which it is now; always 1.", (*TABLE, "phase"))
        )


class WaitMetrics:
    """Why we hold back: waits, throttlers, retries."""

    def __init__(self, make: Maker) -> None:
        gauge, counter = make.gauge, make.counter
        self.waiting = gauge("waiting", "Waits of this kind that are open now.", KIND)
        self.waited = counter("wait_seconds", "Time in which at least one wait of this kind was open.", KIND)
        self.wait_reason = Texts(gauge("wait_reason_info", "Why it waits now; always 1.", (*KIND, "reason")))
        self.utilisation = gauge(
            "throttler_utilisation_ratio", "What a throttler sees: 1 and above holds us.", THROTTLER
        )
        self.age = gauge("throttler_reading_age_seconds", "How old a throttler's reading was.", THROTTLER)
        self.reason = Texts(
            gauge("throttler_reason_info", "What a throttler says now; always 1.", (*THROTTLER, "reason"))
        )
        self.retries = counter("retries", "Statements that were tried again.", KIND)
        self.reconnects = counter("reconnects", "Lost connections that were regained.", PLAN)


class ServerMetrics:
    """What the server says while we work; everybody's doing, not ours alone."""

    def __init__(self, make: Maker) -> None:
        gauge, counter = make.gauge, make.counter
        self.read_at = gauge(
            "server_reading_time_seconds",
            "When the server last answered; before that, when this process began.",
            PLAN,
        )
        self.wal = counter("server_wal_bytes", "WAL that the server wrote while this process watched.", PLAN)
        self.updates = counter(
            "table_updates", "Rows of the table that were updated, by anybody.", PLAN_TABLE
        )
        self.hot = counter("table_hot_updates", "Of them those that touched no index: heap-only.", PLAN_TABLE)
        self.dead = gauge("table_dead_rows", "Dead rows of the table, an estimate.", PLAN_TABLE)
        self.table_bytes = gauge("table_size_bytes", "Size of the table, TOAST included.", PLAN_TABLE)
        self.index_bytes = gauge("table_index_size_bytes", "Size of the table's indexes.", PLAN_TABLE)
        self.lag_bytes = gauge(
            "standby_lag_bytes", "WAL that a streaming standby has yet to replay.", STANDBY
        )
        self.lag_seconds = gauge(
            "standby_lag_seconds",
            "How long a streaming standby has been without WAL that it has yet to replay.",
            STANDBY,
        )
        self.lag_budget = gauge(
            "standby_lag_budget_bytes", "The smallest standby_lag of the plan's stages.", PLAN
        )
        self.multixacts = gauge(
            "multixact_used_ratio",
            "Multixacts in use: age by vacuum_multixact_failsafe_age, members by their space.",
            (*PLAN, "what"),
        )
        self.connections = gauge("connections", "Sessions of ours on the server.", PLAN)
