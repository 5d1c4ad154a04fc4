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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from online_migrate.demo.shop import create_shop
from online_migrate.observe.metrics import STATES
from online_migrate.postgres.server import Server
from tests.backfill.throttlers.standby import start_pair
from tests.observe.dashboards import ALERTS, alerts, expressions, marks, put_in, sides
from tests.observe.test_dashboard import OTHERS
from tests.servers import SHOP_USERS

pytestmark = pytest.mark.prometheus
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

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        text = get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        result: list[dict[str, Any]] = json.loads(text)["data"]["result"]
        return result

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        found = json.loads(get(f"{self.url}/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}


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
    """A Prometheus that scrapes that port of this machine, with our alerts, which it looks at every second."""
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
    """The plan, at a gentle pace, up to its gate, in a process of its own that logs all it knows."""
    environ = {**os.environ, "ONLINE_MIGRATE_DSN": dsn, "MASTER_BOT_TOKEN": TOKEN}
    command = [sys.executable, "-m", "online_migrate.cli", "run", str(gentle_plan(folder)), "--metrics-port", str(port),
               "--log-format", "json", "--log-level", "debug", *options]  # fmt: skip
    with (folder / "run.log").open("a") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, text=True)
        try:
            yield process
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


def points(series: list[dict[str, Any]]) -> list[float]:
    """Every value that is one."""
    values = [float(value) for one in series for _, value in one["values"]]
    return [value for value in values if not math.isnan(value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A run up to its gate that Prometheus has seen, with what happens in one."""

    prometheus: Prometheus
    port: int
    """where the runner's exporter was"""
    dsn: str
    folder: Path
    began: float
    ended: float

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Over the whole night, variables put in."""
        values = {"plan": "multi_tenant", "stage": ".*", "table": ".*", "__rate_interval": RATE_INTERVAL,
                  "__range": f"{round(self.ended - self.began)}s"}  # fmt: skip
        return self.prometheus.query_range(put_in(expression, values), self.began, self.ended)

    def without_a_point(self, expressions: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those that have nothing to show."""
        return [(name, expression) for name, expression in expressions if not points(self.query(expression))]

    @property
    def log(self) -> str:
        return (self.folder / "run.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """A transaction stands in the way of a lock, another makes a concurrent build wait; a standby streams."""
    folder = tmp_path_factory.mktemp("night")
    port = free_port()
    with scraping(folder, port) as prometheus, start_pair() as pair:
        dsn = filled_shop(pair.primary)
        wait_for(lambda: is_scraping(prometheus.url), 20)  # it takes up its targets 5 s after it is ready
        began = time.time()
        with running(dsn, folder, port) as process:
            live_through(dsn, port, process)
            assert process.wait(timeout=60) == GATE, (folder / "run.log").read_text()[-3_000:]
        time.sleep(SEEN_S)
        yield Night(prometheus=prometheus, port=port, dsn=dsn, folder=folder, began=began, ended=time.time())


def filled_shop(server: Server) -> str:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
    dsn = server.dsn_for("shop")
    create_shop(dsn, users=SHOP_USERS)
    return dsn


def live_through(dsn: str, port: int, process: subprocess.Popen[str]) -> None:
    """What is in the way goes as soon as Prometheus has seen it."""

    def seen(sample: str) -> None:
        wait_for(lambda: shown(port, sample)() or process.poll() is not None, 60)
        time.sleep(SEEN_S)

    with in_the_way(dsn, f"SELECT count(*) FROM tickets WHERE '{LITERAL}' <> ''"):
        seen('online_migrate_waiting{kind="blocker",plan="multi_tenant"} 1.0')
    wait_for(shown(port, 'online_migrate_stage_state{plan="multi_tenant",stage="indexes"} 2.0'), 90)
    with in_the_way(dsn, f"SELECT count(*) FROM system_settings WHERE '{LITERAL}' <> ''"):
        seen("online_migrate_long_statement_phase_info{")


@pytest.mark.timeout(180)
def test_every_panel_of_a_real_run_has_a_point(night: Night) -> None:
    """What an operator opens at night is not empty; only what postgres_exporter has is excused, by its names."""
    ours = [(title, expr) for title, expr in expressions() if not any(name in expr for name in OTHERS)]
    assert len(ours) > 60
    assert night.without_a_point(ours) == []


@pytest.mark.timeout(180)
def test_every_annotation_of_a_real_run_marks_something(night: Night) -> None:
    """Stages, the gate, the pause and the lock windows of this run are marked."""
    assert night.without_a_point(marks()) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_of_a_real_run_has_data_on_all_its_sides(night: Night, rule: dict[str, Any]) -> None:
    """An alert that is silent because its metric is not there would look like one that has nothing to say."""
    assert night.without_a_point((rule["alert"], side) for side in sides(rule["expr"])) == []


@pytest.mark.timeout(180)
def test_the_gate_is_told_after_the_runner_has_gone(night: Night) -> None:
    """The runner that came to the gate is gone; the last scrape was waited for, so its alert fires, and no other."""
    wait_for(lambda: night.prometheus.firing() == {"OnlineMigrateGateWaiting"}, 10)


@pytest.mark.timeout(180)
def test_no_secret_and_no_literal_is_seen(night: Night) -> None:
    """Not in the logs at their most talkative, not in the journal, not in a label: neither ours nor a customer's."""
    (written,) = night.folder.glob("*.secret")
    with psycopg.connect(night.dsn) as connection:
        history = str(connection.execute("SELECT event, fields::text FROM online_migrate.history").fetchall())
    labels = get(f"{night.prometheus.url}/api/v1/series?match[]={{job='online-migrate'}}".replace("'", "%22"))
    places = {"log": night.log, "journal": history, "labels": labels}
    assert all("blockers_seen" in text or "blocker_info" in text for text in places.values())
    for place, text in places.items():
        for secret in (TOKEN, LITERAL, written.read_text(encoding="utf-8").strip()):
            assert secret not in text, place


@pytest.mark.timeout(180)
def test_the_figures_are_true(night: Night) -> None:
    """Some figures against what was really done."""

    def largest(expression: str) -> float:
        return max(points(night.query(expression)))

    with psycopg.connect(night.dsn) as connection:
        row = connection.execute(
            "SELECT count(*), sum(rows_done) FILTER (WHERE stage = 'backfill') FROM online_migrate.step WHERE state = 'done'"
        ).fetchone()
    assert row == (
        largest("online_migrate_run_steps_done"),
        largest("sum(online_migrate_backfill_rows_total)"),
    )
    assert largest('online_migrate_waiting{kind="blocker"}') == 1
    assert largest("max(online_migrate_blockers)") >= 1
    assert largest("max(online_migrate_backfill_done_ratio)") == 1
    assert largest("time() - online_migrate_heartbeat_time_seconds") < 15
    assert largest("online_migrate_connections") <= 6
    assert largest('online_migrate_stage_state{stage="swap"}') == STATES["waiting"]
    assert largest("online_migrate_run_exit_code") == GATE
    assert largest("online_migrate_server_wal_bytes_total") > 100_000


@pytest.mark.timeout(180)
def test_a_runner_that_was_killed_is_told_from_one_that_ended(night: Night) -> None:
    """SIGKILL in the middle of a step: the alert's expression comes true, which an orderly end at the gate did not make it."""
    gone = next(rule["expr"] for rule in alerts() if rule["alert"] == "OnlineMigrateRunnerGone")
    assert night.prometheus.query(gone) == []
    with (
        in_the_way(night.dsn, "SELECT count(*) FROM tickets"),
        running(night.dsn, night.folder, night.port, "--approve", "swap") as process,
    ):
        wait_for(shown(night.port, 'online_migrate_waiting{kind="blocker",plan="multi_tenant"} 1.0'), 60)
        time.sleep(SEEN_S)
        assert night.prometheus.firing() == set()  # the gate was passed
        process.kill()
        wait_for(lambda: bool(night.prometheus.query(gone)), 20)
