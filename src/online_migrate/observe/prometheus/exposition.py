"""``/metrics``: a registry as text, byte for byte as prometheus-client writes it, at less than half of its
CPU seconds.

The client escapes every name and label again at each scrape.  A series keeps its name and labels, so we keep
the text of them for as long as the series exists.  ``python -m benchmarks.observe --exposition`` compares
the two; see "Cost of watching" in docs/benchmarks.md for the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.utils import floatToGoString

from online_migrate.observe.web import Page, Route

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Series = tuple[str, ...]
"""its name and the values of its labels"""


def metrics_route(registry: CollectorRegistry, *, freshen: Callable[[], None] = lambda: None) -> Route:
    """The route of ``/metrics``.  ``freshen`` is called before each scrape, and may bring newer figures."""
    exposition = Exposition(registry)

    def answer(headers: Mapping[str, str]) -> Page:
        freshen()
        content_type, body = exposition.write(headers.get("accept", ""))
        return Page(content_type=content_type, body=body)

    return answer


class Exposition:
    """The text of one registry whose metrics are gauges, counters and histograms."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._heads: dict[Series, str] = {}

    def write(self, accept: str) -> tuple[str, bytes]:
        """The content type and the text: OpenMetrics if ``accept`` names it, else Prometheus' own format."""
        is_open = "application/openmetrics-text" in accept
        known, heads = self._heads, dict[Series, str]()
        lines = [
            line
            for metric in self._registry.collect()
            for line in _lines(metric, known, heads, is_open=is_open)
        ]
        self._heads = heads
        text = "".join(lines) + ("# EOF\n" if is_open else "")
        return (OPEN if is_open else TEXT), text.encode()


def _lines(
    metric: Metric, known: Mapping[Series, str], heads: dict[Series, str], *, is_open: bool
) -> Iterator[str]:
    name = f"{metric.name}_total" if metric.type == "counter" and not is_open else metric.name
    yield f"# HELP {name} {_escape(metric.documentation, quote=is_open)}\n# TYPE {name} {metric.type}\n"
    for sample in metric.samples:
        series = (sample.name, *sample.labels.values())
        head = heads[series] = known.get(series) or _head(sample.name, sample.labels)
        yield f"{head} {floatToGoString(sample.value)}\n"  # type: ignore[no-untyped-call]


def _head(name: str, labels: Mapping[str, str]) -> str:
    pairs = [f'{label}="{_escape(value, quote=True)}"' for label, value in sorted(labels.items())]
    return f"{name}{{{','.join(pairs)}}}" if pairs else name


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text
