"""The dashboard: made from its source, complete, and asking for what there is."""

from __future__ import annotations

import subprocess
from itertools import combinations

import pytest
from ruamel.yaml import YAML

from grafana.dashboard import FILE, to_text
from online_migrate.observe.metrics import MetricsSink
from tests.observe.dashboards import Panel, committed, expressions, metrics_of, panels, put_in

ROOT = FILE.parent.parent
EXCUSED: dict[str, str] = {}
"""metrics that no panel shows, each with its reason"""


def declared() -> dict[str, str]:
    """Every metric of the code, with its type."""
    return {metric.name: metric.type for metric in MetricsSink(plan="shop").registry.collect()}


def base_name(name: str) -> str:
    """The metric that a series belongs to."""
    for suffix, kind in (
        ("_total", "counter"),
        ("_bucket", "histogram"),
        ("_sum", "histogram"),
        ("_count", "histogram"),
    ):
        base = name.removesuffix(suffix)
        if base != name and declared().get(base) == kind:
            return base
    return name


def test_the_committed_json_is_what_its_source_makes() -> None:
    """Nobody edits the JSON by hand, and nobody forgets to write it."""
    assert FILE.read_text(encoding="utf-8") == to_text(), "write it: python -m grafana.dashboard"


def test_every_metric_is_shown_and_every_metric_that_is_shown_exists() -> None:
    """A figure that is exported and shown nowhere helps nobody; a panel without its metric is empty at night."""
    shown = {base_name(name) for _, expression in expressions() for name in metrics_of(expression)}
    assert shown <= declared().keys()
    assert declared().keys() - shown == EXCUSED.keys()


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_says_what_it_is(panel: Panel) -> None:
    """A description, a unit and the chosen data source: without them a figure is a guess."""
    assert panel["description"].endswith((".", "?", "them"))
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
    assert panel["targets"]
    for holder in (panel, *panel["targets"]):
        assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["title"] == panel["title"].strip()


def test_ids_and_titles_are_unique() -> None:
    """Links to a panel lead to one panel."""
    shown = committed()["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    assert len({panel["title"] for panel in shown}) == len(shown)
    assert len({panel["targets"][0]["refId"] for panel in panels()}) == 1


def test_panels_lie_on_the_grid_side_by_side() -> None:
    """No panel covers another or sticks out; rows stand above their panels."""
    boxes = [panel["gridPos"] for panel in committed()["panels"]]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for a, b in combinations(boxes, 2):
        is_beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        is_above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert is_beside or is_above, (a, b)
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)


def test_variables_are_declared_before_they_are_used() -> None:
    """Data source, plan, stage and table can be chosen, and no expression has another variable."""
    names = [variable["name"] for variable in committed()["templating"]["list"]]
    assert names == ["datasource", "plan", "stage", "table"]
    values = dict.fromkeys([*names, "__rate_interval"], "x")
    for _, expression in expressions():
        put_in(expression, values)


@pytest.mark.prometheus
def test_the_example_configuration_of_prometheus_is_valid() -> None:
    """What the README says to start from, starts."""
    command = ["promtool", "check", "config", str(ROOT / "prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "provisioning").rglob("*.yaml")), ids=lambda path: path.name)
def test_provisioning_names_no_machine(path: object) -> None:
    """The files work on any machine: what differs is in Grafana's environment."""
    text = (ROOT / "provisioning" / str(path)).read_text(encoding="utf-8")
    content = YAML(typ="safe").load(text)
    assert content["apiVersion"] == 1
    assert "$" in text
