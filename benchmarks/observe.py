"""What watching costs: CPU seconds of exporter and page, by those of the runner that they watch.

The example plan is carried out through its backfill on a filled shop, in this process, with ``--metrics-port``.  A process of
its own scrapes ``/metrics`` every 15 s, first after half of that, as Prometheus does, and in the second round also asks for
``/status.json`` every 2 s, as an open page does.  Counted with ``time.thread_time()`` around the reading of snapshots and of
the server, around every request, and around what the exporter notes of each event, the counting itself included; the
runner is the process without these and without its start.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from online_migrate.cli.common import read_plan
from online_migrate.cli.run import ProcessOptions, run_plan
from online_migrate.demo.shop import create_shop
from online_migrate.demo.show import find_plan
from online_migrate.engine.runner import Options
from online_migrate.observe import watch, web
from online_migrate.observe.prometheus import sink as metrics
from online_migrate.postgres.server import start_server

SCRAPE_S, POLL_S = 15, 2
"""as prometheus.yml and page.js have it"""
TARGET = 0.02

_CLIENT = """
import sys, time, urllib.request
url, scrape_s, poll_s = sys.argv[1], *map(float, sys.argv[2:])
etag = ""
accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"  # Prometheus'
def ask(path):
    global etag
    headers = {"If-None-Match": etag, "Accept-Encoding": "gzip", "Accept": accept}
    request = urllib.request.Request(url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()
            etag = answer.headers.get("ETag") or etag
            return True
    except OSError:
        return False
while not ask("/healthz"):
    time.sleep(0.05)
began = time.monotonic()
due = {"/metrics": (scrape_s, began + scrape_s / 2)} | ({"/status.json": (poll_s, began)} if poll_s else {})
while True:
    path, (every, at) = min(due.items(), key=lambda one: one[1][1])
    time.sleep(max(0, at - time.monotonic()))
    ask(path)
    due[path] = (every, at + every)
"""


@dataclass(slots=True)
class Meter:
    """CPU seconds by what they were spent on."""

    readings: float = 0.0
    requests: float = 0.0
    events: float = 0.0

    def wrap(self, owner: Any, name: str, kind: str) -> None:
        """Count what calls of that method take."""
        inner: Callable[..., Any] = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return inner(*given, **named)
            finally:
                setattr(self, kind, getattr(self, kind) + time.thread_time() - began)

        setattr(owner, name, counted)

    @property
    def watching(self) -> float:
        return self.readings + self.requests + self.events


def measure(dsn: str, port: int, *, polls: bool) -> tuple[float, float, Meter]:
    """Seconds, CPU seconds of the runner, and what watching it took."""
    meter = METER
    meter.readings = meter.requests = meter.events = 0.0
    how = (str(SCRAPE_S), str(POLL_S if polls else 0))
    client = subprocess.Popen([sys.executable, "-c", _CLIENT, f"http://127.0.0.1:{port}", *how])
    began, cpu = time.monotonic(), time.process_time()
    try:
        wiring = ProcessOptions(metrics_address=("127.0.0.1", port), log_level="warning")
        run_plan(read_plan(find_plan(None)), dsn, Options(through="backfill"), wiring)
    finally:
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        client.kill()
        client.wait()
    return seconds, cpu - meter.watching, meter


METER = Meter()


def main() -> None:
    """Print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--users", type=int, default=50_000, help="size of the shop: 50,000 are 1,000,000 rows"
    )
    options = parser.parse_args()
    METER.wrap(watch.SnapshotWatch, "_read_once", "readings")
    METER.wrap(web._Handler, "_answer", "requests")  # noqa: SLF001  # where every request is answered
    METER.wrap(metrics.MetricsSink, "emit", "events")
    os.environ.setdefault("MASTER_BOT_TOKEN", "1:made-up")
    with start_server() as server, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
            create_shop(server.dsn_for("shop"), users=options.users)
            for round_ in ("a", "b"):
                connection.execute(f"CREATE DATABASE {round_} TEMPLATE shop".encode())
        for name, polls, title in (("a", False, "scraped every 15 s"), ("b", True, "and a page open")):
            seconds, runner, meter = measure(server.dsn_for(name), 9_187, polls=polls)
            print(
                f"{title:<20} {seconds:6.1f} s; CPU: runner {runner:.2f} s, watching {meter.watching:.3f} s"
                f" (readings {meter.readings:.3f}, requests {meter.requests:.3f}, events {meter.events:.3f}):"
                f" {meter.watching / runner:.1%}, target {TARGET:.0%}"
            )


if __name__ == "__main__":
    main()
