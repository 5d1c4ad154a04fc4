"""Events, snapshots and readings as Prometheus metrics.  Which there are: metric_definitions.py."""

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
"""events that wait to be taken in; more only come together where nobody scrapes and the server is away"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What the plan allows, beside what is: without it a figure is no alert."""

    exposure_s: float | None = None
    exposure_run_s: float | None = None
    standby_lag_bytes: int | None = None

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """The plan's bounds; of several stages the narrowest."""
        lags = [s.hold_when.standby_lag for s in plan.stages if s.hold_when.standby_lag is not None]
        return cls(
            exposure_s=plan.locks.exposure,
            exposure_run_s=plan.locks.exposure_run,
            standby_lag_bytes=min(lags, default=None),
        )


class MetricsSink:
    """Turns events into metrics of :attr:`registry`; :meth:`update` and :meth:`take` add what no event says.

    Counters count what this process did; gauges continue where earlier runs of the plan stopped.  Events are only noted when
    they happen, with the time, and taken in together at the next scrape: that costs a fifth.  Of snapshots it takes the newest
    one: a page that is open asks for more of them than are scraped.
    """

    def __init__(
        self, *, plan: str, budgets: Budgets | None = None, clock: Clock | None = None, now: Now = time.time
    ) -> None:
        self._clock = clock or SystemClock()
        self._now = now
        self._at = self._times()
        self._news: deque[tuple[e.Event | ServerReading, tuple[float, float]]] = deque()
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
            "metrics_errors", "Events, pictures and readings that failed to be taken in.", PLAN
        )
        self._errors.add(())
        ProcessCollector(namespace="online_migrate", registry=self.registry)
        budgets = budgets or Budgets()
        locks.budget.set(("table",), budgets.exposure_s)
        locks.budget.set(("run",), budgets.exposure_run_s)
        server.lag_budget.set((), budgets.standby_lag_bytes)

    def emit(self, event: e.Event) -> None:
        """Note an event; never raises, and takes a microsecond."""
        if type(event) in self._handlers:
            self._note(event)

    def update(self, snapshot: Snapshot) -> None:
        """Note the journal: who is alive, and what earlier runs did.  Events of this process stand."""
        self._snapshot = (snapshot, self._times())

    def take(self, reading: ServerReading) -> None:
        """Note what the server says."""
        self._note(reading)

    def count_error(self) -> None:
        """Note that a picture or a reading failed."""
        self._errors.add((), 1)

    def _note(self, news: e.Event | ServerReading) -> None:
        self._news.append((news, self._times()))
        if len(self._news) >= MOST:
            self._take_in()

    def _before_scrape(self) -> None:
        self._take_in(self._waits.count, self._server.forget_old)

    def _take_in_journal(self) -> None:
        noted, self._snapshot = self._snapshot, None
        if noted is not None:
            snapshot, self._at = noted
            for meter in self._meters:
                meter.update(snapshot)

    def _take_in(self, *work: Callable[[], object]) -> None:
        """What happened, then ``work``; snapshots and scrapes come from threads of their own."""
        with self._lock:
            while self._news:
                news, self._at = self._news.popleft()
                for handler in self._handlers[type(news)]:
                    self._safely(handler, news)
            self._safely(self._backfills.settle)
            self._safely(self._take_in_journal)
            self._at = self._times()
            for each in work:
                self._safely(each)

    def _safely(self, work: Callable[..., object], *given: object) -> None:
        try:
            work(*given)
        except Exception:  # noqa: BLE001  # a metric that is wrong must not stop a migration
            self._errors.add((), 1)

    def _times(self) -> tuple[float, float]:
        """The time of day, and of the clock that never goes back."""
        return self._now(), self._clock.monotonic()

    def _happened_at(self) -> float:
        """The time of day of what is taken in."""
        return self._at[0]


def _merge(groups: Iterable[Handlers]) -> dict[type, list[Callable[[Any], None]]]:
    merged: dict[type, list[Callable[[Any], None]]] = {}
    for handlers in groups:
        for event, handler in handlers.items():
            merged.setdefault(event, []).append(handler)
    return merged


def metric_names(registry: CollectorRegistry) -> Mapping[str, str]:
    """Every metric that the code has, with its type: whether or not it has a series yet."""
    return {metric.name: metric.type for metric in registry.collect()}
