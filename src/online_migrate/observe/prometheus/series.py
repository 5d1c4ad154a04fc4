"""Metrics with the label of the plan filled in, texts as bounded labels, a registry that knows when it was
scraped.
"""

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
"""texts that one metric shows at a time, so that a shared Prometheus is not overloaded"""
ONE_MORE: Final = "more: see the log"
LAST_SCRAPE_S: Final = 20.0
"""for so long the end of a run waits for the scrape that shows it: enough for a scrape every 15 s"""
SEND_S: Final = 0.2
"""for the answer to reach the scraper"""

_FIGURE: Final = re.compile(r"(?<![\w-])(?<!pid )(?<!process )\d[\d.,:]*")


class Registry(CollectorRegistry):
    """A registry without the client's ``_created`` series, which Prometheus does not use.

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
        """Seconds in which the next scrape is expected; None if there are no regular scrapes.

        After a single scrape the interval is not known yet: the second one is expected too.
        """
        if not self._scraped_at:
            return None
        age_s = self._clock.monotonic() - self._scraped_at[-1]
        if len(self._scraped_at) == 1:
            return LAST_SCRAPE_S - age_s if age_s < LAST_SCRAPE_S else None
        every_s = self._scraped_at[1] - self._scraped_at[0]
        return None if age_s > 3 * every_s + 1 else min(1.5 * every_s + 1, LAST_SCRAPE_S)

    def await_last_scrape(self) -> bool:
        """Wait for one more scrape if there are regular ones: alerts need it to know how the run ended."""
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

    The client's series are kept by their labels: the client's own lookup is half of the exporter's cost per
    batch.
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
        """Set a gauge; None removes the series: what is not known is not shown."""
        assert isinstance(self._metric, Gauge)
        if value is not None:
            self._child(labels).set(value)
        elif self._children.pop(labels, None) is not None:
            self._metric.remove(self._plan, *labels)

    def raise_to(self, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge to the largest value so far."""
        assert isinstance(self._metric, Gauge)
        child = self._child(labels)
        child.set(max(value, child._value.get()))  # noqa: SLF001  # the client cannot read a value

    def add(self, labels: tuple[str, ...], value: float = 0) -> None:
        """Count; 0 creates the series, so that its first increase is seen."""
        assert isinstance(self._metric, Counter | Gauge)
        child = self._child(labels)
        if value:
            child.inc(value)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        assert isinstance(self._metric, Histogram)
        self._child(labels).observe(value)

    def begin(self, labels: tuple[str, ...]) -> None:
        """Create the series without a value."""
        self._child(labels)

    def clear(self) -> None:
        """Remove all series."""
        self._children.clear()
        self._metric.clear()


class Texts:
    """Series of value 1 whose last label is a text; a place's series is removed when its text changes or
    ends.
    """

    def __init__(self, series: Series, *, limit: int = TEXTS) -> None:
        self._series = series
        self._limit = limit
        self._shown: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._given: dict[tuple[str, ...], tuple[str, ...]] = {}

    def show(self, place: tuple[str, ...], texts: Iterable[str]) -> None:
        """Show these texts at ``place`` and no others, without figures, which change from read to read."""
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
        """As many texts as the limit allows beside those at other places; the last one replaces the rest."""
        room = self._limit - sum(map(len, self._shown.values()))
        if len(texts) <= room:
            return texts
        return (*texts[: room - 1], ONE_MORE) if room > 0 else ()


def without_figures(text: str) -> str:
    """A sentence as a label: ``…`` for each figure except process ids, cut at :data:`TEXT_CHARACTERS`."""
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
