"""A real run, a real exporter, a real Prometheus: every panel has something to show."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.observe.dashboards import expressions, put_in

pytestmark = pytest.mark.prometheus
ROOT = Path(__file__).parent.parent.parent
SCRAPE_S = 0.25
SEEN_S = 1.0
"""so long that Prometheus sees it"""
RATE_INTERVAL = "2s"
"""what Grafana takes for $__rate_interval: at least four scrapes"""
SLOW_PACE = "pace: {batch_target: 10ms, duty: 25%, max_rows: 100}"
"""so that a shop of 400 users takes seconds, as a large one takes hours"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A server that scrapes one runner."""

    url: str

    def query_range(self, expression: str, began: float, ended: float) -> list[dict[str, Any]]:
        """The series of an expression over the run, as Grafana asks for them."""
        facts = {"query": expression, "start": began, "end": ended, "step": 0.5}
        text = get(f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(facts)}")
        answer = json.loads(text)
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def scraping(folder: Path, target_port: int) -> Iterator[Prometheus]:
    """A Prometheus that scrapes that port of this machine."""
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {int(SCRAPE_S * 1000)}ms, scrape_timeout: {int(SCRAPE_S * 1000)}ms}}\n"
        "scrape_configs: [{job_name: online-migrate, static_configs:"
        f" [{{targets: ['127.0.0.1:{target_port}']}}]}}]\n"
    )
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address={url.removeprefix('http://')}", "--log.level=warn"]  # fmt: skip
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(lambda: is_scraping(url), 20)  # Prometheus takes up its targets 5 s after it is ready
            yield Prometheus(url=url)
        finally:
            process.terminate()


def is_scraping(url: str) -> bool:
    try:
        targets = json.loads(get(f"{url}/api/v1/targets?state=active"))["data"]["activeTargets"]
    except OSError:
        return False
    return any(target["lastScrapeDuration"] for target in targets)


@contextmanager
def running(dsn: str, folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """The plan, at a gentle pace, through its indexes, in a process of its own."""
    shutil.copytree(ROOT / "plans", folder / "plans")
    plan = folder / "plans" / "multi_tenant.yaml"
    lines = [
        SLOW_PACE.rjust(len(SLOW_PACE) + 4) if "pace:" in line else line
        for line in plan.read_text().splitlines()
    ]
    plan.write_text("\n".join(lines) + "\n")
    environ = {**os.environ, "ONLINE_MIGRATE_DSN": dsn, "MASTER_BOT_TOKEN": "not a token"}
    command = [sys.executable, "-m", "online_migrate.cli", "run", str(plan), "--through", "indexes",
               "--metrics-port", str(port)]  # fmt: skip
    with (folder / "run.log").open("w") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def in_the_way(dsn: str, statement: str) -> Iterator[None]:
    """A session of the application that did something and has not committed."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(statement.encode())
        yield


def shown(port: int, sample: str) -> Callable[[], bool]:
    """Whether the runner's own exporter shows that."""

    def look() -> bool:
        try:
            return sample in get(f"http://127.0.0.1:{port}/metrics")
        except OSError:
            return False

    return look


def points(series: list[dict[str, Any]]) -> list[float]:
    """Every value that is one."""
    values = [float(value) for one in series for _, value in one["values"]]
    return [value for value in values if not math.isnan(value)]


@pytest.mark.timeout(180)
def test_every_panel_of_a_real_run_has_a_point(shop: str, tmp_path: Path) -> None:
    """What an operator opens at night is not empty: each expression gives a point, over one run with what happens in one.

    A transaction stands in the way of a lock, another makes a concurrent build wait.
    """
    port = free_port()
    began = time.time()
    with scraping(tmp_path, port) as prometheus, running(shop, tmp_path, port) as process:
        with in_the_way(shop, "SELECT count(*) FROM tickets"):
            wait_for(shown(port, 'online_migrate_waiting{kind="blocker",plan="multi_tenant"} 1.0'), 60)
            time.sleep(SEEN_S)
        wait_for(shown(port, 'online_migrate_stage_state{plan="multi_tenant",stage="indexes"} 2.0'), 60)
        with in_the_way(shop, "SELECT count(*) FROM system_settings"):
            wait_for(shown(port, "online_migrate_long_statement_seconds{"), 10)
            time.sleep(SEEN_S)
        assert process.wait(timeout=60) == 0, log_of(tmp_path)
        values = {"plan": "multi_tenant", "stage": ".*", "table": ".*", "__rate_interval": RATE_INTERVAL}
        empty = [
            (title, expression)
            for title, expression in expressions()
            if not points(prometheus.query_range(put_in(expression, values), began, time.time()))
        ]
        assert empty == [], log_of(tmp_path)
        assert_it_tells_the_truth(prometheus, shop, began)


def assert_it_tells_the_truth(prometheus: Prometheus, dsn: str, began: float) -> None:
    """Some figures against what was really done."""

    def largest(expression: str) -> float:
        return max(points(prometheus.query_range(expression, began, time.time())))

    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*) FILTER (WHERE stage <> 'indexes'), count(*) FROM online_migrate.step WHERE state = 'done'"
        row = connection.execute(query).fetchone()
    assert row is not None
    assert (
        row[0] <= largest("online_migrate_run_steps_done") <= row[1]
    )  # the last scrape comes before the end
    assert largest('online_migrate_waiting{kind="blocker"}') == 1
    assert largest("max(online_migrate_blockers)") >= 1
    assert largest("sum(rate(online_migrate_backfill_rows_total[2s]))") > 100
    assert largest("max(online_migrate_backfill_done_ratio)") == 1
    assert largest("time() - online_migrate_heartbeat_time_seconds") < 15


def log_of(folder: Path) -> str:
    return (folder / "run.log").read_text()[-3_000:]
