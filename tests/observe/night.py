"""A night: a real run that waits at its gate, is killed and goes on to its end, with a real exporter and a
real Prometheus.
"""

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from online_migrate.demo.shop import create_shop
from online_migrate.postgres.server import Server
from tests.backfill.throttlers.standby import Pair, start_pair
from tests.observe.grafana.dashboards import ALERTS, put_in
from tests.servers import SHOP_USERS

ROOT = Path(__file__).parent.parent.parent
GATE = 75
"""the exit code"""
SCRAPE_S = 1
SEEN_S = 2.2
"""so long that Prometheus sees it"""
RATE_INTERVAL = "4s"
"""what Grafana takes for $__rate_interval: four scrapes"""
SLOW_PACE = "pace: {batch_target: 10ms, duty: 50%, max_rows: 120}"
"""so that a shop of 400 users takes seconds, as a large one takes hours"""
TOKEN = "hush-1-token-of-the-bot"
LITERAL = "hush-2-of-a-customer"
"""neither may be seen anywhere"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A server that scrapes one runner."""

    url: str

    def query_range(self, expression: str, began: float, ended: float) -> list[dict[str, Any]]:
        """The series of an expression over the run, as Grafana asks for them."""
        facts = {"query": expression, "start": began, "end": ended, "step": SCRAPE_S}
        text = get(f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(facts)}")
        answer = json.loads(text)
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def query(self, expression: str, at: float) -> list[dict[str, Any]]:
        """The series of an expression at that time, as Grafana asks for a single figure."""
        facts = {"query": expression, "time": at}
        answer = json.loads(get(f"{self.url}/api/v1/query?{urllib.parse.urlencode(facts)}"))
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
    """A Prometheus that scrapes that port of this machine, with our alerts, which it
    evaluates every second.
    """
    config = folder / "prometheus.yml"
    rules = ALERTS.read_text(encoding="utf-8").replace("interval: 15s", f"interval: {SCRAPE_S}s")
    (folder / "alerts.yml").write_text(rules, encoding="utf-8")
    config.write_text(
        f"global: {{scrape_interval: {SCRAPE_S}s, scrape_timeout: {SCRAPE_S}s}}\n"
        "rule_files: [alerts.yml]\n"
        "scrape_configs: [{job_name: online-migrate, static_configs:"
        f" [{{targets: ['127.0.0.1:{target_port}']}}]}}]\n"
    )
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address={url.removeprefix('http://')}", "--log.level=warn"]  # fmt: skip
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
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
def running(dsn: str, folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The plan, at a gentle pace, in a process of its own that logs all it knows."""
    environ = {
        **os.environ,
        "ONLINE_MIGRATE_DSN": dsn,
        "MASTER_BOT_TOKEN": TOKEN,
        "XDG_STATE_HOME": str(folder),
    }
    command = [sys.executable, "-m", "online_migrate.cli", "run", str(gentle_plan(folder)), "--metrics-port", str(port),
               "--log-format", "json", "--log-level", "debug", *options]  # fmt: skip
    with (folder / "run.log").open("a") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, text=True)
        try:
            yield process
        except AssertionError:
            print((folder / "run.log").read_text()[-3_000:])  # pytest shows it
            raise
        finally:
            process.kill()
            process.wait()


def gentle_plan(folder: Path) -> Path:
    """The example plan, made slow."""
    plan = folder / "plans" / "multi_tenant.yaml"
    shutil.copytree(ROOT / "plans", plan.parent, dirs_exist_ok=True)
    lines = [
        SLOW_PACE.rjust(len(SLOW_PACE) + 4) if "pace:" in line else line
        for line in plan.read_text().splitlines()
    ]
    plan.write_text("\n".join(lines) + "\n")
    return plan


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A plan from its first step to its last, as Prometheus has seen it, by the moments at which an operator
    may look.
    """

    prometheus: Prometheus
    dsn: str
    folder: Path
    began: float
    at_gate: float
    """the runner has ended at its gate"""
    at_work: float
    """the next one waits for a lock"""
    killed: float
    """it was killed meanwhile"""
    ended: float
    """the last one completed the plan and has ended"""

    def put_in(self, expression: str) -> str:
        """The dashboard's variables, as Grafana puts them in."""
        values = {"plan": "multi_tenant", "stage": ".*", "table": ".*", "__rate_interval": RATE_INTERVAL,
                  "__range": f"{round(self.ended - self.began)}s", "server": "none", "database": "none"}  # fmt: skip
        return put_in(expression, values)

    def points(self, expression: str) -> list[float]:
        """Every value over the whole night, as Grafana draws it over time."""
        series = self.prometheus.query_range(self.put_in(expression), self.began, self.ended)
        return _numbers(value for one in series for _, value in one["values"])

    def points_at(self, moment: float, expression: str) -> list[float]:
        """The values that an operator sees at that moment."""
        return _numbers(one["value"][1] for one in self.prometheus.query(self.put_in(expression), moment))

    def firing(self, moment: float) -> set[str]:
        """The alerts that fire at that moment."""
        found = self.prometheus.query('ALERTS{alertstate="firing"}', moment)
        return {alert["metric"]["alertname"] for alert in found}

    @property
    def log(self) -> str:
        return (self.folder / "run.log").read_text(encoding="utf-8")


def _numbers(values: Iterable[str]) -> list[float]:
    return [number for number in map(float, values) if not math.isnan(number)]


@contextmanager
def lived_through(folder: Path) -> Iterator[Night]:
    """A transaction blocks a lock, another makes a concurrent build wait; the
    standby is away for a moment.
    """
    port = free_port()
    with scraping(folder, port) as prometheus, start_pair() as pair:
        dsn = filled_shop(pair.primary)
        wait_for(lambda: is_scraping(prometheus.url), 20)  # it takes up its targets 5 s after it is ready
        began = time.time()
        with running(dsn, folder, port) as process:
            go_to_the_gate(dsn, pair, port, process)
            assert process.wait(timeout=60) == GATE
        at_gate = after_a_look(prometheus, is_up=False)
        with (
            in_the_way(dsn, "SELECT count(*) FROM tickets"),
            running(dsn, folder, port, "--approve", "swap") as process,
        ):
            wait_for(shown(port, 'online_migrate_waits_open{kind="blocker",plan="multi_tenant"} 1.0'), 60)
            at_work = after_a_look(prometheus, is_up=True)
            process.kill()
            killed = after_a_look(prometheus, is_up=False)
        with running(dsn, folder, port) as process:
            assert process.wait(timeout=90) == 0
        yield Night(
            prometheus=prometheus, dsn=dsn, folder=folder, began=began,
            at_gate=at_gate, at_work=at_work, killed=killed, ended=after_a_look(prometheus, is_up=False),
        )  # fmt: skip


def after_a_look(prometheus: Prometheus, *, is_up: bool) -> float:
    """Now, after Prometheus has seen that the runner runs, or has ended, and has evaluated its rules."""
    wait_for(lambda: bool(prometheus.query(f"up == {is_up:d}", time.time())), 10)
    time.sleep(SEEN_S)
    return time.time()


def filled_shop(server: Server) -> str:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
    dsn = server.dsn_for("shop")
    create_shop(dsn, users=SHOP_USERS)
    return dsn


def go_to_the_gate(dsn: str, pair: Pair, port: int, process: subprocess.Popen[str]) -> None:
    """The blocker ends as soon as Prometheus has seen it."""

    def await_shown(sample: str) -> None:
        wait_for(lambda: shown(port, sample)() or process.poll() is not None, 90)
        assert process.poll() is None

    with in_the_way(dsn, f"SELECT count(*) FROM tickets WHERE '{LITERAL}' <> ''"):
        await_shown('online_migrate_waits_open{kind="blocker",plan="multi_tenant"} 1.0')
        time.sleep(SEEN_S)
    await_shown('online_migrate_throttler_reading_age_seconds{plan="multi_tenant",throttler="standby_lag"}')
    pair.cut()
    await_shown('online_migrate_waits_open{kind="standby_lag",plan="multi_tenant"} 1.0')
    time.sleep(SEEN_S)
    pair.bring_back()
    await_shown('online_migrate_stage_state{plan="multi_tenant",stage="indexes"} 2.0')
    with in_the_way(dsn, f"SELECT count(*) FROM system_settings WHERE '{LITERAL}' <> ''"):
        await_shown("online_migrate_long_statement_phase_info{")
        time.sleep(SEEN_S)
