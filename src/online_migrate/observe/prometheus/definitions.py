"""All metrics: the one place for their names, help texts, labels and buckets.

Names follow the Prometheus conventions: units in names, counters end in ``_total`` (the client adds it).
Labels are bounded by the plan, ``table`` by its table sets.  300 tables make fewer than 10,000 series with
plans/multi_tenant.yaml; one more step over all of them adds their states, and their longest lock if its
stage takes one.  Gauges and counters may be per table, histograms are per step.  A state is one number per
series (:data:`STATES`).  A series whose label is a text exists only while the text is true.
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
"""how a run may end, and its state then"""
EXIT_KINDS: Final = {
    1: "unexpected", 2: "plan", 3: "preflight", 4: "lock",
    5: "verification", 6: "lease", 7: "journal", 8: "connection",
    9: "resources",
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
        self.build_info = gauge("build_info", "Version of the runner; always 1.", (*PLAN, "version"))
        self.state = gauge("run_state", f"State of the run: {_STATES}.", PLAN)
        self.started = gauge("run_start_time_seconds", "When this process started.", PLAN)
        self.ended = gauge(
            "run_end_time_seconds",
            "When the run of this process ended, by outcome; 0 until then, and if another runner had the"
            " lease.",
            (*PLAN, "outcome"),
        )
        self.exit_code = gauge("run_exit_code", "Exit code of this process; absent while it runs.", PLAN)
        self.progress = gauge(
            "last_progress_time_seconds",
            "Time of the last progress: a batch, an acquired lock, a step, a growing share of a build, a"
            " proof that reads.",
            PLAN,
        )
        self.steps = gauge("run_steps", "Steps of the plan over all its tables.", PLAN)
        self.steps_done = gauge(
            "run_steps_done", "Steps that are done, those of earlier processes included.", PLAN
        )
        self.steps_open = gauge("run_steps_open", "Steps that this process has started and not ended.", PLAN)
        self.stage_state = gauge("stage_state", f"State of a stage: {_STATES}.", STAGE)
        self.stage_started = gauge("stage_start_time_seconds", "When this process started the stage.", STAGE)
        self.stage_seconds = gauge(
            "stage_duration_seconds",
            "How long this process worked on a stage; absent until the stage is done.",
            STAGE,
        )
        self.gate = gauge("gate_waiting", "1 while a stage waits at its gate for approval, else 0.", STAGE)
        self.step_state = gauge("step_state", f"State of a step on a table: {_STATES}.", TABLE)
        self.failures = counter("step_failures", "Steps that failed.", STEP)
        self.errors = counter(
            "run_errors", "Runs of this process that ended with an error, by its kind.", KIND
        )
        self.heartbeat = gauge(
            "last_heartbeat_time_seconds",
            "Time of the runner's last heartbeat: its age by the database's clock, before now by the"
            " runner's clock.",
            PLAN,
        )
        self.lease_held = gauge(
            "lease_held", "1 while this process has the lease, 0 after another runner took it over.", PLAN
        )
        self.lease_epoch = gauge(
            "lease_epoch", "How often the lease of the database was taken, as the journal has it.", PLAN
        )


class BackfillMetrics:
    """Rows, batches, share and time left."""

    def __init__(self, make: Maker) -> None:
        gauge, counter, histogram = make.gauge, make.counter, make.histogram
        self.done = gauge(
            "backfill_rows_done", "Rows filled by the step, those of earlier processes included.", TABLE
        )
        self.expected = gauge(
            "backfill_rows_expected", "Rows of the table, by the planner's estimate.", TABLE
        )
        self.share = gauge(
            "backfill_done_ratio", "Pages done divided by the pages at the start, 0 to 1.", TABLE
        )
        self.eta = gauge(
            "backfill_eta_seconds", "Time left for the pass; absent while it is not known.", TABLE
        )
        self.rows = counter("backfill_rows", "Rows filled by this process.", TABLE)
        self.batches = counter("backfill_batches", "Batches committed by this process.", TABLE)
        self.skipped = counter(
            "backfill_skipped_batches", "Batches that left locked rows to the sweep.", STEP
        )
        self.paused = counter("backfill_pause_seconds", "Time of pauses between batches.", STEP)
        self.seconds = histogram("backfill_batch_seconds", "Duration of batches.", STEP, _BATCH_SECONDS)
        self.size = histogram("backfill_batch_rows", "Rows per batch.", STEP, _BATCH_ROWS)
        self.late = gauge(
            "backfill_late_rows", "Rows without a value that the last proof found after the pass.", TABLE
        )
        self.after_proof = counter(
            "late_rows_after_proof",
            "Rows without a value that a later step found although the backfill had proven that none was"
            " left; at least.",
            STAGE,
        )


class LockMetrics:
    """Strong locks and long statements: how long we waited for them and held them, and which sessions
    blocked them.
    """

    def __init__(self, make: Maker) -> None:
        gauge, counter, histogram = make.gauge, make.counter, make.histogram
        wait = "Time in which application statements could have waited behind our lock request"
        hold = "Time in which strong locks were held"
        self.held = histogram("lock_hold_seconds", f"{hold}.", STEP, _LOCK_SECONDS)
        self.waited = histogram("lock_wait_seconds", f"{wait}.", STEP, _LOCK_SECONDS)
        self.held_max = gauge("lock_hold_max_seconds", f"{hold}; the longest of this process.", STAGE_TABLE)
        self.waited_max = gauge("lock_wait_max_seconds", f"{wait}; the longest of this process.", STAGE_TABLE)
        self.held_at = gauge(
            "lock_last_held_time_seconds", "When a lock window of the step last committed.", STEP
        )
        self.failed = counter(
            "lock_attempts_failed",
            "Lock attempts that timed out or were cancelled; all were rolled back.",
            STEP,
        )
        self.exposure = counter(
            "lock_exposure_seconds",
            f"{wait}; the sum over all attempts of this process; at most.",
            PLAN_TABLE,
        )
        self.budget = gauge(
            "lock_exposure_budget_seconds",
            "The exposure that the plan allows, to one table and to the run.",
            (*PLAN, "scope"),
        )
        self.blockers = gauge("blockers", "Sessions that blocked the step at the last check.", STEP)
        self.blockers_seen = counter("blockers_seen", "Checks that found blocking sessions.", STEP)
        self.blocker = Texts(
            gauge("blocker_info", "A session that blocks the step now; always 1.", (*STEP, "blocker"))
        )
        self.long_share = gauge(
            "long_statement_done_ratio",
            "Progress of a long statement, 0 to 1; absent if the server does not report it.",
            TABLE,
        )
        self.long_seconds = gauge("long_statement_seconds", "For how long a long statement has run.", TABLE)
        self.long_phase = Texts(
            gauge(
                "long_statement_phase_info",
                "The current phase of a long statement; always 1.",
                (*TABLE, "phase"),
            )
        )


class WaitMetrics:
    """Why the run waits: waits, throttlers, retries."""

    def __init__(self, make: Maker) -> None:
        gauge, counter = make.gauge, make.counter
        self.waiting = gauge("waits_open", "Waits of this kind that are open now.", KIND)
        self.waited = counter("wait_seconds", "Time in which at least one wait of this kind was open.", KIND)
        self.wait_reason = Texts(
            gauge("wait_reason_info", "Reason of an open wait; always 1.", (*KIND, "reason"))
        )
        self.utilisation = gauge(
            "throttler_utilisation_ratio",
            "Utilisation that a throttler reads; at 1 and above it holds the backfill.",
            THROTTLER,
        )
        self.age = gauge("throttler_reading_age_seconds", "Age of the throttler's reading.", THROTTLER)
        self.reason = Texts(
            gauge("throttler_reason_info", "What a throttler reports now; always 1.", (*THROTTLER, "reason"))
        )
        self.retries = counter("retries", "Statements that were retried after an error.", KIND)
        self.reconnects = counter("reconnects", "Lost connections that were opened again.", PLAN)


class ServerMetrics:
    """What the server reports while we work; the application's part included."""

    def __init__(self, make: Maker) -> None:
        gauge, counter = make.gauge, make.counter
        self.read_at = gauge(
            "server_reading_time_seconds",
            "When the server was last read; before the first reading, when this process started.",
            PLAN,
        )
        self.wal = counter("server_wal_bytes", "WAL that the server wrote since this process started.", PLAN)
        self.updates = counter(
            "table_updates", "Rows of the table that were updated, by all sessions.", PLAN_TABLE
        )
        self.hot = counter(
            "table_hot_updates",
            "Rows of the table that were updated heap-only, so without a change to an index.",
            PLAN_TABLE,
        )
        self.dead = gauge("table_dead_rows", "Dead rows of the table, by the server's estimate.", PLAN_TABLE)
        self.table_bytes = gauge("table_size_bytes", "Size of the table, TOAST included.", PLAN_TABLE)
        self.index_bytes = gauge("table_index_size_bytes", "Size of the table's indexes.", PLAN_TABLE)
        self.lag_bytes = gauge(
            "standby_lag_bytes", "WAL that a streaming standby has not replayed yet.", STANDBY
        )
        self.lag_seconds = gauge(
            "standby_lag_seconds",
            "For how long a streaming standby has not replayed WAL that it needs.",
            STANDBY,
        )
        self.lag_budget = gauge(
            "standby_lag_budget_bytes", "The smallest standby_lag limit of the plan's stages.", PLAN
        )
        self.multixacts = gauge(
            "multixact_used_ratio",
            "Multixacts in use: age divided by vacuum_multixact_failsafe_age, members divided by their"
            " space.",
            (*PLAN, "resource"),
        )
        self.connections = gauge("connections", "Sessions of this runner on the server.", PLAN)
