"""Events as Prometheus metrics: the one place that says which metrics there are.

Names follow the Prometheus conventions: units in names, counters end in ``_total`` (the client adds it).  Labels are
bounded by the plan, ``table`` by its table sets.  300 tables stay under 10,000 series: what is kept per table is gauges
and counters, histograms are per step, and a state is one number a series, as :data:`STATES` has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

import online_migrate
from online_migrate import events as e
from online_migrate.observe.views import Snapshot, StepView

STATES: Final = {"pending": 0, "waiting": 1, "running": 2, "done": 3, "failed": 4, "stopped": 5}
"""numbers of states: of the run, of stages (waiting: at its gate) and of steps"""
_OUTCOMES: Final = {"done": "done", "gate": "waiting", "failed": "failed"}
"""of a run; every other one is stopped"""

PREFIX: Final = "online_migrate_"
PLAN: Final = ("plan",)
STAGE: Final = (*PLAN, "stage")
STEP: Final = (*STAGE, "step")
TABLE: Final = (*STEP, "table")
STAGE_TABLE: Final = (*STAGE, "table")
KIND: Final = (*PLAN, "kind")
THROTTLER: Final = (*PLAN, "throttler")

_BATCH_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_BATCH_ROWS: Final = (50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000)
_LOCK_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

E_ = TypeVar("E_", bound=e.Event)
Handlers = dict[type[e.Event], Callable[[Any], None]]


class Registry(CollectorRegistry):
    """A registry of our own, without the client's ``_created`` series, which Prometheus makes nothing of."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class MetricsSink:
    """Turns events into metrics of :attr:`registry`; :meth:`update` adds what only the journal knows.

    Counters count what this process did; gauges continue where earlier runs of the plan stopped.
    """

    def __init__(self, *, plan: str) -> None:
        self.registry = Registry()
        make = _Maker(plan, self.registry)
        self._groups = (_Run(make), _Backfill(make), _Locks(make), _Waits(make))
        self._handlers = _merge(group.handlers for group in self._groups)
        self._errors = make.counter("metrics_errors", "Events that the metrics could not take in.", PLAN)
        self._errors.add(())

    def emit(self, event: e.Event) -> None:
        """Take an event in; never raises, and takes microseconds."""
        try:
            for handler in self._handlers.get(type(event), ()):
                handler(event)
        except Exception:  # noqa: BLE001  # a metric that is wrong must not stop a migration
            self._errors.add((), 1)

    def update(self, snapshot: Snapshot) -> None:
        """Take in the journal: who is alive, and what earlier runs did.  Events of this process stand."""
        for group in self._groups:
            group.update(snapshot)


def _merge(groups: Iterable[Handlers]) -> dict[type[e.Event], list[Callable[[Any], None]]]:
    merged: dict[type[e.Event], list[Callable[[Any], None]]] = {}
    for handlers in groups:
        for event, handler in handlers.items():
            merged.setdefault(event, []).append(handler)
    return merged


class _Labelled:
    """A metric with the plan's label filled in."""

    def __init__(self, metric: Gauge | Counter | Histogram, plan: str) -> None:
        self._metric = metric
        self._plan = plan

    def set(self, labels: tuple[str, ...], value: float | None) -> None:
        """A gauge's value; None takes the series away: what is not known is not shown."""
        assert isinstance(self._metric, Gauge)
        if value is not None:
            self._metric.labels(self._plan, *labels).set(value)
        else:
            self._metric.remove(self._plan, *labels)

    def raise_to(self, labels: tuple[str, ...], value: float) -> None:
        """A gauge of the largest value so far."""
        assert isinstance(self._metric, Gauge)
        child = self._metric.labels(self._plan, *labels)
        child.set(max(value, child._value.get()))  # noqa: SLF001  # the client has no reading of its own

    def add(self, labels: tuple[str, ...], value: float = 0) -> None:
        """Count; by 0 to begin a series, so that its first increase is seen."""
        assert isinstance(self._metric, Counter | Gauge)
        self._metric.labels(self._plan, *labels).inc(value)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        assert isinstance(self._metric, Histogram)
        self._metric.labels(self._plan, *labels).observe(value)

    def begin(self, labels: tuple[str, ...]) -> None:
        """Show the series with nothing in it."""
        self._metric.labels(self._plan, *labels)


