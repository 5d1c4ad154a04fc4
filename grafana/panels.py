"""Panels with types: title, description, expressions, unit, size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as prometheus_builders
from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.models import common, prometheus
from grafana_foundation_sdk.models import dashboard as model

from grafana.runbook import entry_url
from online_migrate.observe.prometheus.sink import STATES

DATASOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH: Final = 24
"""of Grafana's grid"""

Steps = Sequence[tuple[float | None, str]]
"""thresholds: from which value on, which colour; the first from None"""
PLAIN: Final[Steps] = ((None, "green"),)

_STATE_COLOURS: Final[Mapping[str, str]] = {
    "pending": "text", "waiting": "yellow", "running": "blue",
    "done": "green", "failed": "red", "stopped": "orange",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spec:
    """What a panel of any kind shows; ``queries`` are expressions by the legend of their series."""

    title: str
    description: str
    queries: Mapping[str, str]
    _: KW_ONLY
    unit: str = "none"
    size: tuple[int, int] = (8, 8)
    """columns of the grid, and rows"""
    steps: Steps = PLAIN
    mappings: Sequence[model.ValueMapping] = ()
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    runbook: str = ""
    """the entry of docs/runbook.md for it"""


class _Builder(Protocol):
    """What the builders of all kinds of panels have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: model.DataSourceRef) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def min(self, min_val: float) -> Self: ...
    def max(self, max_val: float) -> Self: ...
    def decimals(self, decimals: float) -> Self: ...
    def height(self, h: int) -> Self: ...
    def span(self, w: int) -> Self: ...
    def mappings(self, mappings: list[model.ValueMapping]) -> Self: ...
    def thresholds(self, thresholds: build.ThresholdsConfig) -> Self: ...
    def links(self, links: list[cogbuilder.Builder[model.DashboardLink]]) -> Self: ...
    def with_target(self, target: prometheus_builders.Dataquery) -> Self: ...


B = TypeVar("B", bound=_Builder)


def states() -> list[model.ValueMapping]:
    """Names and colours for the numbers of states, as the metrics have them."""
    options = {
        str(number): model.ValueMappingResult(text=state, color=_STATE_COLOURS[state], index=number)
        for state, number in STATES.items()
    }
    return [model.ValueMap(options=options)]


def words(texts: Mapping[int, tuple[str, str]]) -> list[model.ValueMapping]:
    """A text and a colour for each of some numbers."""
    options = {
        str(number): model.ValueMappingResult(text=text, color=colour, index=number)
        for number, (text, colour) in texts.items()
    }
    return [model.ValueMap(options=options)]


def time_series(spec: Spec, *, stack: bool = False) -> TimeSeries:
    """Lines over time, each with its last and largest value in the legend."""
    legend = (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.RIGHT)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
        .sort_by("Last *")
        .sort_desc(True)
    )
    panel = _fill(TimeSeries(), spec).legend(legend).fill_opacity(10).tooltip(_tooltip())
    panel = panel.show_points(common.VisibilityMode.AUTO).span_nulls(False)
    if len(spec.steps) > 1:
        style = common.GraphThresholdsStyleMode.DASHED
        panel = panel.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(style))
    if stack:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    return panel


def stat(spec: Spec, *, with_name: bool = False) -> Stat:
    """One figure, with the name of its series beside it if ``with_name``."""
    mode = common.BigValueTextMode.VALUE_AND_NAME if with_name else common.BigValueTextMode.VALUE
    panel = _fill(Stat(), spec, instant=True).graph_mode(common.BigValueGraphMode.NONE).text_mode(mode)
    return panel.color_mode(common.BigValueColorMode.VALUE).reduce_options(_last())


def bars(spec: Spec) -> BarGauge:
    """A bar for each series, now."""
    panel = _fill(BarGauge(), spec, instant=True).display_mode(common.BarGaugeDisplayMode.BASIC)
    return panel.orientation(common.VizOrientation.HORIZONTAL).reduce_options(_last())


def timeline(spec: Spec) -> StateTimeline:
    """A band for each series, coloured by its state."""
    panel = _fill(StateTimeline(), spec).show_value(common.VisibilityMode.NEVER).merge_values(True)
    return panel.row_height(0.8).tooltip(_tooltip())


def table(
    spec: Spec,
    transformations: Sequence[model.DataTransformerConfig],
    columns: Mapping[str, Mapping[str, object]] | None = None,
) -> Table:
    """Instant values as a table; ``columns`` has the properties of single columns."""
    panel = _fill(Table(), spec, instant=True, columns=True).transformations(list(transformations))
    for name, properties in (columns or {}).items():
        panel = panel.override_by_name(
            name, [model.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]
        )
    return panel.cell_height(common.TableCellHeight.SM)


def texts(spec: Spec, columns: dict[str, str]) -> Table:
    """A table of current texts: a metric of value 1 whose labels are the texts."""
    organized = model.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": dict.fromkeys(
                ("Time", "Value", "__name__", "instance", "job", "plan", "stage"), True
            ),
            "renameByName": columns,
        },
    )
    return table(spec, [organized])


def _fill(panel: B, spec: Spec, *, instant: bool = False, columns: bool = False) -> B:
    width, height = spec.size
    panel.title(spec.title).description(spec.description).datasource(DATASOURCE).unit(spec.unit)
    panel.height(height).span(width).thresholds(_thresholds(spec.steps))
    if spec.mappings:
        panel.mappings(list(spec.mappings))
    if spec.runbook:
        panel.links([_to_runbook(spec.runbook)])
    for set_, value in ((panel.min, spec.low), (panel.max, spec.high), (panel.decimals, spec.decimals)):
        if value is not None:
            set_(value)
    for number, (legend, expr) in enumerate(spec.queries.items()):
        target = prometheus_builders.Dataquery().expr(expr).ref_id(chr(ord("A") + number))
        target = target.datasource(DATASOURCE).legend_format(legend or "__auto")
        target = target.instant() if instant else target.range()
        panel.with_target(target.format(prometheus.PromQueryFormat.TABLE) if columns else target)
    return panel


def _to_runbook(entry: str) -> build.DashboardLink:
    link = build.DashboardLink(f"Runbook: {entry}").type(model.DashboardLinkType.LINK)
    return link.url(entry_url(entry)).target_blank(True)


def _thresholds(steps: Steps) -> build.ThresholdsConfig:
    resources = [model.Threshold(value=value, color=colour) for value, colour in steps]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(resources)


def _last() -> common_builders.ReduceDataOptions:
    return common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _tooltip() -> common_builders.VizTooltipOptions:
    return (
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
