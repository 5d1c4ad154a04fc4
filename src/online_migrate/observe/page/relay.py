"""One address for a plan whose runners come and go: the page from the journal, metrics from the runner that is there."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final

from online_migrate.observe.page.serve import StatusPage
from online_migrate.observe.prometheus.exposition import Exposition
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.observe.web import LOOPBACK, MetricsServer, Page, metrics_page

WAIT_S: Final = 2.0
"""for a runner's answer"""
_DIRECTLY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""the runner is on this machine, whatever http_proxy says"""


class Relay:
    """Serves the status page, and at ``/metrics`` what the runner's own exporter says.

    Between runners, and after the last of them, ``/metrics`` has what the journal knows: states, steps and rows, but no
    counter of a process that is gone.
    """

    def __init__(self, plan: str, *, host: str = LOOPBACK, port: int = 0) -> None:
        self._page = StatusPage(plan)
        self._metrics = MetricsSink(plan=plan)
        self._exposition = Exposition(self._metrics.registry)
        self._runner: str | None = None
        routes = {**self._page.routes, "/metrics": self._relay}
        self._server = MetricsServer(self._metrics.registry, host=host, port=port, routes=routes)

    def start(self) -> str:
        """Listen; the address.  Raises :class:`~online_migrate.errors.UsageError` where it cannot be had."""
        return self._server.start()

    def stop(self) -> None:
        """Stop listening; safe to call twice."""
        self._server.stop()

    def follow(self, url: str) -> None:
        """A runner serves its metrics there now; ``url`` is one of this machine's."""
        self._runner = url

    def update(self, snapshot: Snapshot) -> None:
        """Take in a newer snapshot."""
        self._page.update(snapshot)
        self._metrics.update(snapshot)

    def _relay(self, headers: Mapping[str, str]) -> Page:
        accept = headers.get("accept", "*/*")
        if self._runner is not None:
            request = urllib.request.Request(self._runner, headers={"Accept": accept})  # noqa: S310  # our own runner's
            try:
                with _DIRECTLY.open(request, timeout=WAIT_S) as answer:
                    return Page(content_type=answer.headers["Content-Type"], body=answer.read())
            except (OSError, HTTPException) as error:  # busy, it may answer the next scrape
                if isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                    self._runner = None  # it has ended, or was killed; the next one says where it is
        return metrics_page(self._exposition, headers)
