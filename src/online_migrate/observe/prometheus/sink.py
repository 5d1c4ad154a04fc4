"""Events, snapshots and readings as Prometheus metrics; :mod:`~.definitions` lists them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

from online_migrate import events as e
from online_migrate.clock import Clock, SystemClock
from online_migrate.observe.prometheus.definitions import (
    PLAN,
    STATES,
    BackfillMetrics,
    LockMetrics,
    RunMetrics,
    ServerMetrics,
    WaitMetrics,
)
from online_migrate.observe.prometheus.meters.backfill import BackfillMeter
from online_migrate.observe.prometheus.meters.base import Handlers, Now
from online_migrate.observe.prometheus.meters.locks import LockMeter
from online_migrate.observe.prometheus.meters.run import RunMeter
from online_migrate.observe.prometheus.meters.server import ServerMeter
from online_migrate.observe.prometheus.meters.waits import WaitMeter
from online_migrate.observe.prometheus.readings import ServerReading
from online_migrate.observe.prometheus.series import Maker, Registry
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.plan.model import Plan

__all__ = ["STATES", "Budgets", "MetricsSink", "metric_names"]

MOST: Final = 2_000
"""events that may wait for the next scrape"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The plan's limits, exported beside the figures so that alerts can compare them."""

    exposure_s: float | None = None
    exposure_run_s: float | None = None
    standby_lag_bytes: int | None = None

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """The plan's limits; of several stages the smallest."""
        lags = [s.hold_when.standby_lag for s in plan.stages if s.hold_when.standby_lag is not None]
        return cls(
            exposure_s=plan.locks.exposure,
            exposure_run_s=plan.locks.exposure_run,
            standby_lag_bytes=min(lags, default=None),
        )


class MetricsSink:
    """Turns events into metrics of :attr:`registry`; :meth:`update` and :meth:`take` add what no event says.

    Counters count what this process did; gauges continue where earlier processes stopped.  An event is only
    queued with its time and processed at the next scrape together with the others, at a fifth of the cost.
    Only the newest snapshot is processed: an open page asks for more of them than are scraped.
    """

    def __init__(
        self, *, plan: str, budgets: Budgets | None = None, clock: Clock | None = None, now: Now = time.time
    ) -> None:
        self._clock = clock or SystemClock()
        self._now = now
        self._at = self._times()
        self._queue: deque[tuple[e.Event | ServerReading, tuple[float, float]]] = deque()
        self._snapshot: tuple[Snapshot, tuple[float, float]] | None = None
        self._lock = threading.Lock()
        self.registry = Registry(before=self._before_scrape, clock=self._clock)
        make = Maker(plan, self.registry)
        run, locks, server = RunMetrics(make), LockMetrics(make), ServerMetrics(make)
        self._waits = WaitMeter(WaitMetrics(make), lambda: self._at[1])
        self._backfills = BackfillMeter(BackfillMetrics(make))
        self._meters = (
            RunMeter(run, self._happened_at),
            self._backfills,
            LockMeter(locks, self._happened_at),
            self._waits,
        )
        self._server = ServerMeter(server, run.lease_epoch, self._happened_at)
        self._handlers = _merge(meter.handlers for meter in self._meters)
        self._handlers[ServerReading] = [self._server.take]
        self._errors = make.counter(
            "metrics_errors", "Events, snapshots and readings that could not be processed.", PLAN
        )
        self._errors.add(())
        ProcessCollector(namespace="online_migrate", registry=self.registry)
        budgets = budgets or Budgets()
        locks.budget.set(("table",), budgets.exposure_s)
        locks.budget.set(("run",), budgets.exposure_run_s)
        server.lag_budget.set((), budgets.standby_lag_bytes)

    def emit(self, event: e.Event) -> None:
        """Queue an event; never raises, and takes a microsecond."""
        if type(event) in self._handlers:
            self._enqueue(event)

    def update(self, snapshot: Snapshot) -> None:
        """Queue a snapshot: the heartbeat, and what earlier processes did.  Events of this process take
        precedence.
        """
        self._snapshot = (snapshot, self._times())

    def take(self, reading: ServerReading) -> None:
        """Queue a reading of the server."""
        self._enqueue(reading)

    def count_error(self) -> None:
        """Count a snapshot or a reading that failed."""
        self._errors.add((), 1)

    def _enqueue(self, item: e.Event | ServerReading) -> None:
        self._queue.append((item, self._times()))
        if len(self._queue) >= MOST:
            self._process()

    def _before_scrape(self) -> None:
        self._process(self._waits.count, self._server.forget_old)

    def _process_snapshot(self) -> None:
        queued, self._snapshot = self._snapshot, None
        if queued is not None:
            snapshot, self._at = queued
            for meter in self._meters:
                meter.update(snapshot)

    def _process(self, *work: Callable[[], object]) -> None:
        """Process the queue, then do ``work``; snapshots and scrapes come from other threads."""
        with self._lock:
            while self._queue:
                item, self._at = self._queue.popleft()
                for handler in self._handlers[type(item)]:
                    self._safely(handler, item)
            self._safely(self._backfills.process_batches)
            self._safely(self._process_snapshot)
            self._at = self._times()
            for each in work:
                self._safely(each)

    def _safely(self, work: Callable[..., object], *given: object) -> None:
        try:
            work(*given)
        except Exception:  # noqa: BLE001  # a metric that is wrong must not stop a migration
            self._errors.add((), 1)

    def _times(self) -> tuple[float, float]:
        """The time of day, and of the monotonic clock."""
        return self._now(), self._clock.monotonic()

    def _happened_at(self) -> float:
        """The time of day of the event or snapshot that is processed."""
        return self._at[0]


def _merge(groups: Iterable[Handlers]) -> dict[type, list[Callable[[Any], None]]]:
    merged: dict[type, list[Callable[[Any], None]]] = {}
    for handlers in groups:
        for event, handler in handlers.items():
            merged.setdefault(event, []).append(handler)
    return merged


def metric_names(registry: CollectorRegistry) -> Mapping[str, str]:
    """Every metric that the code has, with its type, whether or not it has a series yet."""
    return {metric.name: metric.type for metric in registry.collect()}
