"""The operator of the demo listens to its runners."""

from __future__ import annotations

from pathlib import Path

from online_migrate.demo.operate import Operator

SAID = b"status page: http://127.0.0.1:%d/\nmetrics: http://127.0.0.1:%d/metrics\n"


def test_each_runner_is_asked_where_its_own_metrics_are(tmp_path: Path) -> None:
    """A runner that was killed leaves its address in the log: the next one's counts, once it has said so."""
    heard: list[str] = []
    operator = Operator(dsn="", plan=tmp_path, folder=tmp_path, secrets={}, on_metrics=heard.append)
    operator.log.write_bytes(SAID % (1, 1))
    begin = operator.log.stat().st_size
    assert not operator._report_metrics(begin)
    with operator.log.open("ab") as log:
        log.write(SAID % (2, 2) + b"metrics: up for the next scrape, at most 20 s more\n")
    assert operator._report_metrics(begin)
    assert heard == ["http://127.0.0.1:2/metrics"]