class _Maker:
    def __init__(self, plan: str, registry: CollectorRegistry) -> None:
        self._plan = plan
        self._registry = registry

    def gauge(self, name: str, documentation: str, labels: tuple[str, ...]) -> _Labelled:
        return _Labelled(Gauge(PREFIX + name, documentation, labels, registry=self._registry), self._plan)

    def counter(self, name: str, documentation: str, labels: tuple[str, ...]) -> _Labelled:
        return _Labelled(Counter(PREFIX + name, documentation, labels, registry=self._registry), self._plan)

    def histogram(
        self, name: str, documentation: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> _Labelled:
        metric = Histogram(PREFIX + name, documentation, labels, buckets=buckets, registry=self._registry)
        return _Labelled(metric, self._plan)


def _step(event: e.Event | StepView) -> tuple[str, str]:
    return (event.stage, event.step)


def _table(event: e.Event | StepView) -> tuple[str, str, str]:
    return (event.stage, event.step, event.table)


class _Run:
    """The run, its stages and its steps."""

    def __init__(self, make: _Maker) -> None:
        states = ", ".join(f"{number} {state}" for state, number in STATES.items())
        build = make.gauge("build_info", "The version that runs; always 1.", (*PLAN, "version"))
        build.set((online_migrate.__version__,), 1)
        self._state = make.gauge("run_state", f"State of the run: {states}.", PLAN)
        self._started = make.gauge(
            "run_start_time_seconds", "When this process began or went on with the run.", PLAN
        )
        self._steps = make.gauge("run_steps", "Steps of the plan over all its tables.", PLAN)
        self._steps_done = make.gauge("run_steps_done", "Steps that are done, earlier runs included.", PLAN)
        self._stage = make.gauge("stage_state", f"State of a stage: {states}.", STAGE)
        self._stage_seconds = make.gauge(
            "stage_duration_seconds", "How long a stage took, once it is done.", STAGE
        )
        self._gate = make.gauge("gate_waiting", "1 while a stage waits at its gate for approval.", STAGE)
        self._step_state = make.gauge("step_state", f"State of a step on a table: {states}.", TABLE)
        self._failures = make.counter("step_failures", "Steps that failed.", STEP)
        self._heartbeat = make.gauge(
            "heartbeat_time_seconds", "When the runner last beat, by the journal.", PLAN
        )
        self._own: set[tuple[str, ...]] = set()
        self._states: dict[tuple[str, str, str], str] = {}

    @property
    def handlers(self) -> Handlers:
        return {
            e.RunStarted: self._run_started,
            e.RunEnded: lambda v: self._state.set((), STATES[_OUTCOMES.get(v.outcome, "stopped")]),
            e.StageStarted: self._stage_started,
            e.StageEnded: self._stage_ended,
            e.GateWaiting: lambda v: self._at_gate(v, "waiting"),
            e.GateApproved: lambda v: self._at_gate(v, "pending"),
            e.StepStarted: lambda v: self._set_step(_table(v), "running"),
            e.StepEnded: lambda v: self._set_step(_table(v), "done"),
            e.StepFailed: self._step_failed,
        }

    def update(self, snapshot: Snapshot) -> None:
        if snapshot.holder is not None:
            beat = snapshot.read_at.timestamp() - snapshot.holder.beat_age_s
            self._heartbeat.set((), beat)
        for stage in snapshot.stages:
            if (stage.stage,) not in self._own:
                self._stage.set((stage.stage,), STATES[stage.state])
                self._gate.set((stage.stage,), stage.state == "waiting")
        for step in snapshot.steps:
            self._failures.add(_step(step))
            if step.key not in self._own:
                self._show_step(step.key, step.state)
        self._count_steps(len(snapshot.steps))

    def _run_started(self, event: e.RunStarted) -> None:
        self._state.set((), STATES["running"])
        self._started.set((), time.time())
        self._steps.set((), event.steps_total)
        self._steps_done.set((), event.steps_done)

    def _stage_started(self, event: e.StageStarted) -> None:
        self._own.add((event.stage,))
        self._stage.set((event.stage,), STATES["running"])
        self._state.set((), STATES["running"])
        self._gate.set((event.stage,), 0)

    def _stage_ended(self, event: e.StageEnded) -> None:
        self._own.add((event.stage,))
        self._stage.set((event.stage,), STATES["done"])
        self._stage_seconds.set((event.stage,), event.seconds)

    def _at_gate(self, event: e.Event, state: str) -> None:
        self._own.add((event.stage,))
        self._stage.set((event.stage,), STATES[state])
        self._gate.set((event.stage,), state == "waiting")

    def _step_failed(self, event: e.StepFailed) -> None:
        self._failures.add(_step(event), 1)
        self._set_step(_table(event), "failed")

    def _set_step(self, key: tuple[str, str, str], state: str) -> None:
        self._own.add(key)
        self._failures.add(key[:2])
        is_new = state == "done" and self._states.get(key) != "done"
        self._show_step(key, state)
        if is_new:
            self._steps_done.add((), 1)

    def _show_step(self, key: tuple[str, str, str], state: str) -> None:
        self._states[key] = state
        self._step_state.set(key, STATES[state])

    def _count_steps(self, total: int) -> None:
        self._steps.set((), total)
        self._steps_done.set((), sum(1 for state in self._states.values() if state == "done"))


class _Backfill:
    """Rows, batches, share and time left."""

    def __init__(self, make: _Maker) -> None:
        self._done = make.gauge(
            "backfill_rows_done", "Rows filled by the step, earlier runs included.", TABLE
        )
        self._expected = make.gauge("backfill_rows_expected", "Rows of the table, an estimate.", TABLE)
        self._share = make.gauge(
            "backfill_done_ratio", "Pages passed by the pages at the start, 0 to 1.", TABLE
        )
        self._eta = make.gauge("backfill_eta_seconds", "Time left; absent while it is unknown.", TABLE)
        self._rows = make.counter("backfill_rows", "Rows filled by this process.", TABLE)
        self._batches = make.counter("backfill_batches", "Batches committed by this process.", TABLE)
        self._skipped = make.counter(
            "backfill_skipped_batches", "Batches that left locked rows for later.", STEP
        )
        self._paused = make.counter("backfill_pause_seconds", "Pauses between batches.", STEP)
        self._seconds = make.histogram(
            "backfill_batch_seconds", "How long batches took.", STEP, _BATCH_SECONDS
        )
        self._size = make.histogram("backfill_batch_rows", "How many rows batches had.", STEP, _BATCH_ROWS)
        self._late = make.gauge(
            "backfill_late_rows", "Rows without a value that were found after the pass.", TABLE
        )
        self._own: dict[tuple[str, str, str], bool] = {}
        """steps of which this process has news, and whether they are under way"""

    @property
    def handlers(self) -> Handlers:
        return {
            e.BackfillStarted: self._backfill_started,
            e.BatchDone: self._batch_done,
            e.LateRows: lambda v: self._late.set(_table(v), v.rows),
            e.WaitStarted: self._wait_started,
            e.StepEnded: self._step_ended,
            e.StepFailed: self._forget_eta,
            e.RunEnded: self._run_ended,
        }

    def update(self, snapshot: Snapshot) -> None:
        for step in (s for s in snapshot.steps if s.rows_expected is not None and s.share_done is not None):
            if step.key not in self._own and (step.state != "done" or step.rows_done):
                self._show(step.key, done=step.rows_done, expected=step.rows_expected, share=step.share_done)

    def _backfill_started(self, event: e.BackfillStarted) -> None:
        self._own[_table(event)] = True
        share = event.pages_done / event.pages_total if event.pages_total else 1.0
        self._show(_table(event), done=event.rows_done, expected=event.rows_expected, share=share)
        for metric in (self._rows, self._batches, self._late):
            metric.add(_table(event))
        for metric in (self._skipped, self._paused):
            metric.add(_step(event))
        for metric in (self._seconds, self._size):
            metric.begin(_step(event))

    def _batch_done(self, event: e.BatchDone) -> None:
        self._own[_table(event)] = True
        self._done.set(_table(event), event.rows_done)
        self._share.raise_to(_table(event), event.share_done)  # a sweep walks all pages again
        self._eta.set(_table(event), event.eta_s)
        self._rows.add(_table(event), event.rows)
        self._batches.add(_table(event), 1)
        self._skipped.add(_step(event), event.skipped_locked)
        self._paused.add(_step(event), event.pause_s)
        self._seconds.observe(_step(event), event.seconds)
        self._size.observe(_step(event), event.rows)

    def _step_ended(self, event: e.StepEnded) -> None:
        if _table(event) in self._own:
            self._own[_table(event)] = False
            self._share.set(_table(event), 1)
            self._eta.set(_table(event), 0)

    def _wait_started(self, event: e.WaitStarted) -> None:
        if event.step:
            self._forget_eta(event)
        else:
            self._run_ended(event)

    def _run_ended(self, _: e.Event) -> None:
        for key, is_open in self._own.items():
            if is_open:
                self._eta.set(key, None)

    def _forget_eta(self, event: e.Event) -> None:
        self._eta.set(_table(event), None)

    def _show(
        self, key: tuple[str, str, str], *, done: int, expected: int | None, share: float | None
    ) -> None:
        self._done.set(key, done)
        self._expected.set(key, expected)
        self._share.set(key, share)


class _Locks:
    """Strong locks: how long they were waited for and held, how often we gave way, and who was in the way."""

    def __init__(self, make: _Maker) -> None:
        wait = "How long the application could have stood behind us in a lock's queue"
        hold = "How long strong locks were held"
        self._held = make.histogram("lock_hold_seconds", f"{hold}.", STEP, _LOCK_SECONDS)
        self._waited = make.histogram("lock_wait_seconds", f"{wait}.", STEP, _LOCK_SECONDS)
        self._held_max = make.gauge(
            "lock_hold_max_seconds", f"{hold}: the longest of this process.", STAGE_TABLE
        )
        self._waited_max = make.gauge(
            "lock_wait_max_seconds", f"{wait}: the longest of this process.", STAGE_TABLE
        )
        self._retries = make.counter(
            "lock_retries", "Strong locks that were not had in time and given up.", STEP
        )
        self._blockers = make.gauge("blockers", "Sessions in the way, when last looked.", STEP)
        self._long = make.gauge("long_statement_done_ratio", "How far a statement is that takes long.", TABLE)
        self._long_seconds = make.gauge("long_statement_seconds", "For how long it has run.", TABLE)

    @property
    def handlers(self) -> Handlers:
        return {
            e.StepStarted: self._step_started,
            e.StepEnded: self._step_over,
            e.StepFailed: self._step_over,
            e.LockHeld: self._lock_held,
            e.LockGivenWay: self._lock_given_way,
            e.BlockersSeen: lambda v: self._blockers.set(_step(v), len(v.blockers)),
            e.LongStatement: self._long_statement,
        }

    def update(self, snapshot: Snapshot) -> None:
        """All of it is this process's."""

    def _step_started(self, event: e.StepStarted) -> None:
        self._retries.add(_step(event))
        self._blockers.set(_step(event), 0)

    def _step_over(self, event: e.Event) -> None:
        self._blockers.set(_step(event), 0)
        self._long.set(_table(event), None)
        self._long_seconds.set(_table(event), None)

    def _lock_held(self, event: e.LockHeld) -> None:
        key = (event.stage, event.table or event.relation)
        self._held.observe(_step(event), event.held_s)
        self._waited.observe(_step(event), event.waited_s)
        self._held_max.raise_to(key, event.held_s)
        self._waited_max.raise_to(key, event.waited_s)
        self._blockers.set(_step(event), 0)

    def _lock_given_way(self, event: e.LockGivenWay) -> None:
        self._retries.add(_step(event), 1)
        self._waited_max.raise_to((event.stage, event.table or event.relation), event.waited_s)
        if event.blockers:
            self._blockers.set(_step(event), len(event.blockers))

    def _long_statement(self, event: e.LongStatement) -> None:
        self._long.set(_table(event), event.share_done or 0)
        self._long_seconds.set(_table(event), event.seconds)
        if event.waits_for:
            self._blockers.set(_step(event), len(event.waits_for))


class _Waits:
    """Why we hold back: waits, throttlers, retries."""

    def __init__(self, make: _Maker) -> None:
        self._waiting = make.gauge("waiting", "Waits of this kind that are open now.", KIND)
        self._waited = make.counter("wait_seconds", "Time spent in waits of this kind that ended.", KIND)
        self._utilisation = make.gauge(
            "throttler_utilisation_ratio", "What a throttler sees: 1 and above holds us.", THROTTLER
        )
        self._age = make.gauge(
            "throttler_reading_age_seconds", "How old a throttler's reading was.", THROTTLER
        )
        self._retries = make.counter("retries", "Statements that were tried again.", KIND)
        self._reconnects = make.counter("reconnects", "Lost connections that were regained.", PLAN)
        self._reconnects.add(())
        self._open: set[tuple[str, ...]] = set()

    @property
    def handlers(self) -> Handlers:
        return {
            e.RunStarted: self._begin,
            e.WaitStarted: self._wait_started,
            e.WaitEnded: self._wait_ended,
            e.RunEnded: self._end,
            e.Reading: self._reading,
            e.Retried: lambda v: self._retries.add((v.kind,), 1),
            e.Reconnected: lambda _: self._reconnects.add((), 1),
        }

    def update(self, snapshot: Snapshot) -> None:
        """All of it is this process's."""

    def _begin(self, _: e.RunStarted) -> None:
        self._count("blocker")
        self._waited.add(("blocker",))
        self._retries.add(("connection",))

    def _wait_started(self, event: e.WaitStarted) -> None:
        self._open.add((event.kind, *_table(event)))
        self._count(event.kind)
        self._waited.add((event.kind,))

    def _wait_ended(self, event: e.WaitEnded) -> None:
        self._open.discard((event.kind, *_table(event)))
        self._count(event.kind)
        self._waited.add((event.kind,), event.seconds)

    def _end(self, _: e.RunEnded) -> None:
        kinds = {key[0] for key in self._open}
        self._open.clear()
        for kind in kinds:
            self._count(kind)

    def _count(self, kind: str) -> None:
        self._waiting.set((kind,), sum(1 for key in self._open if key[0] == kind))

    def _reading(self, event: e.Reading) -> None:
        self._utilisation.set((event.throttler,), event.utilisation)
        self._age.set((event.throttler,), event.age_s)


def metric_names(registry: CollectorRegistry) -> Mapping[str, str]:
    """Every metric that the code has, with its type: whether or not it has a series yet."""
    return {metric.name: metric.type for metric in registry.collect()}
