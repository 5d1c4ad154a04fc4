"""The metrics reference: names, types, labels and help texts, from the definitions themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from docs.generate.markdown import first_paragraph, sentence, table
from online_migrate.observe.prometheus import definitions
from online_migrate.observe.prometheus.series import PREFIX, Maker, Registry

_GROUPS: Final[list[Callable[[Maker], object]]] = [
    found
    for name, found in inspect.getmembers(definitions, inspect.isclass)
    if name.endswith("Metrics") and found.__module__ == definitions.__name__
]


class _Recorder(Maker):
    """A maker that also notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__("plan", Registry())
        self.rows: list[tuple[str, str, str, str]] = []

    def gauge(self, name: str, documentation: str, labels: tuple[str, ...]) -> Any:
        self._note(name, "gauge", documentation, labels)
        return super().gauge(name, documentation, labels)

    def counter(self, name: str, documentation: str, labels: tuple[str, ...]) -> Any:
        self._note(f"{name}_total", "counter", documentation, labels)
        return super().counter(name, documentation, labels)

    def histogram(
        self, name: str, documentation: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Any:
        self._note(name, "histogram", documentation, labels)
        return super().histogram(name, documentation, labels, buckets)

    def _note(self, name: str, kind: str, documentation: str, labels: tuple[str, ...]) -> None:
        shown = ", ".join(f"`{label}`" for label in labels)
        self.rows.append((f"`{PREFIX}{name}`", kind, shown, sentence(documentation)))


def all_metrics(page: str) -> str:  # noqa: ARG001  # every maker is given its page
    """A table for each group of metrics, in the order of the source."""
    sections = []
    for group in sorted(_GROUPS, key=lambda g: inspect.getsourcelines(g)[1]):
        maker = _Recorder()
        group(maker)
        rows = table(("metric", "type", "labels", "meaning"), maker.rows)
        title = group.__name__.removesuffix("Metrics")
        sections.append(f"### {title}\n\n{sentence(first_paragraph(group.__doc__))}\n\n{rows}")
    return "\n\n".join(sections)
