"""The dashboards: made from their source, complete, and asking for what there is."""

from __future__ import annotations

import re
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from grafana import runbook
from grafana.dashboard import FOLDER, PAGES, to_text
from grafana.queries import last
from online_migrate.observe.prometheus.sink import MetricsSink, metric_names
from tests.observe.grafana.dashboards import (
    Panel,
    alerts,
    committed,
    expressions,
    marks,
    metrics_of,
    panels,
    put_in,
)

ROOT = FOLDER.parent
ALL_PANELS = [(uid, panel) for uid in PAGES for panel in panels(uid)]
EXCUSED = {
    "online_migrate_process_virtual_memory_bytes": "resident memory is what counts; this one comes with it",
    "online_migrate_process_start_time_seconds": "run_start_time_seconds says it with the plan",
    "online_migrate_process_open_fds": "a runner has few; for whoever looks for a leak",
    "online_migrate_process_max_fds": "a runner has few; for whoever looks for a leak",
}
"""metrics that no panel shows, each with its reason"""
OTHERS = {
    "pg_stat_database_xact_commit", "pg_stat_database_xact_rollback", "pg_stat_database_deadlocks",
    "pg_stat_database_conflicts", "pg_stat_activity_max_tx_duration", "pg_locks_count",
}  # fmt: skip
"""metrics of postgres_exporter"""


def declared() -> dict[str, str]:
    """Every metric of the code, with its type."""
    return dict(metric_names(MetricsSink(plan="shop").registry))


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


@pytest.mark.parametrize("uid", PAGES)
def test_the_committed_json_is_what_its_source_makes(uid: str) -> None:
    """The JSON is never edited manually, and never out of date."""
    text = (FOLDER / f"{uid}.json").read_text(encoding="utf-8")
    assert text == to_text(uid), "write it: python -m grafana.dashboard"


def test_there_is_no_json_without_a_source() -> None:
    """A dashboard that was renamed leaves no copy behind, which would be provisioned, too."""
    assert {path.stem for path in FOLDER.iterdir()} == set(PAGES)


def test_every_metric_is_shown_and_every_metric_that_is_shown_exists() -> None:
    """A figure that is exported and shown nowhere is useless; a panel without its
    metric is empty at night.
    """
    asked = [expression for _, expression in (*expressions(), *marks())]
    shown = {base_name(name) for expression in asked for name in metrics_of(expression)}
    assert shown <= declared().keys()
    assert declared().keys() - shown == EXCUSED.keys()


def test_metrics_of_others_are_named() -> None:
    """What is not ours is excused by name in the test against a real Prometheus: here are the names."""
    found = {name for _, expression in expressions() for name in re.findall(r"\bpg_\w+", expression)}
    assert found == OTHERS


