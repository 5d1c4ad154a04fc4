"""Two dashboards of a run: an overview for the night, and details.

``python -m grafana.dashboard`` writes their JSON into grafana/dashboards; a test compares source and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana import depth, depth_server, night, runbook
from grafana.night_waits import Panels
from grafana.panels import DATASOURCE
from grafana.queries import STAGE, metric

FOLDER: Final = Path(__file__).parent / "dashboards"
TAG: Final = "online-migrate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One dashboard; the title of a row is the docstring of its function."""

    title: str
    description: str
    rows: tuple[Callable[[], Panels], ...]
    variables: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """further ones beside plan, stage and table: their labels and queries"""


PAGES: Final[Mapping[str, Page]] = {
    "online-migrate-night": Page(
        title="online-migrate: the night",
        description="A run at a glance: is it safe, how far is it, how long will it take, why does it"
        " wait, which sessions block it.",
        rows=night.ROWS,
    ),
    "online-migrate-depth": Page(
        title="online-migrate: details",
        description="A run in detail: tables, batches, throttlers, locks, standbys, growth, and the effect"
        " on the application.",
        rows=depth.ROWS,
        variables=depth_server.EXPORTERS,
    ),
}
"""by their uid, which is also the name of their file"""


@dataclass(kw_only=True)
class Annotation(model.AnnotationQuery):
    """A Prometheus query; the SDK does not know the fields that only Prometheus has.

    With ``is_time`` each value is the time of an event, in milliseconds; else each point of the result is an
    event, and neighbouring points become a region.
    """

    title: str
    is_time: bool

    def __init__(self, name: str, expr: str, title: str, colour: str, *, is_time: bool = False) -> None:
        super().__init__(name=name, datasource=DATASOURCE, icon_color=colour, expr=expr)
        self.title = title
        self.is_time = is_time

    def to_json(self) -> dict[str, object]:
        step = {} if self.is_time else {"step": "10s"}
        return (
            super().to_json()
            | {"titleFormat": self.title, "useValueForTime": "on" if self.is_time else False}
            | step
        )


class _Made(cogbuilder.Builder[model.AnnotationQuery]):
    """An annotation in the form that the dashboard's builder takes."""

    def __init__(self, annotation: Annotation) -> None:
        self._annotation = annotation

    def build(self) -> model.AnnotationQuery:
        return self._annotation


def marks() -> Iterable[Annotation]:
    """Stages, gates, waits, lock windows."""
    stages = f"{metric('stage_start_time_seconds', STAGE)} * 1000"
    windows = f"{metric('lock_last_held_time_seconds', STAGE)} * 1000"
    yield Annotation("Stages", stages, "stage {{stage}} starts", "blue", is_time=True)
    yield Annotation(
        "Gates", f"{metric('gate_waiting', STAGE)} == 1", "{{stage}} waits at its gate", "yellow"
    )
    yield Annotation("Waits", f"sum by (kind) ({metric('waits_open')}) > 0", "waiting: {{kind}}", "orange")
    yield Annotation("Lock windows", windows, "strong lock: {{step}}", "purple", is_time=True)


def variables(page: Page) -> Iterable[Any]:
    """Data source, plan, stage, table; and those of this dashboard only."""
    yield build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    yield _query("plan", "Plan", "label_values(online_migrate_build_info, plan)")
    for name, label in (("stage", "Stage"), ("table", "Table")):
        query = _query(name, label, f"label_values({metric('step_state')}, {name})")
        yield (
            query.multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )
    for name, (label, values) in page.variables.items():
        yield _query(name, label, values)


def _query(name: str, label: str, query: str) -> build.QueryVariable:
    variable = build.QueryVariable(name).label(label).datasource(DATASOURCE).query(query)
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
        model.VariableSort.ALPHABETICAL_ASC
    )


def _other() -> build.DashboardLink:
    """A link to the other dashboard that keeps time and variables."""
    link = build.DashboardLink("online-migrate").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(True).keep_time(True)


def make_dashboard(uid: str) -> build.Dashboard:
    """The dashboard of that uid."""
    page = PAGES[uid]
    dashboard = build.Dashboard(page.title).uid(uid).description(page.description).tags(["postgresql", TAG])
    dashboard.time("now-1h", "now").refresh("10s").timezone("browser").readonly()
    dashboard.tooltip(model.DashboardCursorSync.CROSSHAIR).link(_other())
    for variable in variables(page):
        dashboard.with_variable(variable)
    for annotation in marks():
        dashboard.annotation(_Made(annotation))
    panel_id = 0
    for row in page.rows:
        panel_id += 1
        dashboard.with_row(build.Row((row.__doc__ or "").strip()).id(panel_id))
        for panel in row():
            panel_id += 1
            dashboard.with_panel(panel.id(panel_id))
    if uid == runbook.DASHBOARD:
        dashboard.with_row(build.Row(runbook.QUESTION).id(panel_id + 1))
        for entry in runbook.entry_panels():
            dashboard.with_panel(entry)
    return dashboard


def to_text(uid: str) -> str:
    """The JSON as it is committed."""
    return json.dumps(make_dashboard(uid).build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name in PAGES:
        (FOLDER / f"{name}.json").write_text(to_text(name), encoding="utf-8")
