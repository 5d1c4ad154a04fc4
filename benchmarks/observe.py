"""The cost of watching: CPU seconds of exporter and page, as a share of the runner's.

The example plan runs through its backfill on a filled shop, in this process, with ``--metrics-port``.
Another process scrapes ``/metrics`` every 15 s, first after half of that, as Prometheus does; in the second
round it also asks for ``/status.json`` every 2 s, as an open page does.  ``time.thread_time()`` counts the
reading of snapshots and of the server, every request, and what the exporter does at each event, the counting
itself included; the runner's part is the rest of the process without its start.

``--exposition`` compares our text of ``/metrics`` with prometheus-client's instead: CPU seconds per scrape,
with the series of the example plan's 37 tables and of 300.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from prometheus_client.exposition import choose_encoder

from online_migrate import events as e
from online_migrate.cli.common import read_plan
from online_migrate.cli.run import ProcessOptions, run_plan
from online_migrate.demo.shop import create_shop
from online_migrate.demo.show import find_plan
from online_migrate.engine.runner import Options
from online_migrate.observe import watch, web
from online_migrate.observe.prometheus import sink as metrics
from online_migrate.observe.prometheus.exposition import OPEN, TEXT, Exposition
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.postgres.server import start_server

SCRAPE_S, POLL_S = 15, 2
"""as prometheus.yml and page.js have it"""
TARGET = 0.02

_CLIENT = """
import sys, time, urllib.request
url, scrape_s, poll_s = sys.argv[1], *map(float, sys.argv[2:])
etag = ""
# Prometheus' own
accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
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


def fill(tables: int) -> MetricsSink:
    """A sink with the series that so many tables make."""
    sink = MetricsSink(plan="multi_tenant")
    for stage, table in itertools.product(range(9), range(tables)):
        place: Any = {"stage": f"stage{stage}", "step": f"step{stage} bot_id", "table": f"orders_of_{table}"}
        sink.emit(e.StageStarted(stage=place["stage"], phase="expand"))
        sink.emit(e.StepStarted(**place, resumed=False))
        if stage < 5:
            lock = {"relation": place["table"], "lock": "ACCESS EXCLUSIVE", "attempts": 1}
            sink.emit(e.LockHeld(**place, **lock, waited_s=0.01, held_s=0.01))
        if stage == 5:
            facts: Any = {"rows": 500, "pages": 10, "seconds": 0.05, "pause_s": 0.05, "rows_done": 500}
            sink.emit(e.BatchDone(**place, **facts, share_done=0.1, eta_s=60.0))
    return sink


def seconds_per_scrape(write: Callable[[], object], rounds: int = 15) -> float:
    """The median of the CPU seconds that ``write`` takes."""
    seconds = []
    for _ in range(rounds):
        began = time.thread_time()
        write()
        seconds.append(time.thread_time() - began)
    return statistics.median(seconds)


def compare_expositions() -> None:
    """Print a line for each number of tables and each format."""
    for tables, accept in itertools.product((37, 300), (TEXT, OPEN)):
        registry = fill(tables).registry
        ours, (theirs, _) = Exposition(registry), choose_encoder(accept)
        ours.write(accept)
        series = sum(len(metric.samples) for metric in registry.collect())
        own_s = seconds_per_scrape(lambda ours=ours, accept=accept: ours.write(accept))  # type: ignore[misc]
        client_s = seconds_per_scrape(lambda theirs=theirs, registry=registry: theirs(registry))  # type: ignore[misc]
        print(
            f"{tables:3} tables, {series:5} series, {accept.partition(';')[0]:28}: ours {own_s * 1e3:5.1f}"
            " ms,"
            f" prometheus-client {client_s * 1e3:5.1f} ms, ratio {client_s / own_s:.1f}"
        )


METER = Meter()


def main() -> None:
    """Print one line per round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--users", type=int, default=50_000, help="size of the shop: 50,000 are 1,000,000 rows"
    )
    parser.add_argument("--exposition", action="store_true", help="compare the text of /metrics only")
    options = parser.parse_args()
    if options.exposition:
        compare_expositions()
        return
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