@pytest.mark.parametrize(
    ("uid", "panel"), ALL_PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_a_panel_says_what_it_is(uid: str, panel: Panel) -> None:
    """A description, a unit and the chosen data source: without them a figure is a guess."""
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
    assert panel["targets"]
    for holder in (panel, *panel["targets"]):
        assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("uid", PAGES)
def test_ids_and_titles_are_unique(uid: str) -> None:
    """Links to a panel lead to one panel."""
    shown = committed(uid)["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    assert len({panel["title"] for panel in shown}) == len(shown)
    assert committed(uid)["uid"] == uid


@pytest.mark.parametrize("uid", PAGES)
def test_panels_lie_on_the_grid_side_by_side(uid: str) -> None:
    """No panel covers another or sticks out; rows come above their panels, and are questions."""
    shown = committed(uid)["panels"]
    boxes = [panel["gridPos"] for panel in shown]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for a, b in combinations(boxes, 2):
        is_beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        is_above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert is_beside or is_above, (a, b)
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)
    assert all(panel["title"].endswith("?") for panel in shown if panel["type"] == "row")


@pytest.mark.parametrize("uid", PAGES)
def test_variables_are_declared_before_they_are_used(uid: str) -> None:
    """Data source, plan, stage and table can be chosen, and no expression has another variable."""
    names = [variable["name"] for variable in committed(uid)["templating"]["list"]]
    assert names[:4] == ["datasource", "plan", "stage", "table"]
    values = dict.fromkeys([*names, "__rate_interval", "__range"], "x")
    asked = [target["expr"] for panel in panels(uid) for target in panel["targets"]]
    for expression in (*asked, *(expression for _, expression in marks())):
        put_in(expression, values)


def test_what_is_not_ours_is_of_one_server_and_one_database() -> None:
    """A Prometheus knows many servers: another one's deadlocks must not appear as ours."""
    for title, expression in expressions():
        selectors = re.findall(r"\bpg_\w+(\{[^}]*\})?", expression)
        assert set(selectors) <= {'{instance="$server", datname="$database"}'}, title
        if "online_migrate_process_" in expression:
            assert "* on (job, instance) group_left (plan)" in expression, title


def test_what_happened_is_marked_on_every_graph() -> None:
    """A dip is read together with what we did then: stages, gates, pauses, lock windows."""
    assert [name for name, _ in marks()] == ["Stages", "Gates", "Waits", "Lock windows"]


@pytest.mark.parametrize("uid", PAGES)
def test_links_lead_to_entries_of_the_runbook(uid: str) -> None:
    """A red figure says what to do: its link leads to an existing entry."""
    entries = {
        str(panel["id"]): panel for panel in committed(runbook.DASHBOARD)["panels"] if panel["type"] == "text"
    }
    assert [panel["title"] for panel in entries.values()] == list(runbook.read_entries())
    links = [link for panel in panels(uid) for link in panel.get("links", [])]
    assert links
    for link in links:
        shown = entries[link["url"].removeprefix(f"/d/{runbook.DASHBOARD}?viewPanel=").split("&")[0]]
        assert link["title"] == f"Runbook: {shown['title']}"
    texts = [panel["options"]["content"] for panel in entries.values()]
    assert all("](#" not in text and "](.." not in text for text in texts)


PROMTOOL_CASES = """
rule_files: []
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: 'online_migrate_run_start_time_seconds{{plan="x", job="j", instance="a:1"}}', values: '0x20 stale'}}
      - {{series: 'online_migrate_run_start_time_seconds{{plan="x", job="j", instance="b:1"}}', values: '_x10 150x20 stale'}}
      - {{series: 'online_migrate_run_state{{plan="x", job="j", instance="a:1"}}', values: '2x20 stale'}}
      - {{series: 'online_migrate_run_state{{plan="x", job="j", instance="b:1"}}', values: '_x10 5x20 stale'}}
    promql_expr_test:
      - {{expr: '{expression}', eval_time: 2m, exp_samples: [{{labels: '{name}{{plan="x", job="j", instance="a:1"}}', value: 2}}]}}
      - {{expr: '{expression}', eval_time: 6m, exp_samples: [{{labels: '{name}{{plan="x", job="j", instance="b:1"}}', value: 5}}]}}
      - {{expr: '{expression}', eval_time: 9m, exp_samples: [{{labels: '{name}{{plan="x", job="j", instance="b:1"}}', value: 5}}]}}
"""
"""at a, killed, carried on at b, stopped"""


@pytest.mark.prometheus
def test_a_figure_is_the_newest_runners(tmp_path: Path) -> None:
    """A run that moved to another host has one state, with a runner and without one."""
    expression = put_in(last("run_state"), {"plan": "x"})
    path = tmp_path / "cases.yml"
    path.write_text(PROMTOOL_CASES.format(expression=expression, name="online_migrate_run_state"))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.prometheus
def test_the_example_configuration_of_prometheus_is_valid() -> None:
    """What the README says to start from, starts, its rules included."""
    command = ["promtool", "check", "config", str(ROOT / "prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"{len(alerts())} rules" in result.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "provisioning").rglob("*.yaml")), ids=lambda path: path.name)
def test_provisioning_names_no_machine(path: Path) -> None:
    """The files work on any machine: what differs is in Grafana's environment, and compose sets it."""
    text = path.read_text(encoding="utf-8")
    assert YAML(typ="safe").load(text)["apiVersion"] == 1
    compose = (ROOT / "compose.yml").read_text(encoding="utf-8")
    assert all(f"{name}:" in compose for name in re.findall(r"\$([A-Z]\w+)", text))


def test_compose_mounts_what_is_there() -> None:
    """A new start finds configuration, rules and dashboards, from this folder, and no port open to others."""
    services = YAML(typ="safe").load((ROOT / "compose.yml").read_text(encoding="utf-8"))["services"]
    mounts = [mount for service in services.values() for mount in service["volumes"]]
    assert all((ROOT / mount.split(":")[0]).exists() and mount.endswith(":ro") for mount in mounts)
    assert "127.0.0.1:9090" in str(services["prometheus"]["command"])
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
