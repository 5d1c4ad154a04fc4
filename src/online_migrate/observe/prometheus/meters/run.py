"""The run, its stages and its steps; heartbeat and lease."""

from __future__ import annotations

from typing import Any

import online_migrate
from online_migrate import events as e
from online_migrate.observe.prometheus.definitions import EXIT_KINDS, OUTCOMES, STATES, RunMetrics
from online_migrate.observe.prometheus.meters.base import Changes, Handlers, Now, step_of, table_of
from online_migrate.observe.snapshot.views import Snapshot

LEASE_LOST = 6
"""the exit code"""
READ_IS_PROGRESS_S = 3600.0
"""for so long a statement whose progress the server does not report counts as progress: enough to read a
terabyte from a fast disk; after it, a statement that waits for broken storage or never ends would look the
same"""


class RunMeter:
    """Gauges continue where earlier processes stopped; events of this process take precedence over an
    older snapshot.
    """

    def __init__(self, metrics: RunMetrics, now: Now) -> None:
        self._m = metrics
        self._now = now
        self._own: set[tuple[str, ...]] = set()
        self._open: set[tuple[str, ...]] = set()
        self._has_begun = False
        """stays False if the run was refused: another runner has the lease, or the check found an obstacle"""
        self._states: dict[tuple[str, ...], str] = {}
        self._changes = Changes()
        self._shares: dict[tuple[str, str, str], tuple[str, float | None]] = {}
        metrics.build_info.set((online_migrate.__version__,), 1)
        metrics.started.set((), now())
        metrics.steps_open.set((), 0)
        for outcome in OUTCOMES:
            metrics.ended.set((outcome,), 0)
        for kind in EXIT_KINDS.values():
            metrics.errors.add((kind,))

    @property
    def handlers(self) -> Handlers:
        return {
            e.RunStarted: self._run_started,
            e.RunEnded: self._run_ended,
            e.StageStarted: self._stage_started,
            e.StageEnded: self._stage_ended,
            e.GateWaiting: lambda v: self._at_gate(v, "waiting"),
            e.GateApproved: lambda v: self._at_gate(v, "pending"),
            e.StepStarted: lambda v: self._set_step(table_of(v), "running"),
            e.StepEnded: lambda v: self._set_step(table_of(v), "done"),
            e.StepFailed: self._step_failed,
            e.LongStatement: self._long_statement,
            **dict.fromkeys((e.BatchDone, e.BackfillStarted, e.LockHeld, e.Reconnected), self._progressed),
        }

    def update(self, snapshot: Snapshot) -> None:
        """Take in the journal: the heartbeat, and what earlier processes did."""
        if snapshot.holder is not None:
            self._m.heartbeat.set((), self._now() - snapshot.holder.heartbeat_age_s)
        for stage, steps in self._changes.since_last(snapshot):
            if (stage.stage,) not in self._own:
                self._m.stage_state.set((stage.stage,), STATES[stage.state])
                self._m.gate.set((stage.stage,), stage.state == "waiting")
            for step in steps:
                self._m.failures.add(step_of(step))
                if step.key not in self._own:
                    self._show_step(step.key, step.state)
        self._count_steps(sum(len(stage.steps) for stage in snapshot.stages))

    def _run_started(self, event: e.RunStarted) -> None:
        self._has_begun = True
        self._m.state.set((), STATES["running"])
        self._m.lease_held.set((), 1)
        self._m.steps.set((), event.steps_total)
        self._m.steps_done.set((), event.steps_done)
        self._progressed(event)

    def _run_ended(self, event: e.RunEnded) -> None:
        self._m.state.set((), STATES[OUTCOMES.get(event.outcome, "stopped")])
        has_no_lease = event.exit_code == LEASE_LOST
        if self._has_begun or not has_no_lease:  # a refused process ends no run: another runner is at work
            self._m.ended.set((event.outcome,), self._now())
        self._m.exit_code.set((), event.exit_code)
        if event.outcome == "failed":
            self._m.errors.add((EXIT_KINDS.get(event.exit_code, "unexpected"),), 1)
        self._m.lease_held.set((), 0 if self._has_begun and has_no_lease else None)

    def _stage_started(self, event: e.StageStarted) -> None:
        self._own.add((event.stage,))
        self._m.stage_state.set((event.stage,), STATES["running"])
        self._m.stage_started.set((event.stage,), self._now())
        self._m.state.set((), STATES["running"])
        self._m.gate.set((event.stage,), 0)
        self._progressed(event)

    def _stage_ended(self, event: e.StageEnded) -> None:
        self._own.add((event.stage,))
        self._m.stage_state.set((event.stage,), STATES["done"])
        self._m.stage_seconds.set((event.stage,), event.seconds)
        self._progressed(event)

    def _at_gate(self, event: e.Event, state: str) -> None:
        self._own.add((event.stage,))
        self._m.stage_state.set((event.stage,), STATES[state])
        self._m.gate.set((event.stage,), state == "waiting")
        self._progressed(event)

    def _step_failed(self, event: e.StepFailed) -> None:
        self._m.failures.add(step_of(event), 1)
        self._set_step(table_of(event), "failed")

    def _set_step(self, key: tuple[str, str, str], state: str) -> None:
        self._own.add(key)
        self._m.failures.add(key[:2])
        is_new = state == "done" and self._states.get(key) != "done"
        self._show_step(key, state)
        if is_new:
            self._m.steps_done.add((), 1)
        if state == "running":
            self._open.add(key)
        else:
            self._open.discard(key)
        self._m.steps_open.set((), len(self._open))
        self._m.progress.set((), self._now())

    def _show_step(self, key: tuple[str, str, str], state: str) -> None:
        self._states[key] = state
        self._m.step_state.set(key, STATES[state])

    def _count_steps(self, total: int) -> None:
        self._m.steps.set((), total)
        self._m.steps_done.set((), sum(1 for state in self._states.values() if state == "done"))

    def _long_statement(self, event: e.LongStatement) -> None:
        """A build makes progress while its share or phase changes, not while it waits for an old transaction.

        The server reports no share of a VALIDATE or a proof: if one reads and waits for no session, it
        counts as progress for :data:`READ_IS_PROGRESS_S`.
        """
        seen = (event.phase, event.share_done)
        reads = event.share_done is None and not event.waits_for and not event.phase.startswith("waiting")
        if (reads and event.seconds < READ_IS_PROGRESS_S) or self._shares.get(table_of(event)) != seen:
            self._shares[table_of(event)] = seen
            self._progressed(event)

    def _progressed(self, _: Any) -> None:
        self._m.progress.set((), self._now())
