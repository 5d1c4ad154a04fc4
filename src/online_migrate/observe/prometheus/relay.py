"""One ``/metrics`` for a plan whose runners start and end: a runner's own metrics, or the journal's."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final

from online_migrate.observe.prometheus.exposition import metrics_route
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.observe.web import Page

WAIT_S: Final = 2.0
"""for a runner's answer"""
_DIRECTLY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""the runner is on this machine, whatever http_proxy says"""


class MetricsRelay:
    """Answers ``/metrics`` with the metrics of the runner that :meth:`follow` named last.

    Between two runners, and after the last one, it answers with what the journal knows: states, steps and
    rows, but no counter of a process that has ended.
    """

    def __init__(self, plan: str) -> None:
        self._metrics = MetricsSink(plan=plan)
        self._own = metrics_route(self._metrics.registry)
        self._runner: str | None = None

    def follow(self, url: str) -> None:
        """A runner serves its metrics at ``url`` now, on this machine."""
        self._runner = url

    def update(self, snapshot: Snapshot) -> None:
        """Take in a newer snapshot."""
        self._metrics.update(snapshot)

    def answer(self, headers: Mapping[str, str]) -> Page:
        """The route of ``/metrics``."""
        accept = headers.get("accept", "*/*")
        if self._runner is not None:
            request = urllib.request.Request(self._runner, headers={"Accept": accept})  # noqa: S310  # our own
            try:
                with _DIRECTLY.open(request, timeout=WAIT_S) as answer:
                    return Page(content_type=answer.headers["Content-Type"], body=answer.read())
            except (OSError, HTTPException) as error:  # if it is only busy, it may answer the next scrape
                if isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                    self._runner = None  # it has ended, or was killed; the next runner says where it is
        return self._own(headers)
