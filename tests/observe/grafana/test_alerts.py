"""The alerts: each says how bad, what, and what to do; each is shown to fire and not to fire."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from ruamel.yaml import YAML

from online_migrate.observe.prometheus.sink import MetricsSink
from tests.observe.grafana.dashboards import ALERTS, alerts, metrics_of, sides

RUNBOOK = ALERTS.parent.parent / "docs" / "runbook.md"
TESTS = ALERTS.with_name("alerts_test.yml")
NO_ALERT = {
    "blockers": "panels and other entries lead to it",
    "workers": "pictures of several tables at once, which other entries lead to",
}
"""entries of the runbook that no alert has, each with its reason"""
SEVERITIES = {"critical", "warning", "info"}


def slug(alert: str) -> str:
    """``OnlineMigrateHeldForLong`` → ``held-for-long``."""
    name = alert.removeprefix("OnlineMigrate")
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_what_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """Who is woken knows in one line whether to get up."""
    assert rule["alert"].startswith("OnlineMigrate")
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"]["summary"].startswith("{{ $labels.plan }}: ")
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{slug(rule['alert'])}"


def test_alerts_and_runbook_know_each_other() -> None:
    """No alert without an entry, no entry of an alert that was removed, and no broken link."""
    text = RUNBOOK.read_text(encoding="utf-8")
    entries = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    assert sorted(entries) == sorted([*(slug(rule["alert"]) for rule in alerts()), *NO_ALERT])
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= set(entries)
    assert all(f"| {severity} |" in text for severity in SEVERITIES)


def test_alerts_ask_for_metrics_that_exist() -> None:
    """An alert on a metric that was renamed never fires, unnoticed."""
    known = {
        sample
        for metric in MetricsSink(plan="shop").registry.collect()
        for sample in (metric.name, f"{metric.name}_total")
    }
    for rule in alerts():
        assert metrics_of(rule["expr"]) <= known, rule["alert"]


def test_every_alert_is_tested_both_ways() -> None:
    """An alert that always fires is switched off; one that never fires is worse."""
    cases = [
        case
        for test in YAML(typ="safe").load(TESTS.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]
    for rule in alerts():
        outcomes = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]}
        assert outcomes == {True, False}, rule["alert"]


@pytest.mark.prometheus
@pytest.mark.parametrize(
    "what", [("check", "rules", ALERTS), ("test", "rules", TESTS)], ids=lambda what: what[0]
)
def test_promtool_agrees(what: tuple[object, ...]) -> None:
    """Rules are well-formed, fire where the tests say so, and keep silent where they say so."""
    command = ["promtool", *map(str, what)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ALERTS.parent)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("a > 1", ["a"]),
        (('time() - a{x="y"} > 600\nand on (plan) b == 2\nunless on (plan) sum by (plan) (c) >'
            ' 0'), ['time() - a{x="y"}', "b", "sum by (plan) (c)"]),
        ("max(a) == 1 and on (plan) (\n b > c\n)", ["max(a)", "b", "c"]),
        ("a / on (plan) b > 0.8\nor\nc > on (plan) group_left () d", ["a / on (plan) b", "c", "d"]),
        ("border > 1", ["border"]),
    ],
)  # fmt: skip
def test_an_expression_comes_apart_at_its_comparisons(expression: str, parts: list[str]) -> None:
    """The test against a real Prometheus asks each side alone: an alert that is silent for want of data would
    pass else.
    """
    assert sides(expression) == parts
