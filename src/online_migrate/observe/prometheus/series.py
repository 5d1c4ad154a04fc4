"""Metrics with the plan's label filled in, texts as bounded labels, and a registry that knows when it was scraped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from online_migrate.clock import Clock, Signal, SystemClock

PREFIX: Final = "online_migrate_"
TEXT_CHARACTERS: Final = 160
"""of a text that is a label"""
TEXTS: Final = 100
"""texts that one metric shows at a time: past it a Prometheus that others live on would bear the rest"""
ONE_MORE: Final = "another one: see the log"
LAST_SCRAPE_S: Final = 20.0
"""how long the end of a run waits for the scrape that shows it: enough for a scrape every 15 s"""
SEND_S: Final = 0.2
"""for the answer's way to the scraper"""

_FIGURE: Final = re.compile(r"(?<![\w-])(?<!pid )(?<!process )\d[\d.,:]*")


class Registry(CollectorRegistry):
    """A registry of our own, without the client's ``_created`` series, which Prometheus makes nothing of.

    ``before`` is called at the beginning of each scrape.
    """

    def __init__(self, before: Callable[[], None] = lambda: None, clock: Clock | None = None) -> None:
        super().__init__()
        self._before = before
        self._clock = clock or SystemClock()
        self._scraped_at: list[float] = []
        self._scraped = Signal()
        self._is_last_awaited = False

    def collect(self) -> Iterable[Metric]:
        self._before()
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
        self._scraped_at = [*self._scraped_at[-1:], self._clock.monotonic()]
        if self._is_last_awaited:
            self._scraped.stop("scraped")

    def last_scrape_within_s(self) -> float | None:
        """Until when the next scrape is to be expected; None where nobody scrapes at regular times.

        Of a run that was over before the second scrape nobody knows yet: that one is waited for, too.
        """
        if not self._scraped_at:
            return None
        age_s = self._clock.monotonic() - self._scraped_at[-1]
        if len(self._scraped_at) == 1:
            return LAST_SCRAPE_S - age_s if age_s < LAST_SCRAPE_S else None
        every_s = self._scraped_at[1] - self._scraped_at[0]
        return None if age_s > 3 * every_s + 1 else min(1.5 * every_s + 1, LAST_SCRAPE_S)

    def await_last_scrape(self) -> bool:
        """Wait for one more scrape where somebody scrapes: how a run ended is an alert's business, and we are gone then."""
        within_s = self.last_scrape_within_s()
        if within_s is None:
            return False
        self._is_last_awaited = True
        if not self._clock.wait(within_s, self._scraped):
            return False
        self._clock.wait(SEND_S, Signal())
        return True


class Series:
    """One metric of one plan; labels are given without the plan's.

    What a series is looked up by is kept: the client's own look-up is half of what a batch costs the exporter.
    """

    def __init__(self, metric: Gauge | Counter | Histogram, plan: str) -> None:
        self._metric = metric
        self._plan = plan
        self._children: dict[tuple[str, ...], Any] = {}

    def _child(self, labels: tuple[str, ...]) -> Any:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(self._plan, *labels)
        return child

    def set(self, labels: tuple[str, ...], value: float | None) -> None:
        """A gauge's value; None takes the series away: what is not known is not shown."""
        assert isinstance(self._metric, Gauge)
        if value is not None:
            self._child(labels).set(value)
        elif self._children.pop(labels, None) is not None:
            self._metric.remove(self._plan, *labels)

    def raise_to(self, labels: tuple[str, ...], value: float) -> None:
        """A gauge of the largest value so far."""
        assert isinstance(self._metric, Gauge)
        child = self._child(labels)
        child.set(max(value, child._value.get()))  # noqa: SLF001  # the client has no reading of its own

    def add(self, labels: tuple[str, ...], value: float = 0) -> None:
        """Count; by 0 to begin a series, so that its first increase is seen."""
        assert isinstance(self._metric, Counter | Gauge)
        child = self._child(labels)
        if value:
            child.inc(value)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        assert isinstance(self._metric, Histogram)
        self._child(labels).observe(value)

    def begin(self, labels: tuple[str, ...]) -> None:
        """Show the series with nothing in it."""
        self._child(labels)

    def clear(self) -> None:
        """Take every series away."""
        self._children.clear()
        self._metric.clear()


class Texts:
    """Series of 1 whose last label is a text: one for each place, gone when the place has another text or none."""

    def __init__(self, series: Series, *, limit: int = TEXTS) -> None:
        self._series = series
        self._limit = limit
        self._shown: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._given: dict[tuple[str, ...], tuple[str, ...]] = {}

    def show(self, place: tuple[str, ...], texts: Iterable[str]) -> None:
        """Show these at ``place``, and nothing else there; figures that change from look to look are left out."""
        texts = tuple(texts)
        if self._given.get(place, ()) == texts:
            return
        self._given[place] = texts
        before = self._shown.pop(place, ())
        wanted = self._bounded(tuple(dict.fromkeys(map(without_figures, texts))))
        for text in set(before) - set(wanted):
            self._series.set((*place, text), None)
        for text in wanted:
            self._series.set((*place, text), 1)
        if wanted:
            self._shown[place] = wanted

    def hide(self, place: tuple[str, ...]) -> None:
        self.show(place, ())

    def _bounded(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """As many as there is room for beside those at other places; the last stands for those that there is none for."""
        room = self._limit - sum(map(len, self._shown.values()))
        if len(texts) <= room:
            return texts
        return (*texts[: room - 1], ONE_MORE) if room > 0 else ()


def without_figures(text: str) -> str:
    """A sentence as a label: ``…`` for each figure but a process' number, cut at :data:`TEXT_CHARACTERS`."""
    return _FIGURE.sub("…", " ".join(text.split()))[:TEXT_CHARACTERS]


class Maker:
    """Makes the metrics of one plan in one registry."""

    def __init__(self, plan: str, registry: CollectorRegistry) -> None:
        self._plan = plan
        self._registry = registry

    def gauge(self, name: str, documentation: str, labels: tuple[str, ...]) -> Series:
        return Series(Gauge(PREFIX + name, documentation, labels, registry=self._registry), self._plan)

    def counter(self, name: str, documentation: str, labels: tuple[str, ...]) -> Series:
        return Series(Counter(PREFIX + name, documentation, labels, registry=self._registry), self._plan)

    def histogram(
        self, name: str, documentation: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Series:
        metric = Histogram(PREFIX + name, documentation, labels, buckets=buckets, registry=self._registry)
        return Series(metric, self._plan)
