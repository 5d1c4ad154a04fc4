"""``demo --serve`` by the real command line: the page, the metrics and the database stay until Ctrl-C, and
nothing after it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

WHERE = re.compile(r"^Status page +(\S+)/$\s^Metrics +(\S+/metrics)$", re.MULTILINE)
READY = re.compile(r'^Serving until Ctrl-C: (\S+)/, (\S+/metrics), psql "(.+)"$', re.MULTILINE)


@pytest.mark.timeout(1200)  # a whole run, on a machine that may be busy
def test_what_was_shown_stays_up_until_ctrl_c(tmp_path: Path) -> None:
    """It says at once where to look, and there a runner's counters are seen; the demo over, page and metrics
    still say how it ended, at the same place; one Ctrl-C ends it all: no process, no server, no folder left.
    """
    command = [sys.executable, "-m", "online_migrate.cli", "demo", "--users", "20", "--serve"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}
    said = tmp_path / "said"
    with said.open("w") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_while_running(process, lambda: WHERE.search(said.read_text()) is not None)
        where = WHERE.search(said.read_text())
        assert where is not None, said.read_text()
        held = 'online_migrate_lease_held{plan="multi_tenant"} 1.0'
        wait_while_running(process, lambda: held in get(where[2]))
        assert process.poll() is None, said.read_text()
        assert json.loads(get(f"{where[1]}/status.json"))["plan"] == "multi_tenant"
        wait_while_running(process, lambda: READY.search(said.read_text()) is not None)
        found = READY.search(said.read_text())
        assert found is not None, said.read_text()
        url, metrics, dsn = found.groups()
        assert (url, metrics) == where.groups()
        wait_for(lambda: json.loads(get(f"{url}/status.json"))["state"] == "done", 60)
        assert "<title>online-migrate</title>" in get(f"{url}/")
        wait_for(
            lambda: 'online_migrate_stage_state{plan="multi_tenant",stage="finish"} 3.0' in get(metrics), 60
        )
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT state FROM online_migrate.run").fetchall() == [("done",)]
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, said.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in said.read_text()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn, connect_timeout=2)
    assert members(process.pid) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo-report.json", "said"]


@pytest.mark.timeout(600)
def test_a_demo_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM, as a service manager or `kill` sends it: no process, no server, no folder left."""
    command = [sys.executable, "-m", "online_migrate.cli", "demo", "--users", "20"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}
    said = tmp_path / "said"
    with said.open("w") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_while_running(process, lambda: "The application runs alone" in said.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) != 0, said.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in said.read_text()
    assert members(process.pid) == []
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def members(session: int) -> list[str]:
    """Processes of that session that still run, by Linux' /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it has just ended
            continue
        if rest.split()[3] == str(session):
            found.append(name)
    return found


def wait_while_running(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait for the condition, or for the end of the process; the test's timeout ends a process that hangs."""
    while process.poll() is None and not condition():
        time.sleep(0.1)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
